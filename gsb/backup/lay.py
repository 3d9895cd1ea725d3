"""Takes a backup apart: to see whether it is whole and true, or to lay it onto a machine where none of it is.

What is laid has names that nobody reads until all of it is there, is verified, and has been dealt with as every store
that may lack what was acknowledged (``gsb.restore``); only then it gets its own names, the deployment's folder last. So
nothing starts before. A crash leaves ``.NAME.restoring`` (and such a schema), which the next attempt begins anew, or,
once only names were left to be given, gives them.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pyrage.x25519 import Identity

from gsb.backends import PostgresTable, SqliteTable
from gsb.backup import files, sqlite
from gsb.backup.archive import ABOUT, unpack
from gsb.backup.envelope import BackupUnfit, Claims, Tell, opened, sync_folder
from gsb.backup.logs import Stand, extends, same_in_store, stands_in
from gsb.backup.sealed import opening
from gsb.catalogue import Catalogue, ConfigInvalid, build
from gsb.jwk import PublicKey, read_ed25519
from gsb.lint_backends import POSTGRES
from gsb.load import load
from gsb.resume import told
from gsb.store.contract import Store
from gsb.store.seal import read_key
from gsb.store.sqlite import SqliteStore

if POSTGRES:
    from gsb.backup import postgres

KINDS = {sqlite.KIND, *([postgres.KIND] if POSTGRES else [])}
"""What stores this program can lay."""
RESTORING = ".{}.restoring"
READY = ".ready.json"
"""In the folder that is being laid: that only names are left to be given, and which."""


@dataclass(frozen=True, slots=True)
class Given:
    """A backup, the public keys of its bus, and who may open it."""

    path: Path
    keys: Mapping[str, PublicKey]
    identities: Sequence[Identity]


# --- to see whether it is whole and true


async def verify(given: Given, tell: Tell) -> Claims:
    """What the bus has signed of a backup that is whole; with an identity also that all that is in it belongs together.
    Of a PostgreSQL's store that is seen only when it is laid. Raises BackupUnfit, OSError."""
    with opened(given.path, given.keys, tell) as envelope:
        if not given.identities:
            return envelope.claims
        with TemporaryDirectory(prefix="gsb-backup-") as name:
            root = Path(name)
            with opening(envelope.sealed(), given.identities) as stream:
                unpack(stream, root.joinpath, envelope.claims.members, tell)
            await _judge(root, envelope.claims, tell)
            return envelope.claims


async def _judge(root: Path, claims: Claims, tell: Tell) -> None:
    about = orjson.loads((root / ABOUT).read_bytes())
    tables, _ = load(root / "deployment")
    if tables.gsb is None or tables.gsb.bus.id != claims.iss:
        raise BackupUnfit(f"its deployment is not that of the bus {claims.iss}, which has signed it")
    places = about["outside"]
    table = tables.gsb.log
    keys = [read_ed25519(files.held(root, places, path).read_bytes())[1] for path in (table.key, *table.former)]
    stands = _stands(root / "log", keys, claims, tell)
    if isinstance(tables.gsb.store, SqliteTable):
        store = SqliteStore(root / "store" / sqlite.NAME, read_key(files.held(root, places, tables.gsb.store.key)))
        await store.open()
        try:
            await same_in_store(stands, store, tell)
        finally:
            await store.close()


def _stands(folder: Path, keys: Sequence[Ed25519PrivateKey], claims: Claims, tell: Tell) -> list[Stand]:
    """Where the logs stand, the open one as it was signed."""
    stands = stands_in(folder, keys, tell)
    if claims.log not in [told(stand.checkpoint) for stand in stands]:
        raise BackupUnfit(f"its log is not the one that was signed: {claims.log}")
    return stands


# --- to lay it


class Laying:
    """A backup on its way to ``folder``. ``dsn`` is the content of another ``store.dsn``."""

    def __init__(self, folder: Path, dsn: bytes | None = None) -> None:
        self._folder, self._dsn = folder.resolve(), dsn
        self._staging = self._folder.with_name(RESTORING.format(self._folder.name))
        self._moves: list[tuple[Path, Path]] = []
        self._log: Path | None = None
        """Where the log is kept that was there already."""
        self.kept: list[str] = []
        """Files outside of the folder that were there already, and differ."""
        self._catalogue: Catalogue | None = None

    @property
    def only_names_are_left(self) -> bool:
        """Whether an earlier attempt was through but for the names."""
        return (self._staging / READY).is_file()

    async def lay(self, given: Given, tell: Tell) -> Catalogue:
        """Write and verify everything; answers the deployment as it lies until the end. Raises BackupUnfit, StoreUnfit,
        OSError."""
        if self._folder.exists() and (not self._folder.is_dir() or any(self._folder.iterdir())):
            raise BackupUnfit(f"{self._folder}: is not empty; a backup is laid where nothing is")
        with opened(given.path, given.keys, tell) as envelope:
            claims = envelope.claims
            if claims.store not in KINDS:
                raise BackupUnfit(
                    f"its store is {claims.store}, and this program knows {' and '.join(sorted(KINDS))}: restore it "
                    f"with version {claims.gsb}, and upgrade then"
                )
            shutil.rmtree(self._staging, ignore_errors=True)
            with opening(envelope.sealed(), given.identities) as stream:
                unpack(stream, self._place, claims.members, tell)
        catalogue = self._built()
        if catalogue.gsb.bus.id != claims.iss:
            raise BackupUnfit(f"its deployment is not that of the bus {claims.iss}, which has signed it")
        log = self._staging / ".log" if self._log is not None else catalogue.gsb.log.path
        self._stands = _stands(log, catalogue.log_keys, claims, tell)
        self._open = next(stand for stand in self._stands if told(stand.checkpoint) == claims.log)
        if self._log is not None:
            extends(self._log, self._open, catalogue.log_keys, tell)
        if isinstance(catalogue.gsb.store, PostgresTable):
            await postgres.lay(self._real, read_key(self._real.key), self._staging / ".store", tell)
        return catalogue

    async def settle(self, store: Store, tell: Tell) -> None:
        """Hold the store, which is open now, against the log, and let it know that the files reach as far as it does.
        Raises BackupUnfit, StoreUnavailable."""
        await same_in_store(self._stands, store, tell)
        for state in await store.logs():
            if state.origin == self._open.origin and state.published < state.size:
                await store.publish(state.origin, state.size, self._open.note)

    async def finish(self) -> None:
        """Give everything its name. Raises StoreUnfit, OSError."""
        ready = self._staging / READY
        if not ready.exists():
            for name in (".outside", ".store", ".log"):
                shutil.rmtree(self._staging / name, ignore_errors=True)
            (self._staging / ".about.json").unlink()
            if isinstance(table := self._built().gsb.store, SqliteTable):
                sqlite.close(table.path)
            pairs = [(str(old), str(new)) for old, new in self._moves]
            _write(ready, orjson.dumps(pairs))
        for old, new in orjson.loads(ready.read_bytes()):
            _move(Path(old), Path(new))
        table = build(self._staging).gsb.store
        if isinstance(table, PostgresTable):
            await postgres.give_name(table)
        _move(self._staging, self._folder)
        (self._folder / READY).unlink()

    # --- where the members go

    def _place(self, name: str) -> Path:
        kind, _, rest = name.partition("/")
        match kind:
            case "deployment":
                return self._staging / rest
            case "outside":
                return self._staging / ".outside" / rest
            case "store":
                table = self._built().gsb.store
                return table.path if isinstance(table, SqliteTable) else self._staging / ".store" / rest
            case "log":
                folder = self._built().gsb.log.path
                return (self._staging / ".log" if self._log is not None else folder) / rest
            case _:
                return self._staging / ".about.json"

    def _built(self) -> Catalogue:
        """The deployment, once its files are there, with store and log under the names that they have until the end."""
        if self._catalogue is None:
            self._put_outside()
            try:
                catalogue = build(self._staging)
            except ConfigInvalid as error:
                raise BackupUnfit(f"its deployment does not fit here: {'; '.join(map(str, error.findings))}") from error
            self._catalogue = self._staged(catalogue)
        return self._catalogue

    def _put_outside(self) -> None:
        """The files that the deployment names outside of its folder, unless they are there: a machine has its own."""
        about = orjson.loads((self._staging / ".about.json").read_bytes())
        for number, place in enumerate(about["outside"]):
            source = self._staging / ".outside" / str(number)
            target = Path(os.path.normpath(self._staging / place))
            if not target.exists():
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _write(target, source.read_bytes(), source.stat().st_mode & 0o777)
            elif target.read_bytes() != source.read_bytes():
                self.kept.append(str(target))
        if self._dsn is not None:
            gsb = load(self._staging)[0].gsb
            if gsb is None or not isinstance(gsb.store, PostgresTable):
                raise BackupUnfit("its store is no PostgreSQL, so it has no use for --dsn")
            gsb.store.dsn.write_bytes(self._dsn)

    def _staged(self, catalogue: Catalogue) -> Catalogue:
        gsb = catalogue.gsb
        store: SqliteTable | PostgresTable
        if isinstance(gsb.store, SqliteTable):
            store = gsb.store.model_copy(update={"path": self._aside(gsb.store.path, "a store")})
        else:
            self._real = gsb.store
            store = gsb.store.model_copy(update={"schema_name": postgres.staging(gsb.store.schema_name)})
        path = Path(os.path.normpath(gsb.log.path))
        if path.is_dir() and any(path.iterdir()):
            self._log = path
        else:
            path = self._aside(path, "a log")
        log = gsb.log.model_copy(update={"path": path})
        return dataclasses.replace(catalogue, gsb=gsb.model_copy(update={"store": store, "log": log}))

    def _aside(self, path: Path, what: str) -> Path:
        """What a path is called until the end: what lies in the folder moves with it."""
        path = Path(os.path.normpath(path))
        if path.is_relative_to(self._staging):
            return path
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise BackupUnfit(f"{path}: there is {what} already; a backup is laid where nothing is")
        aside = path.with_name(RESTORING.format(path.name))
        for left in aside.parent.glob(f"{aside.name}*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        self._moves.append((aside, path))
        return aside


def _write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Durably, and whole or not at all."""
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    sync_folder(path.parent)


def _move(old: Path, new: Path) -> None:
    """Unless it was done before."""
    if old.exists():
        old.rename(new)
        sync_folder(new.parent)
