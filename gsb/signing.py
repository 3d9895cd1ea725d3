"""Sees to it that a node knows whether it can sign, where its keys lie in an HSM: before a call comes, and again after.

A crash loses nothing: the next start looks first.
"""

from __future__ import annotations

import asyncio

from gsb.bus import Bus
from gsb.hsm import EVERY


async def look(bus: Bus) -> None:
    """Ask for a signature of every key in an HSM that signs, or will: it remembers what becomes of that."""
    for key in bus.catalogue.bus_keys.in_hsm(bus.clock()):
        await key.look()


async def watch(bus: Bus) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(EVERY)
        await look(bus)
