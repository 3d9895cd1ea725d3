"""A node whose clock is set while it runs, and the clock of whoever shares its machine.

    GSB_STEPS=FILE python -m tests.kills.stepped DIR

``time.time`` adds the seconds that the file holds; everything else is ``tests.kills.node``, which is imported only
after that, since much of the bus takes its clock when it is imported.
"""

from __future__ import annotations

import mmap
import os
import runpy
import struct
import time
from collections.abc import Callable
from pathlib import Path

STEPS = "GSB_STEPS"
_SECONDS = struct.Struct("d")


class Steps:
    """How far the clock is ahead, in a file that processes share."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_SECONDS.pack(0.0))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _SECONDS.size)

    @property
    def ahead(self) -> float:
        (seconds,) = _SECONDS.unpack(self._shared[:])
        return float(seconds)

    def set(self, seconds: float) -> None:
        self._shared[:] = _SECONDS.pack(seconds)

    def clock(self, real: Callable[[], float] = time.time) -> Callable[[], float]:
        return lambda: real() + self.ahead


if __name__ == "__main__":
    time.time = Steps(Path(os.environ[STEPS])).clock()
    runpy.run_module("tests.kills.node", run_name="__main__", alter_sys=True)
