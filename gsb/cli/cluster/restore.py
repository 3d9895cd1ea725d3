"""``gsb restore``: goes on from a backup, or from a standby that may lack what was acknowledged.

It decides nothing: ``gsb.restore`` does the work, on a deployment of which no node runs. With ``--from`` the deployment
is laid first (``gsb.backup.lay``), under names that nobody reads until that work is done.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from gsb.backends import PostgresTable
from gsb.backup import INSTALLED, MISSING
from gsb.catalogue import Catalogue
from gsb.cli.evidence.log import alone_with, witnessed
from gsb.cli.shared import catalogue_of, fail, shown
from gsb.dsn import DsnUnfit, read_dsn
from gsb.errors import StoreUnavailable
from gsb.foundation import store_of
from gsb.lint_backends import POSTGRES
from gsb.metrics import Metrics
from gsb.restore import Lost, Restored, admit_writes, lost
from gsb.restore import restore as restored
from gsb.resume import Ground
from gsb.store.contract import StoreUnfit
from gsb.store.logs import LogMoved

if INSTALLED:
    from gsb.cli.cluster.lay import Asked, Settle, lay
if POSTGRES:
    from gsb.store.postgres.layout.migrations import at_work
    from gsb.store.postgres.sessions import OF_THE_DATABASE, Sessions

File = Annotated[
    Path | None, typer.Option("--from", metavar="FILE", help="Lay this backup into DIR first, which must be empty.")
]
Identity = Annotated[Path | None, typer.Option("--identity", metavar="FILE", help="What opens it.")]
Keys = Annotated[
    Path | None,
    typer.Option("--bus-keys", envvar="GSB_BUS_KEYS", metavar="KEYS", help="The bus's public keys, a JWK or JWK set."),
]
Dsn = Annotated[Path | None, typer.Option("--dsn", metavar="FILE", help="Another store.dsn than that in the backup.")]


def restore(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The deployment's folder.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; its entry commits to it.")],
    admit: Annotated[
        bool, typer.Option("--admit-writes", help="Only let writes in again; on PostgreSQL nodes may run.")
    ] = False,
    file: File = None,
    identity: Identity = None,
    keys: Keys = None,
    dsn: Dsn = None,
) -> None:
    """Go on from a store that may be older than what was acknowledged: a backup, or a standby that was not synchronous.

    No node may run. Every write that is not finished in the store becomes unknown, and is never run again; exchanges
    that only the log's files name are printed, a line each; a new log begins, which names the old one. Reads go on with
    the next start, writes are answered 503 writes_withheld, until the same command says --admit-writes.

    With --from a backup is verified and laid where nothing is, and gone on with in the same way; until all is done
    nothing can start from DIR. A log that is at its place already is kept, and must go on from the backup's.
    """
    if not 4 <= len(reason.strip()) <= 500:
        raise fail("say why, in 4 to 500 characters: --reason")
    if file is not None:
        if admit or identity is None or keys is None:
            raise fail("--from needs --identity and --bus-keys, and goes without --admit-writes")
        if not INSTALLED:
            raise fail(MISSING)
        lay(folder, Asked(file, identity, keys, dsn), lambda laid, settle: _restore(laid, reason.strip(), settle))
        return
    catalogue = catalogue_of(folder)
    try:
        asyncio.run(_admit(catalogue, reason.strip()) if admit else _restore(catalogue, reason.strip()))
    except (OSError, StoreUnavailable, StoreUnfit, LogMoved, DsnUnfit, ValueError) as error:
        raise fail(f"{'writes are as they were' if admit else 'not restored; run it again'}: {error}") from error


async def _admit(catalogue: Catalogue, reason: str) -> None:
    store = store_of(catalogue, Metrics())
    await store.open()
    try:
        if not await admit_writes(store, time.time(), reason):
            raise StoreUnfit("writes are not withheld")
    finally:
        await store.close()
    typer.echo("writes are admitted")


async def _restore(catalogue: Catalogue, reason: str, settle: Settle | None = None) -> None:
    await _nobody_at_work(catalogue)
    async with alone_with(catalogue) as store:
        if settle is not None:
            await settle(store)
        ground = Ground.of(catalogue, store)
        found = await lost(ground, store)
        _tell(found)
        seen = await witnessed(catalogue, ground)
        _end(await restored(ground, store, time.time(), reason, found, seen), len(found.missing))


async def _nobody_at_work(catalogue: Catalogue) -> None:
    """Nor any gateway or worker; on SQLite the store's own lock says so. Raises StoreUnfit."""
    table = catalogue.gsb.store
    if not isinstance(table, PostgresTable):
        return
    try:
        db = await Sessions(read_dsn(table.dsn), table.schema_name).connect()
        others = await at_work(db, table.schema_name)
        await db.close()
    except OF_THE_DATABASE as error:
        raise StoreUnfit(f"PostgreSQL: {error}") from error
    if others:
        raise StoreUnfit(f"{len(others)} connections of nodes are open to this store: stop all nodes first")


def _tell(found: Lost) -> None:
    for each in found.missing:
        typer.echo(shown(f"{each.id} {each.agency} {each.service} {','.join(each.kinds)}"))
    for part in found.unread:
        typer.echo(shown(f"cannot be read, and may name more: {part}"), err=True)


def _end(done: Restored, missing: int) -> None:
    typer.echo(f"{missing} exchanges are named by the log's files alone", err=True)
    typer.echo(f"{done.doubted} writes are unknown now; the next start records to {done.origin}", err=True)
    typer.echo("writes are withheld until: gsb restore DIR --admit-writes --reason ...", err=True)
