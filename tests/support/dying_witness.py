"""A witness that is killed around its n-th write: ``python -m tests.support.dying_witness before|after N FILE``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from gsb.evidence.log import Files
from gsb.telemetry import log_to_stderr
from gsb.witness.serving import serve
from gsb.witness.settings import read_settings

_write = Files.write


def main(moment: str, number: str, file: str) -> None:
    left = int(number)

    def write(self: Files, contents: Mapping[str, bytes], ready: Callable[[], None] = lambda: None) -> None:
        nonlocal left
        left -= 1
        if not left and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        _write(self, contents, ready)
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    Files.write = write  # type: ignore[method-assign]
    log_to_stderr()
    asyncio.run(serve(read_settings(Path(file)), asyncio.Event()))


if __name__ == "__main__":
    main(*sys.argv[1:])
