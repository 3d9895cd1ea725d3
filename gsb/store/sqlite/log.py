"""Which entries belong to which log of the SQLite store, where each log stands, and what moves it.

A log is a range of rows of entries, so the index of an entry is its row less the log's first row, and giving indexes
to any number of entries writes one row. Reading many entries is one step of SQLite, which gives up the interpreter's
lock once: row by row, a busy event loop would make each of them wait for its turn. Functions run on the connection
they are given, what asks for something inside the writer's transaction. A crash leaves whole transactions.
"""

from __future__ import annotations

import sqlite3
from collections import abc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from gsb.model import Entry
from gsb.store.asks import Plain, SealedEntry
from gsb.store.logs import Backlog, Entered, LogState, Unsequenced, happened_at
from gsb.store.sqlite import rows
from gsb.store.sqlite.batch import Batch

_LEAF = 32
"""Bytes of a leaf hash."""


class Log(NamedTuple):
    """A row of the table ``log``."""

    number: int
    origin: str
    first: int
    """The row of its first entry."""
    end: int | None
    """The row after its last entry; None while it is open."""
    size: int
    checkpoint: bytes
    published: int
    published_note: bytes
    published_at: float | None

    @property
    def next(self) -> int:
        """The row of the entry that will have the index ``size``."""
        return self.first + self.size

    def state(self) -> LogState:
        return LogState(
            self.origin,
            self.size,
            self.checkpoint,
            self.published,
            self.published_note,
            self.published_at,
            self.end is not None,
        )


@contextmanager
def snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """Everything that is read inside is of one moment."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("ROLLBACK")


# --- reading


def logs(db: sqlite3.Connection) -> list[Log]:
    """Every log, oldest first."""
    found = db.execute(
        "SELECT number, origin, first_row, end_row, size, checkpoint, published, published_note, published_at "
        "FROM log ORDER BY number"
    )
    return [Log(*row) for row in found]


def _find(db: sqlite3.Connection, origin: str) -> Log | None:
    return next((log for log in logs(db) if log.origin == origin), None)


def unsequenced(db: sqlite3.Connection, limit: int) -> Unsequenced | None:
    """At most ``limit`` entries that are next in the oldest log that is not complete."""
    with snapshot(db):
        for log in logs(db):
            most = limit if log.end is None else min(limit, log.end - log.next)
            if most > 0 and (found := _some(db, log.next, most)) is not None:
                return Unsequenced(log.origin, log.size, *found, token=None)
    return None


def entries(db: sqlite3.Connection, origin: str, start: int, limit: int) -> abc.Sequence[bytes]:
    """Contents of the sequenced entries of a log from the index ``start`` on, ``limit`` at most."""
    with snapshot(db):
        log = _find(db, origin)
        most = 0 if log is None else min(limit, log.size - start)
        found = None if log is None or most <= 0 or start < 0 else _some(db, log.first + start, most)
    return () if found is None else found[0]


def _some(db: sqlite3.Connection, first: int, most: int) -> tuple[list[bytes], list[bytes]] | None:
    """Contents and leaves of the rows from ``first`` on, read in one step; None when there are none."""
    lengths, contents, leaves = db.execute(
        "SELECT group_concat(length(content)), CAST(group_concat(content, '') AS BLOB), group_concat(hex(leaf), '') "
        "FROM (SELECT content, leaf FROM entry WHERE row >= ? AND row < ? ORDER BY row)",
        (first, first + most),
    ).fetchone()
    if lengths is None:
        return None
    ends = accumulate(map(int, lengths.split(",")), initial=0)
    hashes = bytes.fromhex(leaves)
    return (
        [contents[start:end] for start, end in pairwise(ends)],
        [hashes[start : start + _LEAF] for start in range(0, len(hashes), _LEAF)],
    )


def backlog(db: sqlite3.Connection) -> Backlog:
    """What is committed and not yet published, and when the first of it happened."""
    with snapshot(db):
        end = db.execute("SELECT coalesce(max(row), 0) FROM entry").fetchone()[0] + 1
        # Before there is a log, everything waits for the first one.
        waiting = [(log.first + log.published, log.end or end) for log in logs(db)] or [(1, end)]
        late = [(first, after) for first, after in waiting if first < after]
        if not late:
            return Backlog(0, None)
        content = db.execute("SELECT content FROM entry WHERE row = ?", (late[0][0],)).fetchone()[0]
    return Backlog(sum(after - first for first, after in late), happened_at(content))


def entered(db: sqlite3.Connection, exchange_row: int) -> list[Entered]:
    """The entries of an exchange with their places, oldest first."""
    with snapshot(db):
        known = logs(db)
        found = db.execute("SELECT row, content, leaf FROM entry WHERE exchange = ? ORDER BY row", (exchange_row,))
        return [_placed(known, row, Entry(content, leaf, b"")) for row, content, leaf in found]


def _placed(known: abc.Sequence[Log], row: int, entry: Entry) -> Entered:
    for log in known:
        if log.first <= row < log.next:
            return Entered(entry, log.origin, row - log.first)
    return Entered(entry, None, None)


def secrets(db: sqlite3.Connection, exchange_row: int) -> list[tuple[bytes, bytes | None]]:
    """The leaf of each entry of an exchange and its sealed secret, unless that was erased."""
    found = db.execute(
        "SELECT leaf, bytes FROM entry JOIN secret USING (row) WHERE exchange = ? ORDER BY row", (exchange_row,)
    )
    return [(leaf, sealed if any(sealed) else None) for leaf, sealed in found]


# --- moving; each answers whether the log stands where the caller thought


@dataclass(slots=True, eq=False)
class BeginLog(Plain):
    origin: str
    begun: SealedEntry
    after: str | None
    ended: SealedEntry | None

    def decide(self, batch: Batch) -> bool:
        known = logs(batch.db)
        last = known[-1] if known else None
        if self.after != (last.origin if last else None) or any(log.origin == self.origin for log in known):
            return False
        first = 1 if last is None else self._end(batch, last)
        _enter_first(batch, self.begun, first)
        batch.db.execute(
            "INSERT INTO log(origin, first_row, size, checkpoint, published, published_note) "
            "VALUES(?, ?, 0, x'', 0, x'')",
            (self.origin, first),
        )
        return True

    def _end(self, batch: Batch, last: Log) -> int:
        """Close the last log; answers the row after its last entry."""
        if self.ended is None:
            # Its files are further than the store: nothing of it is to be written again.
            batch.db.execute("UPDATE log SET end_row = ?, published = size WHERE number = ?", (last.next, last.number))
            return last.next
        batch.enter(self.ended, None)
        end = batch.last["entry"] + 1
        batch.db.execute("UPDATE log SET end_row = ? WHERE number = ?", (end, last.number))
        return end


def _enter_first(batch: Batch, entry: SealedEntry, first: int) -> None:
    """Add an entry in this row; those from there on, which are in no log yet, move up by one."""
    if first > batch.last["entry"]:
        batch.enter(entry, None)
        return
    rows.insert(batch.db, "entry", batch.entries)
    rows.insert(batch.db, "secret", batch.secrets)
    for statement in (
        "UPDATE entry SET row = -1 - row WHERE row >= ?",
        "UPDATE secret SET row = -1 - row WHERE row >= ?",
    ):
        batch.db.execute(statement, (first,))
    # By way of numbers that nobody has, since no two rows may have the same in between.
    for statement in ("UPDATE entry SET row = -row WHERE row < 0", "UPDATE secret SET row = -row WHERE row < 0"):
        batch.db.execute(statement)
    batch.last["entry"] += 1
    batch.entries = [(first, entry.leaf, entry.content, None)]
    batch.secrets = [(first, entry.secret)]


@dataclass(slots=True, eq=False)
class Sequence(Plain):
    """Gives the next entries of a log their indexes."""

    origin: str
    size: int
    count: int
    checkpoint: bytes

    def decide(self, batch: Batch) -> bool:
        log = _find(batch.db, self.origin)
        if log is None or log.size != self.size:
            return False
        if log.next + self.count > (log.end or batch.last["entry"] + 1):
            return False
        change = "UPDATE log SET size = size + ?, checkpoint = ? WHERE number = ?"
        batch.db.execute(change, (self.count, self.checkpoint, log.number))
        return True


@dataclass(slots=True, eq=False)
class Publish(Plain):
    """Writes down up to where the files of a log are written."""

    origin: str
    size: int
    note: bytes

    def decide(self, batch: Batch) -> bool:
        log = _find(batch.db, self.origin)
        if log is None or not log.published <= self.size <= log.size:
            return False
        change = "UPDATE log SET published = ?, published_note = ?, published_at = ? WHERE number = ?"
        batch.db.execute(change, (self.size, self.note, batch.now, log.number))
        return True


# --- withholding writes


@dataclass(slots=True, eq=False)
class Withhold(Plain):
    entry: SealedEntry

    def decide(self, batch: Batch) -> bool:
        batch.db.execute("DELETE FROM withheld")
        batch.db.execute("INSERT INTO withheld VALUES(?)", (batch.now,))
        batch.enter(self.entry, None)
        return True


@dataclass(slots=True, eq=False)
class AdmitWrites(Plain):
    """Answers whether there was anything to end."""

    entry: SealedEntry

    def decide(self, batch: Batch) -> bool:
        if not batch.db.execute("DELETE FROM withheld").rowcount:
            return False
        batch.enter(self.entry, None)
        return True


def withheld(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM withheld").fetchone() is not None


# --- revoking keys


@dataclass(slots=True, eq=False)
class Revoke(Plain):
    kid: str
    entry: SealedEntry

    def decide(self, batch: Batch) -> bool:
        batch.db.execute("INSERT OR IGNORE INTO revoked VALUES(?, ?)", (self.kid, batch.now))
        batch.enter(self.entry, None)
        return True


def revoked(db: sqlite3.Connection) -> frozenset[str]:
    return frozenset(kid for (kid,) in db.execute("SELECT kid FROM revoked"))
