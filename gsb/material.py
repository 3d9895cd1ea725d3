"""Reads and compiles what the tables of a deployment name: public and private keys, schemas.

Whatever cannot be used is a finding and left out of the result. It keeps no secret but the private keys of bus and log,
whose content stands in no finding. What the keys and schemas are good for is not judged here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gsb import strictjson
from gsb.config import BusKey, KeyFile
from gsb.errors import BodyMalformed
from gsb.hsm import hsm_of
from gsb.jwk import KeyUnfit, PrivateKey, PublicKey, read_ed25519, read_private, read_public
from gsb.keys import Life
from gsb.load import Finding, Tables
from gsb.schema import Schema, SchemaError

K = TypeVar("K", bound=KeyFile)
Ours = tuple[PrivateKey, Life]
Theirs = tuple[str, PublicKey, Life]


@dataclass(frozen=True, slots=True)
class Material:
    """What was read, as far as it can be used."""

    bus: tuple[Ours, ...] = ()
    keys: tuple[Theirs, ...] = ()
    """Owner, key and life of each key of an agency or operator."""
    schemas: Mapping[str, Schema] = field(default_factory=dict)
    """By ``<service>/request`` and ``<service>/reply``."""
    log: tuple[Ed25519PrivateKey, ...] = ()
    """With which checkpoints are signed, the present one first."""
    callers: Mapping[str, PrivateKey] = field(default_factory=dict)
    """By system, with which its calls of other services are signed."""
    contents: Mapping[str, bytes] = field(default_factory=dict)
    """The public files as they were read: ``schemas/<service>/request.json`` and ``keys/<owner>/<kid>``."""
    kids: frozenset[str] = frozenset()
    """The ids of all these keys, whosever they are."""


def read_material(tables: Tables) -> tuple[Material, list[Finding]]:
    """Everything the tables name, and what is wrong with it."""
    reader = _Reader(tables)
    reader.read_bus()
    for kind, owners in (("agencies", tables.agencies), ("operators", tables.operators)):
        for owner, table in owners.items():
            reader.read_keys(f"{kind}/{owner}.toml", owner, table.keys)
    # After all others: a key that is a message key too is then wrong here, and not there.
    reader.read_log()
    for service in tables.services:
        reader.read_schemas(service)
    for name, system in tables.systems.items():
        if system.calls is not None:
            reader.read_caller(name, system.calls.key)
    material = Material(
        tuple(reader.bus),
        tuple(reader.keys),
        reader.schemas,
        tuple(reader.log),
        reader.callers,
        reader.contents,
        frozenset(reader.owners),
    )
    return material, reader.findings


class _Reader:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.owners: dict[str, str] = {}
        """The file that named a key first, by kid: a key that two may sign with proves nothing about either."""
        self.findings: list[Finding] = []
        self.bus: list[Ours] = []
        self.keys: list[Theirs] = []
        self.log: list[Ed25519PrivateKey] = []
        self.schemas: dict[str, Schema] = {}
        self.callers: dict[str, PrivateKey] = {}
        self.contents: dict[str, bytes] = {}

    def read_bus(self) -> None:
        if self._tables.gsb is None:
            return
        for where, table, data in self._files("gsb.toml", "bus.keys", self._tables.gsb.bus.keys):
            try:
                key = self._bus_key(table, data)
            except KeyUnfit as error:
                self._find("gsb.toml", where, str(error))
                continue
            if self._is_new("gsb.toml", where, key.kid):
                self.bus.append((key, Life.of(table)))

    def _bus_key(self, table: BusKey, data: bytes) -> PrivateKey:
        """Of a key in an HSM the file is the public half, so that nothing needs to be asked of the HSM to know it."""
        hsm = None if self._tables.gsb is None else self._tables.gsb.bus.hsm
        if table.label is None or hsm is None:
            return read_private(data)
        return hsm_of(hsm).key(table.label, read_public(data))

    def read_keys(self, file: str, owner: str, tables: list[KeyFile]) -> None:
        for where, table, data in self._files(file, "keys", tables):
            try:
                key = read_public(data)
            except KeyUnfit as error:
                self._find(file, where, str(error))
                continue
            if self._is_new(file, where, key.kid):
                self.keys.append((owner, key, Life.of(table)))
                self.contents[f"keys/{owner}/{key.kid}"] = data

    def read_log(self) -> None:
        if self._tables.gsb is None:
            return
        table = self._tables.gsb.log
        self._read_log("log.key", table.key)
        for index, path in enumerate(table.former):
            self._read_log(f"log.former.{index}", path)

    def _read_log(self, where: str, path: Path) -> None:
        try:
            key, signing = read_ed25519(path.read_bytes())
        except OSError as error:
            self._find("gsb.toml", where, f"{self._shown(path)} cannot be read: {error.strerror}")
        except KeyUnfit as error:
            self._find("gsb.toml", where, f"{error} gsb keygen --alg Ed25519 makes one")
        else:
            if self._is_new("gsb.toml", where, key.kid):
                self.log.append(signing)

    def read_caller(self, system: str, path: Path) -> None:
        """Its public half stands among its agency's keys, so it is a key of nobody else."""
        file = f"systems/{system}.toml"
        try:
            self.callers[system] = read_private(path.read_bytes())
        except OSError as error:
            self._find(file, "calls.key", f"{self._shown(path)} cannot be read: {error.strerror}")
        except KeyUnfit as error:
            self._find(file, "calls.key", str(error))

    def read_schemas(self, service: str) -> None:
        if self._tables.gsb is None:
            return
        for side in ("request", "reply"):
            path = self._tables.gsb.schemas / service / f"{side}.json"
            shown = self._shown(path)
            try:
                data = path.read_bytes()
                schema = Schema.compile(strictjson.loads(data), f"{service}/{side}")
            except OSError as error:
                self._find(shown, "", f"the schema cannot be read: {error.strerror}")
            except BodyMalformed as error:
                for fault in error.faults:
                    self._find(shown, dotted(fault.pointer), fault.detail)
            except SchemaError as error:
                self._find(shown, "", str(error).removeprefix(f"{service}/{side}: "))
            else:
                self.schemas[f"{service}/{side}"] = schema
                self.contents[f"schemas/{service}/{side}.json"] = data

    def _files(self, file: str, place: str, tables: list[K]) -> Iterator[tuple[str, K, bytes]]:
        for index, table in enumerate(tables):
            where = f"{place}.{index}.file"
            try:
                data = table.file.read_bytes()
            except OSError as error:
                self._find(file, where, f"{self._shown(table.file)} cannot be read: {error.strerror}")
            else:
                yield where, table, data

    def _is_new(self, file: str, where: str, kid: str) -> bool:
        first = self.owners.setdefault(kid, f"{file}: {where}")
        if first == f"{file}: {where}":
            return True
        self._find(file, where, f"the same key stands in {first}; each needs a key of its own")
        return False

    def _shown(self, path: Path) -> str:
        return shown(path, self._tables.folder)

    def _find(self, file: str, where: str, message: str) -> None:
        self.findings.append(Finding(file, where, message))


def shown(path: Path, folder: Path) -> str:
    """A path as findings show it: within the deployment's folder if it lies there."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def dotted(pointer: str) -> str:
    """A JSON Pointer as the dotted path that findings show."""
    return pointer.removeprefix("/").replace("/", ".").replace("~1", "/").replace("~0", "~")
