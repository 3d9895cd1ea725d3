"""Turns: the bus works for agencies in rounds, so that what one floods it with waits behind that agency's own calls.

A call is counted from the moment its sender is known, and whatever costs more than knowing the sender is done in a
turn. An agency that wants few turns at once, a calm one, has them at once. One that wants more floods the bus: it may
have every turn as long as no calm one is there, and then only one at a time, between theirs, so that their calls find a
bus that has hardly begun anything else. Who floods together has turns in rounds. Nothing is decided here about what is
allowed, and nothing is kept: a crash loses who waited, and they ask again.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import cast

from gsb.config import Limits
from gsb.errors import Busy

THERE = 10.0
"""Seconds after its last turn for which a calm agency counts as there: it shall find room when it calls again."""
AGES = 0.01
"""Seconds after which one that floods has a turn although calm ones are at work: it is slowed, not stopped."""


@dataclass(slots=True)
class _Member:
    """One agency. There are as many as in the configuration, so nobody needs to clear them away."""

    calls: int = 0
    """In flight."""
    working: int = 0
    """Turns that it has now."""
    calm: int = 0
    """Of these, those that it was given while it was calm."""
    served_at: float = 0.0
    """When it was last given a turn while it flooded."""
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class _AtOnce:
    """To be awaited where there is nothing to wait for: nearly every turn begins at once, and each one ends so."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        return _NO_STEPS


_NO_STEPS = cast(Generator[None, None, None], iter(()))
_AT_ONCE = _AtOnce()


class Turn:
    """The turns of an agency, taken and given back; each ``async with`` is one."""

    __slots__ = ("_agency", "_gate")

    def __init__(self, gate: Gate, agency: str) -> None:
        self._gate, self._agency = gate, agency

    def __aenter__(self) -> Awaitable[None]:
        return _AT_ONCE if self._gate.enter(self._agency) else self._gate.wait(self._agency)

    def __aexit__(self, *exc: object) -> Awaitable[None]:
        self._gate.leave(self._agency)
        return _AT_ONCE


class Counted:
    """One call of an agency, counted while the body of its ``with`` runs."""

    __slots__ = ("_member", "_most")

    def __init__(self, member: _Member, most: int) -> None:
        self._member, self._most = member, most

    def __enter__(self) -> None:
        if self._member.calls >= self._most:
            raise Busy("your agency has as many calls in flight as one agency may have")
        self._member.calls += 1

    def __exit__(self, *exc: object) -> None:
        self._member.calls -= 1


class Gate:
    """Who may work, and who waits. All calls come from one event loop.

    ``limits`` are asked for at each use, since a reload may change them; ``clock`` gives seconds that only grow.
    """

    def __init__(self, limits: Callable[[], Limits], clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._members: defaultdict[str, _Member] = defaultdict(_Member)
        self._working = 0
        self._calm = 0
        self._rounds: deque[str] = deque()
        """Agencies of whom somebody waits, the one to be served next in front."""
        self._last = ""
        self._last_at = self._other_at = -THERE
        """Which calm agency was there last, and when; and when any other was."""

    @property
    def working(self) -> int:
        """Turns that are taken now."""
        return self._working

    def call(self, agency: str) -> Counted:
        """Count one call while it lasts; entering it raises Busy beyond the agency's own limit."""
        return Counted(self._members[agency], self._limits().in_flight_agency)

    def turn(self, agency: str) -> Turn:
        """``async with`` it: the body runs when it is the agency's turn."""
        return Turn(self, agency)

    def enter(self, agency: str) -> bool:
        """Take a turn if the agency may have one at once; then ``leave`` must follow, else ``wait``."""
        member, limits, now = self._members[agency], self._limits(), self._clock()
        wanted = member.working + len(member.waiting) + 1
        if wanted <= limits.calm:
            self._note(agency, now)
        return not member.waiting and self._give(agency, member, wanted, limits, now)

    async def wait(self, agency: str) -> None:
        """Returns when it is the agency's turn; ``leave`` must follow."""
        member = self._members[agency]
        turn = asyncio.get_running_loop().create_future()
        if not member.waiting:
            self._rounds.append(agency)
        member.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(agency)
            raise

    def leave(self, agency: str) -> None:
        """End the turn and give what is free now to those who wait, one turn to each agency in each round."""
        member = self._members[agency]
        member.working -= 1
        self._working -= 1
        if member.calm:
            member.calm -= 1
            self._calm -= 1
        blocked = 0
        while blocked < len(self._rounds):
            blocked = 0 if self._serve(self._rounds.popleft()) else blocked + 1

    def _serve(self, agency: str) -> bool:
        """Give the agency one turn if it may have one; it goes to the end of the round as long as somebody waits.

        False if that changed nothing.
        """
        member = self._members[agency]
        while member.waiting and member.waiting[0].done():
            member.waiting.popleft()  # who waited was cancelled
        wanted = member.working + len(member.waiting)
        served = bool(member.waiting) and self._give(agency, member, wanted, self._limits(), self._clock())
        if served:
            member.waiting.popleft().set_result(None)
        if member.waiting:
            self._rounds.append(agency)
            return served
        return True

    def _give(self, agency: str, member: _Member, wanted: int, limits: Limits, now: float) -> bool:
        """Give the agency, which wants so many turns in all, one more if it may have it."""
        if self._working >= limits.turns:
            return False
        if wanted <= limits.calm:
            member.calm += 1
            self._calm += 1
        else:
            others = self._other_at if agency == self._last else self._last_at
            if now < others + THERE and (member.working or (self._calm and now < member.served_at + AGES)):
                return False
            member.served_at = now
        member.working += 1
        self._working += 1
        return True

    def _note(self, agency: str, now: float) -> None:
        if agency != self._last:
            self._last, self._other_at = agency, self._last_at
        self._last_at = now
