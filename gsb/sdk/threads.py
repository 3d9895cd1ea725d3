"""Code that blocks, run beside the event loop in threads, never more of them than the system has places.

A thread cannot be stopped: when its call is given up, it ends by itself and nobody hears what it returns. Until then it
keeps its place, so a library that hangs costs at most these threads. They are daemons: one that never returns does not
keep the process from ending.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

from gsb.sdk.errors import Unavailable

T = TypeVar("T")
P = ParamSpec("P")


class Threads:
    """At most ``most`` threads at once. All calls come from one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.busy = 0
        """Threads at work, those whose call was given up among them."""

    async def run(self, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """What ``work`` returns or raises. Raises ``Unavailable`` if every thread is taken: then nothing was begun."""
        if self.busy >= self._most:
            raise Unavailable("every thread is still at work", sent=False, after=1.0)
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[T] = loop.create_future()
        context = copy_context()

        def body() -> None:
            outcome: Callable[[], None]
            try:
                outcome = partial(self._returned, ended, context.run(work, *given, **named))
            except SystemExit:
                outcome = partial(self._failed, ended, RuntimeError("the thread was ended"))
            except Exception as error:
                outcome = partial(self._failed, ended, error)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(outcome)

        self.busy += 1
        try:
            threading.Thread(target=body, name="gsb-adapter", daemon=True).start()
        except RuntimeError as error:  # the machine gives no more threads
            self.busy -= 1
            raise Unavailable("no thread can be started", sent=False, after=1.0) from error
        return await ended

    def _returned(self, ended: asyncio.Future[T], result: T) -> None:
        self.busy -= 1
        if not ended.done():
            ended.set_result(result)

    def _failed(self, ended: asyncio.Future[Any], error: Exception) -> None:
        self.busy -= 1
        if not ended.done():
            # A future cannot carry StopIteration.
            ended.set_exception(RuntimeError("StopIteration") if isinstance(error, StopIteration) else error)
