"""The SQLite store in a backup: one file, copied while a node writes to the store.

SQLite's own online backup copies it from inside one reading transaction, so all of it is of one moment and nobody has
to wait; the journal grows meanwhile, and is carried over after. The copy lies beside the backup until it is sealed,
with bodies and evidence sealed as ever. A crash leaves it there, and the next attempt writes over it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

from gsb.backup.archive import Pack
from gsb.backup.envelope import Tell
from gsb.store.contract import StoreUnfit
from gsb.store.logs import LogState
from gsb.store.seal import Seal
from gsb.store.sqlite import log as ranges
from gsb.store.sqlite import opened, rows

KIND = f"sqlite {rows.VERSION}"
NAME = "store.db"
PAGES = 1_024
"""Pages that are copied at once."""


class Snapshot:
    """A copy of a store, of one moment."""

    kind = KIND

    def __init__(self, copy: Path, db: sqlite3.Connection) -> None:
        self._copy, self._db = copy, db

    async def logs(self) -> Sequence[LogState]:
        return [log.state() for log in ranges.logs(self._db)]

    async def entries(self, origin: str, start: int, limit: int) -> Sequence[bytes]:
        return ranges.entries(self._db, origin, start, limit)

    async def add(self, out: Pack, tell: Tell) -> None:
        # Nothing writes to the copy, so all of it stands in its file.
        out.add_file(f"store/{NAME}", self._copy, 0o600, tell)


@asynccontextmanager
async def snapshot(path: Path, key: bytes, copy: Path, tell: Tell) -> AsyncIterator[Snapshot]:
    """A copy of the store at ``path``, as long as this lasts. Raises StoreUnfit, OSError."""
    files = [copy, *(copy.with_name(copy.name + end) for end in ("-wal", "-shm", "-journal"))]
    try:
        for each in files:
            each.unlink(missing_ok=True)
        _copy(path, key, copy, tell)
        with closing(rows.connect(copy, writes=False)) as db:
            yield Snapshot(copy, db)
    except sqlite3.Error as error:
        raise StoreUnfit(f"{path}: the store cannot be copied to {copy}: {error}") from error
    finally:
        for each in files:
            each.unlink(missing_ok=True)


def _copy(path: Path, key: bytes, copy: Path, tell: Tell) -> None:
    if not path.is_file():
        raise StoreUnfit(f"{path}: there is no store")
    opened.refuse_moved(path)
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with closing(rows.connect(path, writes=False)) as db, closing(sqlite3.connect(copy)) as other:
        opened.check(db, path, Seal(key))
        other.execute("PRAGMA synchronous=OFF")
        # From inside a transaction, or what a node commits meanwhile would begin the copying anew again and again.
        db.execute("BEGIN")
        db.execute("SELECT 1 FROM sqlite_schema").fetchone()
        db.backup(other, pages=PAGES, progress=lambda _, left, all_: tell("copying the store", all_ - left, all_))


def close(path: Path) -> None:
    """Let everything of a store that nobody has open stand in its one file. Raises StoreUnfit."""
    try:
        with closing(rows.connect(path, writes=True)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise StoreUnfit(f"{path}: {error}") from error
    for end in ("-wal", "-shm", ".lock"):
        path.with_name(path.name + end).unlink(missing_ok=True)
