"""What is read from the PostgreSQL store without writing: reservations, single exchanges, lists of them.

Each function is one statement, so what it tells is of one moment. A crash means nothing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import asyncpg

from gsb.errors import StoreUnavailable
from gsb.model import Entry, State
from gsb.store.contract import Query
from gsb.store.postgres.schema import COLUMNS, EXCHANGE, NOW, SELECT, business_bytes, row_of
from gsb.store.sealing import Position, narrowed
from gsb.store.standing import Row

_LOOKED = " ".join(
    [
        *("SELECT", EXCHANGE, ", spent.bucket, spent.number,", NOW),
        "FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS asked(jti, key, at)",
        "LEFT JOIN spent ON spent.hash = asked.jti LEFT JOIN reservation ON reservation.hash = asked.key",
        "LEFT JOIN exchange ON exchange.number = reservation.exchange ORDER BY at",
    ]
)
_BY_ID = SELECT + "WHERE id = $1"
_WITH_SEALED = {
    column: " ".join(
        ["SELECT", EXCHANGE, ", bytes FROM exchange LEFT JOIN sealed ON sealed.number =", column, "WHERE id = $1"]
    )
    for column in ("request", "reply")
}
_WHOLE = " ".join(
    [
        *("SELECT", EXCHANGE, ", bytes,"),
        "ARRAY(SELECT content FROM entry WHERE entry.exchange = exchange.number ORDER BY entry.number),",
        *("ARRAY(SELECT leaf FROM entry WHERE entry.exchange = exchange.number ORDER BY entry.number),", NOW),
        "FROM exchange LEFT JOIN sealed ON sealed.number = reply WHERE id = $1",
    ]
)
_SERVICES = """
WITH RECURSIVE step AS (
    SELECT min(service) AS service FROM exchange
    UNION ALL SELECT (SELECT min(service) FROM exchange WHERE exchange.service > step.service) FROM step
    WHERE service IS NOT NULL
)
SELECT service FROM step WHERE service IS NOT NULL
"""
"""Each service is found by one step along the index from the one before it, however many exchanges it has."""
_STANDING = """
SELECT state, count(*) FROM exchange WHERE state IN ('waiting', 'held', 'unknown') AND state <> 'done' GROUP BY state
"""
Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A query whose business key, subject and cursor are understood."""

    query: Query
    businesses: Sequence[str | bytes] | None
    """The forms in which the business key may have been stored."""
    subject: bytes | None
    """The keyed hash of the subject."""
    before: Position | None
    finished_after: float
    """What has ended before is too old to be told."""

    def tests(self) -> Iterator[tuple[str, Any]]:
        """Conditions of SQL with one value each."""
        businesses = None if self.businesses is None else [business_bytes(each) for each in self.businesses]
        yield "(finished_at IS NULL OR finished_at > {})", self.finished_after
        if businesses is not None:
            yield "business = ANY({}::bytea[])", businesses
        yield from ((f"{comparison} {{}}", value) for comparison, value in narrowed(self.query, self.subject))
        if self.query.states:
            yield "state = ANY({}::text[])", [state.value for state in self.query.states]

    def sql(self, limit: int) -> tuple[str, list[Any]]:
        """The statement and its values."""
        found = list(self.tests())
        where = [test.format(f"${at}") for at, (test, _) in enumerate(found, 1)]
        values = [value for _, value in found]
        if self.before is not None:
            where.append(f"(accepted_at, number) < (${len(values) + 1}, ${len(values) + 2})")
            values += self.before
        if self.query.states and State.DONE not in self.query.states:
            # So that the index which holds all other states can be seen to hold these.
            where.append("state <> 'done'")
        order = f"ORDER BY accepted_at DESC, number DESC LIMIT {limit}"
        return " ".join([SELECT, "WHERE", " AND ".join(where), order]), values


class Together(Generic[Q, A]):
    """Answers together whatever was asked while the last answers were read: one call by itself at once, and under load
    many with one statement. ``answer`` gives an answer for each question, in their order."""

    def __init__(self, answer: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]) -> None:
        self._answer = answer
        self._one_at_a_time = asyncio.Lock()
        self._asked: list[Q] = []
        self._answers: asyncio.Task[Sequence[A]] | None = None
        """For those that ask now."""

    async def ask(self, question: Q) -> A:
        """Raises StoreUnavailable."""
        if self._answers is None:
            self._answers, self._asked = asyncio.create_task(self._next()), []
        at = len(self._asked)
        self._asked.append(question)
        try:
            # Whoever is cancelled must not take the others' answers along.
            return (await asyncio.shield(self._answers))[at]
        except StoreUnavailable as error:
            raise StoreUnavailable from error

    async def _next(self) -> Sequence[A]:
        async with self._one_at_a_time:
            asked, self._answers = self._asked, None
            return await self._answer(asked)


async def search(db: asyncpg.Connection, wanted: Wanted, limit: int) -> list[Row]:
    """Newest first."""
    statement, values = wanted.sql(limit)
    return [row_of(found) for found in await db.fetch(statement, *values)]


async def services(db: asyncpg.Connection) -> list[str]:
    """The services of which there are exchanges."""
    return [service for (service,) in await db.fetch(_SERVICES)]


class Looked(NamedTuple):
    """What is known of a jti and a key."""

    owner: Row | None
    """The exchange to which the key belongs, or did until its reservation ran out."""
    spent: tuple[int, int] | None
    """The bucket and the number of the jti, if it is remembered."""
    now: float
    """The database's time."""


async def looked(db: asyncpg.Connection, asked: Sequence[tuple[bytes, bytes | None]]) -> list[Looked]:
    """Of each hashed jti and key, in their order."""
    found = []
    for each in await db.fetch(_LOOKED, *map(list, zip(*asked, strict=True))):
        bucket, number, now = tuple(each)[len(COLUMNS) :]
        owner = None if each[0] is None else row_of(each)
        found.append(Looked(owner, None if bucket is None else (bucket, number), now))
    return found


async def exchange(db: asyncpg.Connection, id_: str) -> Row | None:
    """One exchange, if it is known."""
    found = await db.fetchrow(_BY_ID, id_)
    return None if found is None else row_of(found)


async def with_sealed(db: asyncpg.Connection, id_: str, column: str) -> tuple[Row, bytes | None] | None:
    """One exchange with the sealed bytes of its ``request`` or its ``reply``, if they are (still) there."""
    found = await db.fetchrow(_WITH_SEALED[column], id_)
    return None if found is None else (row_of(found), found[len(COLUMNS)])


async def whole(db: asyncpg.Connection, id_: str) -> tuple[Row, bytes | None, tuple[Entry, ...], float] | None:
    """One exchange with its sealed reply, if there is one, its entries, oldest first, without their secrets, and the
    database's time."""
    found = await db.fetchrow(_WHOLE, id_)
    if found is None:
        return None
    sealed, contents, leaves, now = tuple(found)[len(COLUMNS) :]
    entries = (Entry(content, leaf, b"") for content, leaf in zip(contents, leaves, strict=True))
    return row_of(found), sealed, tuple(entries), now


async def standing_still(db: asyncpg.Connection) -> dict[State, int]:
    """How many are waiting, held and unknown, counted on the index of states alone."""
    return {State(state): count for state, count in await db.fetch(_STANDING)}
