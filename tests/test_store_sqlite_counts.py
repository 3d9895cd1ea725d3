"""What the SQLite store tells of its own work: its commits, and what stands still in it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from gsb.store.sqlite import SqliteStore
from gsb.store.sqlite import reads as sqlite_reads
from gsb.store.sqlite import rows as sqlite_rows
from tests.support.stores import accepted

KEY = os.urandom(32)


async def test_commits_are_told_of(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    store = SqliteStore(tmp_path / "store.db", KEY, committed=lambda calls, seconds: told.append((calls, seconds)))
    await store.open()
    await asyncio.gather(*(accepted(store) for _ in range(8)))
    await store.close()
    assert sum(calls for calls, _ in told) == 8
    assert all(0 < seconds < 10 for _, seconds in told)


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
