"""A customs system that takes batches of declarations from its SFTP account, and acknowledges them there.

It is the project's own, written for demonstration and tests: no customs system small enough to be started in a test is
free to use. What it shares with the adapter is the form of the files, and no code; the server between them is the real
``sshd``, in whose folder ``customs`` it works. It listens nowhere. A crash loses no file (``program.py``).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from config.systems.base import Command, NotStarted, Place, System

PROGRAM = Path(__file__).parent / "program.py"


class CustomsHouse(System):
    """One customs house, beside the server on which it has its account."""

    name = "customshouse"
    title = "Customs house, files (our own)"
    port = 0

    def lay(self, place: Place) -> None:
        """Its account is the server's to lay."""

    def command(self, place: Place) -> Command:
        return [sys.executable, PROGRAM, account(place), place.folder]

    async def ready(self, place: Place) -> bool:
        return (place.folder / "ready").exists()

    async def check(self, place: Place) -> str:
        if not account(place).is_dir():
            raise NotStarted(f"{self.title} has no account: start sshd beside it")
        return f"takes CSV and XML; {len(register(place))} batches so far"


def account(place: Place) -> Path:
    """Its folder on the SFTP server, with inbox, archive and outbox."""
    return place.folder.parent / "sshd" / "customs"


def register(place: Place) -> list[dict[str, Any]]:
    """Every batch that it took, in order: its name, its file, and what became of each declaration. A batch that came
    once more has a line with the member ``again``, too."""
    path = place.folder / "register.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


SYSTEM = CustomsHouse()
