"""The store on PostgreSQL: any number of processes, on any number of machines, share one database.

What writes goes through one connection that commits in groups (``gsb.store.postgres.writer``); what reads, through a
pool. The clock is the database's, so nodes need not agree on theirs. Every lease is written, that of ``effect = none``
too, so that all nodes see it; only its commit need not wait for the disk, since a crash of the server ends it
harmlessly. After a crash the database holds exactly what was committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast

import asyncpg

from gsb.errors import Replayed, ReplyUnreadable
from gsb.model import Entry, Exchange, Outcome, Record, State
from gsb.store import asks, standing
from gsb.store.contract import (
    Ages,
    Attempt,
    Begun,
    Due,
    NewExchange,
    Page,
    Query,
    Reservation,
    Ruling,
)
from gsb.store.postgres import reads
from gsb.store.postgres.batch import BeginAndRead, Overdue
from gsb.store.postgres.proving import Proving
from gsb.store.postgres.sessions import READERS, STATEMENT, Clock, Sessions
from gsb.store.postgres.writer import Committed
from gsb.store.standing import Row

FRESH = 1_024
FRESH_BODY = 65_536
"""Exchanges just accepted whose records are remembered, since most begin at once, and the largest body among them in
bytes. What was accepted never changes, whoever else works on it."""


def untold(calls: int, seconds: float) -> None:
    """For stores whose commits nobody counts."""


class PostgresStore(Proving):
    """See ``gsb.store.contract.Store``. All calls come from the event loop in which it was opened.

    ``dsn`` is a connection URI of PostgreSQL, and may name several hosts; the tables lie in ``schema``. At most
    ``readers`` connections read, and the server gives a statement up after so many seconds. ``clock`` tells the time
    from the database's; ``steady`` gives seconds that only grow. ``committed`` is told of each commit how many
    calls it held and how many seconds it took.
    """

    def __init__(
        self,
        dsn: str,
        key: bytes,
        *,
        schema: str = "gsb",
        ages: Ages | None = None,
        readers: int = READERS,
        statement: float = STATEMENT,
        clock: Clock = float,
        steady: Callable[[], float] = time.monotonic,
        committed: Committed = untold,
    ) -> None:
        super().__init__(Sessions(dsn, schema, readers, statement), key, ages or Ages(), clock, steady, committed)
        self._fresh: dict[str, Record] = {}
        self._looks = reads.Together(self._look)

    @property
    def sessions(self) -> Sessions:
        """Its connections, for what else nodes share in the same schema."""
        return self._sessions

    # --- accepting ----------------------------------------------------------------------------------------

    async def look(self, issuer: str, jti: str, key: str | None) -> Reservation | None:
        reserved = None if key is None else self._seal.key(issuer, key)
        replayed, row = await self._looks.ask((self._seal.hash(issuer, jti, b"jti"), reserved))
        if replayed:
            raise Replayed
        return None if row is None else self._seal.reservation(row.id, row.fingerprint)

    async def _look(self, asked: Sequence[tuple[bytes, bytes | None]]) -> list[tuple[bool, Row | None]]:
        """Of each jti and key: whether the jti is spent, and whose the key is."""

        async def found(db: asyncpg.Connection) -> list[tuple[bool, Row | None]]:
            return [self._judged(looked) for looked in await reads.looked(db, asked)]

        return await self._sessions.read(found)

    def _judged(self, looked: reads.Looked) -> tuple[bool, Row | None]:
        owner, spent, now = looked.owner, looked.spent, self._clock(looked.now)
        if owner is not None and owner.finished_at is not None and owner.finished_at <= now - self._ages.keys:
            owner = None
        return spent is not None and not self._writer.jtis.over(*spent, now), owner

    async def accept(self, new: NewExchange) -> Reservation | None:
        answer = await self._writer.ask(self._seal.accept(new))
        if isinstance(answer, tuple):
            return self._seal.reservation(*answer)
        if len(new.record.body) <= FRESH_BODY:
            self._fresh[new.id] = new.record
            if len(self._fresh) > FRESH:
                del self._fresh[next(iter(self._fresh))]
        return None

    # --- performing ---------------------------------------------------------------------------------------

    async def begin(self, exchange: str, lease: float) -> Begun | None:
        fresh = self._fresh.pop(exchange, None)
        answer = await self._writer.ask(BeginAndRead(exchange, lease, fresh is None))
        if answer is None:
            return None
        task, begun, maybe_sent, sealed = answer
        record = fresh or self._record(sealed, exchange)
        return Begun(Attempt(begun.id, begun.attempt), task, begun, record, maybe_sent)

    def _record(self, sealed: bytes | None, exchange: str) -> Record | None:
        try:
            return self._seal.record(sealed, exchange)
        except ReplyUnreadable:
            return None

    async def finish(self, attempt: Attempt, outcome: Outcome, entry: Entry) -> bool:
        reply, sealed = self._seal.reply(attempt.exchange, outcome, entry)
        return await self._move(asks.Finish(attempt.exchange, attempt, outcome, reply, sealed))

    async def postpone(self, attempt: Attempt, delay: float, reason: str, *, sent: bool) -> bool:
        return await self._move(asks.Postpone(attempt.exchange, attempt, delay, reason, sent))

    async def hold(
        self, attempt: Attempt, state: Literal[State.HELD, State.UNKNOWN], reason: str, entry: Entry
    ) -> bool:
        return await self._move(asks.Hold(attempt.exchange, attempt, state, reason, self._seal.entry(entry)))

    async def resolve(self, exchange: str, ruling: Ruling, entry: Entry) -> bool:
        reply, sealed = self._seal.reply(exchange, ruling.outcome, entry)
        return await self._move(asks.Resolve(exchange, ruling, reply, sealed))

    async def _move(self, move: asks.Move) -> bool:
        self._fresh.pop(move.id, None)
        return bool(await self._writer.ask(move))

    async def due(self, limit: int) -> Sequence[Due]:
        return cast(list[Due], await self._writer.ask(Overdue(limit)))

    # --- reading ------------------------------------------------------------------------------------------

    async def exchange(self, exchange: str) -> Exchange | None:
        async def found(db: asyncpg.Connection) -> tuple[Row, bytes | None, tuple[Entry, ...]] | None:
            if (known := await reads.whole(db, exchange)) is None:
                return None
            whole, sealed, entries, now = known
            row = standing.aged(whole, self._ages, self._clock(now))
            return None if row is None else (row, None if row.reply is None else sealed, entries)

        # Twice: in the moment in which it is carried out of its portion it is seen at neither place.
        for _ in range(2):
            if (told := await self._sessions.read(found)) is None:
                return None
            row, sealed, entries = told
            if row.reply is None or sealed is not None:
                break
        else:
            row.request = row.reply = None  # it has gone with its portion
        return standing.told(row, self._seal.body(sealed, exchange), entries)

    async def record(self, exchange: str) -> Record | None:
        async def found(db: asyncpg.Connection) -> bytes | None:
            known = await reads.with_sealed(db, exchange, "request")
            row = None if known is None else await self._aged(db, known[0])
            return None if known is None or row is None or row.request is None else known[1]

        return self._seal.record(await self._sessions.read(found), exchange)

    async def search(self, query: Query) -> Page:
        before, subject = self._seal.before(query), self._seal.subject_of(query)

        async def found(db: asyncpg.Connection) -> tuple[list[Row], float]:
            now = await self._now(db)
            services = await reads.services(db) if query.business is not None else ()
            businesses = self._seal.businesses(query, services)
            wanted = reads.Wanted(query, businesses, subject, before, now - self._ages.exchanges)
            return await reads.search(db, wanted, query.limit + 1), now

        rows, now = await self._sessions.read(found)
        shown = [row for row in rows[: query.limit] if standing.aged(row, self._ages, now) is not None]
        more = len(rows) > query.limit and bool(shown)
        cursor = self._seal.cursor(shown[-1].accepted_at, shown[-1].row) if more else None
        return Page(tuple(standing.told(row) for row in shown), cursor)

    async def standing(self) -> Mapping[State, int]:
        return await self._sessions.read(reads.standing_still)

    # --- notes --------------------------------------------------------------------------------------------

    async def note(
        self, entry: Entry, *, issuer: str | None = None, jti: str | None = None, jti_lives: float = 0
    ) -> None:
        spent = None if issuer is None or jti is None else self._seal.jti(issuer, jti, jti_lives)
        await self._writer.ask(asks.Note(self._seal.entry(entry), spent))

    async def spend(self, issuer: str, jti: str, jti_lives: float) -> None:
        await self._writer.ask(asks.Note(jti=self._seal.jti(issuer, jti, jti_lives)))
