"""How far the evidence log is behind what is committed, judged from the store alone, so on every node alike.

Whether a recorder is at work, and where, is nobody's business here: what counts is what the store says is published.
A crash forgets since when, which at worst makes a log that is behind count as keeping up for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from gsb.bus import Bus
from gsb.errors import StoreUnavailable
from gsb.store.contract import StoreUnfit
from gsb.store.logs import LogState
from gsb.trouble import Trouble

log = logging.getLogger("gsb.lag")

WATCH = 1.0
"""Seconds between two looks."""


class Lag:
    """That of one bus, as one node sees it. ``steady`` gives seconds that only grow."""

    def __init__(self, bus: Bus, steady: Callable[[], float] = time.monotonic) -> None:
        self._bus, self._steady = bus, steady
        self._alone = asyncio.Lock()
        self._caught_up = self._before = steady()
        """Since when everything was committed that is not published yet; and when a look began that set the goal."""
        self._goal = 0
        """How many entries will be published when all are that were committed before that look."""
        self._known: Mapping[str, tuple[int, int]] = {}
        """How many entries of each log had their places, and how many were published, when it was asked last."""
        self._behind = Trouble(log, "the evidence log keeps up again; new exchanges are admitted", steady)

    async def watch(self) -> None:
        """Until cancelled, let the bus know whether the log keeps up. Raises StoreUnfit."""
        while True:
            await self.measure()
            await asyncio.sleep(WATCH)

    async def logs(self) -> Sequence[LogState]:
        """Where every log stands, for whoever builds on it. Raises StoreUnfit when the store has gone back: nothing
        may be written beside what it does not know any more. Raises StoreUnavailable."""
        async with self._alone:
            return await self._logs()

    async def measure(self, broken: str | None = None) -> None:
        """See how far the log is behind, and whether too far to admit anything; ``broken``: why this node knows that it
        will be. Raises StoreUnfit when the store has gone back."""
        async with self._alone:
            began, now, table = self._steady(), self._bus.clock(), self._bus.catalogue.gsb.log
            try:
                backlog, logs = await self._bus.store.backlog(), await self._logs()
                if self._bus.withheld:
                    self._bus.withheld = await self._bus.store.withheld()
            except StoreUnavailable:
                return  # whoever asks to be admitted hears that it is the store
            self._look(began, sum(each.published for each in logs), backlog.entries)
            age = 0.0
            if backlog.oldest is not None:
                # By the clock, but never more than can be true: it may have been set.
                age = min(max(now - backlog.oldest, 0.0), self._steady() - self._caught_up)
            sizes = (logs[-1].size, logs[-1].published) if logs else (0, 0)
            self._bus.metrics.recorded(*sizes, backlog.entries, age)
            if broken is not None:
                self._is_behind(broken)
            elif backlog.entries > table.behind_entries or age > table.behind_seconds:
                self._is_behind(f"is behind: {backlog.entries} entries are not published, the oldest for {age:.0f} s")
            else:
                self._bus.behind = False
                self._behind.is_over()

    async def _logs(self) -> Sequence[LogState]:
        logs = await self._bus.store.logs()
        known = {each.origin: (each.size, each.published) for each in logs}
        for origin, (size, published) in self._known.items():
            has, has_published = known.get(origin, (0, 0))
            if has < size or has_published < published:
                raise StoreUnfit(
                    f"the store has gone back: of the log {origin} it had {size} entries in order, {published} of them "
                    f"published, and has {has} and {has_published} now. What took its place is behind; give the nodes "
                    "the newer store, or restore"
                )
        self._known = known
        return logs

    def _look(self, began: float, published: int, backlog: int) -> None:
        if published >= self._goal:
            self._caught_up = self._before if backlog else began
            self._goal, self._before = published + backlog, began

    def _is_behind(self, why: str) -> None:
        self._bus.behind = True
        self._behind.is_there(
            f"the evidence log {why}; new exchanges are answered 503 recorder_behind, and service resumes by itself"
        )
