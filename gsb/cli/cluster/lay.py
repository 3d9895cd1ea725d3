"""``gsb restore --from``: a backup is laid onto a machine where none of it is, and then gone on with as from any other.

It decides nothing: ``gsb.backup.lay`` lays and verifies, and what is done between that and the names is the caller's.
A crash leaves what the same command goes on from.
"""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import typer

from gsb.backup.envelope import BackupUnfit
from gsb.backup.lay import Given, Laying
from gsb.backup.sealed import KeyUnfit, identities
from gsb.catalogue import Catalogue, ConfigInvalid
from gsb.cli.operate.progress import Tell, progress
from gsb.cli.shared import bus_keys, fail, shown
from gsb.errors import StoreUnavailable
from gsb.store.contract import Store, StoreUnfit
from gsb.store.logs import LogMoved

Settle = Callable[[Store], Awaitable[None]]
GoOn = Callable[[Catalogue, Settle], Awaitable[None]]
"""What is done with a deployment that is laid; it calls the other with the store, once that is open."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What stands in the command."""

    file: Path
    identity: Path
    keys: Path
    dsn: Path | None


def lay(folder: Path, asked: Asked, go_on: GoOn) -> None:
    """Lay the backup into ``folder``, go on, and let it have its names. Ends with a line and exit code 2."""
    try:
        dsn = None if asked.dsn is None else asked.dsn.read_bytes()
        given = Given(asked.file, bus_keys(asked.keys) or {}, identities(asked.identity))
        laying = Laying(folder, dsn)
        with progress() as tell:
            asyncio.run(_lay(laying, given, go_on, tell))
    except (BackupUnfit, KeyUnfit, StoreUnfit, StoreUnavailable, LogMoved, OSError, ValueError) as error:
        raise fail(f"not restored: {asked.file}: {error}") from error
    except ConfigInvalid as error:
        raise fail(f"not restored: its deployment does not fit here: {'; '.join(map(str, error.findings))}") from error
    except tarfile.TarError as error:
        raise fail(f"not restored: {asked.file} cannot be unpacked: {error}") from error
    for path in laying.kept:
        typer.echo(shown(f"{path} was there already and differs: it was left as it is"), err=True)


async def _lay(laying: Laying, given: Given, go_on: GoOn, tell: Tell) -> None:
    if laying.only_names_are_left:
        typer.echo("an earlier restore was through but for its last step, which is done now", err=True)
    else:
        catalogue = await laying.lay(given, tell)
        await go_on(catalogue, lambda store: laying.settle(store, tell))
    await laying.finish()
