"""``gsb backup``, ``gsb verify-backup`` and ``gsb backup-key``: one file of a whole deployment, and whether it is good.

``gsb restore --from`` puts one back. They decide nothing: ``gsb.backup`` does the work. Exit codes: 0 done, 1 the
backup is not to be trusted, 2 it cannot be carried out as given.
"""

from __future__ import annotations

import asyncio
import os
import tarfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gsb.backup import INSTALLED, MISSING
from gsb.cli.operate.progress import progress
from gsb.cli.shared import bus_keys, catalogue_of, fail, print_json, shown
from gsb.errors import Problem, StoreUnavailable
from gsb.store.contract import StoreUnfit

if INSTALLED:
    from gsb.backup.envelope import BackupUnfit, Claims
    from gsb.backup.lay import Given, verify
    from gsb.backup.make import Source, new_name, too_old
    from gsb.backup.make import backup as made
    from gsb.backup.sealed import KeyUnfit, identities, new_identity, recipients

PublicKeys = Annotated[
    Path,
    typer.Option("--bus-keys", envvar="GSB_BUS_KEYS", metavar="KEYS", help="The bus's public keys, a JWK or JWK set."),
]


def backup(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The deployment's folder.")],
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A new file, or a folder, in which it gets a name.")],
    to: Annotated[
        list[str],
        typer.Option("--to", metavar="KEY", help="Who may open it: age1..., or a file of such; several times."),
    ],
    keep: Annotated[
        int | None,
        typer.Option("--keep", metavar="DAYS", min=1, help="Then delete this bus's older ones in the folder."),
    ] = None,
) -> None:
    """Make a backup of the deployment in DIR, beside running nodes: folder, keys and secrets, store, evidence log.

    It is sealed for the holders of the keys alone (age-encryption.org/v1), signed by the bus, and as of one moment.
    Nothing is written over. Run it as the user that the node runs as. On SQLite it needs as much room again as the
    store takes, beside FILE and while it runs.
    """
    if not INSTALLED:
        raise fail(MISSING)
    catalogue, now = catalogue_of(folder), time.time()
    if keep is not None and not target.is_dir():
        raise fail(f"--keep needs a folder, and {target} is none")
    path = (target / new_name(catalogue.gsb.bus.id, now) if target.is_dir() else target).resolve()
    try:
        source = Source(catalogue, [recipient for each in to for recipient in recipients(each)])
        with progress() as tell:
            claims = asyncio.run(made(source, path, tell))
        old = too_old(path.parent, catalogue.gsb.bus.id, now, keep) if keep is not None else []
        for each in old:
            each.unlink()
    except (BackupUnfit, StoreUnfit, StoreUnavailable, KeyUnfit, Problem, OSError, ValueError) as error:
        raise fail(f"no backup was made: {error}") from error
    typer.echo(shown(f"{path}: {_told(claims)}"))
    for each in old:
        typer.echo(f"deleted: {each}", err=True)


def verify_backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")],
    keys: PublicKeys,
    identity: Annotated[
        Path | None,
        typer.Option("--identity", metavar="FILE", help="Who may open it: then look into it too."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Tell whether a backup is whole, and whose it is.

    With an identity also whether every member is what was signed, the log is whole, and store and log agree; for that
    it is unpacked into a folder of its own below $TMPDIR, and deleted again. Exits 1 for a backup that is not to be
    trusted.
    """
    if not INSTALLED:
        raise fail(MISSING)
    try:
        given = Given(file, bus_keys(keys) or {}, [] if identity is None else identities(identity))
        with progress() as tell:
            claims = asyncio.run(verify(given, tell))
    except (KeyUnfit, OSError) as error:
        raise fail(f"cannot look: {error}") from error
    except (BackupUnfit, StoreUnfit, StoreUnavailable, tarfile.TarError, ValueError) as error:
        raise fail(f"{file}: {error}", 1) from error
    if json:
        print_json({"bus": claims.iss, "at": _at(claims), "gsb": claims.gsb, "store": claims.store, "log": claims.log})
    else:
        typer.echo(shown(f"{'whole, and true' if given.identities else 'whole'}: {_told(claims)}"))


def backup_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the secret goes, for its owner to read only.")],
) -> None:
    """Make a key that opens backups, as age-keygen does; print what --to takes. Keep FILE off the bus's machines."""
    if not INSTALLED:
        raise fail(MISSING)
    secret, recipient = new_identity()
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise fail(f"cannot write {file}: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(secret)
    typer.echo(recipient)


def _told(claims: Claims) -> str:
    return f"bus {claims.iss}, {_at(claims)}, gsb {claims.gsb}, store {claims.store}, log {claims.log}"


def _at(claims: Claims) -> str:
    return datetime.fromtimestamp(claims.iat, UTC).isoformat().replace("+00:00", "Z")
