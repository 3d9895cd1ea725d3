"""What tests of reloading share: ears for a node's log, entries of acts, and a folder as Kubernetes mounts it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

HEARD_WITHIN = 60.0


class Ear:
    """Waits, within a bound, for what is told to it."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._told = asyncio.Event()

    def tell(self, line: str) -> None:
        self._lines.append(line)
        self._told.set()

    def count(self, part: str) -> int:
        return sum(part in line for line in self._lines)

    async def hear(self, part: str, times: int) -> None:
        """Return as soon as ``part`` was told that often."""
        async with asyncio.timeout(HEARD_WITHIN):
            while self.count(part) < times:
                self._told.clear()
                await self._told.wait()


class Records(logging.Handler):
    """The messages of a logger of this process."""

    def __init__(self, ear: Ear) -> None:
        super().__init__(logging.INFO)
        self._ear = ear

    def emit(self, record: logging.LogRecord) -> None:
        self._ear.tell(record.getMessage())


class Lines(deque[str]):
    """The log of a node of another process, which also tells each new line."""

    def __init__(self, lines: Iterable[str], tell: Callable[[str], None]) -> None:
        super().__init__(lines, maxlen=1_000)
        self._tell = tell

    def append(self, line: str) -> None:
        super().append(line)
        self._tell(line)


def acts(folder: Path) -> list[dict[str, Any]]:
    """The entries of administrative acts in the store of this deployment, in the order of commit."""
    with closing(sqlite3.connect(folder / "store.db")) as database:
        entries = [orjson.loads(row[0]) for row in database.execute("SELECT content FROM entry ORDER BY row")]
    return [entry for entry in entries if entry["kind"] == "act"]


def mount(folder: Path, version: str) -> None:
    """Turn a written folder into what a mounted ConfigMap looks like: links into a hidden version of it."""
    hidden = folder / version
    hidden.mkdir()
    (folder / "..data").symlink_to(version)
    for name in ("gsb.toml", "agencies", "operators", "systems", "services", "agreements", "schemas"):
        (folder / name).rename(hidden / name)
        (folder / name).symlink_to(f"..data/{name}")


def remount(folder: Path, version: str) -> None:
    """Let every link lead into this version at once."""
    new = folder / "..data_tmp"
    new.symlink_to(version)
    new.rename(folder / "..data")
