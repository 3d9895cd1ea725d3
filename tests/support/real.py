"""Real core systems for tests, as ``make systems`` starts them (``config/systems``), each on a free port.

    async with real("openfisca", tmp_path) as system:
        ...                       # system.url, system.port, system.place.folder
        await system.kill()       # and system.stop()
        await system.start()      # at the same place, on the same data

    system = shared("openfisca")  # a fixture: one for all tests of a module, which run in the module's loop

The test is skipped in one line if the system is not installed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

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


def shared(name: str) -> Any:
    """A fixture, known by the name to which a module binds it: a copy of the system for all tests of the module."""

    @pytest_asyncio.fixture(scope="module", loop_scope="module")
    async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Copy]:
        async with real(name, tmp_path_factory.mktemp(name)) as copy:
            yield copy

    return system
