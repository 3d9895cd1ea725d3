"""How far something is that may take long: on a terminal one line that moves, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS = 5.0
"""Between two lines where nobody watches."""
AT_ONCE = 0.2
"""Between two changes of the line that moves."""

Tell = Callable[[str, int, int], None]


@contextmanager
def progress() -> Iterator[Tell]:
    """Is told of what, and how much of how much is done (0: nobody knows of how much)."""
    moves = sys.stderr.isatty()
    told = time.monotonic()

    def tell(what: str, done: int, whole: int) -> None:
        nonlocal told
        if time.monotonic() - told < (AT_ONCE if moves else SECONDS):
            return
        told = time.monotonic()
        line = f"{what}: {100 * done // whole} %" if whole else f"{what}: {done:,} bytes"
        sys.stderr.write(f"\r{line}\x1b[K" if moves else f"{line}\n")
        sys.stderr.flush()

    yield tell
    if moves:
        sys.stderr.write("\r\x1b[K")
