"""The SQLite store's own work: its commits, what stands still in it, and what it remembers instead of reading it."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from gsb.model import Effect
from gsb.store.sqlite import SqliteStore
from gsb.store.sqlite import reads as sqlite_reads
from gsb.store.sqlite import rows as sqlite_rows
from tests.support.stores import Clock, accepted

KEY = os.urandom(32)


async def test_commits_are_told_of(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    store = SqliteStore(tmp_path / "store.db", KEY, committed=lambda calls, seconds: told.append((calls, seconds)))
    await store.open()
    before = time.monotonic()
    await asyncio.gather(*(accepted(store) for _ in range(8)))
    await store.close()
    took = time.monotonic() - before
    assert sum(calls for calls, _ in told) == 8
    assert all(0 < seconds <= took for _, seconds in told)


async def test_what_stands_still_is_counted_on_an_index(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path, KEY)
    await store.open()
    asked: list[str] = []
    db = sqlite_rows.connect(path, writes=False)
    db.set_trace_callback(asked.append)
    sqlite_reads.standing_still(db)
    db.set_trace_callback(None)
    ((*_, plan),) = db.execute(" ".join(["EXPLAIN QUERY PLAN", *asked])).fetchall()
    db.close()
    await store.close()
    assert "COVERING INDEX exchange_state" in plan


async def test_what_was_just_accepted_begins_like_what_is_read(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db", KEY, clock=Clock())
    await store.open()
    remembered, read = [await accepted(store, effect=Effect.NONE) for _ in range(2)]
    first = await store.begin(remembered.id, 30.0)
    store._fresh.clear()
    second = await store.begin(read.id, 30.0)
    assert first is not None
    assert second is not None
    named = second.exchange._replace(id=remembered.id)
    assert second._replace(attempt=first.attempt, exchange=named) == first
    assert [await store.begin(each.id, 30.0) for each in (remembered, read)] == [None, None]
    await store.close()
