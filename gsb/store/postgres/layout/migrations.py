"""Makes the tables of the PostgreSQL store, and brings an older layout up to date while older programs work on it.

First the layout is expanded: what the version before needs stays, so its nodes go on beside newer ones, and an upgrade
can be taken back. It is contracted by the version after, once nobody is connected who is older still. Each step is
tried until its lock is free, and waits for that so shortly that nobody queues behind it for long; what takes long takes
no lock that calls need. Each step does nothing when it was done before, so a death anywhere leaves work for the next
start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple

import asyncpg

from gsb.store.contract import StoreAway, StoreUnfit
from gsb.store.postgres.layout.tables import LAYOUT, REVOKED, VERSION
from gsb.store.seal import Seal, Unreadable

LOCK_WAIT, LOCK_PAUSE, LOCK_TRIES = "200ms", 0.5, 240
"""How long a step waits for its lock, seconds between two tries, and how many there are."""
LONG = 86_400.0
"""Seconds for a step that keeps nobody waiting."""


class Step(NamedTuple):
    sql: str
    done: str = "SELECT WHERE false"
    """Finds something when there is nothing left to do."""
    alone: bool = False
    """PostgreSQL does it beside everybody else and outside of a transaction."""


class Migration(NamedTuple):
    """What leads from the layout before to this one."""

    expand: tuple[Step, ...]
    contract: tuple[Step, ...]


_CUT = "SELECT FROM pg_class WHERE oid = to_regclass('sealed') AND relkind = 'p'"
_INDEXED = "SELECT FROM pg_index WHERE indexrelid = to_regclass('exchange_slow') AND indisvalid"
_BOUNDED = "SELECT FROM pg_constraint WHERE conname = 'sealed_before' AND connamespace = current_schema()::regnamespace"

MIGRATIONS = {
    2: Migration(
        expand=(
            Step("CREATE TABLE IF NOT EXISTS withheld(at double precision NOT NULL)"),
            Step("CREATE TABLE IF NOT EXISTS portion(number bigint PRIMARY KEY, began_at double precision)"),
            # One that was not finished is there and worth nothing.
            Step("DROP INDEX CONCURRENTLY IF EXISTS exchange_slow", _INDEXED, alone=True),
            Step(
                "CREATE INDEX CONCURRENTLY exchange_slow ON exchange(request) "
                "WHERE finished_at > accepted_at + 3600 AND request IS NOT NULL",
                _INDEXED,
                alone=True,
            ),
            # So that making the table a part of another one need not look at its rows.
            Step(
                "ALTER TABLE sealed ADD CONSTRAINT sealed_before CHECK (number < 4294967296) NOT VALID",
                f"{_BOUNDED} UNION ALL {_CUT}",
            ),
            Step("ALTER TABLE sealed VALIDATE CONSTRAINT sealed_before", _CUT, alone=True),
            Step(
                """
                ALTER TABLE sealed RENAME TO sealed_0;
                ALTER INDEX sealed_pkey RENAME TO sealed_0_pkey;
                CREATE TABLE sealed(number bigint PRIMARY KEY, bytes bytea NOT NULL) PARTITION BY RANGE (number);
                ALTER TABLE sealed ALTER bytes SET STORAGE EXTERNAL;
                ALTER TABLE sealed ATTACH PARTITION sealed_0 FOR VALUES FROM (MINVALUE) TO (4294967296);
                CREATE TABLE sealed_rest PARTITION OF sealed DEFAULT;
                INSERT INTO portion VALUES (0);
                """,
                _CUT,
            ),
        ),
        contract=(Step("ALTER TABLE IF EXISTS sealed_0 DROP CONSTRAINT IF EXISTS sealed_before"),),
    )
}
"""By the version to which they lead."""


FIRST = 1
"""The version whose programs do not say which they are."""
Tell = Callable[[str], None]


class Outlook(NamedTuple):
    """What a store is, and what this program will do when it prepares it."""

    version: int | None
    """Of its layout; None: there are no tables yet."""
    steps: tuple[Step, ...]
    """Those by which it is expanded that are not done."""


def untold(what: str) -> None:
    """For those who wait without being told for what."""


def application(schema: str) -> str:
    """The name that sessions of this program bear, by which others see what is at work."""
    return f"gsb/{VERSION} {schema}"[:63]


async def tables(db: asyncpg.Connection, schema: str) -> set[str]:
    """What there is in a schema."""
    found = await db.fetch("SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = $1", schema)
    return {name for (name,) in found}


async def alone(db: asyncpg.Connection, schema: str) -> None:
    """Inside a transaction: nobody else makes or changes this store's tables until it ends."""
    await db.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"gsb store {schema}")


async def create(db: asyncpg.Connection, schema: str, seal: Seal) -> None:
    """Make an empty store of a schema without tables, inside the caller's transaction."""
    await db.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    await db.execute(LAYOUT)
    await db.execute(REVOKED)
    await db.execute("INSERT INTO layout VALUES ($1, $1, $2)", VERSION, seal.keycheck())


async def outlook(db: asyncpg.Connection, schema: str, seal: Seal) -> Outlook:
    """What ``prepare`` has to do, which changes nothing. Raises StoreUnfit and asyncpg's errors."""
    if not await tables(db, schema):
        return Outlook(None, ())
    version, _ = await _checked(db, schema, seal)
    steps = [step for each in range(version + 1, VERSION + 1) for step in MIGRATIONS[each].expand]
    return Outlook(version, tuple([step for step in steps if await db.fetchrow(step.done) is None]))


async def prepare(db: asyncpg.Connection, schema: str, seal: Seal, tell: Tell = untold) -> None:
    """Make the schema a store, or bring it up to date; refuse what is not ours. Raises StoreUnfit and asyncpg's errors.

    Of several processes that start at once one does it and the others wait. ``tell`` is told of each step before it is
    tried. ``db`` is of no use for other work after.
    """
    await db.execute("SET lock_timeout = 0; SET statement_timeout = 0")
    # Whoever waits inside a statement would be waited for by an index that is made beside others.
    for _ in range(round(LONG / LOCK_PAUSE)):
        if await db.fetchval("SELECT pg_try_advisory_lock(hashtext($1))", f"gsb store {schema}"):
            break
        await asyncio.sleep(LOCK_PAUSE)
    if not await tables(db, schema):
        async with db.transaction():
            await create(db, schema, seal)
        return
    version, oldest = await _checked(db, schema, seal)
    await db.execute(REVOKED)
    for each in range(version + 1, VERSION + 1):
        await _take(db, schema, MIGRATIONS[each].expand, tell)
        await db.execute("UPDATE layout SET version = $1", each)
    before = VERSION - 1
    if oldest < before and not await _older_at_work(db, schema, before):
        for each in range(oldest + 1, VERSION):
            await _take(db, schema, MIGRATIONS[each].contract, tell)
        await db.execute("UPDATE layout SET oldest = $1", before)


async def _checked(db: asyncpg.Connection, schema: str, seal: Seal) -> tuple[int, int]:
    """The version of a store that is there, and the oldest program that can work on it."""
    if "layout" not in await tables(db, schema):
        raise StoreUnfit(f"schema {schema}: this is not a store of the bus")
    version, oldest, keycheck = await db.fetchrow("SELECT version, oldest, keycheck FROM layout")
    if oldest > VERSION:
        raise StoreUnfit(f"schema {schema}: the store has version {version}, this program knows {VERSION} at most")
    try:
        seal.recognise(keycheck)
    except Unreadable:
        raise StoreUnfit(f"schema {schema}: the store was sealed with another key") from None
    return int(version), int(oldest)


async def at_work(db: asyncpg.Connection, schema: str) -> list[str]:
    """The names of all other sessions of programs that may work on this store."""
    found = await db.fetch(
        "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    ours = application(schema)
    # The first layout's programs do not say on which schema they work.
    return [name for (name,) in found if name == "gsb" or (name.startswith("gsb/") and _of(name) == _of(ours))]


async def _older_at_work(db: asyncpg.Connection, schema: str, than: int) -> bool:
    versions = [name.partition(" ")[0].partition("/")[2] for name in await at_work(db, schema)]
    return any(int(version or FIRST) < than for version in versions)


def _of(name: str) -> str:
    """What follows the version in a session's name."""
    return name.partition(" ")[2]


async def _take(db: asyncpg.Connection, schema: str, steps: Iterable[Step], tell: Tell) -> None:
    for step in steps:
        tell(said(step))
        for left in range(LOCK_TRIES, -1, -1):
            try:
                if await db.fetchrow(step.done) is None:
                    await _try(db, step)
                break
            except asyncpg.LockNotAvailableError as error:
                if not left:
                    raise StoreAway(f"schema {schema}: its tables cannot be changed: {error}") from error
                await asyncio.sleep(LOCK_PAUSE)


def said(step: Step) -> str:
    """Its statements in one line."""
    return " ".join(step.sql.split())


async def _try(db: asyncpg.Connection, step: Step) -> None:
    if step.alone:
        await db.execute(step.sql, timeout=LONG)
        return
    async with db.transaction():
        await db.execute(f"SET LOCAL lock_timeout = '{LOCK_WAIT}'")
        await db.execute(step.sql)
