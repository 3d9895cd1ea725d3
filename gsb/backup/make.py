"""Makes a backup of a deployment, whether its nodes run or not: folder, secrets, store and evidence log in one file.

In this order: the log's checkpoints, the store as of one moment, the files of the folder and those that it names, and
the log up to where that store stands (``gsb.backup.logs`` says why). It only reads, but for the new file; a crash
leaves nothing that could be taken for a backup.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import orjson
from pyrage.x25519 import Recipient

from gsb import __version__
from gsb.backends import PostgresTable
from gsb.backup import files, sqlite
from gsb.backup.archive import ABOUT, Pack
from gsb.backup.envelope import BackupUnfit, Claims, Tell, growing
from gsb.backup.logs import Stand, Taken
from gsb.backup.sealed import sealing
from gsb.catalogue import Catalogue
from gsb.lint_backends import POSTGRES
from gsb.load import load
from gsb.resume import told
from gsb.store.contract import StoreUnfit
from gsb.store.logs import LogState
from gsb.store.seal import read_key

if POSTGRES:
    from gsb.backup import postgres

ENDING = ".gsb-backup"
_TIME = "%Y%m%dT%H%M%SZ"


class Snapshot(Protocol):
    """A store as of one moment."""

    kind: str

    async def logs(self) -> Sequence[LogState]: ...

    async def entries(self, origin: str, start: int, limit: int) -> Sequence[bytes]: ...

    async def add(self, out: Pack, tell: Tell) -> None: ...


@dataclass(frozen=True, slots=True)
class Source:
    """What is backed up, and for whom."""

    catalogue: Catalogue
    to: Sequence[Recipient]


async def backup(source: Source, path: Path, tell: Tell) -> Claims:
    """Make the backup at ``path``, an absolute one where nothing is. Raises BackupUnfit, StoreUnfit, OSError, and
    SigningUnavailable."""
    catalogue, now = source.catalogue, time.time()
    if path.is_relative_to(catalogue.folder):
        raise BackupUnfit(f"{path}: lies in the deployment's folder, and would become part of the next backup")
    key = catalogue.bus_keys.signing(now)
    with growing(path) as file:
        with sealing(file.sink, source.to) as out:
            pack = Pack(out)
            taken = Taken(catalogue.gsb.log.path)
            async with _snapshot(catalogue, path, tell) as store:
                _add_files(pack, catalogue, store.kind)
                await store.add(pack, tell)
                stand = await _add_logs(pack, taken, store, tell)
            members = pack.finish()
        claims = Claims(
            iss=catalogue.gsb.bus.id,
            iat=int(now),
            gsb=__version__,
            store=store.kind,
            log=told(stand.checkpoint),
            size=file.sink.size,
            sealed=file.sink.digest,
            members=members,
        )
        file.finish(key, claims)
    return claims


def _snapshot(catalogue: Catalogue, path: Path, tell: Tell) -> AbstractAsyncContextManager[Snapshot]:
    table = catalogue.gsb.store
    key = read_key(table.key)
    if isinstance(table, PostgresTable):
        return postgres.snapshot(table, key)
    return sqlite.snapshot(table.path, key, path.with_name(f".{path.name}.store"), tell)


def _add_files(pack: Pack, catalogue: Catalogue, kind: str) -> None:
    tables, _ = load(catalogue.folder)
    places = files.outside(tables, catalogue.gsb)
    pack.add(ABOUT, orjson.dumps({"store": kind, "outside": places}))
    for name in files.inside(catalogue.folder, catalogue.gsb):
        _add(pack, f"deployment/{name}", catalogue.folder / name)
    for number, place in enumerate(places):
        _add(pack, f"outside/{number}", catalogue.folder / place)


def _add(pack: Pack, name: str, path: Path) -> None:
    pack.add_file(name, path, path.stat().st_mode & 0o777)


async def _add_logs(pack: Pack, taken: Taken, store: Snapshot, tell: Tell) -> Stand:
    """Where the open log stands."""
    logs = await store.logs()
    if not logs:
        raise StoreUnfit("there is no log yet, so nothing was acknowledged: start a node first")
    stands = await taken.add(pack, logs, store.entries, tell)
    stand = next((stand for stand in stands if stand.origin == logs[-1].origin), None)
    if stand is None:
        raise StoreUnfit("the log has no entries yet: try again in a second")
    return stand


# --- many backups in one folder


def new_name(bus: str, now: float) -> str:
    return f"{bus}-{datetime.fromtimestamp(now, UTC).strftime(_TIME)}{ENDING}"


def too_old(folder: Path, bus: str, now: float, days: int) -> list[Path]:
    """The bus's backups in a folder that were made more than so many days ago, by their names; never the newest."""
    made = []
    for path in folder.glob(f"{bus}-*{ENDING}"):
        try:
            at = datetime.strptime(path.name[len(bus) + 1 : -len(ENDING)], _TIME).replace(tzinfo=UTC)
        except ValueError:
            continue
        made.append((at.timestamp(), path))
    return [path for at, path in sorted(made)[:-1] if at < now - days * 86_400]
