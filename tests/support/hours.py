"""Hours in a moment: an event loop whose time is a number, which leaps to the next timer when nothing else is to do.

For code that waits by the event loop's clock alone. What comes from outside (sockets, threads) must not be waited for:
time would leap past it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Leaping(selectors.DefaultSelector):
    """Waits for nothing, and says how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everything waits for something that no timer brings"
            self.passed += max(timeout, 0.0)
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(leaping := _Leaping())
        self._leaping = leaping

    def time(self) -> float:
        return self._leaping.passed


def in_a_moment(work: Coroutine[Any, Any, T]) -> T:
    """What the work answers, with none of its waits waited for."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)
