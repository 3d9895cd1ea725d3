"""The memory of reserved keys: what it calls new is new, and what was there before the start is taken in by pieces."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from gsb.store.reserved import PIECE, Reserved


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE reservation(hash BLOB PRIMARY KEY)")
        yield db


def reserve(db: sqlite3.Connection, hashes: list[bytes]) -> None:
    db.executemany("INSERT INTO reservation VALUES (?)", [(hashed,) for hashed in hashes])


def full(db: sqlite3.Connection) -> Reserved:
    reserved = Reserved()
    while not reserved.full:
        reserved.read_on(db)
    return reserved


def test_what_was_added_is_never_called_new(db: sqlite3.Connection) -> None:
    reserved, hashes = full(db), [os.urandom(16) for _ in range(20_000)]
    for hashed in hashes:
        reserved.add(hashed)
    assert all(map(reserved.may_hold, hashes))


def test_nearly_all_others_are_called_new(db: sqlite3.Connection) -> None:
    reserved = full(db)
    for _ in range(20_000):
        reserved.add(os.urandom(16))
    assert sum(reserved.may_hold(os.urandom(16)) for _ in range(20_000)) < 20


def test_until_everything_is_read_nothing_is_called_new(db: sqlite3.Connection) -> None:
    reserve(db, [os.urandom(16) for _ in range(PIECE)])
    reserved, new = Reserved(), os.urandom(16)
    assert reserved.may_hold(new)
    reserved.read_on(db)
    assert (reserved.full, reserved.may_hold(new)) == (False, True)
    reserved.read_on(db)
    assert (reserved.full, reserved.may_hold(new)) == (True, False)


def test_everything_that_is_there_is_read(db: sqlite3.Connection) -> None:
    hashes = [os.urandom(16) for _ in range(2 * PIECE + 1)]
    reserve(db, hashes)
    assert all(map(full(db).may_hold, hashes))


def test_what_is_reserved_meanwhile_is_known(db: sqlite3.Connection) -> None:
    reserve(db, [bytes([255]) * 16, *(os.urandom(16) for _ in range(PIECE))])
    reserved, early = Reserved(), bytes(16)
    reserved.read_on(db)
    reserved.add(early)  # before the place up to which was read
    while not reserved.full:
        reserved.read_on(db)
    assert reserved.may_hold(early)
