"""The verbs of the evidence log on PostgreSQL (``gsb.store.logs.LogStore``).

Each is a transaction of its own on a connection of the pool, beside the writer's: they are few, and what they read or
move may be long. A crash leaves whole transactions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import asyncpg

from gsb.errors import StoreUnavailable
from gsb.model import Entry
from gsb.store import standing
from gsb.store.contract import Ages
from gsb.store.logs import Backlog, Entered, Erased, Evidence, LogState, Unsequenced
from gsb.store.postgres import log, reads
from gsb.store.postgres.sessions import Clock, Sessions, database_clock
from gsb.store.postgres.writer import Committed, Writer
from gsb.store.sealing import Sealing
from gsb.store.standing import Row


class Proving:
    """A store's connections, its key and its writer, from ``open`` to ``close``; and what the recorder, receipts and
    erasure need of it."""

    def __init__(
        self,
        sessions: Sessions,
        key: bytes,
        ages: Ages,
        clock: Clock,
        steady: Callable[[], float],
        committed: Committed,
    ) -> None:
        self._sessions, self._seal, self._ages, self._clock = sessions, Sealing(key), ages, clock
        self._steady, self._committed = steady, committed
        self._open_writer: Writer | None = None

    async def open(self) -> None:
        await self._sessions.open(self._seal)
        self._open_writer = Writer(self._sessions, self._ages, self._clock, self._steady, self._committed)

    async def close(self) -> None:
        writer, self._open_writer = self._open_writer, None
        if writer is not None:
            await writer.close()
        await self._sessions.close()

    @property
    def _writer(self) -> Writer:
        if self._open_writer is None:
            raise StoreUnavailable("the store is not open")
        return self._open_writer

    # --- what several verbs need ----------------------------------------------------------------------------

    async def _aged(self, db: asyncpg.Connection, row: Row | None) -> Row | None:
        """The exchange, as far as it is young enough to be told."""
        if row is None or row.finished_at is None:
            return row
        return standing.aged(row, self._ages, await self._now(db))

    async def _now(self, db: asyncpg.Connection) -> float:
        return self._clock(await database_clock(db))

    # --- the evidence log -----------------------------------------------------------------------------------

    async def logs(self) -> Sequence[LogState]:
        return await self._sessions.read(log.logs)

    async def begin_log(
        self, origin: str, begun: Entry, *, after: str | None = None, ended: Entry | None = None
    ) -> None:
        last = None if ended is None else self._seal.entry(ended)
        begin = partial(log.begin_log, origin=origin, begun=self._seal.entry(begun), after=after, ended=last)
        await self._sessions.transact(begin)

    async def unsequenced(self, limit: int) -> Unsequenced | None:
        return await self._sessions.read(partial(log.unsequenced, limit=limit))

    async def sequence(self, given: Unsequenced, checkpoint: bytes) -> None:
        await self._sessions.transact(partial(log.sequence, given=given, checkpoint=checkpoint))

    async def entries(self, origin: str, start: int, limit: int) -> Sequence[bytes]:
        return await self._sessions.read(partial(log.entries, origin=origin, start=start, limit=limit))

    async def publish(self, origin: str, size: int, note: bytes) -> None:
        async def published(db: asyncpg.Connection) -> None:
            await log.publish(db, origin, size, note, await self._now(db))

        await self._sessions.transact(published)

    async def backlog(self) -> Backlog:
        return await self._sessions.read(log.backlog)

    async def entered(self, exchange: str) -> Sequence[Entered]:
        async def found(db: asyncpg.Connection) -> Sequence[Entered]:
            row = await self._aged(db, await reads.exchange(db, exchange))
            return () if row is None else await log.entered(db, row.row)

        return await self._sessions.read(found)

    async def evidence(self, exchange: str) -> Sequence[Evidence]:
        async def found(db: asyncpg.Connection) -> Sequence[tuple[bytes, bytes | None]]:
            row = await self._aged(db, await reads.exchange(db, exchange))
            return () if row is None else await log.secrets(db, row.row)

        return self._seal.evidence(await self._sessions.read(found))

    async def erase(self, entries: Mapping[str, Entry]) -> Erased:
        given = {exchange: self._seal.entry(entry) for exchange, entry in entries.items()}
        return await self._sessions.transact(partial(log.erase, given=given))

    # --- after a restore ------------------------------------------------------------------------------------

    async def withhold(self, entry: Entry) -> None:
        sealed = self._seal.entry(entry)

        async def withheld(db: asyncpg.Connection) -> None:
            await log.withhold(db, sealed, await self._now(db))

        await self._sessions.transact(withheld)

    async def admit_writes(self, entry: Entry) -> bool:
        return await self._sessions.transact(partial(log.admit_writes, entry=self._seal.entry(entry)))

    async def withheld(self) -> bool:
        return await self._sessions.read(log.withheld)

    # --- revoking keys --------------------------------------------------------------------------------------

    async def revoke(self, kid: str, entry: Entry) -> None:
        sealed = self._seal.entry(entry)

        async def revoked(db: asyncpg.Connection) -> None:
            await log.revoke(db, kid, sealed, await self._now(db))

        await self._sessions.transact(revoked)

    async def revoked(self) -> frozenset[str]:
        return await self._sessions.read(log.revoked)
