"""What nodes share over a real PostgreSQL, held to the contract, each node with connections of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from gsb.errors import StoreUnavailable
from gsb.shares.contract import Draw, Fence, Need, Shares
from gsb.shares.postgres import PostgresShares
from gsb.store.contract import StoreUnfit
from gsb.store.postgres import sessions
from gsb.store.postgres.sessions import Sessions
from tests.shares_contract import LONG, RECORDER, SharesContract, eventually
from tests.support.postgres import own_server
from tests.support.stores import PostgresMaker

KEY = bytes(range(32))
WITHIN = 60.0
"""Seconds for whatever must happen, on a machine that is busy with other things."""


async def shares_of(maker: PostgresMaker) -> PostgresShares:
    shares = PostgresShares((await maker.open()).sessions)
    await shares.open()
    return shares


class TestPostgresShares(SharesContract):
    @pytest.fixture
    async def nodes(self, maker: PostgresMaker) -> Sequence[Shares]:
        return list(await asyncio.gather(*(shares_of(maker) for _ in range(3))))


async def test_what_is_shared_outlives_every_node(maker: PostgresMaker) -> None:
    first = await shares_of(maker)
    assert await first.lease(RECORDER, "node-a", LONG) == Fence(1)
    assert (await first.draw({"budget": Draw(9, 60.0, 480.0)}))["budget"].exchanges == 9
    assert (await first.slots("node-a", {"tax": Need(4, 3, True, LONG)}))["tax"].calls == 4
    await maker.close()
    second = await shares_of(maker)
    assert await second.lease(RECORDER, "node-b", LONG) is None
    assert (await second.draw({"budget": Draw(9, 60.0, 480.0)}))["budget"].exchanges == 0
    assert (await second.slots("node-b", {"tax": Need(4, 0, True, LONG)}))["tax"].calls == 0


async def test_leases_end_by_the_clock_of_the_database(maker: PostgresMaker) -> None:
    """Whatever a node's own clock says: nothing of it is sent."""
    shares = await shares_of(maker)
    await shares.lease(RECORDER, "node-a", LONG)
    ((left,),) = await maker.rows("SELECT extract(epoch FROM until - now())::float8 FROM share_lease")
    assert LONG - 60 < left <= LONG


async def test_drawing_waits_for_no_disk_and_everything_else_does(maker: PostgresMaker) -> None:
    """The setting of one statement must not stay with its connection."""
    store = await maker.open()
    shares = PostgresShares(store.sessions)
    await shares.open()
    await shares.draw({"budget": Draw(1, 1.0, 0.0)})
    told = await store.sessions.read(lambda db: db.fetchval("SELECT current_setting('synchronous_commit')"))
    assert told == "on"


async def test_budgets_that_the_database_has_lost_begin_anew(maker: PostgresMaker) -> None:
    shares, asked = await shares_of(maker), {"budget": Draw(2, 60.0, 60.0)}
    assert (await shares.draw(asked))["budget"].exchanges == 2
    await maker.rows("DELETE FROM share_budget")
    with pytest.raises(StoreUnavailable):
        await shares.draw(asked)
    assert (await shares.draw(asked))["budget"].exchanges == 2


async def test_a_node_that_is_stopped_between_two_statements_keeps_nobody_waiting(
    maker: PostgresMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its read of the slots is old when it goes on, so what it would write is refused, and it reads again."""
    shares = await shares_of(maker)
    # It is to wait for as long as this test takes to see that it does.
    monkeypatch.setitem(sessions._BOUNDS, "lock_timeout", "0")
    store = maker.make(statement=WITHIN)
    await store.open()
    slow = PostgresShares(store.sessions)
    assert (await shares.slots("node-a", {"tax": Need(4, 0, True, LONG)}))["tax"].calls == 4
    lock = await asyncpg.connect(maker.dsn, server_settings={"search_path": maker.schema})
    try:
        transaction = lock.transaction()
        await transaction.start()
        await lock.execute("UPDATE share_slots SET version = version + 1, holders = '{}'")
        late = asyncio.create_task(slow.slots("node-b", {"tax": Need(4, 0, True, LONG)}))
        await eventually(lambda: maker.rows("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"), WITHIN)
        await transaction.commit()
        assert (await late)["tax"].calls == 4
    finally:
        await lock.close()


async def test_without_its_server_nothing_is_given(dsn: str) -> None:
    with own_server() as server:
        maker = PostgresMaker(server.dsn, KEY)
        shares = await shares_of(maker)
        assert await shares.lease(RECORDER, "node-a", LONG) == Fence(1)
        server.stop()
        with pytest.raises(StoreUnavailable):
            await shares.lease(RECORDER, "node-a", LONG)
        with pytest.raises(StoreUnavailable):
            await shares.draw({"budget": Draw(1, 1.0, 0.0)})
        with pytest.raises(StoreUnavailable):
            await shares.slots("node-a", {"tax": Need(4, 0, True, LONG)})
        server.start()
        assert await shares.lease(RECORDER, "node-a", LONG) == Fence(1)
        await maker.close()


async def test_a_store_that_is_not_open_shares_nothing(dsn: str) -> None:
    with pytest.raises(StoreUnfit):
        await PostgresShares(Sessions(dsn, "nowhere")).open()
