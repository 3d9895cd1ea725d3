"""Records are sealed one by one, for one place, and only the right key opens them."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from gsb.store.contract import Business, CursorUnfit
from gsb.store.seal import KEYCHECK, RECORD, REPLY, SECRET, KeyFileUnfit, Seal, Unreadable, new_key, read_key

KEY = bytes(range(32))


def sealed(plain: bytes = b"personal", kind: bytes = RECORD, owner: bytes = b"id") -> bytes:
    return Seal(KEY).seal({kind: (plain, owner)})[0]


@pytest.mark.parametrize("plain", [b"", b"x", b"personal" * 1_000])
def test_what_is_sealed_opens_and_is_33_bytes_longer(plain: bytes) -> None:
    one = sealed(plain)
    assert len(one) == len(plain) + 33
    assert one[0] == 1
    assert Seal(KEY).open(one, RECORD, b"id") == plain


def test_parts_sealed_together_open_apart() -> None:
    record, secret = Seal(KEY).seal({RECORD: (b"same", b"id"), SECRET: (b"same", b"leaf")})
    assert Seal(KEY).open(secret, SECRET, b"leaf") == Seal(KEY).open(record, RECORD, b"id") == b"same"
    assert record[17:] != secret[17:]


def test_no_two_seals_are_alike() -> None:
    assert len({sealed() for _ in range(100)}) == 100
    assert len({KEYCHECK, RECORD, REPLY, SECRET}) == 4


@pytest.mark.parametrize("place", [*range(33), -1])
def test_any_byte_changed_is_noticed(place: int) -> None:
    changed = bytearray(sealed())
    changed[place] ^= 1
    with pytest.raises(Unreadable):
        Seal(KEY).open(bytes(changed), RECORD, b"id")


@pytest.mark.parametrize(
    ("key", "kind", "owner"), [(bytes(32), RECORD, b"id"), (KEY, REPLY, b"id"), (KEY, RECORD, b"other")]
)
def test_another_key_kind_or_owner_does_not_open_it(key: bytes, kind: bytes, owner: bytes) -> None:
    with pytest.raises(Unreadable):
        Seal(key).open(sealed(), kind, owner)


@pytest.mark.parametrize("length", [0, 1, 17, 32])
def test_what_is_cut_short_is_noticed(length: int) -> None:
    with pytest.raises(Unreadable):
        Seal(KEY).open(sealed()[:length], RECORD, b"id")


def test_a_mask_hides_and_shows_again() -> None:
    digest = bytes(range(100, 132))
    hidden = Seal(KEY).mask(digest, "exchange-1")
    assert hidden != digest
    assert Seal(KEY).mask(hidden, "exchange-1") == digest
    assert Seal(KEY).mask(hidden, "exchange-2") != digest
    assert Seal(bytes(32)).mask(hidden, "exchange-1") != digest


def test_business_keys_are_hashed_where_they_are_personal() -> None:
    seal, person = Seal(KEY), Business("E-1", personal=True)
    assert seal.business("a/b/v1", Business("E-1", personal=False)) == "E-1"
    assert seal.business("a/b/v1", Business("E" * 129, personal=False)) == seal.business(
        "a/b/v1", Business("E" * 129, personal=True)
    )
    every = [
        seal.business("a/b/v1", person),
        seal.business("a/b/v2", person),
        seal.business("a/b/v1", Business("E-2", personal=True)),
        Seal(bytes(32)).business("a/b/v1", person),
    ]
    assert all(isinstance(each, bytes) and len(each) == 16 for each in every)
    assert len(set(every)) == 4


@pytest.mark.parametrize("position", [(0.0, 0), (1_800_000_000.123456, 2**63)])
def test_a_cursor_is_read_back_and_by_nobody_else(position: tuple[float, int]) -> None:
    cursor = Seal(KEY).cursor(*position)
    assert Seal(KEY).read_cursor(cursor) == position
    with pytest.raises(CursorUnfit):
        Seal(bytes(32)).read_cursor(cursor)


def test_hashes_differ_by_issuer_value_use_and_key() -> None:
    seal = Seal(KEY)
    every = [
        seal.hash("a", "bc", b"jti"),
        seal.hash("ab", "c", b"jti"),
        seal.hash("a", "bc", b"key"),
        Seal(bytes(32)).hash("a", "bc", b"jti"),
    ]
    assert len(set(every)) == 4
    assert seal.hash("a", "bc", b"jti") == every[0]
    assert {len(one) for one in every} == {16}


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_has_32_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Seal(bytes(size))


def test_a_new_key_is_one_line_that_reads_back(tmp_path: Path) -> None:
    text = new_key()
    (tmp_path / "key").write_text(text + "\n")
    assert len(read_key(tmp_path / "key")) == 32
    assert "=" not in text
    assert new_key() != text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "32 bytes"),
        ("not base64!", "base64url"),
        (base64.urlsafe_b64encode(bytes(31)).decode(), "not 31"),
        ("\u00e9" * 43, "base64url"),
        (new_key() + "\n" + new_key(), "base64url"),
    ],
)
def test_a_key_file_that_is_none_is_refused_without_showing_it(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "key"
    path.write_text(content, "utf-8")
    with pytest.raises(KeyFileUnfit, match=says) as caught:
        read_key(path)
    assert not content or content not in str(caught.value)


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyFileUnfit, match="nowhere"):
        read_key(tmp_path / "nowhere")


def test_whom_a_request_is_about_has_one_hash_that_is_nothing_elses() -> None:
    one = Seal(KEY).subject("P-0001")
    assert one == Seal(KEY).subject("P-0001")
    others = [Seal(bytes(32)).subject("P-0001"), Seal(KEY).subject("P-0002"), Seal(KEY).hash("", "P-0001", b"business")]
    assert one not in others
