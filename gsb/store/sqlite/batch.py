"""One transaction of the SQLite store: what many calls ask is decided one after the other, then written together.

Deciding happens on rows in memory before anything is written, so a call that fails (a jti that was spent, an attempt
that is not the newest) leaves nothing behind and does not touch the others. Only the writer's thread comes here.
A crash before the commit leaves nothing; ``Memory`` takes a batch in only after its commit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gsb.errors import Replayed, StoreUnavailable
from gsb.model import FINAL
from gsb.store import standing
from gsb.store.asks import SET_BACK, Jti, Plain, SealedEntry
from gsb.store.contract import Due
from gsb.store.reserved import Reserved
from gsb.store.spent import Spent
from gsb.store.sqlite import rows
from gsb.store.standing import Lease, Row

OPEN = 4_096
"""Unfinished exchanges whose rows are kept in memory at most, so that most calls read nothing."""


class Memory:
    """What the writer knows of the committed database without asking it."""

    def __init__(self, db: sqlite3.Connection, steady: Callable[[], float]) -> None:
        self.spent = Spent(steady)
        self.reserved = Reserved()
        self.reserved.read_on(db)
        self.reload(db)

    def reload(self, db: sqlite3.Connection) -> None:
        """Ask the database again. What was spent or reserved stays so."""
        self.open: dict[str, Row] = {}
        self.last = {name: _last(db, name) for name in ("spent", "sealed", "entry", "exchange")}
        # An exchange leaves its entries behind when it is deleted: no other may be given its number.
        owned = "SELECT coalesce(max(exchange), 0) FROM entry WHERE exchange IS NOT NULL"
        self.last["exchange"] = max(self.last["exchange"], db.execute(owned).fetchone()[0])
        for hashed, expires in db.execute("SELECT hash, expires FROM spent"):
            self.spent.add(hashed, expires)


def _last(db: sqlite3.Connection, table: str) -> int:
    return int(db.execute(" ".join(["SELECT coalesce(max(row), 0) FROM", table])).fetchone()[0])


class Batch:
    """The rows that one transaction reads and writes."""

    def __init__(
        self, db: sqlite3.Connection, memory: Memory, leases: Mapping[str, Lease], now: float, kept: float
    ) -> None:
        self.db, self.memory, self.leases, self.now, self.kept = db, memory, leases, now, kept
        self.last = dict(memory.last)
        self.spent: dict[bytes, float] = {}
        """Hashes of jtis, and for how many seconds they are remembered."""
        self.set_back = False
        """Something was refused because the clock was set back."""
        self.sealed: list[tuple[int, bytes]] = []
        self.entries: list[tuple[int, bytes, bytes, int | None]] = []
        self.secrets: list[tuple[int, bytes]] = []
        self.created: dict[str, Row] = {}
        self.changed: dict[str, Row] = {}
        self._known: dict[str, Row] = {}
        self._reserved: dict[bytes, Row] = {}
        self.reservations: dict[bytes, Row] = {}
        self.released: list[bytes] = []
        """Keys whose reservations have run out."""

    def load(self, ids: Iterable[str], keys: Iterable[bytes] = ()) -> None:
        """Read what calls will ask for, in few statements."""
        wanted = set(ids) - self._known.keys()
        self._known.update((id_, row) for id_ in wanted if (row := self.memory.open.get(id_)) is not None)
        if missing := wanted - self._known.keys():
            self._known.update((row.id, row) for row in rows.exchanges(self.db, missing))
        if asked := set(filter(self.memory.reserved.may_hold, keys)):
            self._reserved = rows.reserved(self.db, asked)

    def row(self, exchange: str) -> Row | None:
        """The exchange as it stands now, with its lease if only memory holds it."""
        row = self.created.get(exchange) or self._known.get(exchange)
        if row is not None:
            standing.apply(row, self.leases.get(exchange))
        return row

    def owner(self, key: bytes) -> Row | None:
        """The exchange to which the key belongs. A reservation that has run out is given up here."""
        row = self.reservations.get(key)
        if row is None and (row := self._reserved.get(key)) is not None:
            row = self._known.setdefault(row.id, row)
            if row.key is None or (row.finished_at is not None and row.finished_at + self.kept <= self.now):
                row.key = None
                self.change(row)
                self.released.append(key)
                return None
        return row

    def change(self, row: Row) -> None:
        """Have the row written at the end, if it is not written whole then."""
        if row.id not in self.created:
            self.changed[row.id] = row

    def spend(self, jti: Jti) -> None:
        """Raises Replayed, having changed nothing, if it was spent, and StoreUnavailable if nobody knows."""
        if jti.hashed in self.spent or self.memory.spent.holds(jti.hashed, self.now):
            raise Replayed
        if jti.lives > 0 and self.memory.spent.gone(self.now + jti.lives):
            self.set_back = True
            raise StoreUnavailable(SET_BACK)
        self.spent[jti.hashed] = jti.lives

    def keep(self, sealed: bytes) -> int:
        """Where the sealed bytes will lie."""
        number = self._next("sealed")
        self.sealed.append((number, sealed))
        return number

    def enter(self, entry: SealedEntry, exchange: int | None) -> None:
        """Add an entry; the order of the rows is the order of the log."""
        number = self._next("entry")
        self.entries.append((number, entry.leaf, entry.content, exchange))
        self.secrets.append((number, entry.secret))

    def _next(self, table: str) -> int:
        self.last[table] += 1
        return self.last[table]

    def create(self, row: Row) -> None:
        """Add an exchange and, if it has a key, its reservation."""
        row.row = self._next("exchange")
        self.created[row.id] = row
        if row.key is not None:
            self.memory.reserved.add(row.key)
            self.reservations[row.key] = row

    def write(self) -> int:
        """Write it all; returns about how many bytes of pages that is."""
        first = self.last["spent"] + 1
        spent = [(first + at, hashed, self.now + lives) for at, (hashed, lives) in enumerate(self.spent.items())]
        self.last["spent"] += len(spent)
        rows.update_exchanges(self.db, self.changed.values())
        rows.insert_exchanges(self.db, self.created.values())
        rows.insert(self.db, "spent", spent)
        rows.insert(self.db, "sealed", self.sealed)
        rows.insert(self.db, "entry", self.entries)
        rows.insert(self.db, "secret", self.secrets)
        rows.release(self.db, self.released)
        rows.insert(self.db, "reservation", [(key, row.row) for key, row in self.reservations.items()])
        return sum(len(item[1]) for item in (*self.sealed, *self.secrets)) + 12 * rows.PAGE

    @property
    def empty(self) -> bool:
        return not (self.spent or self.entries or self.created or self.changed)

    def remember(self) -> None:
        """The transaction is committed: let memory know."""
        memory = self.memory
        memory.last = self.last
        for hashed, lives in self.spent.items():
            if lives > 0:
                memory.spent.add(hashed, self.now + lives)
        for row in (*self._known.values(), *self.created.values()):
            if row.state in FINAL:
                memory.open.pop(row.id, None)
            else:
                memory.open[row.id] = row
        while len(memory.open) > OPEN:
            del memory.open[next(iter(memory.open))]


class Ask(Protocol):
    """What a call asks of a batch. ``decide`` raises a typed error only before it has changed anything."""

    def ids(self) -> Sequence[str]: ...

    def hashes(self) -> Sequence[bytes]: ...

    def decide(self, batch: Batch) -> Any: ...


@dataclass(slots=True, eq=False)
class Overdue(Plain):
    """Answers what is due. A lease that only memory holds is written down, so that it is due when it runs out."""

    limit: int

    def decide(self, batch: Batch) -> list[Due]:
        # What this batch has moved on already is still found at its old time, so so many more are asked for.
        most = self.limit + len(batch.changed)
        self._pull_back(batch, most)
        ids = self._found(batch, "SELECT id FROM exchange WHERE due_at <= ? ORDER BY due_at LIMIT ?", batch.now, most)
        found: list[Due] = []
        for id_ in ids:
            row = batch.row(id_)
            if row is None or len(found) == self.limit:
                continue
            if (due := standing.nudge(row, batch.now)) is not None:
                found.append(due)
            batch.change(row)
        return found

    def _pull_back(self, batch: Batch, most: int) -> None:
        """The clock was set back: what would be due too late is due at the next look."""
        sql = "SELECT id FROM exchange WHERE due_at > ? LIMIT ?"
        for id_ in self._found(batch, sql, batch.now + standing.HORIZON, most):
            if (row := batch.row(id_)) is not None:
                standing.pull_back(row, batch.now)
                batch.change(row)

    def _found(self, batch: Batch, sql: str, when: float, most: int) -> list[str]:
        ids = [str(id_) for (id_,) in batch.db.execute(sql, (when, most))]
        batch.load(ids)
        return ids
