"""What the nodes of one bus share, as long as they are in one process: in memory.

The rules are those of PostgreSQL's form, without a server. A crash ends everybody who held something.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from gsb.shares.contract import ROUNDING, Draw, Drawn, Fence, Need, Slots
from gsb.shares.division import Held, divide


@dataclass(slots=True)
class _Lease:
    node: str
    fence: int
    until: float


class LocalShares:
    """See ``gsb.shares.contract.Shares``. ``clock`` gives seconds since the epoch."""

    alone: ClassVar[bool] = True

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._leases: dict[str, _Lease] = {}
        self._full_at: dict[str, float] = {}
        """When each budget would be unused again."""
        self._holders: dict[str, Mapping[str, Held]] = {}

    async def open(self) -> None:
        """There is nothing to make."""

    async def close(self) -> None:
        """There is nothing to close."""

    async def clock(self) -> float:
        return self._clock()

    async def lease(self, name: str, node: str, seconds: float) -> Fence | None:
        now = self._clock()
        lease = self._leases.setdefault(name, _Lease(node, 0, now))
        ended = lease.until <= now
        if lease.node != node and not ended:
            return None
        self._leases[name] = _Lease(node, lease.fence + ended, now + seconds)
        return Fence(self._leases[name].fence)

    async def release(self, name: str, node: str) -> None:
        lease = self._leases.get(name)
        if lease is not None and lease.node == node:
            lease.until = self._clock()

    async def draw(self, asked: Mapping[str, Draw]) -> Mapping[str, Drawn]:
        now = self._clock()
        return {name: self._drawn(name, draw, now) for name, draw in asked.items()}

    def _drawn(self, name: str, draw: Draw, now: float) -> Drawn:
        ahead = self._full_at.get(name, now) - now
        if not 0 <= ahead <= draw.slack + 2 * draw.interval:
            ahead = 0.0  # unused for long; or the clock was set back, and nobody shall wait for it to catch up
        count = min(draw.exchanges, max(math.floor((draw.slack - ahead) / draw.interval + ROUNDING) + 1, 0))
        ahead += count * draw.interval
        self._full_at[name] = now + ahead
        return Drawn(count, max(ahead, 0.0))

    async def slots(self, node: str, needs: Mapping[str, Need]) -> Mapping[str, Slots]:
        now, had = self._clock(), {}
        for system, need in needs.items():
            had[system], self._holders[system] = divide(now, node, need, self._holders.get(system, {}))
        return had

    async def leave(self, node: str, systems: frozenset[str]) -> None:
        for system in systems:
            held = self._holders.get(system, {})
            self._holders[system] = {name: each for name, each in held.items() if name != node}
