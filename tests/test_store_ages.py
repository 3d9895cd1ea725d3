"""How the SQLite store deletes what has reached its age: in small pieces, for good, and without growing."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gsb.model import Effect, Record
from gsb.store.contract import DAY, Ages, Business, Store
from gsb.store.sqlite import SqliteStore
from gsb.store.sqlite import rows as sqlite_rows
from gsb.store.sqlite import writer as sqlite_writer
from gsb.store.sqlite.rows import PIECE
from tests.support.stores import AGES, DONE, Clock, done, new

KEY = bytes(range(32))
KINDS = "SELECT (SELECT count(*) FROM sealed), (SELECT count(*) FROM reservation), (SELECT count(*) FROM exchange)"


class Place:
    """Where stores are opened one after the other, under one clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.path = folder / "store.db"
        self._store: SqliteStore | None = None

    async def open(self, ages: Ages = AGES) -> SqliteStore:
        await self.close()
        self._store = SqliteStore(self.path, KEY, ages=ages, clock=self.clock, steady=self.clock.steady)
        await self._store.open()
        return self._store

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

    def ask(self, sql: str) -> tuple[int, ...]:
        db = sqlite3.connect(self.path)
        try:
            return tuple(db.execute(sql).fetchone())
        finally:
            db.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    yield made
    await made.close()


def body(size: int) -> Record:
    return replace(new().record, body=os.urandom(size))


async def settle(store: Store) -> None:
    """When a call is answered, whatever was deleted after the one before it has been."""
    for _ in range(20):
        await store.spend("(test)", new().id, 1)


async def test_the_store_stays_flat_under_steady_load(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty days of the same load, each kind with another age; entries, which stay, are left out of the count."""
    monkeypatch.setattr(sqlite_writer, "PURGE_CALLS", 0)
    store = await place.open(Ages(2 * DAY, 3 * DAY, 5 * DAY))
    sizes = []
    for day in range(20):
        for number in range(0, 40, 8):
            made = range(number, number + 8)
            await asyncio.gather(
                *(
                    done(
                        store,
                        Effect.REPEATABLE,
                        replace(DONE, body=os.urandom(200 + 700 * each)),
                        record=body(100 + 400 * each),
                        business=Business(f"E-{each}-{day}", personal=True),
                    )
                    for each in made
                )
            )
        place.clock.pass_(DAY)
        await settle(store)
        sizes.append(pages(place))
    assert max(sizes[9:]) <= max(sizes[6:9])
    assert place.ask(KINDS) == (2 * 40 * 1, 2 * 40, 4 * 40)


def pages(place: Place) -> int:
    """Pages of the file, free ones too, without those that hold entries and their secrets."""
    entries = "SELECT count(*) FROM dbstat WHERE name IN ('entry', 'entry_exchange', 'secret')"
    return place.ask("PRAGMA page_count")[0] - place.ask(entries)[0]


async def test_bodies_are_wiped_from_the_file(place: Place) -> None:
    store = await place.open()
    await done(store, record=body(30_000))
    await place.close()
    db = sqlite3.connect(place.path)
    sealed = [bytes(row[0]) for row in db.execute("SELECT bytes FROM sealed")]
    db.close()
    # A body goes over several pages; a piece of its middle lies in one of them.
    pieces = [each[len(each) // 2 :][:40] for each in sealed]
    assert all(piece in place.path.read_bytes() for piece in pieces)
    place.clock.pass_(AGES.bodies)
    await settle(await place.open())
    await place.close()
    assert not any(piece in place.path.read_bytes() for piece in pieces)


async def test_what_has_piled_up_is_deleted_in_pieces_with_pauses(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without anybody asking the store for anything."""
    pieces: list[tuple[float, float, tuple[int, ...]]] = []
    over = threading.Event()
    purge = sqlite_rows.purge

    def watched(db: sqlite3.Connection, *asked: Any) -> sqlite_rows.Piece:
        began = time.monotonic()
        piece = purge(db, *asked)
        pieces.append((began, time.monotonic(), tuple(db.execute(KINDS).fetchone())))
        if not piece.more:
            over.set()
        return piece

    store = await place.open()
    for _ in range(5):
        await asyncio.gather(*(done(store) for _ in range(50)))
    await place.close()
    place.clock.pass_(AGES.exchanges)
    store = await place.open()
    monkeypatch.setattr(sqlite_rows, "purge", watched)
    await store.spend("(test)", "first", 1)
    assert await asyncio.to_thread(over.wait, 120)
    left = [counts for _, _, counts in pieces]
    assert left[-1] == (0, 0, 0)
    assert len(left) > 10
    for before, after in pairwise([(500, 250, 250), *left]):
        assert all(was - now <= most for was, now, most in zip(before, after, (2 * PIECE, PIECE, PIECE), strict=True))
    for (began, ended, _), (again, *_) in pairwise(pieces):
        assert again - ended >= max(sqlite_writer.PURGE_QUIET, sqlite_writer.PURGE_REST * (ended - began))


async def test_while_calls_come_no_more_is_deleted_than_they_bring(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await place.open()
    for _ in range(5):
        await asyncio.gather(*(done(store) for _ in range(50)))
    await place.close()
    place.clock.pass_(AGES.exchanges)
    monkeypatch.setattr(sqlite_writer, "PURGE_QUIET", 3_600.0)
    store = await place.open()
    await store.spend("(test)", "first", 1)
    left = []
    for number in range(3 * sqlite_writer.PURGE_CALLS):
        await store.spend("(test)", f"{number}", 1)
        left.append(place.ask(KINDS)[1])
    assert left[:10] == [250 - PIECE] * 10
    assert left[-1] in (250 - 3 * PIECE, 250 - 4 * PIECE)
    assert sorted(set(left), reverse=True) == list(range(250 - PIECE, left[-1] - 1, -PIECE))


async def test_large_bodies_go_one_by_one(place: Place) -> None:
    store = await place.open()
    for _ in range(3):
        await done(store, record=body(400_000))
    for _ in range(3):
        await done(store, record=body(100_000))
    await place.close()
    place.clock.pass_(AGES.bodies)
    db = sqlite_rows.connect(place.path, writes=True)
    left = []
    for _ in range(5):
        piece = sqlite_rows.purge(db, place.clock.now, AGES, place.clock.now)
        left.append((db.execute("SELECT count(*) FROM sealed").fetchone()[0] // 2, piece.more))
    db.close()
    assert left == [(5, True), (4, True), (3, True), (1, True), (0, False)]


async def test_a_deletion_that_fails_leaves_commits_durable(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(db: sqlite3.Connection, *_: Any) -> sqlite_rows.Piece:
        db.execute("BEGIN IMMEDIATE")
        db.execute("DELETE FROM exchange")
        raise sqlite3.OperationalError("disk I/O error")

    store = await place.open()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_rows, "purge", broken)
        made = await done(store)
        await settle(store)
    assert await store.exchange(made.id) is not None
    again = await done(store)
    assert await store.exchange(again.id) is not None
    writer = store._open_writer
    assert writer is not None
    assert writer._db is not None
    assert sqlite_rows.pragma(writer._db, "synchronous") == 2


async def test_commits_are_durable_again_after_a_deletion(place: Place) -> None:
    store = await place.open()
    await done(store)
    for _ in range(2):
        place.clock.pass_(AGES.exchanges)
        await settle(store)
    writer = store._open_writer
    assert writer is not None
    assert writer._db is not None
    assert place.ask(KINDS) == (0, 0, 0)
    assert sqlite_rows.pragma(writer._db, "synchronous") == 2
