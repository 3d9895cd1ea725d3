"""What does not work for a while: told once in the log when it begins, with what to do, and once when it ends.

It decides nothing and keeps nothing that matters. A crash means that the end is not told.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

EVERY = 60.0
"""Seconds at least between two times that the same trouble is told, if it comes and goes."""


class Trouble:
    """One kind of trouble. ``over`` is what is said at its end; ``steady`` gives seconds that only grow.

    Whoever tries says each time how it went; from one thread at a time.
    """

    def __init__(self, log: logging.Logger, over: str, steady: Callable[[], float] = time.monotonic) -> None:
        self._log, self._over, self._steady = log, over, steady
        self._since: float | None = None
        self._told_at = -EVERY
        self._told = False

    @property
    def there(self) -> bool:
        """Whether it did not work at the last try."""
        return self._since is not None

    def is_there(self, what: str) -> None:
        """It did not work; ``what`` says what, why, and what to do."""
        now = self._steady()
        if self._since is None:
            self._since = now
        if not self._told and now >= self._told_at + EVERY:
            self._told, self._told_at = True, now
            self._log.error(what)

    def is_over(self) -> None:
        """It worked."""
        if self._told and self._since is not None:
            lasted = round(self._steady() - self._since, 1)
            self._log.warning(self._over, extra={"facts": {"seconds": lasted}})
        self._since, self._told = None, False
