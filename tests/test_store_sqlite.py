"""The SQLite store keeps the contract, and what only it can promise: files, locks, full disks, kills."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gsb.errors import StoreUnavailable
from gsb.model import Effect, State
from gsb.store.contract import DAY, NewExchange, Query, Store, StoreUnfit
from gsb.store.sqlite import SqliteStore
from gsb.store.sqlite import rows as sqlite_rows
from gsb.store.sqlite import writer as sqlite_writer
from gsb.store.sqlite.batch import Ask
from tests.store_contract import StoreContract
from tests.support.stores import AGES, DONE, Clock, accepted, begun, entry, files, ids, new

KEY = bytes(range(32))


class SqliteMaker:
    """Stores on one file. A crash leaves the old connections open and takes only the lock away."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.path = folder / "store.db"
        self._opened: list[SqliteStore] = []

    async def open(self) -> Store:
        store = SqliteStore(self.path, KEY, ages=AGES, clock=self.clock, steady=self.clock.steady)
        await store.open()
        self._opened.append(store)
        return store

    async def crash(self, store: Store) -> Store:
        old = self._opened[-1]
        assert old is store
        assert old._lock is not None
        os.close(old._lock)
        old._lock = None
        return await self.open()

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


@pytest.fixture
async def maker(tmp_path: Path) -> AsyncIterator[SqliteMaker]:
    made = SqliteMaker(tmp_path)
    yield made
    await made.close()


class TestContract(StoreContract):
    async def entries(self, maker: SqliteMaker) -> int:  # type: ignore[override]
        return int(rows(maker.path, "SELECT count(*) FROM entry")[0][0])

    async def secrets(self, maker: SqliteMaker) -> int:  # type: ignore[override]
        return int(rows(maker.path, "SELECT count(*) FROM secret")[0][0])

    async def deleted(self, store: Store, maker: SqliteMaker) -> Store:  # type: ignore[override]
        return await deleted(store, maker)

    async def everything(self, maker: SqliteMaker) -> bytes:  # type: ignore[override]
        return files(maker.path.parent)


async def deleted(store: Store, maker: SqliteMaker) -> Store:
    """The first commit of a store looks for what has reached its age; closing it waits for that."""
    await store.close()
    store = await maker.open()
    await store.spend("(test)", new().id, 1)
    await store.close()
    return await maker.open()


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


# --- opening ----------------------------------------------------------------------------------------------


async def test_the_files_can_be_read_by_their_owner_only(maker: SqliteMaker) -> None:
    await accepted(await maker.open())
    assert {path.stat().st_mode & 0o777 for path in maker.path.parent.iterdir()} == {0o600}


async def test_commits_are_synchronous_and_deleted_bytes_are_wiped(maker: SqliteMaker) -> None:
    await maker.open()
    db = sqlite_rows.connect(maker.path, writes=True)
    pragmas = ("synchronous", "secure_delete", "wal_autocheckpoint", "page_size")
    assert [sqlite_rows.pragma(db, name) for name in pragmas] == [2, 1, 0, 16_384]
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


async def test_a_store_that_is_open_is_refused(maker: SqliteMaker) -> None:
    store = await maker.open()
    with pytest.raises(StoreUnfit, match="another process has this store open"):
        await SqliteStore(maker.path, KEY).open()
    await store.close()
    await maker.open()


async def test_another_key_is_refused_and_changes_nothing(maker: SqliteMaker) -> None:
    store = await maker.open()
    made = await accepted(store)
    await store.close()
    with pytest.raises(StoreUnfit, match="another key"):
        await SqliteStore(maker.path, bytes(32)).open()
    assert await (await maker.open()).exchange(made.id) is not None


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("PRAGMA user_version=1", "version 1"),
        ("PRAGMA application_id=7", "not a store"),
        ("PRAGMA application_id=0", "not a store"),
    ],
)
async def test_what_is_not_a_store_of_this_version_is_refused(maker: SqliteMaker, spoil: str, says: str) -> None:
    await (await maker.open()).close()
    rows(maker.path, spoil)
    with pytest.raises(StoreUnfit, match=says):
        await maker.open()


async def test_a_crash_while_the_store_was_made_does_not_spoil_it(maker: SqliteMaker) -> None:
    rows(maker.path, "PRAGMA journal_mode=WAL")
    assert maker.path.stat().st_size > 0
    await accepted(await maker.open())


async def test_a_file_that_is_no_database_is_refused(maker: SqliteMaker) -> None:
    maker.path.write_bytes(b"some text, surely not a database\n" * 500)
    with pytest.raises(StoreUnfit, match="cannot be opened"):
        await maker.open()


async def test_a_store_that_is_not_open_is_unavailable(maker: SqliteMaker) -> None:
    store = await maker.open()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.accept(new())
    with pytest.raises(StoreUnavailable):
        await store.exchange(new().id)


async def test_closing_finishes_what_was_begun(maker: SqliteMaker) -> None:
    store = await maker.open()
    made = [new() for _ in range(100)]
    tasks = [asyncio.ensure_future(store.accept(one)) for one in made]
    await asyncio.wait(tasks, timeout=0)
    await store.close()
    assert await asyncio.gather(*tasks) == [None] * 100


# --- groups and the journal -------------------------------------------------------------------------------


async def test_calls_that_arrive_together_share_a_commit(maker: SqliteMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    transact = sqlite_writer.Writer._transact

    def counted(self: sqlite_writer.Writer, asks: list[Ask]) -> list[object]:
        sizes.append(len(asks))
        return transact(self, asks)

    monkeypatch.setattr(sqlite_writer.Writer, "_transact", counted)
    store = await maker.open()
    await accepted(store)
    await asyncio.gather(*(store.accept(new()) for _ in range(32)))
    assert sizes == [1, 32]


async def test_one_call_that_cannot_be_written_does_not_fail_the_others(maker: SqliteMaker) -> None:
    store = await maker.open()
    first = await accepted(store)
    made = [new(), new(id=first.id), new(agency="\ud800"), new()]
    answers = await asyncio.gather(*(store.accept(one) for one in made), return_exceptions=True)
    assert answers[0] is answers[3] is None
    assert isinstance(answers[1], StoreUnavailable)
    assert isinstance(answers[2], UnicodeEncodeError)
    assert len(await ids(store)) == 3


async def test_the_journal_does_not_grow_for_ever(maker: SqliteMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 1024 * 1024
    monkeypatch.setattr(sqlite_writer, "CHECKPOINT", limit)
    store = await maker.open()
    journal = maker.path.with_name("store.db-wal")
    for _ in range(60):
        await asyncio.gather(*(store.accept(new(Effect.NONE)) for _ in range(8)))
    assert journal.stat().st_size < 8 * limit
    assert len(await ids(store, Query(limit=1_000))) == 480


async def test_what_has_run_out_is_deleted(maker: SqliteMaker) -> None:
    store = await maker.open()
    for _ in range(5):
        made = await accepted(store)
        assert await store.finish((await begun(store, made.id)).attempt, DONE, entry())
    kept = await accepted(store)
    counts = "SELECT (SELECT count(*) FROM spent), (SELECT count(*) FROM reservation)"
    assert rows(maker.path, counts) == [(6, 6)]
    maker.clock.pass_(31 * DAY)
    await store.spend("payroll", "later", 140)
    await store.close()  # what is tidied up after an answer is done when the store is closed
    assert rows(maker.path, counts) == [(1, 1)]
    store = await maker.open()
    assert await store.look("payroll", "new", kept.key) is not None


# --- damage and full disks --------------------------------------------------------------------------------


async def test_a_damaged_record_is_handed_out_as_none(maker: SqliteMaker) -> None:
    store = await maker.open()
    made = [await accepted(store, effect) for effect in Effect]
    await store.close()
    db = sqlite3.connect(maker.path)
    for row, sealed in db.execute("SELECT row, bytes FROM sealed").fetchall():
        db.execute("UPDATE sealed SET bytes = ? WHERE row = ?", (sealed[:-1] + bytes([sealed[-1] ^ 1]), row))
    db.commit()
    db.close()
    store = await maker.open()
    for one in made:
        got = await begun(store, one.id)
        assert got.record is None
        assert await store.hold(got.attempt, State.HELD, "record_unreadable", entry())


async def test_records_cannot_be_swapped(maker: SqliteMaker) -> None:
    store = await maker.open()
    made = [await accepted(store), await accepted(store)]
    await store.close()
    db = sqlite3.connect(maker.path)
    (first,), (second,) = db.execute("SELECT request FROM exchange ORDER BY row").fetchall()
    db.execute("UPDATE exchange SET request = ? - request", (first + second,))
    db.commit()
    db.close()
    store = await maker.open()
    assert [(await begun(store, one.id)).record for one in made] == [None, None]


@pytest.mark.parametrize("size", [10, 8_000_000])
async def test_a_full_disk_fails_its_callers_and_nothing_else(maker: SqliteMaker, size: int) -> None:
    """A small record fails when it is committed, one that does not fit into memory when it is written."""
    store = await maker.open()
    before = await accepted(store)
    running = await accepted(store)
    attempt = (await begun(store, running.id)).attempt
    big = with_body(size)
    journal = maker.path.with_name("store.db-wal").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal, limits[1]))
    try:
        answers = await asyncio.gather(
            store.accept(big),
            store.accept(new(jti="in-the-same-group")),
            store.finish(attempt, DONE, entry()),
            return_exceptions=True,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    assert await store.exchange(big.id) is None
    assert await store.look("payroll", "in-the-same-group", None) is None
    found = await store.exchange(running.id)
    assert found is not None
    assert (found.state, len(found.entries)) == (State.RUNNING, 1)
    assert await store.accept(big) is None
    assert await store.finish(attempt, DONE, entry())
    store = await maker.crash(store)
    assert set(await ids(store)) == {before.id, running.id, big.id}


async def test_a_new_connection_is_not_used_before_it_was_asked_what_is_there(
    maker: SqliteMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit before, whose answer was lost, may have been made: its rows may not be given again."""
    store = await maker.open()
    assert isinstance(store, SqliteStore)
    writer = store._writer
    writer._let_go()
    other = sqlite3.connect(maker.path)
    other.execute("INSERT INTO spent(hash, expires) VALUES(x'00', 1e12)")
    other.commit()
    other.close()
    reload = writer.memory.reload
    troubles = [sqlite3.OperationalError("disk I/O error")]

    def asked(db: sqlite3.Connection) -> None:
        if troubles:
            raise troubles.pop()
        reload(db)

    monkeypatch.setattr(writer.memory, "reload", asked)
    with pytest.raises(StoreUnavailable):
        await accepted(store)
    await accepted(store)


def with_body(size: int) -> NewExchange:
    made = new()
    record = type(made.record)(os.urandom(size), made.record.key_id, made.record.decision)
    return new(id=made.id, record=record)
