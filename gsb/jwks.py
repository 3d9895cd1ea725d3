"""Reads the key sets that agencies publish, in the background, so that no call ever waits for somebody's server.

A set that has changed becomes an entry before its keys count: it commits to the public keys themselves, so that an
auditor can say later which key a request was signed with, and since when each node had it from whom. What cannot be
read is tried again; what is in force meanwhile ``gsb.published`` says. A crash loses nothing that is not read again.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from gsb.bus import Bus
from gsb.errors import StoreUnavailable
from gsb.evidence.entry import Fact, make_entry
from gsb.fetch import WITHIN, Unread, fetch
from gsb.jwk import KeyUnfit, PublicKey, read_set
from gsb.published import KeySet
from gsb.trouble import Trouble

log = logging.getLogger("gsb.jwks")

LOOK = 1.0
"""Seconds after which it is looked again which sets are due."""


class KeySets:
    """Keeps those of one node."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self._published = bus, bus.published
        self._troubles: dict[str, Trouble] = {}

    async def first(self) -> None:
        """Read every set once, before calls come that are signed with their keys; for as long as one may take."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WITHIN), asyncio.TaskGroup() as tasks:
                self._begin(tasks)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._published.woken.clear()
                self._begin(tasks)
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await self._published.woken.wait()

    def _begin(self, tasks: asyncio.TaskGroup) -> None:
        for agency, known in self._published.due():
            tasks.create_task(self._read(agency, known))

    async def _read(self, agency: str, known: KeySet) -> None:
        trouble = self._troubles.setdefault(agency, Trouble(log, f"the keys of {agency} are read again"))
        try:
            await self._renew(agency, known)
        except (KeyUnfit, StoreUnavailable, Unread) as error:
            known.failed(self._published.steady())
            counting = "its last keys count" if known.in_force(self._published.steady()) else "none of its keys counts"
            trouble.is_there(f"the keys of {agency} cannot be read at {known.table.url}: {error}; {counting} meanwhile")
        else:
            trouble.is_over()
        finally:
            known.reading = False

    async def _renew(self, agency: str, known: KeySet) -> None:
        """Raises KeyUnfit, StoreUnavailable or Unread, and then all is as it was."""
        table = known.table
        read = await fetch(table.url, networks=table.networks, ca=table.ca, etag=known.etag)
        if read.body is not None:
            keys, left_out = read_set(read.body)
            if known.read_at == float("-inf") or keys.keys() != known.keys.keys():
                await self._prove(agency, known, keys, left_out)
            known.keys, known.etag = keys, read.etag
        known.confirmed(self._published.steady(), read.max_age)

    async def _prove(self, agency: str, known: KeySet, keys: dict[str, PublicKey], left_out: list[str]) -> None:
        names: dict[str, Fact] = {"agency": agency, "keys": sorted(keys), "before": sorted(known.keys)}
        facts = {"act": "key_set", "node": self._bus.node} | names
        evidence = {"url": known.table.url, "keys": [dict(key.jwk) for key in keys.values()]}
        await self._bus.store.note(make_entry("act", self._bus.clock(), facts, evidence))
        log.info("an agency publishes other keys", extra={"facts": names})
        for why in left_out:
            log.warning("a published key is left out", extra={"facts": {"agency": agency, "why": why}})
