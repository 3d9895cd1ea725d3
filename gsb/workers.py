"""Workers: whatever is delivered is performed, in as many places as each system has.

A worker is a task, and is kept when it is done: to make one for each exchange costs more than to begin the exchange.
It survives whatever goes wrong with one. A crash means what it means to ``perform``: leases run out.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

from gsb.broker.contract import Delivery
from gsb.bus import Bus
from gsb.errors import StoreUnavailable
from gsb.perform import perform

log = logging.getLogger("gsb.workers")


class Workers:
    """Those of one node."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[Delivery]] = []
        """Of each worker that has nothing to do, what it waits for."""
        self._busy: Counter[str] = Counter()
        """By system, how many are at work."""
        self._freed = asyncio.Event()
        self.swapped = asyncio.Event()
        """Set when there is another catalogue."""
        self._going = False
        self.let_go_at = float("inf")
        """When what still runs is broken off, in seconds of the event loop's clock; in the past: nothing begins."""

    @property
    def performing(self) -> int:
        """Exchanges at this moment."""
        return self._busy.total()

    async def run(self) -> None:
        """Until cancelled, which breaks off what is being performed: the lease of each exchange makes it due, or
        unknown, after the next start. One slow system never holds up another's deliveries."""
        takers: dict[str, asyncio.Task[None]] = {}
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self.swapped.clear()
                    known = () if self._going else self._bus.catalogue.systems
                    systems = set(filter(self._bus.roles.works_for, known))
                    for gone in takers.keys() - systems:
                        takers.pop(gone).cancel()
                    for new in systems - takers.keys():
                        takers[new] = group.create_task(self._take_for(new))
                    await self.swapped.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def go(self) -> None:
        """Take nothing more, so that other nodes are given it at once; what has begun goes on."""
        self._going = True
        self.swapped.set()

    async def done(self) -> None:
        """Returns when nothing is being performed."""
        while self.performing:
            self._freed.clear()
            await self._freed.wait()

    async def _take_for(self, system: str) -> None:
        """Begin what is delivered, in as many places as the system has by now. Ending it ends nothing that began."""
        clock = asyncio.get_running_loop().time
        async for delivery in self._bus.broker.deliveries([system]):
            while not self._bus.runtime.room(system, self._busy[system]):
                self._freed.clear()
                await self._freed.wait()
            if self._may_begin(system, clock()):  # else the store has it, and whoever sweeps next
                self._give(delivery)

    def look_again(self) -> None:
        """There may be more places than before."""
        self._freed.set()

    def _may_begin(self, system: str, now: float) -> bool:
        """Whether a call that begins now would end before it is broken off, which leaves a write unknown."""
        info = self._bus.catalogue.systems.get(system)
        return now + (info.timeout if info else 0.0) < self.let_go_at

    def _give(self, delivery: Delivery) -> None:
        self._busy[delivery.system] += 1
        if self._idle:
            self._idle.pop().set_result(delivery)
        else:
            self._tasks.add(asyncio.create_task(self._worker(delivery)))

    async def _worker(self, delivery: Delivery) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                await perform(self._bus, delivery.exchange, delivery.system, delivery.agency, delivery.trace)
            except StoreUnavailable:
                log.error("the store did not take an outcome; the lease decides", extra=_names(delivery))
            except Exception:
                # The place where a worker survives whatever went wrong with one exchange: its lease decides.
                log.exception("performing failed", extra=_names(delivery))
            delivery.done()
            self._busy[delivery.system] -= 1
            self._freed.set()
            self._idle.append(more := loop.create_future())
            delivery = await more


def _names(delivery: Delivery) -> dict[str, dict[str, str]]:
    return {"facts": {"exchange": delivery.exchange, "system": delivery.system}}
