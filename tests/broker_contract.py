"""What every broker must do, written once: a subclass supplies the maker."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gsb.broker.contract import Broker, Delivery

WITHIN = 60.0
"""Seconds for whatever must happen, on a machine that is busy with other things."""


class BrokerContract(ABC):
    @abstractmethod
    def make(self) -> Broker: ...

    async def kept(self, broker: Broker) -> None:
        """Wait until what was dispatched is where deliveries come from: at once, unless a server takes it."""
        await asyncio.sleep(0)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Broker]:
        broker = self.make()
        await broker.open()
        try:
            yield broker
        finally:
            await broker.close()

    async def test_what_is_dispatched_is_delivered_to_a_worker_of_its_system(self) -> None:
        async with self.opened() as broker:
            await broker.dispatch("tax", "e-1", "payroll")
            await broker.dispatch("hrmis", "e-2", "payroll")
            assert await take(broker, ["hrmis"], 1) == [("hrmis", "e-2")]
            assert await take(broker, ["tax"], 1) == [("tax", "e-1")]

    async def test_one_worker_may_serve_several_systems(self) -> None:
        async with self.opened() as broker:
            for number in range(10):
                await broker.dispatch("tax", f"t-{number}", "payroll")
                await broker.dispatch("hrmis", f"h-{number}", "payroll")
            got = await take(broker, ["tax", "hrmis"], 20)
            assert {exchange for _, exchange in got} == {f"{s}-{n}" for s in "th" for n in range(10)}

    async def test_a_worker_that_waits_is_given_what_comes_later(self) -> None:
        async with self.opened() as broker:
            waiting = asyncio.create_task(take(broker, ["tax"], 1))
            await asyncio.sleep(0)
            await broker.dispatch("tax", "e-1", "payroll")
            assert await waiting == [("tax", "e-1")]

    async def test_two_workers_share_the_work(self) -> None:
        async with self.opened() as broker:
            for number in range(40):
                await broker.dispatch("tax", f"e-{number}", "payroll")
            halves = await asyncio.gather(take(broker, ["tax"], 20), take(broker, ["tax"], 20))
            assert {exchange for half in halves for _, exchange in half} == {f"e-{n}" for n in range(40)}

    async def test_dispatching_without_any_worker_neither_waits_nor_fails(self) -> None:
        async with self.opened() as broker:
            async with asyncio.timeout(WITHIN):
                for number in range(1_000):
                    await broker.dispatch("nobody", f"e-{number}", "payroll")

    async def test_a_slow_worker_of_one_system_does_not_hold_up_another(self) -> None:
        async with self.opened() as broker:
            slow = broker.deliveries(["slow"])
            await broker.dispatch("slow", "s-1", "payroll")
            await broker.dispatch("slow", "s-2", "payroll")
            assert (await anext(aiter(slow))).exchange in ("s-1", "s-2")
            await broker.dispatch("quick", "q-1", "payroll")
            assert await take(broker, ["quick"], 1) == [("quick", "q-1")]
            await slow.aclose()  # type: ignore[attr-defined]

    async def test_agencies_take_turns_in_a_system(self) -> None:
        async with self.opened() as broker:
            for number in range(20):
                await broker.dispatch("tax", f"flood-{number}", "flooder")
            for number in range(3):
                await broker.dispatch("tax", f"calm-{number}", "calm")
            await self.kept(broker)  # who is not there yet has no turn
            first = {exchange for _, exchange in await take(broker, ["tax"], 6)}
            assert {f"calm-{number}" for number in range(3)} < first

    async def test_work_may_be_finished_in_any_order_and_more_than_once(self) -> None:
        async with self.opened() as broker:
            for number in range(10):
                await broker.dispatch("tax", f"e-{number}", "payroll")
            deliveries = broker.deliveries(["tax"])
            async with asyncio.timeout(WITHIN):
                begun = [await anext(aiter(deliveries)) for _ in range(10)]
            for delivery in (*reversed(begun), *begun):
                delivery.done()
            await broker.dispatch("tax", "late", "payroll")
            async with asyncio.timeout(WITHIN):
                assert (await anext(aiter(deliveries))).exchange == "late"
            await deliveries.aclose()  # type: ignore[attr-defined]

    async def test_the_same_exchange_may_be_dispatched_again_once_it_is_finished(self) -> None:
        async with self.opened() as broker:
            for _ in range(3):
                await broker.dispatch("tax", "e-1", "payroll")
                assert await take(broker, ["tax"], 1) == [("tax", "e-1")]

    async def test_a_delivery_names_whose_exchange_it_is(self) -> None:
        async with self.opened() as broker:
            await broker.dispatch("tax", "e-1", "payroll")
            deliveries = broker.deliveries(["tax"])
            async with asyncio.timeout(WITHIN):
                assert (await anext(aiter(deliveries))).agency == "payroll"
            await deliveries.aclose()  # type: ignore[attr-defined]

    async def test_waking_reaches_every_listener_and_nobody_is_fine_too(self) -> None:
        async with self.opened() as broker:
            await broker.wake("nobody-listens")
            heard: asyncio.Queue[str] = asyncio.Queue()
            broker.on_wake(heard.put_nowait)
            await broker.wake("e-1")
            async with asyncio.timeout(WITHIN):
                assert await heard.get() == "e-1"

    async def test_closing_ends_the_deliveries(self) -> None:
        broker = self.make()
        await broker.open()
        waiting = asyncio.create_task(take(broker, ["tax"], 1))
        await asyncio.sleep(0)
        await broker.close()
        async with asyncio.timeout(WITHIN):
            assert await waiting == []

    async def test_closing_waits_for_no_work_and_what_is_finished_later_does_no_harm(self) -> None:
        broker = self.make()
        await broker.open()
        for number in range(2):
            await broker.dispatch("tax", f"e-{number}", "payroll")
        deliveries = broker.deliveries(["tax"])
        async with asyncio.timeout(WITHIN):
            begun = await anext(aiter(deliveries))
            await broker.close()
            assert [each async for each in deliveries] == []
        begun.done()


async def take(broker: Broker, systems: list[str], count: int) -> list[tuple[str, str]]:
    got: list[tuple[str, str]] = []
    async with asyncio.timeout(WITHIN):
        deliveries = broker.deliveries(systems)
        async for delivery in deliveries:
            assert isinstance(delivery, Delivery)
            got.append((delivery.system, delivery.exchange))
            delivery.done()
            if len(got) == count:
                break
        await deliveries.aclose()  # type: ignore[attr-defined]
    return got
