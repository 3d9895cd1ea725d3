"""Places at core systems: how many calls of each this node may have at once.

A node that is alone has as many as the system bears. Workers beside each other divide them (``gsb.shares.division``):
each says what it needs, a few times a second, and at once when it wants the first one more. What it has, it has for a
time that outlasts any call that begins in it. So a node that was killed or cut off calls no more by the time others
have its places, and one that was stopped and goes on begins nothing before it has places again; the calls that it had
begun end by their time-out. A crash leaves places that run out.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from gsb.catalogue import SystemInfo
from gsb.errors import StoreUnavailable
from gsb.shares.contract import Need, Shares, Slots

PREPARE = 4.0
"""Seconds that a call waits for a place, and again for the probe of a system that was down.

Both come before the adapter's own time and are known to send nothing, but the exchange's lease is running already.
"""
BEAT, REST = 0.4, 0.05
"""Seconds between two looks for places, and at least that many when one is wanted at once."""
SPARE = 12.0
"""Seconds for which a node may begin calls although it could not ask again."""


class Places:
    """The places of one system, all of them this node's. Who waited longest is first."""

    def __init__(self, limit: int) -> None:
        self._had = limit
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """How many calls this node may begin at once."""
        return self._had

    def full(self) -> bool:
        return self._busy >= self.limit

    def room(self, busy: int) -> bool:
        """Whether one more may begin beside so many; if not, it is wanted."""
        if busy < self.limit:
            return True
        self._want()
        return False

    def take(self) -> bool:
        """Take a place if one is free at once; then ``release`` must follow, else ``wait``."""
        if self._waiting or self.full():
            return False
        self._busy += 1
        return True

    async def wait(self) -> None:
        """Returns with a place; ``release`` must follow."""
        self._waiting.append(given := asyncio.get_running_loop().create_future())
        self._want()
        try:
            await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled():
                self.release()
            else:
                with suppress(ValueError):  # it may have been passed over already
                    self._waiting.remove(given)
            raise

    def release(self) -> None:
        self._busy -= 1
        self._give()

    def _give(self) -> None:
        """What is free to those who wait."""
        while self._waiting and not self.full():
            given = self._waiting.popleft()
            if not given.done():  # else whoever waited was cancelled
                self._busy += 1
                given.set_result(None)

    def _want(self) -> None:
        """One more is wanted: nobody has any to give."""


class SharedPlaces(Places):
    """The places that this node has at one system. ``soon`` is called when the first one more is wanted."""

    def __init__(self, steady: Callable[[], float], soon: Callable[[], None]) -> None:
        super().__init__(0)
        self._steady, self._soon = steady, soon
        self._until = float("-inf")
        """When nothing begins any more in what is had."""
        self._wanted = self._asking = False
        self._told = Need(0, 0, hungry=False, seconds=0.0)

    @property
    def limit(self) -> int:
        if self._steady() >= self._until:
            return 0
        # What was not said to be busy may be another node's before the answer is here.
        return min(self._had, self._told.busy) if self._asking else self._had

    def _want(self) -> None:
        if self._asking:
            return  # the answer may be enough
        self._wanted = True
        if not self._told.hungry:
            self._soon()

    def need(self, system: SystemInfo) -> Need:
        """What is needed now."""
        seconds = system.timeout + PREPARE + SPARE
        self._told = Need(system.concurrency, self._busy, self._wanted or bool(self._waiting), seconds)
        self._wanted, self._asking = False, True
        return self._told

    def have(self, slots: Slots, asked: float) -> None:
        """What was given when it was asked for at that time."""
        self._had, self._asking = slots.calls, False
        self._until = asked + slots.seconds - self._told.seconds + SPARE
        self._give()
        if self._waiting:
            self._want()


class Dealer:
    """The places of one worker node among several."""

    def __init__(
        self,
        shares: Shares,
        node: str,
        systems: Callable[[], Iterable[SystemInfo]],
        changed: Callable[[], None],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """``systems`` are those that the node works for by now; ``changed`` is called when there may be more room."""
        self._shares, self._node, self._systems, self._changed = shares, node, systems, changed
        self._steady = steady
        self._places: dict[str, SharedPlaces] = {}
        self._wanted = asyncio.Event()

    def places(self, system: SystemInfo) -> SharedPlaces:
        """The system's places, the same ones however often its adapter is opened anew."""
        return self._places.setdefault(system.id, SharedPlaces(self._steady, self._wanted.set))

    async def run(self) -> None:
        """Until cancelled; then every place is given back."""
        try:
            while True:
                with suppress(StoreUnavailable):  # which the store has told; places run out
                    await self.look()
                await asyncio.sleep(REST)
                with suppress(TimeoutError):
                    async with asyncio.timeout(BEAT - REST):
                        await self._wanted.wait()
        finally:
            with suppress(StoreUnavailable):
                await self._shares.leave(self._node, frozenset(self._places))

    async def look(self) -> None:
        """Say what is needed, and take what is given."""
        self._wanted.clear()
        asked, systems = self._steady(), list(self._systems())
        needs = {system.id: self.places(system).need(system) for system in systems}
        for system, slots in (await self._shares.slots(self._node, needs)).items():
            self._places[system].have(slots, asked)
        self._changed()
