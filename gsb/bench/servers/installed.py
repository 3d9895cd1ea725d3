"""What may be missing before a server can be started, where it may listen, and room for what it writes.

Whoever starts servers says what is missing in one line; nothing is installed here.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

START = 90.0
"""Seconds within which a server must be ready, on a machine that is busy with other things."""


class NotInstalled(Exception):
    """The text says what is missing and how to get it."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback where nobody listens now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


@contextmanager
def room(prefix: str, where: Path | None) -> Iterator[Path]:
    """A new folder in ``where`` (None: where temporary files lie), which is removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=where))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
