"""What is read from the SQLite store without writing: reservations, single exchanges, lists of them.

Each function runs on the connection it is given and sees the last commit. A lease that only memory holds is shown as
if it had been written. A crash means nothing here.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from gsb.errors import StoreUnavailable
from gsb.model import Entry, State
from gsb.store import standing
from gsb.store.contract import Query
from gsb.store.sealing import Position, narrowed
from gsb.store.sqlite import rows
from gsb.store.standing import Lease, Row

_IN_A_MOMENT = frozenset({State.ACCEPTED, State.RUNNING})
"""States that the index of states leaves out because most exchanges pass them in a moment; they have a due time."""
_MAY_BE_LEASED = frozenset({State.ACCEPTED, State.WAITING, State.RUNNING})
"""States in which an exchange may have been written that runs by a lease in memory."""
_PIECE = 200
"""Rows read at a time at most."""
Test = tuple[str, tuple[Any, ...]]
"""A condition of SQL and the values of its question marks."""


@contextmanager
def reading() -> Iterator[None]:
    """Turns the database's errors into StoreUnavailable."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailable from error


def owner(db: sqlite3.Connection, key: bytes, finished_after: float) -> Row | None:
    """The exchange to which a key belongs, unless the reservation has run out."""
    row = rows.reserved(db, [key]).get(key)
    if row is None or (row.finished_at is not None and row.finished_at <= finished_after):
        return None
    return row


def exchange(db: sqlite3.Connection, id_: str, leases: Mapping[str, Lease]) -> Row | None:
    """One exchange, if it is known."""
    found = rows.exchanges(db, [id_])
    if not found:
        return None
    standing.apply(found[0], leases.get(id_))
    return found[0]


def sealed(db: sqlite3.Connection, row: int | None) -> bytes | None:
    """Sealed bytes, if they are (still) there and not erased."""
    found = db.execute("SELECT bytes FROM sealed WHERE row = ?", (row,)).fetchone()
    return bytes(found[0]) if found is not None and any(found[0]) else None


def entries(db: sqlite3.Connection, exchange_row: int) -> tuple[Entry, ...]:
    """The entries of an exchange, oldest first, without their secrets."""
    found = db.execute("SELECT content, leaf FROM entry WHERE exchange = ? ORDER BY row", (exchange_row,))
    return tuple(Entry(content, leaf, b"") for content, leaf in found)


def standing_still(db: sqlite3.Connection) -> dict[State, int]:
    """How many are waiting, held and unknown, counted on the index of states alone."""
    found = db.execute(
        "SELECT state, count(*) FROM exchange WHERE state IN ('waiting', 'held', 'unknown') "
        "AND state NOT IN ('accepted', 'running', 'done') GROUP BY state"
    )
    return {State(state): count for state, count in found}


# --- searching


@dataclass(frozen=True, slots=True)
class Wanted:
    """A query whose business key, subject and cursor are understood."""

    query: Query
    businesses: Sequence[str | bytes] | None
    """The forms in which the business key may have been stored."""
    subject: bytes | None
    """The keyed hash of the subject."""
    before: Position | None
    leases: Mapping[str, Lease]

    def tests(self) -> Iterator[Test]:
        """What every row must pass, but for its state."""
        query, until, before = self.query, self.query.until, self.before
        if until is not None and before is not None:
            # A scan begins at one upper bound only, so it is given the lower one of the two.
            until, before = (None, before) if before.accepted_at <= until else (until, None)
        for comparison, value in narrowed(replace(query, until=until), self.subject):
            yield f"{comparison} ?", (value,)
        if before is not None:
            yield "(accepted_at, row) < (?, ?)", before


def services(db: sqlite3.Connection) -> list[str]:
    """The services of which there are exchanges."""
    return _distinct(db, "SELECT min(service) FROM exchange INDEXED BY exchange_parties WHERE service > ?")


def _agencies(db: sqlite3.Connection, service: str) -> list[str]:
    """The agencies of which there are exchanges with this service."""
    step = "SELECT min(agency) FROM exchange INDEXED BY exchange_parties WHERE service = ? AND agency > ?"
    return _distinct(db, step, service)


def _distinct(db: sqlite3.Connection, step: str, *given: str) -> list[str]:
    """Each value is found by one step from the one before it, however many exchanges have it."""
    found = [""]
    while (last := db.execute(step, [*given, found[-1]]).fetchone()[0]) is not None:
        found.append(last)
    return found[1:]


def search(db: sqlite3.Connection, wanted: Wanted) -> Iterator[Row]:
    """Newest first. What is asked for is cut into scans that each go along an index in that order, and are merged.

    Only the places of rows are merged; a row is read when its turn comes. With a lease that only memory holds an
    exchange is running, whatever was written last.
    """
    states, piece, last = wanted.query.states, min(wanted.query.limit + 1, _PIECE), None
    merged = heapq.merge(*_scans(db, wanted), reverse=True)
    while places := list(islice(merged, piece)):
        found = rows.numbered(db, {place.row for place in places})
        for place in places:
            row = found.get(place.row)
            if row is None or place == last:
                continue  # deleted meanwhile, or found by two scans
            last = place
            standing.apply(row, wanted.leases.get(row.id))
            if not states or row.state in states:
                yield row


def _scans(db: sqlite3.Connection, wanted: Wanted) -> Iterator[Iterator[Position]]:
    query, tests = wanted.query, list(wanted.tests())
    if wanted.businesses is not None:
        for each in wanted.businesses:
            yield _scan(db, "exchange_business", [("business = ?", (each,)), *tests, *_written(query.states)])
    elif wanted.subject is not None:
        yield _scan(db, "exchange_subject", [*tests, *_written(query.states)])
    elif query.code is not None:
        yield _scan(db, "exchange_code", [*tests, *_written(query.states)])
    elif query.states:
        for state in sorted(query.states):
            yield from _of_state(db, wanted, state, tests)
    else:
        yield from _of_parties(db, query, tests)


def _written(states: frozenset[State]) -> list[Test]:
    """In which states that are shown so can have been written."""
    if not states:
        return []
    written = states | _MAY_BE_LEASED if State.RUNNING in states else states
    return [(f"state IN ({', '.join('?' * len(written))})", tuple(sorted(written)))]


def _of_state(db: sqlite3.Connection, wanted: Wanted, state: State, tests: list[Test]) -> Iterator[Iterator[Position]]:
    tests = [*tests, ("state = ?", (state,))]
    if state is State.DONE:
        yield from _of_parties(db, wanted.query, tests)
    elif state in _IN_A_MOMENT:
        yield _scan(db, "exchange_due", [*tests, ("due_at IS NOT NULL", ())])
    else:
        # SQLite must be told that the index, which holds only some states, holds this one.
        yield _scan(db, "exchange_state", [*tests, ("state NOT IN ('accepted', 'running', 'done')", ())])
    if state is State.RUNNING and wanted.leases:
        leased = f"id IN ({', '.join('?' * len(wanted.leases))})"
        yield _scan(db, "exchange_id", [*wanted.tests(), (leased, tuple(wanted.leases))])


def _of_parties(db: sqlite3.Connection, query: Query, tests: list[Test]) -> Iterator[Iterator[Position]]:
    """One index of both parties, since each costs every exchange: what is not asked for is gone through."""
    if query.agency is None and query.service is None:
        yield _scan(db, "exchange_accepted", tests)
    elif query.agency is None:
        for agency in _agencies(db, query.service or ""):
            yield _scan(db, "exchange_parties", [*tests, ("agency = ?", (agency,))])
    else:
        among = services(db) if query.service is None else [query.service]
        for service in among:
            yield _scan(db, "exchange_parties", [*tests, ("service = ?", (service,))])


def _scan(db: sqlite3.Connection, index: str, tests: Sequence[Test]) -> Iterator[Position]:
    chosen = ["SELECT accepted_at, row FROM exchange INDEXED BY", index]
    where = ["WHERE", " AND ".join(test for test, _ in tests)] if tests else []
    values = [value for _, some in tests for value in some]
    order = "ORDER BY accepted_at DESC, row DESC"
    return map(Position._make, db.execute(" ".join([*chosen, *where, order]), values))
