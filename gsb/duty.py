"""Whose duty it is to keep the evidence log: one recorder's at a time, by a lease that it renews.

Whoever holds the lease knows from its own steady clock until when, counted from before it asked; so a process that was
stopped and goes on later knows at once that its time may be over, without asking anybody. A whole machine that was
halted, clocks and all, believes in the rest of its lease for as long as that is. The lease is no lock: what keeps the
log one log is that the store compares before it gives places or publishes. A crash lets the lease run out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from gsb.errors import StoreUnavailable
from gsb.shares.contract import Shares

log = logging.getLogger("gsb.duty")

NAME = "recorder"
LEASE = 5.0
"""Seconds after which another recorder may take over from one that is silent: far fewer than ``log.behind_seconds``
usually are, so that gateways go on admitting meanwhile."""
RENEW = LEASE / 5


class Duty:
    """That of one node. ``steady`` gives seconds that only grow, also while the process is stopped."""

    def __init__(self, shares: Shares, node: str, steady: Callable[[], float] = time.monotonic) -> None:
        self._shares, self._node, self._steady = shares, node, steady
        self._number: int | None = None
        self._until = float("-inf")

    def fence(self) -> int | None:
        """The number of this node's time as the recorder, another one each time; None while it is not its duty."""
        return self._number if self._steady() < self._until else None

    def held(self) -> bool:
        return self.fence() is not None

    async def take(self) -> None:
        """Take the duty, or keep it, if no other node has it. Raises StoreUnavailable; then it ends when it would."""
        asked = self._steady()
        fence = await self._shares.lease(NAME, self._node, LEASE)
        self._number, self._until = (None, float("-inf")) if fence is None else (fence.number, asked + LEASE)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(RENEW)
            had = self._number
            with suppress(StoreUnavailable):
                await self.take()
            if self._number != had:
                text = "this node stands by as a recorder" if self._number is None else "this node is the recorder now"
                log.info(text, extra={"facts": {"node": self._node, "fence": self._number}})

    async def leave(self) -> None:
        """Let another node take over at once. It has ended on this one whether or not the store hears of it."""
        self._until = float("-inf")
        with suppress(StoreUnavailable):
            await self._shares.release(NAME, self._node)
