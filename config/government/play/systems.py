"""The core systems behind the play: those that ``make systems`` left running, or else started here and stopped again.

What runs is used with the data it has. It ends nothing that it did not start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack

from config.demo.children import NotStarted
from config.demo.report import Report
from config.systems import base, catalogue
from config.systems.base import HOST, Place
from config.systems.run import DATA
from config.systems.running import Copy, is_free


async def brought(stack: AsyncExitStack, report: Report) -> Mapping[str, Copy]:
    """All of them, at the ports that ``config/government`` names. Raises NotStarted."""
    copies = {system.name: Copy(system, Place(DATA / system.name, system.port)) for system in catalogue.systems()}
    for copy in copies.values():
        with report.preparing(copy.system.title) as notes:
            if copy.pid is not None:
                notes.append("was running")
                continue
            if copy.port and not is_free(copy.port):
                raise NotStarted(f"{HOST}:{copy.port}, where {copy.system.title} would listen, is taken")
            stack.push_async_callback(copy.stop)
            try:
                if copy.system.missing() is not None:
                    await asyncio.to_thread(copy.system.install)
                await copy.begin()
            except (base.NotInstalled, base.NotStarted) as problem:
                raise NotStarted(str(problem)) from None
            notes.append(f"started at {HOST}:{copy.port}" if copy.port else "started")
    return copies
