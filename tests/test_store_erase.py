"""Erasing on SQLite: not a byte of what was erased stays in a file of the store."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gsb.model import Record
from gsb.store.contract import NewExchange, Query, Store
from gsb.store.sqlite import SqliteStore
from gsb.store.sqlite import rows as sqlite_rows
from gsb.store.sqlite import writer as sqlite_writer
from tests.support.stores import AGES, DONE, Clock, done, entry, files, ids, new

KEY = bytes(range(32))
ROOT = Path(__file__).parent.parent
SEALED = "SELECT bytes FROM sealed UNION ALL SELECT bytes FROM secret"


class Place:
    """A store on a file, and what lies in it."""

    def __init__(self, folder: Path) -> None:
        self.path, self.clock = folder / "store.db", Clock()
        self.store = SqliteStore(self.path, KEY, ages=AGES, clock=self.clock, steady=self.clock.steady)

    def sealed(self) -> set[bytes]:
        """Sealed bytes that are not wiped."""
        with closing(sqlite_rows.connect(self.path, writes=False)) as db:
            return {bytes(found) for (found,) in db.execute(SEALED) if any(found)}

    async def bare(self) -> bytes:
        """Every byte of every file, once the journal is cut off."""
        journal, end = self.path.with_name("store.db-wal"), time.monotonic() + 90
        while journal.stat().st_size:
            assert time.monotonic() < end, "the journal is not cut off"
            await asyncio.sleep(0.01)
        return files(self.path.parent)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    await made.store.open()
    yield made
    await made.store.close()


def pieces(sealed: bytes) -> list[bytes]:
    """The beginning and the end of sealed bytes, and what lies between on other pages."""
    return [sealed[at : at + 24] for at in range(0, len(sealed) - 24, 4_000)] + [sealed[-24:]]


def left(found: bytes, gone: set[bytes]) -> list[bytes]:
    return [piece for sealed in gone for piece in pieces(sealed) if piece in found]


async def people(store: Store, sizes: list[int]) -> list[NewExchange]:
    """Exchanges with requests and outcomes of these sizes."""
    decision = new().record.decision
    outcome = [replace(DONE, body=os.urandom(size)) for size in sizes]
    return await asyncio.gather(
        *(
            done(store, outcome=one, record=Record(os.urandom(size), "key-1", decision), subject="canary-person")
            for one, size in zip(outcome, sizes, strict=True)
        )
    )


@pytest.mark.parametrize("size", [10, 3_000, 200_000])
async def test_not_a_byte_stays_in_a_file(place: Place, size: int) -> None:
    made, other = await people(place.store, [size, size])
    before = place.sealed()
    assert left(files(place.path.parent), before)
    await place.store.erase({made.id: entry("erased")})
    after = place.sealed()
    gone = before - after
    assert (len(before), len(gone), len(after)) == (8, 4, 5)
    found = await place.bare()
    assert left(found, gone) == []
    assert all(left(found, {each}) for each in after)
    assert await place.store.record(other.id) == other.record


async def test_no_row_is_deleted(place: Place) -> None:
    """When rows are deleted SQLite merges pages, and may leave copies of other rows in the free space of one."""
    made = await people(place.store, [300] * 10)
    await place.store.erase({one.id: entry("erased") for one in made[::2]})
    with closing(sqlite_rows.connect(place.path, writes=False)) as db:
        found = db.execute("SELECT (SELECT count(*) FROM sealed), (SELECT count(*) FROM secret)").fetchone()
    assert found == (20, 25)


async def test_hashes_of_whom_it_was_about_are_gone_too(place: Place) -> None:
    (made,) = await people(place.store, [10])
    hashed = place.store._seal.subject("canary-person")
    assert hashed in files(place.path.parent)
    await place.store.erase({made.id: entry("erased")})
    assert hashed not in await place.bare()
    assert not await ids(place.store, Query(subject="canary-person"))


async def test_the_journal_is_cut_off_as_soon_as_nobody_reads_from_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "WIPE_AGAIN", 0.01)
    (made,) = await people(place.store, [3_000])
    gone = place.sealed()
    with closing(sqlite_rows.connect(place.path, writes=False)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM exchange").fetchone()
        await place.store.erase({made.id: entry("erased")})
        # Commits go on meanwhile.
        await people(place.store, [10])
        assert left(files(place.path.parent), gone)
    assert left(await place.bare(), gone) == []


CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from gsb.store.sqlite import writer as sqlite_writer
from tests.support.stores import entry
from tests.test_store_erase import Place, people

async def main(folder):
    place = Place(folder)
    await place.store.open()
    (made,) = await people(place.store, [3_000])
    sys.stdout.write(" ".join(each.hex() for each in place.sealed()))
    sys.stdout.flush()
    sqlite_writer.Checkpointer.wipe = lambda self: os.kill(os.getpid(), signal.SIGKILL)
    await place.store.erase({made.id: entry("erased")})

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.mark.slow
async def test_after_a_kill_the_next_opening_carries_the_journal_over(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    child = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, timeout=120, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    gone = {bytes.fromhex(each) for each in child.stdout.decode().split()}
    assert left(files(tmp_path), gone)
    place = Place(tmp_path)
    await place.store.open()
    try:
        assert left(files(tmp_path), gone) == []
        assert len(place.sealed()) == 1
    finally:
        await place.store.close()


async def test_a_large_number_is_erased_in_one_transaction(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure in the midst of it erases nothing."""
    made = await people(place.store, [100] * 50)
    before = place.sealed()

    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_rows, "insert", broken)
        asked = {one.id: entry("erased") for one in made}
        (answer,) = await asyncio.gather(place.store.erase(asked), return_exceptions=True)
    assert type(answer).__name__ == "StoreUnavailable"
    assert place.sealed() == before
    assert (await place.store.erase(asked)).erased == tuple(one.id for one in made)
    assert len(place.sealed()) == 50
