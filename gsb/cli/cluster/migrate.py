"""``gsb migrate``: carries a stopped deployment of one machine to PostgreSQL.

The source is marked just before the target's one commit: a crash in between leaves a source that does not start and a
target that is empty, and the next try goes on from there. After it there would be a moment in which both could begin to
work. Everything else is in ``gsb.store.carry``.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gsb.backends import PostgresTable, SqliteTable
from gsb.catalogue import Catalogue
from gsb.cli.shared import catalogue_of, fail
from gsb.dsn import DsnUnfit, read_dsn
from gsb.evidence.checkpoint import Signer, to_base64
from gsb.lint_backends import POSTGRES
from gsb.store.contract import DAY, StoreUnfit
from gsb.store.seal import KeyFileUnfit, Seal, read_key
from gsb.store.sqlite import opened, rows

if POSTGRES:
    from gsb.store.carry import Carried, carry
    from gsb.store.postgres.sessions import OF_THE_DATABASE, Sessions, refuse_forgetful


def migrate(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="The deployment that is left, with SQLite; stopped.")],
    target: Annotated[Path, typer.Argument(metavar="TO", help="The same deployment, with PostgreSQL.")],
) -> None:
    """Carry everything from FROM's store to TO's: exchanges, finished or not, their bodies, reservations, spent jtis,
    and the evidence log with every place in it.

    All of it or nothing: whatever interrupts it leaves the target empty; run it again. The target's schema must not
    exist, or be empty. TO's store may have another key. In the end both sides are counted, and every log's root is
    computed from what has arrived. FROM is marked, so that it does not start again by mistake.
    """
    left, right = catalogue_of(source), catalogue_of(target)
    here, there = left.gsb.store, right.gsb.store
    if not isinstance(here, SqliteTable) or not isinstance(there, PostgresTable):
        raise fail('FROM must have a [store] of kind "sqlite", and TO one of kind "postgres"')
    _same_bus(left, right)
    try:
        carried = asyncio.run(_carry(here, there))
    except (StoreUnfit, KeyFileUnfit, DsnUnfit, OSError, sqlite3.Error) as error:
        # Only a commit that was not answered leaves this open.
        mark = opened.moved(here.path)
        also = (
            f"; {mark} says that it was: see whether TO holds everything, else run this again" if mark.exists() else ""
        )
        raise fail(f"nothing was carried: {error}{also}") from error
    _tell(carried, here, there)
    if left.gsb.log.path.resolve() != right.gsb.log.path.resolve():
        typer.echo(f"copy {left.gsb.log.path} to {right.gsb.log.path}: time-stamps cannot be made again from a store")


def _same_bus(left: Catalogue, right: Catalogue) -> None:
    """The log stays one log: under one name, signed with one key."""
    if left.gsb.bus.id != right.gsb.bus.id:
        raise fail(f"FROM is the bus {left.gsb.bus.id}, TO is {right.gsb.bus.id}")
    if Signer(left.gsb.log_origin, left.log_key).vkey != Signer(right.gsb.log_origin, right.log_key).vkey:
        raise fail("FROM and TO must have the same log: the same log.key, and log.origin if it is given")


async def _carry(here: SqliteTable, there: PostgresTable) -> Carried:
    old, new = Seal(read_key(here.key)), Seal(read_key(there.key))
    if not here.path.is_file():
        raise StoreUnfit(f"{here.path}: there is no store")
    lock = opened.own(here.path)
    try:
        with closing(rows.connect(here.path, writes=False)) as source:
            opened.check(source, here.path, old)
            # What is long here must not be given up.
            db = await Sessions(read_dsn(there.dsn), there.schema_name, statement=DAY).connect()
            try:
                await refuse_forgetful(db)
                # Nor between two statements: to count a large file takes longer than a node may be silent.
                await db.execute("SET idle_in_transaction_session_timeout = 0")
                async with db.transaction():
                    carried = await carry(source, old, db, there.schema_name, new, _progress)
                    opened.mark_moved(here.path, f"the schema {there.schema_name} on {datetime.now(UTC):%F %H:%M} UTC")
                return carried
            finally:
                db.terminate()
    except OF_THE_DATABASE as error:
        raise StoreUnfit(f"PostgreSQL: {error}") from error
    finally:
        os.close(lock)


def _progress(table: str, count: int) -> None:
    typer.echo(f"{table}: {count}", err=True)


def _tell(carried: Carried, here: SqliteTable, there: PostgresTable) -> None:
    states = ", ".join(f"{count} {state}" for state, count in sorted(carried.states.items()))
    counts = ", ".join(f"{count} {what}" for what, count in carried.counts.items())
    typer.echo(f"the same on both sides: {counts}" + (f" ({states})" if states else ""))
    for log in carried.logs:
        typer.echo(f"log {log.origin}: {log.size} entries, root {to_base64(log.root)}, as its checkpoint says")
    if carried.damaged:
        typer.echo(f"{carried.damaged} records could not be opened with the old key; they are carried as they lie")
    typer.echo(f"carried to the schema {there.schema_name}; start the nodes with it")
    typer.echo(
        f"{here.path} does not start any more; to go back before anything new was done: {opened.moved(here.path)}"
    )
