"""The time, as adapters are given it: so that a test, a recording and its replay can set it.

It knows nothing of the bus. A crash means nothing: nothing is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Two clocks: one for dates, one for how long something takes."""

    now: Callable[[], float] = time.time
    """Seconds since the epoch (UTC), which somebody may set back."""
    steady: Callable[[], float] = time.monotonic
    """Seconds since whenever, which only grow."""
