"""The evidence log in SQLite: read along its rows, in one step however many are read."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from gsb.store.contract import Store
from gsb.store.sqlite import SqliteStore
from gsb.store.sqlite import log as sqlite_log
from gsb.store.sqlite import rows as sqlite_rows
from tests.store_contract_log import FIRST, SECOND, opened, placed
from tests.support.stores import done, entry

KEY = bytes(range(32))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = SqliteStore(tmp_path / "store.db", KEY)
    await made.open()
    yield made
    await made.close()


async def test_many_entries_are_read_in_one_step(store: Store, tmp_path: Path) -> None:
    """Each row that SQLite hands over lets go of the interpreter, and a busy process takes long to give it back."""
    await opened(store)
    await asyncio.gather(*(store.note(entry("note", number=f"{number}")) for number in range(500)))
    rows: list[tuple[object, ...]] = []

    def handed_over(_: sqlite3.Cursor, row: tuple[object, ...]) -> tuple[object, ...]:
        rows.append(row)
        return row

    with closing(sqlite_rows.connect(tmp_path / "store.db", writes=False)) as db:
        db.row_factory = handed_over
        given = sqlite_log.unsequenced(db, 4_096)
        assert given is not None
        await store.sequence(given, b"note")
        assert len(sqlite_log.entries(db, FIRST, 0, 4_096)) == len(given.contents) == 501
    assert len(rows) == 4


async def test_a_log_that_ends_while_it_is_read_gets_nothing_of_the_next(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [await opened(store), entry("note")]
    await store.note(every[1])
    loop, logs, moved = asyncio.get_running_loop(), sqlite_log.logs, threading.Event()

    def logs_before_the_end(db: sqlite3.Connection) -> list[sqlite_log.Log]:
        found = logs(db)
        if not moved.is_set():
            moved.set()
            beginning = store.begin_log(SECOND, entry(), after=FIRST, ended=entry())
            asyncio.run_coroutine_threadsafe(beginning, loop).result(90)
        return found

    monkeypatch.setattr(sqlite_log, "logs", logs_before_the_end)
    given = await store.unsequenced(10)
    assert moved.is_set()
    assert given is not None
    assert list(given.contents) == [one.content for one in every]
    await store.sequence(given, b"note")
    assert [(one.origin, one.size) for one in await store.logs()] == [(FIRST, 2), (SECOND, 0)]


READS: dict[str, Callable[[sqlite3.Connection], object]] = {
    "unsequenced": lambda db: sqlite_log.unsequenced(db, 10),
    "entries": lambda db: sqlite_log.entries(db, FIRST, 0, 2),
    "backlog": sqlite_log.backlog,
    "entered": lambda db: sqlite_log.entered(db, 1),
    "secrets": lambda db: sqlite_log.secrets(db, 1),
}


@pytest.mark.parametrize("read", READS)
async def test_nothing_is_read_but_what_is_asked_for(store: Store, tmp_path: Path, read: str) -> None:
    await opened(store)
    await placed(store)
    await store.begin_log(SECOND, entry(), after=FIRST, ended=entry())
    await done(store)
    asked: list[str] = []
    with closing(sqlite_rows.connect(tmp_path / "store.db", writes=False)) as db:
        db.set_trace_callback(asked.append)
        assert READS[read](db)
        db.set_trace_callback(None)
        selects = [each for each in asked if each.startswith("SELECT") and "FROM log" not in each]
        plans = [row[3] for each in selects for row in db.execute(f"EXPLAIN QUERY PLAN {each}")]
    assert selects
    assert all(" entry " not in f"{plan} " or plan.startswith(("SEARCH", "CO-ROUTINE")) for plan in plans), plans


async def test_the_numbers_of_entries_have_no_gaps_whatever_fails(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    await opened(store)
    await store.note(entry())
    with monkeypatch.context() as patch:
        patch.setattr(sqlite_rows, "insert", broken)
        answers = await asyncio.gather(*(store.note(entry()) for _ in range(5)), return_exceptions=True)
    assert all(answers)
    await done(store)
    await store.begin_log(SECOND, entry(), after=FIRST)
    await store.note(entry())
    with closing(sqlite_rows.connect(tmp_path / "store.db", writes=False)) as db:
        numbers = [row for (row,) in db.execute("SELECT row FROM entry ORDER BY row")]
        secrets = [row for (row,) in db.execute("SELECT row FROM secret ORDER BY row")]
    assert numbers == secrets == list(range(1, 7))
