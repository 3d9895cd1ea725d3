"""The files of the SQLite store: made, checked and held by one process; who writes to them and how they are read.

Whoever opens a store locks it, so that there is one writer. A crash leaves a lock that nobody holds, and a journal
that is carried over at the next opening.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from gsb.errors import StoreUnavailable
from gsb.store import standing
from gsb.store.contract import Ages, StoreAway, StoreUnfit
from gsb.store.seal import Seal, Unreadable
from gsb.store.sealing import Sealing
from gsb.store.sqlite import reads, rows
from gsb.store.sqlite.writer import Committed, Writer
from gsb.store.standing import Lease, Row


class Opened:
    """A store's file, its key, its writer and a connection that reads, from ``open`` to ``close``."""

    def __init__(
        self,
        path: Path,
        key: bytes,
        ages: Ages,
        clock: Callable[[], float],
        steady: Callable[[], float],
        committed: Committed,
    ) -> None:
        self._committed, self._steady = committed, steady
        self._path, self._seal, self._ages, self._clock = path, Sealing(key), ages, clock
        self._leases: dict[str, Lease] = {}
        self._lock: int | None = None
        self._open_writer: Writer | None = None
        self._reader: sqlite3.Connection | None = None

    async def open(self) -> None:
        self._lock = own(self._path)
        try:
            refuse_moved(self._path)
            _prepare(self._path, self._seal)
            self._reader = rows.connect(self._path, writes=False)
            self._open_writer = Writer(self._path, self._leases, self._clock, self._steady, self._ages, self._committed)
        except sqlite3.Error as error:
            self._let_go()
            # A disk that is full or away may be there later; a file that is no database stays one that is none.
            kind = StoreAway if isinstance(error, sqlite3.OperationalError) else StoreUnfit
            raise kind(f"{self._path}: the store cannot be opened: {error}") from error
        except StoreUnfit:
            self._let_go()
            raise
        self._open_writer.start()

    async def close(self) -> None:
        writer, self._open_writer = self._open_writer, None
        if writer is not None:
            await writer.close()
        self._let_go()

    def _let_go(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._leases.clear()

    @property
    def _writer(self) -> Writer:
        if self._open_writer is None:
            raise StoreUnavailable("the store is not open")
        return self._open_writer

    @property
    def _db(self) -> sqlite3.Connection:
        if self._reader is None:
            raise StoreUnavailable("the store is not open")
        return self._reader

    # --- what several verbs need ----------------------------------------------------------------------------

    def _known(self, exchange: str) -> Row | None:
        """The exchange, as far as it is young enough to be told."""
        row = reads.exchange(self._db, exchange, self._leases)
        return None if row is None else standing.aged(row, self._ages, self._clock())


def own(path: Path) -> int:
    """A lock on a file beside the database, for as long as it stays open: one process owns the store. Raises
    StoreAway."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StoreAway(f"{path}: another process has this store open") from None
    return lock


def moved(path: Path) -> Path:
    """The file beside the database that says where its exchanges were carried to."""
    return path.with_name(path.name + ".moved")


def mark_moved(path: Path, where: str) -> None:
    """Keep the store from being opened again, durably. Raises OSError."""
    with moved(path).open("w", encoding="utf-8") as file:
        file.write(f"{where}\n")
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def refuse_moved(path: Path) -> None:
    """Raises StoreUnfit for a store that was carried elsewhere: with both at work there would be two histories."""
    if (mark := moved(path)).exists():
        raise StoreUnfit(
            f"{path}: this store was carried to {mark.read_text('utf-8').strip()}; to go back to it, and lose what was "
            f"done there, remove {mark}"
        )


def _prepare(path: Path, seal: Seal) -> None:
    """Make a database without tables (a crash may leave one) a store; refuse any other that is not ours.

    Raises StoreUnfit and sqlite3.Error.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = rows.connect(path, writes=True)
    try:
        if rows.pragma(db, "application_id") == 0 and rows.blank(db):
            rows.create(db, seal.keycheck())
        check(db, path, seal)
        for table in rows.LATER:
            db.execute(table)
    finally:
        db.close()


def check(db: sqlite3.Connection, path: Path, seal: Seal) -> None:
    """Raises StoreUnfit for what is no store of this version and key, and sqlite3.Error."""
    version = rows.pragma(db, "user_version")
    if rows.pragma(db, "application_id") != rows.APPLICATION:
        raise StoreUnfit(f"{path}: this is not a store of the bus")
    if version != rows.VERSION:
        raise StoreUnfit(f"{path}: the store has version {version}, this program reads {rows.VERSION}")
    try:
        seal.recognise(db.execute("SELECT sealed FROM keycheck").fetchone()[0])
    except Unreadable:
        raise StoreUnfit(f"{path}: the store was sealed with another key") from None
