"""What the commands print of what others said."""

from __future__ import annotations

import pytest

from gsb.cli.shared import explain
from gsb.client import BusProblem, Result


def test_a_terminal_is_told_nothing_that_it_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    document = {
        "code": "\x1b]0;mine\x07",
        "title": "line\r\ngsb: done",
        "detail": "\x9b2J\u202egnp",
        "errors": [{"pointer": "/\x1b[2J", "detail": "\x08\x08"}],
    }
    result = Result(403, document, None, None, None, None, False, {}, signed=False)
    assert explain(BusProblem(result)).exit_code == 5
    said = capsys.readouterr().err
    assert "(not signed by the bus)" in said
    assert len(said.splitlines()) == 2
    assert all(character.isprintable() or character == "\n" for character in said)
