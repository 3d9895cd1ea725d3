"""The core system of the kill tests (``tests/histories/core.py``), started as the real ones are. It writes each effect
to a file, and never forgets.
"""

from __future__ import annotations

import sys
from pathlib import Path

from config.systems.base import Command, Place, System
from config.systems.openfisca import answers

CORE = Path(__file__).parents[1] / "histories" / "core.py"


class Ledger(System):
    """Writes its effects to the file ``effects``."""

    name, title, port = "ledger", "Ledger, of the tests", 7777

    def __init__(self, effects: Path) -> None:
        self._effects = effects

    def lay(self, place: Place) -> None:
        """The file is all its data."""

    def command(self, place: Place) -> Command:
        return [sys.executable, CORE, str(place.port), self._effects]

    async def ready(self, place: Place) -> bool:
        return await answers(f"{place.url}/")

    async def check(self, place: Place) -> str:
        return "it answers" if await self.ready(place) else "it does not answer"
