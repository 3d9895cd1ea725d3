"""Connections to PostgreSQL: how each is set up, a pool of them for reading, and what its errors mean to callers.

Every session demands durable commits, and bounds each statement, each wait for a lock and each silence inside a
transaction, so that a node that hangs keeps nobody else waiting for long. Reading is tried once more on a fresh
connection when one was lost, as after a restart of the server; what writes never is. A crash closes the connections
and the server undoes what was not committed.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg

from gsb.errors import StoreUnavailable
from gsb.store.contract import StoreAway, StoreUnfit
from gsb.store.postgres.layout import migrations
from gsb.store.postgres.schema import NOW
from gsb.store.seal import Seal

T = TypeVar("T")

CONNECT, SILENCE = 5.0, 2.0
"""Seconds for connecting, and for an answer beyond the server's own time-out, until the connection is given up."""
READERS, STATEMENT = 8, 10.0
"""Connections for reading at most, and seconds after which the server gives a statement up."""
_BOUNDS = {"lock_timeout": "2s", "idle_in_transaction_session_timeout": "15s"}
_PLANS = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}
"""Every statement finds its rows by an index, and is planned once: planning took longer than carrying it out, and a
plan that is made while the tables are small must not read them whole once they have grown."""
_SCHEMA = re.compile("[a-z_][a-z0-9_]{0,62}")
_TIME = " ".join(["SELECT", NOW])
Clock = Callable[[float], float]
"""What the time is when the database's clock says so: it itself, but for tests."""

OF_THE_DATABASE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Whatever can go wrong with a server or on the way to it; a time-out is an OSError."""
LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InterfaceError,
    OSError,
)
"""The connection is of no use any more: another may be, to this server or to the one that took its place."""


class _Session(asyncpg.Connection):  # type: ignore[misc]
    """One of the pool. Nothing that is done on it outlives its transaction, so nothing is to be undone when it goes
    back, which would cost as much as a read."""

    def get_reset_query(self) -> str:
        return ""


class Sessions:
    """Connections to one schema of one database. ``dsn`` may name several hosts: the one that takes writes is used."""

    def __init__(self, dsn: str, name: str, readers: int = READERS, statement: float = STATEMENT) -> None:
        if not _SCHEMA.fullmatch(name):
            raise ValueError(f"not the name of a schema: {name!r}")
        self._dsn, self.name, self._readers, self._statement = dsn, name, readers, statement
        self._pool: asyncpg.Pool | None = None

    def _settings(self) -> dict[str, Any]:
        session = {"synchronous_commit": "on", "default_transaction_isolation": "read committed", **_BOUNDS}
        session |= {"search_path": self.name, "application_name": migrations.application(self.name), "jit": "off"}
        session |= {"statement_timeout": f"{round(self._statement * 1000)}ms", **_PLANS}
        return {
            "dsn": self._dsn,
            "timeout": CONNECT,
            "command_timeout": self._statement + SILENCE,
            "target_session_attrs": "read-write",
            "server_settings": session,
        }

    async def connect(self) -> asyncpg.Connection:
        """A connection of the caller's own. Raises one of OF_THE_DATABASE."""
        return await asyncpg.connect(**self._settings())

    async def open(self, seal: Seal) -> None:
        """Make the store if there is none, and bring it up to date. Raises StoreUnfit."""
        await self.prepare(seal)
        try:
            self._pool = await asyncpg.create_pool(
                min_size=1, max_size=self._readers, connection_class=_Session, **self._settings()
            )
        except (*OF_THE_DATABASE, ValueError) as error:
            raise _not_opened(error) from error

    async def prepare(self, seal: Seal, tell: migrations.Tell = migrations.untold) -> None:
        """What opening does first, which may take long, and whoever is at work goes on meanwhile. Raises StoreUnfit."""
        async with self._unopened() as db:
            await migrations.prepare(db, self.name, seal, tell)

    async def outlook(self, seal: Seal) -> migrations.Outlook:
        """What ``prepare`` has to do, which changes nothing. Raises StoreUnfit."""
        async with self._unopened() as db:
            return await migrations.outlook(db, self.name, seal)

    @asynccontextmanager
    async def _unopened(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection of its own, to a server that may be used. Raises StoreUnfit for whatever goes wrong."""
        try:
            db = await self.connect()
            try:
                await refuse_forgetful(db)
                yield db
            finally:
                await db.close(timeout=CONNECT)
        except (*OF_THE_DATABASE, ValueError) as error:
            raise _not_opened(error) from error

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    async def read(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """What ``work`` finds. Raises StoreUnavailable."""
        try:
            return await self._on_a_connection(work)
        except TimeoutError as error:
            raise StoreUnavailable from error  # who asked has waited long enough
        except LOST:
            pass
        except OF_THE_DATABASE as error:
            raise StoreUnavailable from error
        try:
            return await self._on_a_connection(work)
        except OF_THE_DATABASE as error:
            raise StoreUnavailable from error

    async def transact(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """``work`` inside one transaction; it is undone when ``work`` raises. Raises StoreUnavailable, also when the
        fate of the commit is not known."""

        async def inside(db: asyncpg.Connection) -> T:
            async with db.transaction():
                return await work(db)

        try:
            return await self._on_a_connection(inside)
        except OF_THE_DATABASE as error:
            raise StoreUnavailable from error

    async def _on_a_connection(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        if self._pool is None:
            raise StoreUnavailable("the store is not open")
        async with self._pool.acquire(timeout=CONNECT) as db:
            try:
                return await work(db)
            except LOST:
                db.terminate()  # the pool must not hand it out again
                raise


def _not_opened(error: Exception) -> StoreUnfit:
    """In doubt it may be there later: when a password is refused, the one to be mended may be the server's."""
    kind = StoreAway if isinstance(error, OF_THE_DATABASE) else StoreUnfit
    return kind(f"the store on PostgreSQL cannot be opened: {error}")


async def refuse_forgetful(db: asyncpg.Connection) -> None:
    """A server or a proxy in between that does not keep what it says is kept is no place for a store."""
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        value = await db.fetchval("SELECT current_setting($1)", name)
        if value != "on":
            raise StoreUnfit(f"the server has {name} = {value}: what is committed could be lost; it must be on")


async def database_clock(db: asyncpg.Connection) -> float:
    """The database's time, in seconds since the epoch."""
    return float(await db.fetchval(_TIME))
