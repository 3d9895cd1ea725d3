"""What ``gsb backup --to`` takes for a key, and what it says to whatever else it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsb.backup.sealed import KeyUnfit, new_identity, recipients


def test_what_is_no_recipient_is_told_what_one_is(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("no key", "ascii")
    for given in ("notakey", "age1zzz", str(tmp_path / "notes")):
        with pytest.raises(KeyUnfit) as told:
            recipients(given)
        assert str(told.value) == f"{given}: is no recipient, which begins with age1, nor a file of such"


def test_a_secret_given_by_mistake_is_not_repeated() -> None:
    text, recipient = new_identity()
    secret = text.splitlines()[-1]
    with pytest.raises(KeyUnfit, match="what begins with AGE-SECRET-KEY- opens backups: ") as told:
        recipients(secret)
    assert secret not in str(told.value)
    assert [str(each) for each in recipients(recipient)] == [recipient]
