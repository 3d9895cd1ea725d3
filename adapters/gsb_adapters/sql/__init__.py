"""Any relational database: one parameterised statement per service, each call in a transaction of its own.

Statements come from the deployment's files and values only as parameters: no SQL is ever built. Before its commit a
write is certainly undone, so only a commit that fails, or a crash during it, leaves its fate unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from gsb.sdk import Adapter, Broken, Context, Refused, Reply, Request, Unavailable, scope
from gsb_adapters.sql.settings import SqlSettings, Statement, parameter_names

WRITES = "gsb_writes"
Answer = dict[str, Any]


class Sql(Adapter[SqlSettings, Statement]):
    """One statement per exchange, as its service's settings say."""

    Settings = SqlSettings
    ServiceSettings = Statement

    def __init__(self, context: Context[SqlSettings, Statement]) -> None:
        super().__init__(context)
        self._engine: AsyncEngine | None = None

    async def open(self) -> None:
        settings = self.context.settings
        url = settings.engine_url()
        # The number of connections in use is bounded by the bus, which knows the system's concurrency.
        if url.get_backend_name() == "sqlite":
            self._engine = create_async_engine(
                url, pool_size=16, max_overflow=-1, connect_args={"timeout": settings.lock_wait}
            )
            _prepare_sqlite(self._engine)
        else:
            self._engine = create_async_engine(url, pool_size=16, max_overflow=-1, pool_pre_ping=True)
        await self.check()

    async def check(self) -> None:
        await self._run("SELECT 1", {}, writes=False, most=1)

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.dispose()

    async def handle(self, request: Request) -> Reply:
        service, seen = self.context.services[request.service], scope(request)
        writes = service.mode == "write"
        values = _values(service, service.statement, seen)
        answer = await self._run(service.statement, values, writes=writes, most=service.most_rows, empty=service.empty)
        return Reply(service.reply.of({**seen, **answer}))

    async def find(self, request: Request) -> Reply | None:
        service, seen = self.context.services[request.service], scope(request)
        if service.find is None:
            return None
        values = _values(service, service.find, seen)
        answer = await self._run(service.find, values, writes=False, most=service.most_rows)
        return Reply(service.reply.of({**seen, **answer})) if answer["rows"] else None

    async def _run(
        self, statement: str, values: Mapping[str, Any], *, writes: bool, most: int, empty: str | None = None
    ) -> Answer:
        """The statement's rows and row count. Leaving without a commit rolls back."""
        if self._engine is None:
            raise Unavailable("not open", sent=False)
        committing = False
        try:
            async with self._engine.connect() as connection:
                await connection.execution_options(**{WRITES: writes})
                result = await connection.execute(text(statement), values)
                rows = [row._asdict() for row in result.fetchmany(most + 1)] if result.returns_rows else []
                if len(rows) > most:
                    raise Broken(f"the result has more than {most} rows")
                touched = len(rows) if result.returns_rows else result.rowcount
                answer = {"rows": [_row(row) for row in rows], "rowcount": touched}
                if empty is not None and touched < 1:
                    raise Refused(empty)
                if writes:
                    committing = True
                    await connection.commit()
        except (SQLAlchemyError, OSError) as error:
            raise _told(error, committing) from error
        return answer


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
    """The parameters' values. Nothing was sent yet, so one that cannot be built is a refusal and no more."""
    values = {}
    for name in parameter_names(statement):
        try:
            value = service.parameters[name].of(seen)
        except Broken as error:
            raise Refused("invalid", error.detail) from error
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
