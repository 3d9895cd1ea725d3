"""What is read from the PostgreSQL store without writing: reservations, single exchanges, lists of them.

Each function is one statement, so what it tells is of one moment. A crash means nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from gsb.model import Entry, State
from gsb.store.contract import Query
from gsb.store.postgres.schema import COLUMNS, EXCHANGE, SELECT, business_bytes, row_of
from gsb.store.sealing import Position, narrowed
from gsb.store.standing import Row

_OWNER = SELECT + (
    "JOIN reservation ON exchange.number = reservation.exchange "
    "WHERE hash = $1 AND (finished_at IS NULL OR finished_at > $2)"
)
_BY_ID = SELECT + "WHERE id = $1"
_WITH_SEALED = {
    column: " ".join(
        ["SELECT", EXCHANGE, ", bytes FROM exchange LEFT JOIN sealed ON sealed.number =", column, "WHERE id = $1"]
    )
    for column in ("request", "reply")
}
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


async def search(db: asyncpg.Connection, wanted: Wanted, limit: int) -> list[Row]:
    """Newest first."""
    statement, values = wanted.sql(limit)
    return [row_of(found) for found in await db.fetch(statement, *values)]


async def services(db: asyncpg.Connection) -> list[str]:
    """The services of which there are exchanges."""
    return [service for (service,) in await db.fetch(_SERVICES)]


async def owner(db: asyncpg.Connection, key: bytes, finished_after: float) -> Row | None:
    """The exchange to which a key belongs, unless the reservation has run out."""
    found = await db.fetchrow(_OWNER, key, finished_after)
    return None if found is None else row_of(found)


async def spent(db: asyncpg.Connection, hashed: bytes) -> tuple[int, int] | None:
    """The bucket and the number of a jti, if it is remembered."""
    found = await db.fetchrow("SELECT bucket, number FROM spent WHERE hash = $1", hashed)
    return None if found is None else (found[0], found[1])


async def exchange(db: asyncpg.Connection, id_: str) -> Row | None:
    """One exchange, if it is known."""
    found = await db.fetchrow(_BY_ID, id_)
    return None if found is None else row_of(found)


async def with_sealed(db: asyncpg.Connection, id_: str, column: str) -> tuple[Row, bytes | None] | None:
    """One exchange with the sealed bytes of its ``request`` or its ``reply``, if they are (still) there."""
    found = await db.fetchrow(_WITH_SEALED[column], id_)
    return None if found is None else (row_of(found), found[len(COLUMNS)])


async def entries(db: asyncpg.Connection, exchange: int) -> tuple[Entry, ...]:
    """The entries of an exchange, oldest first, without their secrets."""
    found = await db.fetch("SELECT content, leaf FROM entry WHERE exchange = $1 ORDER BY number", exchange)
    return tuple(Entry(content, leaf, b"") for content, leaf in found)


async def standing_still(db: asyncpg.Connection) -> dict[State, int]:
    """How many are waiting, held and unknown, counted on the index of states alone."""
    return {State(state): count for state, count in await db.fetch(_STANDING)}
