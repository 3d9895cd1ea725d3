"""How far this node's clock is off the store's, which is the one by which leases, replays and retention are judged.

Signatures and agreements are judged by the node's own clock, so one that is too far off would refuse what others admit:
such a node says that it is not ready. Nothing is set or corrected here. A crash forgets the offset; the next start
looks once before it listens, and where the store does not answer in time the clock counts as right until a look says
otherwise.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gsb.bus import Bus
from gsb.errors import StoreUnavailable

EVERY = 5.0
"""Seconds between two looks."""
SLOW = 1.0
"""Seconds for an answer above which it tells too little: the clock was read at some moment of them."""


async def watch(bus: Bus) -> None:
    """Until cancelled, let the bus know."""
    while True:
        await measure(bus)
        await asyncio.sleep(EVERY)


async def measure(bus: Bus, steady: Callable[[], float] = time.monotonic) -> None:
    """Compare the clocks once. What could not be asked, or took too long, leaves what was known before."""
    asked, before = steady(), bus.clock()
    try:
        theirs = await bus.shares.clock()
    except StoreUnavailable:
        return
    took = steady() - asked
    if took <= SLOW:
        bus.clock_offset = before + took / 2 - theirs
        bus.metrics.clock_off(bus.clock_offset)
