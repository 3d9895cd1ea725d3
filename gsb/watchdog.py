"""Tells which adapter keeps the event loop from turning: while it does, nobody else's exchange moves.

A thread beside the loop asks it for a sign of life and, when none comes, looks at what the loop's thread is doing. Time
in which the machine gave that thread no processor is nobody's fault and does not count. It stops nothing; a crash of it
costs the warning alone.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NamedTuple

LIMIT = 0.05
"""Seconds for which an adapter may keep the loop to itself."""
TICK = 0.025
FRAMES: Callable[[], dict[int, FrameType]] = vars(sys)["_current_frames"]
"""What each thread is doing (https://docs.python.org/3/library/sys.html#sys._current_frames)."""


class Blocked(NamedTuple):
    """One time that the loop was kept from turning."""

    adapter: str
    place: str
    """File, line and function in the adapter's own code."""


@dataclass(slots=True)
class _Asked:
    """The last time that the loop was asked for a sign of life."""

    at: float
    starved: float
    """Seconds, until then, that its thread was ready to run and had no processor."""
    answered: bool = False
    told: bool = False


class Watchdog:
    """Watches the event loop in which it is started. ``tell`` is called in the watching thread, once each time but of
    each adapter not again within ``every`` seconds."""

    def __init__(
        self, tell: Callable[[Blocked], None], *, limit: float = LIMIT, tick: float = TICK, every: float = 60.0
    ) -> None:
        self._tell, self._limit, self._tick, self._every = tell, limit, tick, every
        self._told: dict[str, float] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.adapters: Mapping[Path, str] = {}
        """The names of adapters by the folder in which their code lies."""

    def start(self) -> None:
        """Once, in the loop's own thread."""
        loop, native = asyncio.get_running_loop(), threading.get_native_id()
        watched = (loop, threading.get_ident(), Path(f"/proc/self/task/{native}/schedstat"))
        self._thread = threading.Thread(target=self._watch, args=watched, name="gsb-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int, schedule: Path) -> None:
        asked: _Asked | None = None
        while not self._stopped.wait(self._tick):
            if asked is None or asked.answered:
                asked = _Asked(time.perf_counter(), _starved(schedule))
                try:
                    loop.call_soon_threadsafe(setattr, asked, "answered", True)
                except RuntimeError:
                    return  # the loop is closed
            elif not asked.told and _late(asked, schedule) > self._limit:
                asked.told = True
                blocked = self._who(FRAMES().get(thread))
                if blocked is not None and asked.at >= self._told.get(blocked.adapter, 0.0):
                    self._told[blocked.adapter] = asked.at + self._every
                    self._tell(blocked)

    def _who(self, frame: FrameType | None) -> Blocked | None:
        """Whose code is at work, however deep in a library."""
        while frame is not None:
            file = Path(frame.f_code.co_filename)
            for folder, name in self.adapters.items():
                if file.is_relative_to(folder):
                    return Blocked(name, f"{file.relative_to(folder)}:{frame.f_lineno}:{frame.f_code.co_name}")
            frame = frame.f_back
        return None


def _late(asked: _Asked, schedule: Path) -> float:
    return time.perf_counter() - asked.at - (_starved(schedule) - asked.starved)


def _starved(schedule: Path) -> float:
    """Seconds that a thread waited for a processor (Linux, Documentation/scheduler/sched-stats: the second number)."""
    try:
        return int(schedule.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0  # this machine does not say
