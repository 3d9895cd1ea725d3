"""What nodes share: leases with fences, what is left of budgets, slots of core systems, and the store's clock.

Nothing here is the truth about an exchange. Whatever is taken is taken for a time, by the store's clock, so what a
crashed node held comes back by itself. Every verb may be repeated; each is one atomic step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple, Protocol

ROUNDING = 0.001
"""Part of an interval by which a draw may come early: seconds since the epoch are only so exact."""


class Fence(NamedTuple):
    """The number of one holder's time with a lease: each new time has a higher one, also of the same node."""

    number: int


class Draw(NamedTuple):
    """What is asked of one budget (``gsb.limits`` says how budgets count)."""

    exchanges: int
    """How many; fewer than none gives back what was drawn and not used."""
    interval: float
    """Seconds between two exchanges in the long run."""
    slack: float
    """Seconds by which an exchange may come before its time: the burst."""


class Drawn(NamedTuple):
    """What came of a draw."""

    exchanges: int
    """How many of those asked for."""
    ahead: float
    """Seconds by which the use of the budget, all nodes together, is now ahead of time."""


class Need(NamedTuple):
    """What one node needs of a core system."""

    concurrency: int
    """Calls at once that the system bears, of all nodes together."""
    busy: int
    """Calls of this node that run now."""
    hungry: bool
    """Whether this node has more to begin than it has slots for."""
    seconds: float
    """For how long slots are wanted."""


class Slots(NamedTuple):
    """What one node has of a core system."""

    calls: int
    """Those that it may have at once."""
    seconds: float
    """For how long, from the moment before it asked."""


class Shares(Protocol):
    """Errors of every verb: StoreUnavailable. ``node`` names one process, one start of it: no two may share it."""

    alone: ClassVar[bool]
    """Whether no other process can share this: who is alone need not ask."""

    async def open(self) -> None:
        """Make what must be there. The store must be open. Raises StoreUnfit."""

    async def close(self) -> None: ...

    async def clock(self) -> float:
        """The store's clock: seconds since the epoch."""

    async def lease(self, name: str, node: str, seconds: float) -> Fence | None:
        """Take the lease, or keep it for ``seconds`` from now; None while another node holds it. The fence of a holder
        that was in time stays the same; another fence than the one before means that the lease had ended meanwhile."""

    async def release(self, name: str, node: str) -> None:
        """Give the lease back, if this node holds it."""

    async def draw(self, asked: Mapping[str, Draw]) -> Mapping[str, Drawn]:
        """Use budgets, each known by a name that all nodes give it. Each gives what it has, in one step with all others
        who draw from it."""

    async def slots(self, node: str, needs: Mapping[str, Need]) -> Mapping[str, Slots]:
        """Say what this node needs of each system; answers what it has. That may be fewer than are busy: those end, and
        no new one begins.

        What all nodes may have, with what they are still busy with, is never more than the system's concurrency.
        """

    async def leave(self, node: str, systems: frozenset[str]) -> None:
        """Give back every slot of these systems."""
