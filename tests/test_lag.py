"""How far the log is behind, as every node sees it: by the store alone, whoever records and wherever."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from gsb.lag import Lag
from gsb.node import Node, Ports
from gsb.roles import Role, Roles
from gsb.store.contract import StoreUnfit
from tests.support.cluster import protected, spread
from tests.support.deployment import standard
from tests.support.postgres import some_server
from tests.support.recording import recording

WITHIN = 120.0
"""Seconds for whatever must happen, on a machine that is busy with other things."""
NO_KAFKA = "127.0.0.1:9"


async def test_a_gateway_judges_from_the_store_whatever_it_knows_of_recorders(tmp_path: Path) -> None:
    async with recording(tmp_path) as hands:
        await hands.record(1)
        gateway = Lag(hands.bus, hands.clock.steady)
        await gateway.measure()
        assert not hands.bus.behind
        await hands.enter(2)
        await gateway.measure()
        hands.clock.pass_(31)
        await gateway.measure()
        assert hands.bus.behind, "nobody has published for longer than behind_seconds"
        await hands.recorder.look()
        hands.bus.behind = True
        await gateway.measure()
        assert not hands.bus.behind


async def test_a_clock_that_was_set_forward_is_no_lag(tmp_path: Path) -> None:
    async with recording(tmp_path) as hands:
        await hands.record(1)
        gateway = Lag(hands.bus, hands.clock.steady)
        await gateway.measure()
        await hands.enter(2)
        hands.clock.pass_(1)
        hands.clock.now += 10_000
        await gateway.measure()
        assert not hands.bus.behind
        hands.clock.pass_(30)
        await gateway.measure()
        assert hands.bus.behind


async def test_under_load_there_is_always_something_that_is_not_published_and_that_is_no_lag(tmp_path: Path) -> None:
    async with recording(tmp_path) as hands:
        gateway = Lag(hands.bus, hands.clock.steady)
        for number in range(20):
            await hands.record(2 * number)
            await hands.enter(2 * number + 1)
            hands.clock.pass_(2)
            hands.clock.now += 100  # a clock that runs: nothing could be told by it alone
            await gateway.measure()
            assert not hands.bus.behind, number


async def test_a_store_that_took_the_place_of_a_newer_one_is_not_gone_on_with(tmp_path: Path) -> None:
    """As when a standby that was behind is promoted while nodes run."""
    async with recording(tmp_path / "new") as hands, recording(tmp_path / "old") as older:
        await hands.record(1, 2, 3)
        await older.record(1)
        gateway = Lag(hands.bus, hands.clock.steady)
        await gateway.measure()
        hands.bus.store = older.store
        with pytest.raises(StoreUnfit, match="it had 4 entries in order, 4 of them published, and has"):
            await gateway.measure()


async def until_published(node: Node) -> None:
    """Returns when the node has seen that something is."""
    while True:
        if "gsb_log_published_size 1.0" in node.bus.metrics.text({}, None).decode():
            return
        await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_whatever_its_role_a_node_ends_when_the_store_goes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker too: what it would begin may have taken effect already."""
    with some_server() as dsn:
        deployment = spread(standard(tmp_path), dsn, [8080], NO_KAFKA)
        folder = deployment.write()
        roles = (Role.RECORDER, Role.GATEWAY, Role.WORKER)
        nodes = [Node(folder, roles=Roles.of([role], []), ports=Ports(0, 0)) for role in roles]
        async with asyncio.timeout(WITHIN):
            for node in nodes:
                await node.start()
                await until_published(node)
            db = await asyncpg.connect(protected(dsn))
            await db.execute(f"UPDATE {deployment.gsb['store']['schema_name']}.log SET size = 0, published = 0")
            await db.close()
            await asyncio.gather(*(node.failed.wait() for node in nodes))
        await asyncio.gather(*(node.stop() for node in nodes))
    told = [record for record in caplog.records if record.message == "a part of the node ended"]
    assert len(told) >= len(nodes)
    assert not any(record.exc_info for record in told)
