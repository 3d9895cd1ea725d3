"""Many waits of the same length under one timer: whoever began first is due first.

What is waited for nearly always comes in time, so what counts is how cheap it is to begin and to end a wait; a timer
of the event loop for each costs several times as much. A crash means nothing here: nothing is kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType


class Due:
    """One wait: what is done when it is over, and when that is, by the event loop's clock."""

    __slots__ = ("_waits", "act", "at")

    def __init__(self, waits: dict[Due, None], act: Callable[[], object], at: float) -> None:
        self._waits, self.act, self.at = waits, act, at
        waits[self] = None

    def cancel(self) -> None:
        self._waits.pop(self, None)


class Deadlines:
    """Waits of so many ``seconds`` each. All calls come from one event loop."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waits: dict[Due, None] = {}
        """The first that is due in front."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """Looked up once: to ask which loop is running costs a system call."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def begin(self) -> Limit:
        """For one stretch of work of the running task, which begins now."""
        return Limit(self)

    def call(self, act: Callable[[], object]) -> Due:
        """Have it done when the time is over, unless that is cancelled before."""
        loop = self.loop
        due = Due(self._waits, act, loop.time() + self._seconds)
        if self._timer is None:
            self._timer = loop.call_at(due.at, self._look, loop)
        return due

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, now = None, loop.time()
        while self._waits:
            due = next(iter(self._waits))
            if due.at > now:
                self._timer = loop.call_at(due.at, self._look, loop)
                return
            due.cancel()
            due.act()


class Limit:
    """What ``asyncio.timeout`` does: within its ``with`` the task is cancelled when the time is over, and the
    cancellation becomes TimeoutError; one by somebody else stays what it is."""

    __slots__ = ("_cancelling", "_due", "_task", "expired")

    def __init__(self, deadlines: Deadlines) -> None:
        task = asyncio.current_task(deadlines.loop)
        if task is None:
            raise RuntimeError("only a task can be cancelled")
        self._task, self._cancelling = task, task.cancelling()
        self.expired = False
        self._due = deadlines.call(self._expire)

    @property
    def at(self) -> float:
        """When the time is over, by the event loop's clock."""
        return self._due.at

    def _expire(self) -> None:
        self.expired = True
        self._task.cancel()

    def __enter__(self) -> None:
        """It began when it was made."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self.expired:
            self._due.cancel()
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
