"""The broker of one machine: queues in this process. A crash loses them all, and the sweeper dispatches again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection

from gsb.broker.contract import Delivery

LIMIT = 2_000
"""Ids queued for one agency at one system; beyond it a dispatch is dropped and left to the sweeper, so that memory is
bounded and an agency that piles up work loses nobody else's dispatches."""


def _nothing() -> None:
    """A queue in memory has nothing to acknowledge."""


class LocalBroker:
    """See ``gsb.broker.contract.Broker``. All calls come from one event loop."""

    def __init__(self) -> None:
        self._queues: dict[str, dict[str, dict[str, None]]] = {}
        """By system and agency, the agency whose turn it is in front. An id stands at most once in its queue, so that
        repeats do not pile up."""
        self._consumers: list[tuple[Collection[str], asyncio.Event]] = []
        self._callbacks: list[Callable[[str], None]] = []
        self._closed = False

    async def open(self) -> None:
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        for _, changed in self._consumers:
            changed.set()

    async def dispatch(self, system: str, exchange: str, agency: str) -> None:
        queue = self._queues.setdefault(system, {}).setdefault(agency, {})
        if len(queue) >= LIMIT:
            return
        queue[exchange] = None
        for systems, changed in self._consumers:
            if system in systems:
                changed.set()

    async def deliveries(self, systems: Collection[str]) -> AsyncIterator[Delivery]:
        consumer = (systems, asyncio.Event())
        self._consumers.append(consumer)
        try:
            while not self._closed:
                found = [delivery for system in systems if (delivery := self._take(system))]
                for delivery in found:
                    yield delivery
                if not found:
                    consumer[1].clear()
                    await consumer[1].wait()
        finally:
            self._consumers.remove(consumer)

    def _take(self, system: str) -> Delivery | None:
        """The oldest of the agency whose turn it is, which then goes to the end of the round."""
        agencies = self._queues.get(system)
        if not agencies:
            return None
        agency = next(iter(agencies))
        queue = agencies.pop(agency)
        exchange = next(iter(queue))
        del queue[exchange]
        if queue:
            agencies[agency] = queue
        return Delivery(system, exchange, agency, _nothing)

    def reached(self) -> bool:
        return True

    async def wake(self, exchange: str) -> None:
        for callback in self._callbacks:
            callback(exchange)

    def on_wake(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)
