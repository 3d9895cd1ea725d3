"""What the nodes of one bus share, over PostgreSQL: small tables beside the store's, in the same schema.

Each verb is one statement, or reads and then writes only if nobody wrote meanwhile: no lock outlives a statement, so a
node that is stopped between two of them keeps nobody waiting. All times are the database's. A statement whose answer
was lost is sent once more, which costs a budget a piece and nothing else. What a node held when it crashed runs out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar

import asyncpg
import orjson

from gsb.errors import StoreUnavailable
from gsb.shares.contract import ROUNDING, Draw, Drawn, Fence, Need, Slots
from gsb.shares.division import Held, divide
from gsb.store.contract import StoreAway
from gsb.store.postgres.sessions import Sessions, database_clock

_TABLES = """
CREATE TABLE IF NOT EXISTS share_lease(
    name text PRIMARY KEY, node text NOT NULL, fence bigint NOT NULL, until timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS share_budget(name text PRIMARY KEY, full_at double precision NOT NULL);
CREATE TABLE IF NOT EXISTS share_slots(system text PRIMARY KEY, version bigint NOT NULL, holders jsonb NOT NULL);
"""
_LEASE = """
INSERT INTO share_lease AS held VALUES ($1, $2, 1, clock_timestamp() + $3)
ON CONFLICT (name) DO UPDATE SET node = excluded.node, until = clock_timestamp() + $3,
    fence = held.fence + CASE WHEN held.node = excluded.node AND held.until > clock_timestamp() THEN 0 ELSE 1 END
WHERE held.node = excluded.node OR held.until <= clock_timestamp()
RETURNING fence
"""
_RELEASE = "UPDATE share_lease SET until = '-infinity' WHERE name = $1 AND node = $2"
"""The row stays, so that the next fence is higher."""

_BUDGETS = """
INSERT INTO share_budget SELECT name, 0 FROM unnest($1::text[]) AS name ORDER BY name ON CONFLICT DO NOTHING
"""
_DRAW = """
WITH hasty AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
asked AS (
    SELECT * FROM unnest($1::text[], $2::bigint[], $3::double precision[], $4::double precision[])
    AS asked(name, count, apart, slack)
),
held AS MATERIALIZED (
    SELECT name, full_at, count, apart, slack FROM share_budget JOIN asked USING (name) ORDER BY name
    FOR UPDATE OF share_budget
),
looked AS MATERIALIZED (
    SELECT held.*, extract(epoch FROM clock_timestamp())::double precision AS now FROM held
),
stood AS (
    SELECT *, CASE WHEN full_at - now BETWEEN 0 AND slack + 2 * apart THEN full_at - now ELSE 0 END AS ahead FROM looked
),
drawn AS (
    SELECT *, least(count, greatest(floor((slack - ahead) / apart + $5)::bigint + 1, 0)) AS given FROM stood
)
UPDATE share_budget SET full_at = now + ahead + given * apart FROM drawn, hasty WHERE share_budget.name = drawn.name
RETURNING drawn.name, given, greatest(ahead + given * apart, 0)
"""
"""Locks in one order, so that nodes wait in a row. What a crash of the server forgets of it is a second's use, so
nobody waits for the disk."""

_HOLDERS = "SELECT system, version, holders FROM share_slots WHERE system = ANY($1::text[])"
_DIVIDED = """
INSERT INTO share_slots SELECT * FROM unnest($1::text[], $2::bigint[], $3::jsonb[]) AS given(system, version, holders)
ORDER BY system
ON CONFLICT (system) DO UPDATE SET version = excluded.version, holders = excluded.holders
WHERE share_slots.version = excluded.version - 1
RETURNING system
"""
_LEAVE = """
WITH held AS MATERIALIZED (
    SELECT system FROM share_slots WHERE system = ANY($2::text[]) AND holders ? $1 ORDER BY system FOR UPDATE
)
UPDATE share_slots SET version = version + 1, holders = holders - $1 FROM held WHERE share_slots.system = held.system
"""
TRIES = 20
"""Times that slots are divided anew because another node did at the same moment: one of them is done each time."""


class PostgresShares:
    """See ``gsb.shares.contract.Shares``. ``sessions`` are the store's, and are open as long as it is."""

    alone: ClassVar[bool] = False

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._budgets: set[str] = set()
        """Those that have a row."""

    async def open(self) -> None:
        async def make(db: asyncpg.Connection) -> None:
            # Of several processes that start at once one makes the tables and the others wait.
            await db.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"gsb shares {self._sessions.name}")
            await db.execute(_TABLES)

        try:
            await self._sessions.transact(make)
        except StoreUnavailable as error:
            raise StoreAway(f"what nodes share cannot be kept on PostgreSQL: {error.__cause__}") from error

    async def close(self) -> None:
        """The connections are the store's."""

    async def clock(self) -> float:
        return await self._sessions.read(database_clock)

    async def lease(self, name: str, node: str, seconds: float) -> Fence | None:
        fence = await self._sessions.read(lambda db: db.fetchval(_LEASE, name, node, timedelta(seconds=seconds)))
        return None if fence is None else Fence(fence)

    async def release(self, name: str, node: str) -> None:
        await self._sessions.read(lambda db: db.execute(_RELEASE, name, node))

    async def draw(self, asked: Mapping[str, Draw]) -> Mapping[str, Drawn]:
        async def drawn(db: asyncpg.Connection) -> Mapping[str, Drawn]:
            if new := asked.keys() - self._budgets:
                await db.execute(_BUDGETS, list(new))
                self._budgets |= new
            counts, intervals, slacks = zip(*asked.values(), strict=True)
            found = await db.fetch(_DRAW, list(asked), counts, intervals, slacks, ROUNDING)
            if len(found) < len(asked):
                self._budgets.clear()
                raise StoreUnavailable("another database has taken the place of the one that knew these budgets")
            return {name: Drawn(count, ahead) for name, count, ahead in found}

        return await self._sessions.read(drawn)

    async def slots(self, node: str, needs: Mapping[str, Need]) -> Mapping[str, Slots]:
        async def divided(db: asyncpg.Connection) -> Mapping[str, Slots]:
            had: dict[str, Slots] = {}
            for _ in range(TRIES):
                asked = {system: need for system, need in needs.items() if system not in had}
                had |= await _divided(db, node, asked)
                if len(had) == len(needs):
                    return had
            raise StoreUnavailable("too many nodes divide slots at once")

        return await self._sessions.read(divided)

    async def leave(self, node: str, systems: frozenset[str]) -> None:
        await self._sessions.read(lambda db: db.execute(_LEAVE, node, sorted(systems)))


async def _divided(db: asyncpg.Connection, node: str, needs: Mapping[str, Need]) -> dict[str, Slots]:
    """What the node has of each system, but for those where another node wrote at the same moment."""
    now = await database_clock(db)  # what runs out between this and the next look is still held
    found = await db.fetch(_HOLDERS, list(needs))
    known = {system: (version, orjson.loads(holders)) for system, version, holders in found}
    had: dict[str, Slots] = {}
    changes: dict[str, tuple[int, str]] = {}
    for system, need in needs.items():
        version, written = known.get(system, (0, {}))
        holders = {name: Held(*held) for name, held in written.items()}
        had[system], after = divide(now, node, need, holders)
        if after is not holders:
            changes[system] = (version + 1, orjson.dumps({name: list(held) for name, held in after.items()}).decode())
    if changes:
        versions, texts = zip(*changes.values(), strict=True)
        done = {system for (system,) in await db.fetch(_DIVIDED, list(changes), versions, texts)}
        had = {system: slots for system, slots in had.items() if system not in changes or system in done}
    return had
