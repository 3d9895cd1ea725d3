"""What is read from the SQLite store without writing: reservations, single exchanges, lists of them.

Each function runs on the connection it is given and sees the last commit. A lease that only memory holds is shown as
if it had been written. A crash means nothing here.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

from gsb.errors import StoreUnavailable
from gsb.model import Entry, State
from gsb.store import sqlite_rows as rows
from gsb.store import standing
from gsb.store.contract import Query
from gsb.store.standing import Lease, Row

_UNINDEXED = frozenset({State.ACCEPTED, State.RUNNING})
"""States that the index of states leaves out because most exchanges pass them in a moment; they have a due time."""
_PIECE = 200
"""Rows fetched at a time while filtering."""


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
    """Sealed bytes, if they are (still) there."""
    found = db.execute("SELECT bytes FROM sealed WHERE row = ?", (row,)).fetchone()
    return None if found is None else bytes(found[0])


def entries(db: sqlite3.Connection, exchange_row: int) -> tuple[Entry, ...]:
    """The entries of an exchange, oldest first, without their secrets."""
    found = db.execute("SELECT content, leaf FROM entry WHERE exchange = ? ORDER BY row", (exchange_row,))
    return tuple(Entry(content, leaf, b"") for content, leaf in found)


def search(db: sqlite3.Connection, query: Query, leases: Mapping[str, Lease]) -> list[Row]:
    """Newest first. Each state asked for is a scan of its own along an index; the scans are merged.

    With a lease that only memory holds an exchange is running, whatever was written last.
    """
    scans = [_scan(db, query, [], [])]
    if query.states:
        scans = [_of_state(db, query, state) for state in sorted(query.states)]
        if State.RUNNING in query.states and leases:
            ids = list(leases)
            marks = ", ".join("?" * len(ids))
            scans.append(_scan(db, query, [f"id IN ({marks})", "state != 'running'"], ids))
    merged = heapq.merge(*scans, key=lambda row: (-row.accepted_at, -row.row))
    return list(islice(_shown(merged, query, leases), query.limit))


def _shown(found: Iterator[Row], query: Query, leases: Mapping[str, Lease]) -> Iterator[Row]:
    last = 0
    for row in found:
        standing.apply(row, leases.get(row.id))
        if row.row != last and (not query.states or row.state in query.states):
            yield row
        last = row.row


def _of_state(db: sqlite3.Connection, query: Query, state: State) -> Iterator[Row]:
    tests = ["state = ?", "due_at IS NOT NULL"] if state in _UNINDEXED else ["state = ?"]
    if state not in _UNINDEXED and state is not State.DONE:
        tests.append("state NOT IN ('accepted', 'running', 'done')")  # lets the partial index be used
    return _scan(db, query, tests, [state])


def standing_still(db: sqlite3.Connection) -> dict[State, int]:
    """How many are waiting, held and unknown, counted on the index of states alone."""
    found = db.execute(
        "SELECT state, count(*) FROM exchange WHERE state IN ('waiting', 'held', 'unknown') "
        "AND state NOT IN ('accepted', 'running', 'done') GROUP BY state"
    )
    return {State(state): count for state, count in found}


def _scan(db: sqlite3.Connection, query: Query, tests: list[str], values: list[Any]) -> Iterator[Row]:
    tests, values = list(tests), list(values)
    for test, value in (
        ("agency = ?", query.agency),
        ("service = ?", query.service),
        ("code = ?", query.code),
        ("accepted_at >= ?", query.since),
        ("accepted_at <= ?", query.until),
        ("(accepted_at, row) < (SELECT accepted_at, row FROM exchange WHERE id = ?)", query.before),
    ):
        if value is not None:
            tests.append(test)
            values.append(value)
    where = "WHERE " + " AND ".join(tests) if tests else ""
    cursor = db.execute(" ".join([rows.SELECT, where, "ORDER BY accepted_at DESC, row DESC"]), values)
    while piece := cursor.fetchmany(_PIECE):
        yield from map(rows.row_of, piece)
