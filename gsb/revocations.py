"""Which keys operators have revoked by an act, known to every node within a second.

A revocation in the files takes effect when they have come to a node, which may take as long as whatever brings them. An
operator's act is a row in the store, and no node accepts a signature, or begins an exchange, on knowledge that is older
than ``FRESH``: it reads the rows anew first. A node that cannot read them says so and accepts nothing, as it could not
anyway without its store; one that was halted and goes on reads them before anything else. So there is no time in which
a node does not know, and nothing that has to reach it. What is revoked so stays revoked. A crash forgets nothing but
what is read again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gsb.store.contract import Store

FRESH = 1.0
"""Seconds for which a node relies on what it has read."""


class Revocations:
    """Those that this node knows. ``steady`` gives seconds that only grow, also while the process is halted."""

    def __init__(self, store: Store, steady: Callable[[], float] = time.monotonic) -> None:
        self._store, self._steady = store, steady
        self._keys: frozenset[str] = frozenset()
        self._known_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    def __contains__(self, kid: str) -> bool:
        """Whether the key was revoked before the last ``look``."""
        return kid in self._keys

    async def look(self) -> None:
        """Know every revocation that was committed ``FRESH`` seconds before this was asked. Raises StoreUnavailable."""
        asked = self._steady()
        while self._known_at + FRESH <= asked:
            # One that had begun before may have begun too early; the next one has not.
            if self._reading is None:
                self._reading = asyncio.create_task(self._read())
                self._reading.add_done_callback(_heard)
            await asyncio.shield(self._reading)

    async def _read(self) -> None:
        began = self._steady()
        try:
            self._keys = await self._store.revoked()
            self._known_at = began
        finally:
            # Here and not in a callback: whoever asked in between would wait for what is over.
            self._reading = None


def _heard(reading: asyncio.Task[None]) -> None:
    """What went wrong was told to those who waited, as far as anybody still did."""
    if not reading.cancelled():
        reading.exception()
