"""The PostgreSQL store keeps the contract, and what only it can promise: many nodes on one database, lost connections.

The server is real: see ``tests.support.postgres``.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from gsb.errors import StoreUnavailable
from gsb.model import State
from gsb.store.contract import Query, Store
from gsb.store.postgres import PostgresStore, aging, reads
from gsb.store.postgres.aging import bucket_of
from gsb.store.sealing import Position
from gsb.store.spent import KEPT
from tests.store_contract import StoreContract
from tests.support.stores import AGES, PostgresMaker, accepted, done, new
from tests.test_threat_model import table

KEY = bytes(range(32))
WITHIN = 60.0
"""Seconds for whatever must happen, on a machine that is busy with other things."""


class TestContract(StoreContract):
    async def entries(self, maker: PostgresMaker) -> int:  # type: ignore[override]
        return int((await maker.rows("SELECT count(*) FROM entry"))[0][0])

    async def secrets(self, maker: PostgresMaker) -> int:  # type: ignore[override]
        return int((await maker.rows("SELECT count(*) FROM secret"))[0][0])

    async def deleted(self, store: Store, maker: PostgresMaker) -> Store:  # type: ignore[override]
        """The first commit of a store looks for what has reached its age; closing it waits for that."""
        await store.close()
        store = await maker.open()
        await store.spend("(test)", new().id, 1)
        await store.close()
        return await maker.open()

    async def everything(self, maker: PostgresMaker) -> bytes:  # type: ignore[override]
        tables = await maker.rows("SELECT tablename FROM pg_tables WHERE schemaname = $1", maker.schema)
        cells = [
            cell for (table,) in tables for row in await maker.rows(f"SELECT * FROM {table}") for cell in row.values()
        ]
        return b"".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells)


async def test_commits_are_told_of_and_hold_what_was_asked_together(maker: PostgresMaker) -> None:
    told: list[tuple[int, float]] = []
    store = PostgresStore(
        maker.dsn, KEY, schema=maker.schema, committed=lambda calls, seconds: told.append((calls, seconds))
    )
    await store.open()
    before = time.monotonic()
    await asyncio.gather(*(accepted(store) for _ in range(8)))
    took = time.monotonic() - before
    await store.close()
    assert [calls for calls, _ in told] == [8]
    assert 0 < told[0][1] <= took


async def test_one_call_that_cannot_be_written_does_not_fail_the_others(
    maker: PostgresMaker, caplog: pytest.LogCaptureFixture
) -> None:
    store = await maker.open()
    first = await accepted(store)
    made = [new(), new(id=first.id), new(service="no\x00text"), new()]
    answers = await asyncio.gather(*(store.accept(one) for one in made), return_exceptions=True)
    assert [isinstance(answer, StoreUnavailable) for answer in answers] == [False, True, True, False]
    assert [answers[0], answers[3]] == [None, None]
    assert caplog.messages == ["a call on the store failed"] * 2


# --- what is deleted ----------------------------------------------------------------------------------------


async def test_what_has_reached_its_age_is_deleted_in_pieces_until_nothing_is_left(maker: PostgresMaker) -> None:
    store = await maker.open()
    await asyncio.gather(*(done(store) for _ in range(2 * aging.PIECE + 1)))
    kept = await accepted(store)
    maker.clock.pass_(AGES.exchanges)
    await store.spend("(test)", new().id, 1)
    await _until(maker, "SELECT 1 WHERE (SELECT count(*) FROM exchange) = 1")
    assert [tuple(each) for each in await maker.rows("SELECT id FROM exchange")] == [(kept.id,)]
    assert len(await maker.rows("SELECT FROM reservation")) == 1


async def test_a_jti_of_another_node_is_forgotten_by_who_has_watched_it_for_long_enough(maker: PostgresMaker) -> None:
    one = await maker.open()
    await one.spend("payroll", "once", 80)
    await one.close()
    other = await maker.open()
    for seconds, left in ((1_000, True), (KEPT - 1, True), (1, False)):
        maker.clock.pass_(seconds)
        await other.spend("audit", new().id, 0)
        # The next call waits for what the store tidies after the last one.
        await other.spend("audit", new().id, 0)
        assert bool(await maker.rows("SELECT FROM spent")) == left
    await other.spend("payroll", "once", 80)
    maker.clock.now -= 1_000 + KEPT
    with pytest.raises(StoreUnavailable, match="clock was set back"):
        await other.spend("payroll", "twice", 80)


async def _until(maker: PostgresMaker, sql: str) -> None:
    async with asyncio.timeout(WITHIN):
        while True:
            if await maker.rows(sql):
                return
            await asyncio.sleep(0.01)


# --- what is searched -----------------------------------------------------------------------------------------

FILL = """
INSERT INTO exchange SELECT number, 'id-' || number, 'agency-' || number % 20, 'service-' || number % 30, 'once', '',
    '', '', number, CASE WHEN number % 9 = 0 THEN 'c' || (number % 5000)::text::bytea END,
    ('s' || number % 5000)::bytea, number, NULL,
    (ARRAY['done', 'held', 'refused'])[1 + (number % 1000 = 0)::int + (number % 999 = 0)::int], number,
    NULL, 1, false, 0, NULL, number, NULL, NULL, NULL, 200, 'done', CASE WHEN number % 500 = 0 THEN 'busy' END
FROM generate_series(1, 30000) AS number
"""


@pytest.mark.parametrize(
    "query",
    [
        Query(),
        Query(agency="agency-7"),
        Query(service="service-7"),
        Query(agency="agency-7", service="service-7"),
        Query(states=frozenset({State.HELD})),
        Query(states=frozenset({State.HELD, State.REFUSED}), agency="agency-7"),
        Query(states=frozenset({State.RUNNING})),
        Query(code="busy", service="service-20"),
        Query(business="77"),
        Query(since=17_000.0, until=18_000.0),
    ],
)
async def test_a_search_goes_along_an_index(maker: PostgresMaker, query: Query) -> None:
    store = await maker.open()
    await maker.rows(FILL)
    await maker.rows("ANALYZE exchange")
    businesses: list[str | bytes] | None = None if query.business is None else [query.business, b"h" * 16]
    statement, values = reads.Wanted(query, businesses, None, Position(29_000.5, 29_001), 0.0).sql(51)
    plan = "\n".join(line for (line,) in await maker.rows(f"EXPLAIN {statement}", *values))
    assert "Index Scan" in plan, plan
    assert "Seq Scan" not in plan, plan
    assert len((await store.search(query)).exchanges) <= query.limit


async def test_stored_columns_are_those_of_the_threat_model(maker: PostgresMaker) -> None:
    """Those that SQLite has too are told there; what only PostgreSQL has, in a table of its own."""
    await maker.open()
    found = await maker.rows(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = $1 AND table_name IN "
        "(SELECT relname FROM pg_class WHERE relnamespace = $1::regnamespace AND NOT relispartition AND relkind IN "
        "('r', 'p'))",
        maker.schema,
    )
    shared = {(name, column) for name, column, _ in table(["table", "column", "form"])}
    own = {(name, column) for name, column, _ in table(["table on PostgreSQL", "column", "form"])}
    assert {tuple(each) for each in found} - shared == own


async def test_a_key_is_free_when_the_jti_that_came_with_it_was_refused(maker: PostgresMaker) -> None:
    """Keys are claimed before it is known whether the clock was set back."""
    store, one = await maker.open(), new(key="key-1")
    near = bucket_of(maker.clock())
    await maker.rows(f"INSERT INTO forgotten SELECT generate_series({near}, {near + 100})")
    with pytest.raises(StoreUnavailable):
        await store.accept(one)
    assert await maker.rows("SELECT FROM reservation") == []
    await maker.rows("DELETE FROM forgotten")
    assert await store.accept(one) is None
