"""Layouts of the PostgreSQL store before the newest one, and programs of either version at work on them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from tests.support.old_layout import FIRST
from tests.support.stores import PostgresMaker

ROOT = Path(__file__).parents[2]
WAIT = 60.0
"""Seconds within which what is waited for must happen."""


async def before(maker: PostgresMaker) -> None:
    """A store of the layout before, with something in it."""
    store = await maker.open()
    keycheck = (await maker.rows("SELECT keycheck FROM layout"))[0][0]
    await store.close()
    await maker.rows(f"DROP SCHEMA {maker.schema} CASCADE")
    db = await asyncpg.connect(maker.dsn, server_settings={"search_path": maker.schema})
    await db.execute(f"CREATE SCHEMA {maker.schema}")
    await db.execute(FIRST)
    await db.execute("INSERT INTO layout VALUES (1, 1, $1)", keycheck)
    await db.close()


async def shape(maker: PostgresMaker) -> list[tuple[object, ...]]:
    """Every column, index, constraint and bound of the schema, and whether indexes are of use."""
    found = await maker.rows(
        """
        SELECT relname::text, relkind::text, pg_get_expr(relpartbound, oid), attname::text, atttypid::regtype::text,
            attstorage::text, attnotnull
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
        WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')
        UNION ALL SELECT relname, indisvalid::text, pg_get_indexdef(indexrelid), NULL, NULL, NULL, NULL
        FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE relnamespace = current_schema()::regnamespace
        UNION ALL SELECT conname, pg_get_constraintdef(oid), NULL, NULL, NULL, NULL, NULL FROM pg_constraint
        WHERE connamespace = current_schema()::regnamespace
        """
    )
    cells = [tuple(cell.replace(maker.schema, "") if isinstance(cell, str) else cell for cell in row) for row in found]
    return sorted(cells, key=str)


async def versions(maker: PostgresMaker) -> tuple[object, ...]:
    """Of the layout, and of the oldest program that may work on it."""
    return tuple((await maker.rows("SELECT version, oldest FROM layout"))[0])


class Program:
    """A process that works under load; what it has acknowledged."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process, self.acknowledged = process, list[str]()

    async def more(self, count: int = 20) -> None:
        """Wait until so many more are acknowledged."""
        assert self._process.stdout is not None
        for _ in range(count):
            line = await asyncio.wait_for(self._process.stdout.readline(), WAIT)
            assert line, "the program has ended"
            self.acknowledged.append(line.decode().strip())

    async def end(self) -> None:
        out, _ = await asyncio.wait_for(self._process.communicate(b""), WAIT)
        assert self._process.returncode == 0
        self.acknowledged += out.decode().split()


@asynccontextmanager
async def program(kind: str, maker: PostgresMaker) -> AsyncIterator[Program]:
    words = [sys.executable, "-m", "tests.support.old_layout", kind, maker.dsn, maker.schema]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdin=pipe, stdout=pipe)
    made = Program(process)
    try:
        await made.more(1)
        yield made
        await made.end()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
