"""``gsb prepare``: brings the tables of a store on PostgreSQL up to this version, before its first node does.

Nodes of the version before go on meanwhile (``gsb.store.postgres.layout.migrations``), so an upgrade can begin with it:
if it fails, nothing was replaced yet. Of the deployment it reads ``gsb.toml``, the dsn and the store's key. A crash
anywhere leaves work for the next try, or for the next node that starts.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from gsb.backends import PostgresTable
from gsb.cli.shared import fail, shown
from gsb.dsn import DsnUnfit, read_dsn
from gsb.lint_backends import POSTGRES
from gsb.load import load
from gsb.store.contract import StoreUnfit
from gsb.store.seal import KeyFileUnfit, Seal, read_key

if POSTGRES:
    from gsb.store.postgres.layout.migrations import Outlook, said
    from gsb.store.postgres.layout.tables import VERSION
    from gsb.store.postgres.sessions import Sessions


def prepare(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The deployment's folder; only gsb.toml is read.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show each statement, and change nothing.")] = False,
) -> None:
    """Bring the store's tables up to this version, while nodes of the version before go on.

    The first node of a new version does the same as it starts. Done before, nothing is replaced yet if it fails. Exits
    0 when the tables are as this version needs them, 2 when they cannot be. A store on SQLite is left to its node.
    """
    table = _table(folder)
    if table is None:
        typer.echo("nothing to do: a store on SQLite is left to the node that opens it")
        return
    try:
        sessions, seal = Sessions(read_dsn(table.dsn), table.schema_name), Seal(read_key(table.key))
        outlook = asyncio.run(sessions.outlook(seal))
        if dry_run:
            _plan(outlook)
            return
        asyncio.run(sessions.prepare(seal, _progress))
    except DsnUnfit as error:
        raise fail(f"{table.dsn}: {error}") from error
    except (StoreUnfit, KeyFileUnfit) as error:
        raise fail(str(error)) from error
    typer.echo(f"schema {table.schema_name}: {_came(outlook)}")


def _table(folder: Path) -> PostgresTable | None:
    """The table of the store; None for one on SQLite."""
    try:
        tables, findings = load(folder)
    except OSError as error:
        raise fail(f"cannot read the deployment: {error}") from error
    if tables.gsb is None:
        raise fail(next(str(each) for each in findings if each.file == "gsb.toml"))
    table = tables.gsb.store
    if not isinstance(table, PostgresTable):
        return None
    if not POSTGRES:
        raise fail("gsb.toml: store: install the bus with the extra postgres")
    return table


def _plan(outlook: Outlook) -> None:
    for step in outlook.steps:
        typer.echo(said(step))
    if outlook.version is None:
        typer.echo(f"there are no tables: all of layout {VERSION} would be made")
    elif outlook.version >= VERSION:
        typer.echo(f"nothing to do: layout {outlook.version} is there")
    else:
        typer.echo(f"layout {outlook.version} would become {VERSION}, by {len(outlook.steps)} statements")


def _came(outlook: Outlook) -> str:
    if outlook.version is None:
        return f"layout {VERSION} was made"
    if outlook.version >= VERSION:
        return f"layout {outlook.version} was there"
    return f"layout {outlook.version} has become {VERSION}; nodes of the version before go on"


def _progress(what: str) -> None:
    typer.echo(shown(what), err=True)
