"""Whatever is looked for, the SQLite store finds it along an index: never by reading the whole table, never by sorting
what only time would bound."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest

from gsb.model import State
from gsb.store.contract import Query
from gsb.store.sealing import Position
from gsb.store.sqlite import SqliteStore
from gsb.store.sqlite import reads as sqlite_reads
from gsb.store.sqlite import rows as sqlite_rows
from gsb.store.standing import Lease
from tests.support.stores import done

FIELDS: dict[str, Any] = {
    "agency": "payroll",
    "service": "hrmis/employee/v1",
    "states": None,
    "code": "system_refused",
    "business": "E-1",
    "subject": "S-1",
    "since": 1.0,
    "until": 2_000_000_000.0,
}
SUBSETS = list(chain.from_iterable(combinations(FIELDS, count) for count in range(len(FIELDS) + 1)))


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[sqlite3.Connection]:
    store = SqliteStore(tmp_path / "store.db", bytes(32))
    await store.open()
    await done(store)
    db = sqlite_rows.connect(tmp_path / "store.db", writes=False)
    yield db
    db.close()
    await store.close()


@pytest.mark.parametrize("fields", SUBSETS, ids=["-".join(each) or "nothing" for each in SUBSETS])
@pytest.mark.parametrize("further", [False, True], ids=["first page", "further page"])
async def test_every_combination_goes_along_an_index(
    db: sqlite3.Connection, fields: tuple[str, ...], further: bool
) -> None:
    given = {name: FIELDS[name] for name in fields}
    for state in State if "states" in fields else [None]:
        query = Query(**given | ({"states": frozenset({state})} if state else {}))
        before = Position(1_900_000_000.0, 7) if further else None
        for plan in plans(db, query, before):
            assert "SEARCH" in plan or not (
                further or {"agency", "service", "code", "business", "subject"} & given.keys()
            ), plan
            assert " INDEX " in plan or "PRIMARY KEY" in plan, plan
            # What is in flight, and so few, may be sorted.
            assert "TEMP B-TREE" not in plan or state in (State.ACCEPTED, State.RUNNING), plan


def plans(db: sqlite3.Connection, query: Query, before: Position | None) -> list[str]:
    """How SQLite would find each thing that this search asks for."""
    businesses: list[str | bytes] | None = None if query.business is None else [query.business, b"hashed"]
    leases = {"01a0c450-6c00-71b6-b1a8-e21f6124ae04": Lease(1, 2.0, 1.0)}
    asked: list[str] = []
    db.set_trace_callback(asked.append)
    subject = None if query.subject is None else b"hashed"
    list(sqlite_reads.search(db, sqlite_reads.Wanted(query, businesses, subject, before, leases)))
    sqlite_reads.services(db)
    db.set_trace_callback(None)
    assert asked
    return ["; ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {each}")) for each in asked]


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (Query(), "exchange_accepted"),
        (Query(agency="payroll"), "(service=? AND agency=?)"),
        (Query(service="hrmis/employee/v1"), "(service=? AND agency=?)"),
        (Query(agency="a", service="s"), "COVERING INDEX exchange_parties (service=? AND agency=?)"),
        (Query(agency="payroll", states=frozenset({State.DONE})), "(service=? AND agency=?)"),
        (Query(agency="a", states=frozenset({State.HELD})), "COVERING INDEX exchange_state"),
        (Query(agency="a", service="s", states=frozenset({State.REFUSED})), "COVERING INDEX exchange_state"),
        (Query(agency="a", service="s", code="c"), "COVERING INDEX exchange_code"),
        (Query(code="c", states=frozenset({State.FAILED})), "COVERING INDEX exchange_code"),
        (Query(states=frozenset({State.RUNNING})), "COVERING INDEX exchange_due"),
        (Query(agency="a", service="s", business="b"), "exchange_business"),
        (Query(agency="a", service="s", subject="b"), "exchange_subject"),
        (Query(code="c", subject="b"), "exchange_subject"),
    ],
)
async def test_the_narrowest_index_is_used(db: sqlite3.Connection, query: Query, index: str) -> None:
    assert any(index in plan for plan in plans(db, query, None))


async def test_a_further_page_begins_where_the_last_one_ended(db: sqlite3.Connection) -> None:
    """Not at the latest time that is asked for, however far the pages have got."""
    asked: list[str] = []
    db.set_trace_callback(asked.append)
    for until, at in ((2e9, 1.9e9), (1.8e9, 1.9e9)):
        wanted = sqlite_reads.Wanted(Query(until=until), None, None, Position(at, 7), {})
        list(sqlite_reads.search(db, wanted))
    scans = [each for each in asked if "INDEXED BY" in each]
    assert ["accepted_at <=" in each for each in scans] == [False, True]
    assert ["(accepted_at, row) <" in each for each in scans] == [True, False]
