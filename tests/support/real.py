"""Real core systems for tests, as ``make systems`` starts them (``config/systems``), each on a free port.

    async with real("openfisca", tmp_path) as system:
        ...                       # system.url, system.port, system.place.folder
        await system.kill()       # and system.stop()
        await system.start()      # at the same place, on the same data

The test is skipped in one line if the system is not installed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from config.systems.catalogue import named
from config.systems.running import Copy, running
from tests.support.needs import needs


@asynccontextmanager
async def real(name: str, folder: Path) -> AsyncIterator[Copy]:
    """A fresh copy of the system with its data below ``folder``; it is stopped in the end."""
    system = named(name)
    lack = system.missing()
    needs(lack is None, lack or "")
    async with running(system, folder) as copy:
        yield copy
