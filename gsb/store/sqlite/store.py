"""The store on SQLite: one process, one file, no server.

Reads and sealing happen in the event loop, on a connection that only reads; everything that writes goes to one thread
that commits in groups (``gsb.store.sqlite.writer``). A lease of an ``effect = none`` exchange is only kept in memory,
since a crash ends it harmlessly. After a crash the file and its journal hold exactly what was committed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, cast

from gsb.errors import Replayed, ReplyUnreadable
from gsb.model import Effect, Entry, Exchange, Outcome, Record, State
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
from gsb.store.sealing import Position
from gsb.store.sqlite import batch, reads, rows
from gsb.store.sqlite.proving import Proving
from gsb.store.sqlite.writer import Committed, untold
from gsb.store.standing import Lease, Row, Task

FRESH = 1_024
FRESH_BODY = 65_536
"""Exchanges just accepted that are remembered, since most begin at once, and the largest body among them in bytes."""


class SqliteStore(Proving):
    """See ``gsb.store.contract.Store``. All calls come from the event loop in which it was opened.

    ``steady`` gives seconds that only grow, whatever becomes of the ``clock``. ``committed`` is told of each commit how
    many calls it held and how many seconds it took, in the thread that writes.
    """

    def __init__(
        self,
        path: Path,
        key: bytes,
        *,
        ages: Ages | None = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        committed: Committed = untold,
    ) -> None:
        super().__init__(path, key, ages or Ages(), clock, steady, committed)
        self._fresh: dict[str, tuple[NewExchange, float]] = {}

    def _let_go(self) -> None:
        super()._let_go()
        self._fresh.clear()

    # --- accepting ----------------------------------------------------------------------------------------

    async def look(self, issuer: str, jti: str, key: str | None) -> Reservation | None:
        now, memory = self._clock(), self._writer.memory
        if memory.spent.holds(self._seal.hash(issuer, jti, b"jti"), now):
            raise Replayed
        if key is None or not memory.reserved.may_hold(hashed := self._seal.key(issuer, key)):
            return None
        with reads.reading():
            row = reads.owner(self._db, hashed, now - self._ages.keys)
        return None if row is None else self._seal.reservation(row.id, row.fingerprint)

    async def accept(self, new: NewExchange) -> Reservation | None:
        answer = await self._writer.ask(self._seal.accept(new))
        if isinstance(answer, tuple):
            return self._seal.reservation(*answer)
        if len(new.record.body) <= FRESH_BODY:
            self._fresh[new.id] = (new, answer)
            if len(self._fresh) > FRESH:
                del self._fresh[next(iter(self._fresh))]
        return None

    # --- performing ---------------------------------------------------------------------------------------

    async def begin(self, exchange: str, lease: float) -> Begun | None:
        fresh = self._fresh.pop(exchange, None)
        now = self._clock()
        if fresh is not None:
            new, accepted_at = fresh
            if new.effect is not Effect.NONE:
                return await self._begin_durably(exchange, new.record, lease)
            if self._may_begin_first(new, accepted_at, now):
                return self._begin_first(new, accepted_at, lease, now)
        with reads.reading():
            row = reads.exchange(self._db, exchange, self._leases)
            if row is None or standing.task_for(row, now) is None:
                return None
            record = self._record(row)
        if row.effect is not Effect.NONE and standing.task_for(row, now) == "run":
            return await self._begin_durably(exchange, record, lease)
        return self._begin_in_memory(row, record, lease, now)

    async def _begin_durably(self, exchange: str, record: Record | None, lease: float) -> Begun | None:
        answer = await self._writer.ask(asks.Begin(exchange, lease))
        if answer is None:
            return None
        task, begun, maybe_sent = answer
        return _begun(task, begun, maybe_sent, record)

    def _may_begin_first(self, new: NewExchange, accepted_at: float, now: float) -> bool:
        """Whether nothing has happened yet to a read that was just accepted."""
        return new.id not in self._leases and now < accepted_at + new.expires_in

    def _begin_first(self, new: NewExchange, accepted_at: float, lease: float, now: float) -> Begun:
        """What ``_begin_in_memory`` does, where every rule says yes: most exchanges begin so."""
        decision, until = new.record.decision, now + lease
        exchange = Exchange(
            new.id, new.agency, new.service, new.effect, State.RUNNING, decision.purpose, decision.agreement,
            accepted_at, accepted_at + new.expires_in, 1, None, until, now, None,
        )  # fmt: skip
        self._leases[new.id] = Lease(1, until, now)
        return Begun(Attempt(new.id, 1), "run", exchange, new.record, maybe_sent=False)

    def _begin_in_memory(self, row: Row, record: Record | None, lease: float, now: float) -> Begun | None:
        task = standing.task_for(row, now)
        if task is None:
            return None
        maybe_sent = standing.sent_before(row, now)
        if task == "run":
            standing.run(row, lease, now)
            self._leases[row.id] = Lease(row.attempt, now + lease, now)
        return _begun(task, standing.told(row), maybe_sent, record)

    def _record(self, row: Row) -> Record | None:
        try:
            return self._seal.record(reads.sealed(self._db, row.request), row.id)
        except ReplyUnreadable:
            return None

    async def finish(self, attempt: Attempt, outcome: Outcome, entry: Entry) -> bool:
        reply, sealed = self._seal.reply(attempt.exchange, outcome, entry)
        ask = asks.Finish(attempt.exchange, attempt, outcome, reply, sealed)
        return self._ended(attempt, await self._writer.ask(ask))

    async def postpone(self, attempt: Attempt, delay: float, reason: str, *, sent: bool) -> bool:
        ask = asks.Postpone(attempt.exchange, attempt, delay, reason, sent)
        return self._ended(attempt, await self._writer.ask(ask))

    async def hold(
        self, attempt: Attempt, state: Literal[State.HELD, State.UNKNOWN], reason: str, entry: Entry
    ) -> bool:
        ask = asks.Hold(attempt.exchange, attempt, state, reason, self._seal.entry(entry))
        return self._ended(attempt, await self._writer.ask(ask))

    def _ended(self, attempt: Attempt, answer: bool) -> bool:
        """Forget the lease of the attempt, whatever became of it."""
        self._fresh.pop(attempt.exchange, None)
        lease = self._leases.get(attempt.exchange)
        if lease is not None and lease.number <= attempt.number:
            del self._leases[attempt.exchange]
        return answer

    async def resolve(self, exchange: str, ruling: Ruling, entry: Entry) -> bool:
        self._fresh.pop(exchange, None)
        reply, sealed = self._seal.reply(exchange, ruling.outcome, entry)
        answer = bool(await self._writer.ask(asks.Resolve(exchange, ruling, reply, sealed)))
        if answer:
            self._leases.pop(exchange, None)
        return answer

    async def due(self, limit: int) -> Sequence[Due]:
        return cast(list[Due], await self._writer.ask(batch.Overdue(limit)))

    # --- reading ------------------------------------------------------------------------------------------

    async def exchange(self, exchange: str) -> Exchange | None:
        with reads.reading():
            if (row := self._known(exchange)) is None:
                return None
            sealed = reads.sealed(self._db, row.reply)
            entries = reads.entries(self._db, row.row)
        if row.reply is not None and sealed is None:
            row.request = row.reply = None  # deleted since the row was read
        return standing.told(row, self._seal.body(sealed, exchange), entries)

    async def record(self, exchange: str) -> Record | None:
        with reads.reading():
            row = self._known(exchange)
            sealed = None if row is None else reads.sealed(self._db, row.request)
        return self._seal.record(sealed, exchange)

    async def search(self, query: Query) -> Page:
        return await asyncio.to_thread(self._search, query, self._seal.before(query), dict(self._leases))

    def _search(self, query: Query, before: Position | None, leases: dict[str, Lease]) -> Page:
        now = self._clock()
        with reads.reading():
            db = rows.connect(self._path, writes=False)
            try:
                services = reads.services(db) if query.business is not None else ()
                businesses = self._seal.businesses(query, services)
                wanted = reads.Wanted(query, businesses, self._seal.subject_of(query), before, leases)
                young = (row for row in reads.search(db, wanted) if standing.aged(row, self._ages, now) is not None)
                found = list(islice(young, query.limit + 1))
            finally:
                db.close()
        shown = found[: query.limit]
        more = len(found) > query.limit and bool(shown)
        cursor = self._seal.cursor(shown[-1].accepted_at, shown[-1].row) if more else None
        return Page(tuple(standing.told(row) for row in shown), cursor)

    async def standing(self) -> Mapping[State, int]:
        return await asyncio.to_thread(self._standing)

    def _standing(self) -> Mapping[State, int]:
        with reads.reading():
            db = rows.connect(self._path, writes=False)
            try:
                return reads.standing_still(db)
            finally:
                db.close()

    # --- notes --------------------------------------------------------------------------------------------

    async def note(
        self, entry: Entry, *, issuer: str | None = None, jti: str | None = None, jti_lives: float = 0
    ) -> None:
        spent = None if issuer is None or jti is None else self._seal.jti(issuer, jti, jti_lives)
        await self._writer.ask(asks.Note(self._seal.entry(entry), spent))

    async def spend(self, issuer: str, jti: str, jti_lives: float) -> None:
        await self._writer.ask(asks.Note(jti=self._seal.jti(issuer, jti, jti_lives)))


def _begun(task: Task, exchange: Exchange, maybe_sent: bool, record: Record | None) -> Begun:
    return Begun(Attempt(exchange.id, exchange.attempt), task, exchange, record, maybe_sent)
