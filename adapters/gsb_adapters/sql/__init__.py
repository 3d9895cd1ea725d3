"""Any relational database: one parameterised statement per service, each call in a transaction of its own.

Statements come from the deployment's files and values only as parameters: no SQL is ever built. Before its commit a
write is certainly undone, so only a commit that fails, or a crash during it, leaves its fate unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, CursorResult, event, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gsb.sdk import Adapter, Broken, Context, Refused, Reply, Request, Unavailable, scope
from gsb_adapters.sql.settings import SqlSettings, Statement, parameter_names

WRITES = "gsb_writes"
LAST_WAIT = 2.0
"""Seconds that calls which were given up have to end before their connections are closed."""
Answer = dict[str, Any]


@dataclass(slots=True)
class Job:
    """One statement to run. ``abandoned``: nobody waits for it any more, so it must not be committed."""

    statement: str
    values: Mapping[str, Any]
    writes: bool = False
    most_rows: int = 1
    empty: str | None = None
    abandoned: bool = False


class Sql(Adapter[SqlSettings, Statement]):
    """One statement per exchange, as its service's settings say."""

    Settings = SqlSettings
    ServiceSettings = Statement

    def __init__(self, context: Context[SqlSettings, Statement]) -> None:
        super().__init__(context)
        self._engine: AsyncEngine | None = None
        self._running: set[asyncio.Task[Answer]] = set()

    async def open(self) -> None:
        await self.check()

    async def check(self) -> None:
        sqlite = self.context.settings.url.startswith("sqlite")
        # SQLite reads nothing of its file for a bare SELECT 1.
        await self._run(Job("SELECT count(*) FROM sqlite_master" if sqlite else "SELECT 1", {}))

    async def close(self) -> None:
        if self._running:
            # A driver may wait a minute for a server that says nothing. What a connection was doing does not matter
            # any more when it is thrown away, unless it was committing: that gets the time there is.
            _, late = await asyncio.wait(self._running, timeout=LAST_WAIT)
            for running in late:
                running.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._engine is not None:
            await self._engine.dispose()

    async def handle(self, request: Request) -> Reply:
        service, seen = self.context.services[request.service], scope(request)
        values = _values(service, service.statement, seen)
        writes = service.mode == "write"
        answer = await self._run(Job(service.statement, values, writes, service.most_rows, service.empty))
        return Reply(service.reply.of({**seen, **answer}))

    async def find(self, request: Request) -> Reply | None:
        service, seen = self.context.services[request.service], scope(request)
        if service.find is None:
            return None
        values = _values(service, service.find, seen)
        answer = await self._run(Job(service.find, values, most_rows=service.most_rows))
        return Reply(service.reply.of({**seen, **answer})) if answer["rows"] else None

    async def _run(self, job: Job) -> Answer:
        """The statement's rows and row count.

        A driver that is interrupted may leave its connection in any state, so a cancelled call leaves it to end by
        itself, and only what was already being committed then takes effect.
        """
        if self._engine is None:  # made here, since the password's file may be unreadable when the adapter is opened
            self._engine = _engine(self.context.settings)
        running = asyncio.create_task(self._transact(self._engine, job))
        self._running.add(running)
        running.add_done_callback(self._ended)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            job.abandoned = True
            raise

    def _ended(self, running: asyncio.Task[Answer]) -> None:
        self._running.discard(running)
        if not running.cancelled():
            running.exception()  # seen, even if nobody waits for it any more

    async def _transact(self, engine: AsyncEngine, job: Job) -> Answer:
        """Leaving without a commit rolls back."""
        committing = False
        try:
            async with engine.connect() as connection:
                await connection.execution_options(**{WRITES: job.writes})
                answer = _answer(await connection.execute(text(job.statement), job.values), job.most_rows)
                if job.empty is not None and answer["rowcount"] < 1:
                    raise Refused(job.empty)
                if job.writes and not job.abandoned:
                    committing = True
                    await _commit(connection)
        except (SQLAlchemyError, OSError) as error:
            raise _told(error, committing) from error
        return answer


def _engine(settings: SqlSettings) -> AsyncEngine:
    """The number of connections in use is bounded by the bus, which knows the system's concurrency. Raises
    ``Unavailable`` if the file of the password cannot be read."""
    url = settings.engine_url()
    if url.get_backend_name() != "sqlite":
        return create_async_engine(url, pool_size=16, max_overflow=-1, pool_pre_ping=True)
    engine = create_async_engine(url, pool_size=16, max_overflow=-1, connect_args={"timeout": settings.lock_wait})
    _prepare_sqlite(engine)
    return engine


async def _commit(connection: AsyncConnection) -> None:
    try:
        await connection.commit()
    except SQLAlchemyError:
        # SQLite keeps a transaction open that it could not commit; the connection must not be used again.
        await connection.invalidate()
        raise


def _answer(result: CursorResult[Any], most_rows: int) -> Answer:
    if not result.returns_rows:
        return {"rows": [], "rowcount": result.rowcount}
    rows = [row._asdict() for row in result.fetchmany(most_rows + 1)]
    if len(rows) > most_rows:
        raise Broken(f"the result has more than {most_rows} rows")
    return {"rows": [_row(row) for row in rows], "rowcount": len(rows)}


def _prepare_sqlite(engine: AsyncEngine) -> None:
    """Let SQLAlchemy alone begin transactions, at once with the right to write where one is needed.

    Left to itself, the driver begins them only before some statements, and finds out too late that it has to wait.
    """

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _values(service: Statement, statement: str, seen: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters' values."""
    values = {}
    for name in parameter_names(statement):
        value = service.parameters[name].asked(seen)
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise Refused("invalid", f"the parameter {name} is an object or an array")
        values[name] = value
    return values


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): _cell(value) for name, value in row.items()}


def _cell(value: Any) -> Any:
    """A column's value as JSON has it. Amounts are decimal strings."""
    match value:
        case None | str() | int() | float():
            return value
        case Decimal():
            return format(value, "f")
        case datetime() | date() | time_of_day():
            return value.isoformat()
        case UUID():
            return str(value)
        case list():
            return [_cell(item) for item in value]
        case dict():
            return _row(value)
        case _:
            raise Broken(f"a column of the type {type(value).__name__} cannot be shown as JSON")


def _told(error: Exception, committing: bool) -> Exception:
    """Which of the three errors it is. The database's own words may quote values, so only kinds are told."""
    reason = type(error).__name__
    if isinstance(error, DBAPIError):
        # SQLite says "no such table" by the same kind of error as "busy"; its code tells them apart.
        name = getattr(error.orig, "sqlite_errorname", "")
        reason = f"{reason} {name}".strip()
        if isinstance(error, IntegrityError):
            return Refused("conflict", reason)
        if isinstance(error, DataError):
            return Refused("invalid", reason)
        if isinstance(error, ProgrammingError) or name in {"SQLITE_ERROR", "SQLITE_CORRUPT", "SQLITE_NOTADB"}:
            return Broken(reason)
    return Unavailable(reason, sent=committing)
