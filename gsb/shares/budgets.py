"""Budgets of a gateway that is one of several: each draws from what all share, and they keep to the rate together.

What is asked for while a draw is on its way goes into the next one, so there is at most one at a time, however many
calls wait for it. Where many come a draw takes a small piece more, for the next calls, which then wait for nothing;
what is not used of it soon is given back. A budget that is known to be used up is refused without asking. A gateway
that dies takes a piece with it; without the store nothing is drawn, as nothing could be accepted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from gsb.config import Rate
from gsb.errors import StoreUnavailable
from gsb.limits import Budgets
from gsb.policy import Grant
from gsb.shares.contract import Draw, Drawn, Shares

AHEAD = 0.1
"""Seconds for which a piece should last."""
PART = 20
"""A piece is this part of a burst at most, and so nothing where the burst is smaller."""
REST = 0.05
"""Seconds at most for which a budget that was found used up is not asked again, so that a piece comes together."""
KEEP = 0.5
"""Seconds after which a piece that was not used is given back."""


@dataclass(slots=True)
class _Budget:
    """One budget, as this gateway has it."""

    name: str
    grant: Grant
    rate: Rate
    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    """Calls that the next draw is for."""
    piece: int = 0
    """Exchanges drawn and not yet used."""
    used: int = 0
    """Since the last draw."""
    drawn_at: float = 0.0
    rests_until: float = float("-inf")

    @property
    def interval(self) -> float:
        return 60 / self.rate.per_minute

    def draw(self, more: int) -> Draw:
        """For those who wait and, beyond what is here, for so many more."""
        slack = self.interval * (self.rate.burst - 1)
        return Draw(len(self.waiting) + more - self.piece, self.interval, slack)

    def next_piece(self, steady: float) -> int:
        """How many may be asked for next, as fast as they came until now."""
        pace = self.used / max(steady - self.drawn_at, AHEAD)
        return min(int(pace * AHEAD), self.rate.burst // PART) if self.waiting else 0


class SharedBudgets(Budgets):
    """See ``gsb.limits.Budgets``. ``clock`` is the one by which calls are told the time; ``steady`` only grows."""

    def __init__(
        self, shares: Shares, clock: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._shares, self._clock, self._steady = shares, clock, steady
        self._budgets: dict[str, _Budget] = {}
        self._asked: dict[str, _Budget] = {}
        """Those that the next draw is for."""
        self._drawing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        """When to look for pieces that were not used."""

    def take(self, grant: Grant, now: float) -> Awaitable[None] | None:
        if grant.rate is None:
            return None
        budget = self._budget(grant, grant.rate)
        if budget.piece > 0:
            budget.piece -= 1
            budget.used += 1
            return None
        self.room(grant, grant.rate, now)
        if self._steady() < budget.rests_until:
            raise self.refusal(grant, grant.rate, now)
        budget.waiting.append(waiting := asyncio.get_running_loop().create_future())
        self._ask(budget)
        return waiting

    def _budget(self, grant: Grant, rate: Rate) -> _Budget:
        parts = (grant.agreement, grant.consumer, grant.service, grant.purpose, f"{rate.per_minute}/{rate.burst}")
        budget = self._budgets.get(name := " ".join(parts))
        if budget is None:
            budget = self._budgets[name] = _Budget(name, grant, rate)
        return budget

    def _ask(self, budget: _Budget) -> None:
        self._asked[budget.name] = budget
        if self._drawing is None:
            self._drawing = asyncio.create_task(self._draw(), name="gsb-budgets")

    async def _draw(self) -> None:
        """Draw until nobody waits any more."""
        try:
            while self._asked:
                asked, self._asked = list(self._asked.values()), {}
                await self._drawn(asked)
        finally:
            self._drawing = None

    async def _drawn(self, asked: list[_Budget]) -> None:
        steady, draws, served = self._steady(), {}, []
        for budget in asked:
            draws[budget.name] = budget.draw(budget.next_piece(steady))
            served.append((budget, budget.waiting, budget.piece))
            # Nobody uses what is perhaps given back at this moment.
            budget.waiting, budget.piece, budget.used, budget.drawn_at = [], 0, 0, steady
        try:
            with suppress(StoreUnavailable):
                drawn = await self._shares.draw(draws)
                for budget, waiting, piece in served:
                    self._serve(budget, waiting, piece, drawn[budget.name])
        finally:
            for _, waiting, _ in served:
                for each in waiting:
                    if not each.done():
                        each.set_exception(StoreUnavailable())

    def _serve(self, budget: _Budget, waiting: list[asyncio.Future[None]], piece: int, drawn: Drawn) -> None:
        now = self._clock()
        self.learn(budget.grant, budget.rate, drawn.ahead, now)
        budget.piece += piece + drawn.exchanges
        if budget.piece < len(waiting):  # what was given back is no refusal
            budget.rests_until = self._steady() + min(budget.rate.burst // PART * budget.interval, REST)
        for each in waiting:
            if each.done():
                continue  # whoever called went away meanwhile
            if budget.piece > 0:
                budget.piece -= 1
                budget.used += 1
                each.set_result(None)
            else:
                each.set_exception(self.refusal(budget.grant, budget.rate, now))
        if budget.piece > 0 and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEEP, self._give_back)

    def _give_back(self) -> None:
        self._timer = None
        kept = [budget for budget in self._budgets.values() if budget.piece > 0]
        for budget in kept:
            if self._steady() - budget.drawn_at >= KEEP:
                self._ask(budget)
        if kept:
            self._timer = asyncio.get_running_loop().call_later(KEEP, self._give_back)
