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
from gsb.store.asks import Jti, SealedEntry
from gsb.store.contract import (
    Ages,
    Attempt,
    Begun,
    Business,
    Due,
    NewExchange,
    Page,
    Query,
    Reservation,
    Ruling,
)
from gsb.store.postgres import reads
from gsb.store.postgres.batch import Overdue
from gsb.store.postgres.proving import Proving
from gsb.store.postgres.sessions import READERS, STATEMENT, Sessions, database_clock
from gsb.store.postgres.writer import Clock, Committed
from gsb.store.seal import RECORD, REPLY, SECRET, Unreadable, pack, unpack
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
    ``readers`` connections read, and the server gives a statement up after so many seconds. ``clock`` tells the time on
    a connection; ``steady`` gives seconds that only grow. ``committed`` is told of each commit how many
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
        clock: Clock = database_clock,
        steady: Callable[[], float] = time.monotonic,
        committed: Committed = untold,
    ) -> None:
        super().__init__(Sessions(dsn, schema, readers, statement), key, ages or Ages(), clock, steady, committed)
        self._fresh: dict[str, Record] = {}

    # --- accepting ----------------------------------------------------------------------------------------

    async def look(self, issuer: str, jti: str, key: str | None) -> Reservation | None:
        hashed = self._seal.hash(issuer, jti, b"jti")

        async def found(db: asyncpg.Connection) -> Row | None:
            now = await self._clock(db)
            spent = await reads.spent(db, hashed)
            if spent is not None and not self._writer.jtis.over(*spent, now):
                raise Replayed
            if key is None:
                return None
            return await reads.owner(db, self._seal.hash(issuer, key, b"key"), now - self._ages.keys)

        row = await self._sessions.read(found)
        return None if row is None else self._reservation(row.id, row.fingerprint)

    async def accept(self, new: NewExchange) -> Reservation | None:
        owner, decision = new.id.encode(), new.record.decision
        record, secret = self._seal.seal(
            {RECORD: (pack(new.record), owner), SECRET: (new.entry.secret, new.entry.leaf)}
        )
        answer = await self._writer.ask(
            asks.Accept(
                new.id,
                new.agency,
                new.service,
                new.effect,
                decision.purpose,
                decision.agreement,
                b"" if new.key is None else self._seal.mask(new.fingerprint, new.id),
                new.expires_in,
                None if new.business is None else self._seal.business(new.service, new.business),
                None if new.subject is None else self._seal.subject(new.subject),
                None if new.key is None else self._seal.hash(new.agency, new.key, b"key"),
                self._jti(new.agency, new.jti, new.jti_lives),
                record,
                SealedEntry(new.entry.leaf, new.entry.content, secret),
            )
        )
        if isinstance(answer, tuple):
            return self._reservation(*answer)
        if len(new.record.body) <= FRESH_BODY:
            self._fresh[new.id] = new.record
            if len(self._fresh) > FRESH:
                del self._fresh[next(iter(self._fresh))]
        return None

    def _jti(self, issuer: str, jti: str, lives: float) -> Jti:
        return Jti(self._seal.hash(issuer, jti, b"jti"), lives)

    def _sealed_with_reply(
        self, exchange: str, outcome: Outcome | None, entry: Entry
    ) -> tuple[bytes | None, SealedEntry]:
        if outcome is None or not outcome.body:
            return None, self._sealed(entry)
        reply, secret = self._seal.seal({REPLY: (outcome.body, exchange.encode()), SECRET: (entry.secret, entry.leaf)})
        return reply, SealedEntry(entry.leaf, entry.content, secret)

    def _reservation(self, exchange: str, fingerprint: bytes) -> Reservation:
        return Reservation(exchange, self._seal.mask(fingerprint, exchange))

    # --- performing ---------------------------------------------------------------------------------------

    async def begin(self, exchange: str, lease: float) -> Begun | None:
        # Before the lease: whoever has one and cannot read what to do would keep everybody else from doing it.
        record = self._fresh.pop(exchange, None) or await self._record(exchange)
        answer = await self._writer.ask(asks.Begin(exchange, lease))
        if answer is None:
            return None
        task, begun, maybe_sent = answer
        return Begun(Attempt(begun.id, begun.attempt), task, begun, record, maybe_sent)

    async def _record(self, exchange: str) -> Record | None:
        found = await self._sessions.read(lambda db: reads.with_sealed(db, exchange, "request"))
        if found is None or found[1] is None:
            return None
        try:
            return unpack(self._seal.open(found[1], RECORD, exchange.encode()))
        except ValueError:
            return None

    async def finish(self, attempt: Attempt, outcome: Outcome, entry: Entry) -> bool:
        reply, sealed = self._sealed_with_reply(attempt.exchange, outcome, entry)
        return await self._move(asks.Finish(attempt.exchange, attempt, outcome, reply, sealed))

    async def postpone(self, attempt: Attempt, delay: float, reason: str, *, sent: bool) -> bool:
        return await self._move(asks.Postpone(attempt.exchange, attempt, delay, reason, sent))

    async def hold(
        self, attempt: Attempt, state: Literal[State.HELD, State.UNKNOWN], reason: str, entry: Entry
    ) -> bool:
        return await self._move(asks.Hold(attempt.exchange, attempt, state, reason, self._sealed(entry)))

    async def resolve(self, exchange: str, ruling: Ruling, entry: Entry) -> bool:
        reply, sealed = self._sealed_with_reply(exchange, ruling.outcome, entry)
        return await self._move(asks.Resolve(exchange, ruling, reply, sealed))

    async def _move(self, move: asks.Move) -> bool:
        self._fresh.pop(move.id, None)
        return bool(await self._writer.ask(move))

    async def due(self, limit: int) -> Sequence[Due]:
        return cast(list[Due], await self._writer.ask(Overdue(limit)))

    # --- reading ------------------------------------------------------------------------------------------

    async def exchange(self, exchange: str) -> Exchange | None:
        async def found(db: asyncpg.Connection) -> tuple[Row, bytes | None, tuple[Entry, ...]] | None:
            async with db.transaction(isolation="repeatable_read", readonly=True):
                known = await reads.with_sealed(db, exchange, "reply")
                row = None if known is None else await self._aged(db, known[0])
                if known is None or row is None:
                    return None
                return row, None if row.reply is None else known[1], await reads.entries(db, row.row)

        if (told := await self._sessions.read(found)) is None:
            return None
        row, sealed, entries = told
        try:
            body = b"" if sealed is None else self._seal.open(sealed, REPLY, exchange.encode())
        except Unreadable:
            body = None
        return standing.told(row, body, entries)

    async def record(self, exchange: str) -> Record | None:
        async def found(db: asyncpg.Connection) -> bytes | None:
            known = await reads.with_sealed(db, exchange, "request")
            row = None if known is None else await self._aged(db, known[0])
            return None if known is None or row is None or row.request is None else known[1]

        sealed = await self._sessions.read(found)
        try:
            return None if sealed is None else unpack(self._seal.open(sealed, RECORD, exchange.encode()))
        except ValueError as error:
            raise ReplyUnreadable from error

    async def search(self, query: Query) -> Page:
        before = None if query.cursor is None else reads.Position(*self._seal.read_cursor(query.cursor))
        subject = None if query.subject is None else self._seal.subject(query.subject)

        async def found(db: asyncpg.Connection) -> tuple[list[Row], float]:
            now = await self._clock(db)
            businesses = await self._businesses(db, query)
            wanted = reads.Wanted(query, businesses, subject, before, now - self._ages.exchanges)
            return await reads.search(db, wanted, query.limit + 1), now

        rows, now = await self._sessions.read(found)
        shown = [row for row in rows[: query.limit] if standing.aged(row, self._ages, now) is not None]
        more = len(rows) > query.limit and bool(shown)
        cursor = self._seal.cursor(shown[-1].accepted_at, shown[-1].row) if more else None
        return Page(tuple(standing.told(row) for row in shown), cursor)

    async def _businesses(self, db: asyncpg.Connection, query: Query) -> list[str | bytes] | None:
        if query.business is None:
            return None
        among = await reads.services(db) if query.service is None else [query.service]
        hashed = (self._seal.business(service, Business(query.business, personal=True)) for service in among)
        return [query.business, *hashed]

    async def standing(self) -> Mapping[State, int]:
        return await self._sessions.read(reads.standing_still)

    # --- notes --------------------------------------------------------------------------------------------

    async def note(
        self, entry: Entry, *, issuer: str | None = None, jti: str | None = None, jti_lives: float = 0
    ) -> None:
        spent = None if issuer is None or jti is None else self._jti(issuer, jti, jti_lives)
        await self._writer.ask(asks.Note(self._sealed(entry), spent))

    async def spend(self, issuer: str, jti: str, jti_lives: float) -> None:
        await self._writer.ask(asks.Note(jti=self._jti(issuer, jti, jti_lives)))
