"""A circuit breaker: a core system that is down is left alone for a while instead of being asked in vain.

Closed: every call passes. After ``FAILURES`` failures in a row it opens, and no call passes for a while. Then one call,
the probe, passes: if it succeeds the breaker closes, else it opens again for twice as long. It does no I/O, keeps no
timer and is forgotten in a crash, which costs a few calls in vain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

FAILURES = 5
FIRST = 1.0
"""Seconds for which it opens the first time."""
LONGEST = 60.0


class Passage(NamedTuple):
    """One call that was let through. Its result counts only for the period in which it passed."""

    period: int
    probe: bool


class Breaker:
    """One system's breaker. ``clock`` gives seconds that only grow."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures = 0
        self._pause = FIRST
        self._open_until: float | None = None
        self._probing = False
        self._period = 0

    @property
    def is_open(self) -> bool:
        """Open, or waiting for what its probe tells."""
        return self._open_until is not None

    @property
    def state(self) -> str:
        """``closed``, ``open``, or ``half_open``: the pause is over, and the next call is the probe or one runs."""
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    def wait(self) -> float | None:
        """Seconds until a call may pass; None if one may pass now."""
        if self._open_until is None:
            return None
        left = self._open_until - self._clock()
        if left > 0:
            return left
        return FIRST if self._probing else None

    def enter(self) -> Passage:
        """Let one call through, which only happens while ``wait`` is None; tell its result exactly once."""
        self._probing = self.is_open
        return Passage(self._period, self._probing)

    def succeeded(self, passage: Passage) -> bool:
        """The system answered, whatever it said. True if this closed the breaker."""
        if passage.period != self._period:
            return False
        self._failures = 0
        if not passage.probe:
            return False
        self._period += 1
        self._open_until, self._probing, self._pause = None, False, FIRST
        return True

    def failed(self, passage: Passage) -> bool:
        """The system could not be reached or did not answer. True if this opened a closed breaker."""
        if passage.period != self._period:
            return False
        self._failures += 1
        if passage.probe:
            self._pause = min(self._pause * 2, LONGEST)
            self._open()
            return False
        if self._failures < FAILURES:
            return False
        self._open()
        return True

    def cancelled(self, passage: Passage) -> None:
        """The call was given up before it told anything; if it was the probe, another may be."""
        if passage.period == self._period and passage.probe:
            self._probing = False

    def trip(self) -> None:
        """Open it at once: the system is known to be down."""
        self._open()

    def _open(self) -> None:
        self._period += 1
        self._failures = 0
        self._probing = False
        self._open_until = self._clock() + self._pause
