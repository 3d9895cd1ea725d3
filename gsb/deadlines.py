"""Many waits of the same length under one timer: whoever began first is due first.

What is waited for nearly always comes in time, so what counts is how cheap it is to begin and to end a wait; a timer
of the event loop for each costs several times as much. A crash means nothing here: nothing is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType


class Deadlines:
    """Waits of so many ``seconds`` each. All calls come from one event loop."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: dict[Callable[[], object], float] = {}
        """What is done when it is due and when that is, the first in front."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> Limit:
        """For one stretch of work of the running task, which begins now."""
        return Limit(self)

    def call(self, act: Callable[[], object]) -> float:
        """Have it done when the time is over, unless it is ``forget``-ten before; returns when that will be, by the
        event loop's clock."""
        loop = asyncio.get_running_loop()
        at = loop.time() + self._seconds
        self._ends[act] = at
        if self._timer is None:
            self._timer = loop.call_at(at, self._due, loop)
        return at

    def forget(self, act: Callable[[], object]) -> None:
        self._ends.pop(act, None)

    def _due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, now = None, loop.time()
        while self._ends:
            act, at = next(iter(self._ends.items()))
            if at > now:
                self._timer = loop.call_at(at, self._due, loop)
                return
            del self._ends[act]
            act()


class Limit:
    """What ``asyncio.timeout`` does: within its ``with`` the task is cancelled when the time is over, and the
    cancellation becomes TimeoutError; one by somebody else stays what it is."""

    __slots__ = ("_cancelling", "_deadlines", "_task", "at", "expired")

    def __init__(self, deadlines: Deadlines) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be cancelled")
        self._task, self._cancelling = task, task.cancelling()
        self.expired = False
        self._deadlines = deadlines
        self.at = deadlines.call(self._expire)
        """When the time is over, by the event loop's clock."""

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()

    def __enter__(self) -> None:
        """It began when it was made."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self.expired:
            self._deadlines.forget(self._expire)
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
