"""The PostgreSQL store in a backup: its tables in PostgreSQL's binary form, all of one moment, and back again.

One transaction reads everything (REPEATABLE READ), and PostgreSQL's own COPY gives and takes the rows; nobody waits for
it but the dropping of old portions. What comes back goes into a schema of its own name first, in one transaction, and
gets its real name when all else is done; so no node ever finds a store that is there in part. A crash leaves that
schema, which the next attempt drops.

Source: PostgreSQL 15, "COPY" and "13.2.2. Repeatable Read Isolation Level".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import orjson

from gsb.backends import PostgresTable
from gsb.backup.archive import Pack
from gsb.backup.envelope import BackupUnfit, Tell
from gsb.dsn import read_dsn
from gsb.store.contract import DAY, StoreUnfit
from gsb.store.logs import LogState
from gsb.store.postgres import log as places
from gsb.store.postgres.layout import migrations
from gsb.store.postgres.layout.portions import start_of
from gsb.store.postgres.layout.tables import VERSION
from gsb.store.postgres.sessions import OF_THE_DATABASE, Sessions, refuse_forgetful
from gsb.store.seal import Seal, Unreadable

KIND = f"postgres {VERSION}"
PIECE = 4 * 1024 * 1024
"""Bytes of rows that are in memory at once, and that make one member."""
SEQUENCES = "sequences.json"
STAGING = "_restoring"
"""What the name of a schema ends with until everything is there."""
_TABLES = r"""
SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace
AND relkind IN ('r', 'p') AND NOT relispartition AND relname NOT LIKE 'share\_%' ORDER BY relname
"""
"""All but what nodes at work share, which is worth nothing to others."""
_COUNTERS = "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = current_schema()"


class Snapshot:
    """A store as one transaction sees it."""

    kind = KIND

    def __init__(self, db: asyncpg.Connection) -> None:
        self._db = db

    async def logs(self) -> Sequence[LogState]:
        return await places.logs(self._db)

    async def entries(self, origin: str, start: int, limit: int) -> Sequence[bytes]:
        return await places.entries(self._db, origin, start, limit)

    async def add(self, out: Pack, tell: Tell) -> None:
        for (table,) in await self._db.fetch(_TABLES):
            pieces = _Pieces(out, str(table), tell)
            await self._db.copy_from_query(f"TABLE {table}", output=pieces.take, format="binary")
            pieces.end()
        # Asked last: numbers that were given since are passed over, and none is given twice.
        counters = {name: value for name, value in await self._db.fetch(_COUNTERS) if value is not None}
        out.add(f"store/{SEQUENCES}", orjson.dumps(counters))


class _Pieces:
    """The rows of one table, cut into members."""

    def __init__(self, out: Pack, table: str, tell: Tell) -> None:
        self._out, self._table, self._tell = out, table, tell
        self._held, self._count = bytearray(), 0

    async def take(self, data: bytes) -> None:
        self._held += data
        if len(self._held) >= PIECE:
            self.end()

    def end(self) -> None:
        self._out.add(f"store/{self._table}/{self._count:08}", bytes(self._held))
        self._held.clear()
        self._count += 1
        self._tell(f"table {self._table}", self._count * PIECE, 0)


@asynccontextmanager
async def snapshot(table: PostgresTable, key: bytes) -> AsyncIterator[Snapshot]:
    """The store as it is now, as long as this lasts. Raises StoreUnfit."""
    async with (
        _session(table, table.schema_name) as db,
        db.transaction(isolation="repeatable_read", readonly=True),
    ):
        if "layout" not in await migrations.tables(db, table.schema_name):
            raise StoreUnfit(f"schema {table.schema_name}: there is no store")
        version, keycheck = await db.fetchrow("SELECT version, keycheck FROM layout")
        if version != VERSION:
            raise StoreUnfit(f"the store has layout {version}, this program {VERSION}: start its node first")
        try:
            Seal(key).recognise(keycheck)
        except Unreadable:
            raise StoreUnfit("the store was sealed with another key") from None
        yield Snapshot(db)


def staging(name: str) -> str:
    """What a schema is called until everything is there; names have 63 characters at most."""
    return name[: 63 - len(STAGING)] + STAGING


async def lay(table: PostgresTable, key: bytes, folder: Path, tell: Tell) -> None:
    """Make the store in its staging schema from the members in ``folder``: all of it, or nothing. Raises StoreUnfit,
    BackupUnfit."""
    name = staging(table.schema_name)
    async with _session(table, name) as db:
        await refuse_forgetful(db)
        await _refuse_full(db, table.schema_name)
        await db.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")
        async with db.transaction():
            await migrations.create(db, name, Seal(key))
            await _fill(db, folder, tell)
        await db.execute("ANALYZE")


async def _fill(db: asyncpg.Connection, folder: Path, tell: Tell) -> None:
    tables = [str(name) for (name,) in await db.fetch(_TABLES)]
    held = _held(folder)
    if others := set(held) - set(tables):
        raise BackupUnfit(f"its store has other tables than this program knows: {', '.join(sorted(others))}")
    await db.execute(f"TRUNCATE {', '.join(tables)}")
    # Where the rows of ``sealed`` go, the portions say.
    held.sort(key=lambda table: (table == "sealed", table))
    for table in held:
        if table == "sealed":
            await _portions(db)
        await db.copy_to_table(table, source=_rows(folder / table, tell), format="binary")
    for name, value in orjson.loads((folder / SEQUENCES).read_bytes()).items():
        await db.execute("SELECT setval($1::text::regclass, $2)", name, value)


async def _portions(db: asyncpg.Connection) -> None:
    """Those of the layout are the first one and the rest."""
    numbers = {number for (number,) in await db.fetch("SELECT number FROM portion")}
    if 0 not in numbers:
        await db.execute("DROP TABLE sealed_0")
    for number in numbers - {0}:
        bounds = f"FROM ({start_of(number)}) TO ({start_of(number + 1)})"
        await db.execute(f"CREATE TABLE sealed_{number} PARTITION OF sealed FOR VALUES {bounds}")


def _held(folder: Path) -> list[str]:
    """Names of the tables in an unpacked backup."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


async def _rows(folder: Path, tell: Tell) -> AsyncIterator[bytes]:
    number = 0
    while (path := folder / f"{number:08}").is_file():
        number += 1
        tell(f"table {folder.name}", number * PIECE, 0)
        yield path.read_bytes()


async def give_name(table: PostgresTable) -> None:
    """Let the store have its real name, if it has not yet. Raises StoreUnfit."""
    name, real = staging(table.schema_name), table.schema_name
    async with _session(table, name) as db, db.transaction():
        if await db.fetchval("SELECT to_regnamespace($1)::oid", name) is None:
            return
        await _refuse_full(db, real)
        await db.execute(f"DROP SCHEMA IF EXISTS {real}")
        await db.execute(f"ALTER SCHEMA {name} RENAME TO {real}")


async def _refuse_full(db: asyncpg.Connection, name: str) -> None:
    if await migrations.tables(db, name):
        raise StoreUnfit(
            f"schema {name}: it is not empty; give another database, or drop it: DROP SCHEMA {name} CASCADE"
        )


@asynccontextmanager
async def _session(table: PostgresTable, name: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection on which nothing that takes long is given up. Raises StoreUnfit for what goes wrong on it."""
    try:
        db = await Sessions(read_dsn(table.dsn), name, statement=DAY).connect()
        try:
            # Not the name of a node: whoever asks whether one is at work must not be told of this.
            await db.execute("SET idle_in_transaction_session_timeout = 0; SET application_name = 'gsb backup'")
            yield db
        finally:
            db.terminate()
    except OF_THE_DATABASE as error:
        raise StoreUnfit(f"PostgreSQL: {error}") from error
