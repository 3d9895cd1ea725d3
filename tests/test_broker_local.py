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
        await broker.dispatch("tax", "e-1")
    await broker.dispatch("tax", "e-2")
    assert await take(broker, ["tax"], 2) == [("tax", "e-1"), ("tax", "e-2")]


async def test_a_full_queue_drops_and_a_worker_gets_the_oldest() -> None:
    broker = LocalBroker()
    for number in range(local.LIMIT + 10):
        await broker.dispatch("tax", f"e-{number}")
    got = await take(broker, ["tax"], local.LIMIT)
    assert got[0] == ("tax", "e-0")
    assert got[-1] == ("tax", f"e-{local.LIMIT - 1}")
