"""A treasury's bank: takes the payment files that come into its SFTP account, and answers there with files of its own.

It works on the folder ``bank`` of the ``sshd`` that lies beside it, and listens nowhere. What is a message and what is
in it other people's programs say, in an environment of its own: sepaxml, xmlschema, pyiso20022. ``conduct`` tells it
how to behave from its next file on. A crash loses no file: what was not answered is answered after the next start.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from config.systems.base import Command, NotStarted, Place, System

PROGRAM = Path(__file__).parent / "program.py"


class Bank(System):
    """One bank, beside the server on which it has its account."""

    name = "bank"
    title = "Bank, ISO 20022 files"
    port = 0

    def lay(self, place: Place) -> None:
        """Its account is the server's to lay."""

    def command(self, place: Place) -> Command:
        return [self.program("python"), PROGRAM, account(place), place.folder]

    async def ready(self, place: Place) -> bool:
        return (place.folder / "ready").exists()

    async def check(self, place: Place) -> str:
        if not account(place).is_dir():
            raise NotStarted(f"{self.title} has no account: start sshd beside it")
        return (place.folder / "ready").read_text("utf-8").strip()


def account(place: Place) -> Path:
    """Its folder on the SFTP server, with inbox, archive and outbox."""
    return place.folder.parent / "sshd" / "bank"


def conduct(place: Place, **how: Any) -> None:
    """How it is to behave from now on, in the words of ``program.Conduct``; without any: as a bank should."""
    draft = place.folder / ".conduct.json"
    draft.write_text(json.dumps(how), "utf-8")
    draft.rename(place.folder / "conduct.json")


def ledger(place: Place) -> list[dict[str, Any]]:
    """Every file that it took, in order: its MsgId, and the EndToEndId of each payment that it made for it."""
    path = place.folder / "ledger.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


SYSTEM = Bank()
