"""What may be missing before a server can be started, where it may listen, and room for what it writes.

Whoever starts servers says what is missing in one line; nothing is installed here.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import SystemRandom

START = 90.0
"""Seconds within which a server must be ready, on a machine that is busy with other things."""

PORTS = range(20_000, 32_768)
"""Where servers listen: Linux takes the ports of outgoing connections from those above, so whoever is started again
finds its port free."""
_given: deque[int] = deque(maxlen=1_000)
"""Those that were given lately: whoever asked may not listen yet."""


class NotInstalled(Exception):
    """The text says what is missing and how to get it."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback where nobody listens now, all different."""
    free: list[int] = []
    for port in SystemRandom().sample(PORTS, len(PORTS)):
        if len(free) == count:
            break
        if port in _given:
            continue
        with socket.socket() as each, suppress(OSError):
            each.bind(("127.0.0.1", port))
            free.append(port)
            _given.append(port)
    return free


@contextmanager
def room(prefix: str, where: Path | None) -> Iterator[Path]:
    """A new folder in ``where`` (None: where temporary files lie), which is removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
