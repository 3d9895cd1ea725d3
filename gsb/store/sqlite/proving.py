"""The verbs of the evidence log on SQLite (``gsb.store.logs.LogStore``).

What may be long is read in a thread and on a connection of its own, so that exchanges go on meanwhile; what is short,
in the event loop. Everything that writes goes to the writer's thread, in one transaction with whatever else is asked.
A crash leaves whole transactions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import TypeVar, cast

from gsb.model import Entry
from gsb.store.logs import Backlog, Entered, Erased, Evidence, LogMoved, LogState, Unsequenced
from gsb.store.sqlite import erase, log, reads, rows
from gsb.store.sqlite.batch import Ask
from gsb.store.sqlite.opened import Opened

T = TypeVar("T")


class Proving(Opened):
    """What the recorder, receipts and erasure need of the store."""

    async def logs(self) -> Sequence[LogState]:
        with reads.reading():
            return [each.state() for each in log.logs(self._db)]

    async def begin_log(
        self, origin: str, begun: Entry, *, after: str | None = None, ended: Entry | None = None
    ) -> None:
        last = None if ended is None else self._seal.entry(ended)
        await self._move(log.BeginLog(origin, self._seal.entry(begun), after, last))

    async def unsequenced(self, limit: int) -> Unsequenced | None:
        return await asyncio.to_thread(self._apart, log.unsequenced, limit)

    async def sequence(self, given: Unsequenced, checkpoint: bytes) -> None:
        await self._move(log.Sequence(given.origin, given.size, len(given.contents), checkpoint))

    async def entries(self, origin: str, start: int, limit: int) -> Sequence[bytes]:
        return await asyncio.to_thread(self._apart, log.entries, origin, start, limit)

    async def publish(self, origin: str, size: int, note: bytes) -> None:
        await self._move(log.Publish(origin, size, note))

    async def _move(self, ask: Ask) -> None:
        if not await self._writer.ask(ask):
            raise LogMoved

    def _apart(self, read: Callable[..., T], *asked: object) -> T:
        """Read on a connection of its own."""
        with reads.reading(), closing(rows.connect(self._path, writes=False)) as db:
            return read(db, *asked)

    async def backlog(self) -> Backlog:
        with reads.reading():
            return log.backlog(self._db)

    async def entered(self, exchange: str) -> Sequence[Entered]:
        with reads.reading():
            row = self._known(exchange)
            return () if row is None else log.entered(self._db, row.row)

    async def evidence(self, exchange: str) -> Sequence[Evidence]:
        with reads.reading():
            row = self._known(exchange)
            found = () if row is None else log.secrets(self._db, row.row)
        return self._seal.evidence(found)

    async def erase(self, entries: Mapping[str, Entry]) -> Erased:
        given = {exchange: self._seal.entry(entry) for exchange, entry in entries.items()}
        answer = cast(Erased, await self._writer.ask(erase.Erase(given)))
        if answer.erased:
            self._writer.wipe()
        return answer

    # --- after a restore ------------------------------------------------------------------------------------

    async def withhold(self, entry: Entry) -> None:
        await self._writer.ask(log.Withhold(self._seal.entry(entry)))

    async def admit_writes(self, entry: Entry) -> bool:
        return bool(await self._writer.ask(log.AdmitWrites(self._seal.entry(entry))))

    async def withheld(self) -> bool:
        with reads.reading():
            return log.withheld(self._db)

    # --- revoking keys --------------------------------------------------------------------------------------

    async def revoke(self, kid: str, entry: Entry) -> None:
        await self._writer.ask(log.Revoke(kid, self._seal.entry(entry)))

    async def revoked(self) -> frozenset[str]:
        with reads.reading():
            return log.revoked(self._db)
