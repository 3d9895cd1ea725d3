"""The broker of one machine keeps the contract, and its memory bounded."""

from __future__ import annotations

from gsb.broker import local
from gsb.broker.contract import Broker
from gsb.broker.local import LocalBroker
from tests.broker_contract import BrokerContract, take


class TestLocalBroker(BrokerContract):
    def make(self) -> Broker:
        return LocalBroker()


async def test_a_repeated_dispatch_does_not_pile_up() -> None:
    broker = LocalBroker()
    for _ in range(100):
        await broker.dispatch("tax", "e-1", "payroll")
    await broker.dispatch("tax", "e-2", "payroll")
    assert await take(broker, ["tax"], 2) == [("tax", "e-1"), ("tax", "e-2")]


async def test_a_full_queue_drops_and_a_worker_gets_the_oldest() -> None:
    broker = LocalBroker()
    for number in range(local.LIMIT + 10):
        await broker.dispatch("tax", f"e-{number}", "payroll")
    await broker.dispatch("tax", "c-1", "calm")
    got = await take(broker, ["tax"], local.LIMIT + 1)
    assert got.pop(1) == ("tax", "c-1")  # the queue of another agency has room
    assert got[0] == ("tax", "e-0")
    assert got[-1] == ("tax", f"e-{local.LIMIT - 1}")


async def test_rounds_go_on_where_they_were() -> None:
    broker = LocalBroker()
    for agency in ("one", "two", "three"):
        for number in range(2):
            await broker.dispatch("tax", f"{agency}-{number}", agency)
    assert [exchange for _, exchange in await take(broker, ["tax"], 2)] == ["one-0", "two-0"]
    await broker.dispatch("tax", "one-2", "one")
    order = [exchange for _, exchange in await take(broker, ["tax"], 5)]
    assert order == ["three-0", "one-1", "two-1", "three-1", "one-2"]
