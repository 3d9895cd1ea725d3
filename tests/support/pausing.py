"""``gsb serve`` that stops or dies in the middle of recording, when and where a test says so.

    python -m tests.support.pausing FILE [--lease=SECONDS] DIR [OPTIONS]

As soon as FILE says ``<step> <signal>`` whoever comes to that step deletes it and sends itself that signal. Leases are
short here, unless they are to be longer, so that nobody waits long for another recorder to take over.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gsb import duty
from gsb.cli.main import main
from gsb.evidence.log import CHECKPOINT, Files
from gsb.store.logs import Unsequenced
from gsb.store.postgres import PostgresStore

LEASE = 2.0
LONGER = "--lease="
STEPS = ("unsigned", "sequenced", "ready", "tile", "checkpoint", "publish", "published")
"""Before ``sequence``; after it; when all files lie ready; after the first of them has its name; right before the
checkpoint's file has; before ``publish``; after it."""


class Order:
    """What the test wants of this process."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def at(self, step: str) -> None:
        try:
            where, how = self._file.read_text("utf-8").split()
            if where != step:
                return
            self._file.unlink()
        except (FileNotFoundError, ValueError):  # there is none, it is being written, or another was faster
            return
        else:
            # To this very thread: sent to the process, another may take it while this one goes on.
            signal.pthread_kill(threading.get_ident(), signal.Signals[how])


def obey(order: Order) -> None:
    sequence, publish, write, rename = PostgresStore.sequence, PostgresStore.publish, Files.write, Path.rename

    async def sequences(self: PostgresStore, given: Unsequenced, checkpoint: bytes) -> None:
        order.at("unsigned")
        await sequence(self, given, checkpoint)
        order.at("sequenced")

    async def publishes(self: PostgresStore, origin: str, size: int, note: bytes) -> None:
        order.at("publish")
        await publish(self, origin, size, note)
        order.at("published")

    def writes(self: Files, contents: Mapping[str, bytes], ready: Callable[[], None]) -> None:
        def is_ready() -> None:
            order.at("ready")
            ready()

        write(self, contents, is_ready)

    def renames(self: Path, target: Path) -> Path:
        if target.name == CHECKPOINT:
            order.at("checkpoint")
        renamed = rename(self, target)
        if target.name != CHECKPOINT:
            order.at("tile")
        return renamed

    _replace(PostgresStore, sequence=sequences, publish=publishes)
    _replace(Files, write=writes)
    _replace(Path, rename=renames)


def _replace(kind: type[Any], **methods: Any) -> None:
    for name, method in methods.items():
        setattr(kind, name, method)


if __name__ == "__main__":
    file, *words = sys.argv[1:]
    lease = float(words.pop(0).removeprefix(LONGER)) if words[0].startswith(LONGER) else LEASE
    duty.LEASE, duty.RENEW = lease, lease / 5
    obey(Order(Path(file)))
    sys.argv[1:] = ["serve", *words]
    main()
