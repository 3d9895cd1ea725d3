"""The one file that a witness is told what it is by, and the keys that it names.

    name = "witness.audit.example"          # what the witness is called in its cosignatures
    key = "witness.jwk.json"                # gsb keygen --alg Ed25519 witness.jwk.json
    state = "state"                         # folder of what it has cosigned; never restore it from a backup

    [listen]
    port = 8090

    [[logs]]
    origin = "bus.example/log"
    yearly = true                           # and so bus.example/log/2026, bus.example/log/2027, ...
    keys = ["bus.example/log/2026+1a2b3c4d+AbCd..."]

Relative paths start at the file's folder. A witness reads nothing else of anybody's configuration.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gsb.config import Tls
from gsb.evidence.checkpoint import LOG, Cosigner, Verifier
from gsb.evidence.witness import Known
from gsb.forms import ORIGIN, File, Table, is_loopback
from gsb.jwk import KeyUnfit, read_ed25519
from gsb.load import ConfigInvalid, Finding, validate


def _vkey(vkey: str) -> str:
    if Verifier.of(vkey).kind != LOG:
        raise ValueError("is the key of a witness, not of a log")
    return vkey


class ListenTable(Table):
    """Where the witness listens."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8090, ge=0, le=65535)
    """Port; 0 takes a free one."""
    tls: Tls | Literal["upstream"] | None = None
    """TLS here; or "upstream": something in front ends TLS; or nothing, and then only loopback addresses start."""


class LogTable(Table):
    """A log to cosign for."""

    origin: str = Field(pattern=ORIGIN, max_length=200)
    """Its name, the first line of its checkpoints; of yearly logs without the year."""
    yearly: bool = False
    """Whether each year has a log of its own, called like this one and the year and signed with the same key; then next
    year's needs no change here."""
    keys: list[Annotated[str, AfterValidator(_vkey)]] = Field(min_length=1)
    """The verifier keys that it may sign with; of yearly logs that of any year, since it stands for all of them."""


class WitnessFile(Table):
    """A witness's file."""

    name: str = Field(pattern=ORIGIN, max_length=200)
    """What the witness is called in its cosignatures: a URL without its scheme, that nobody else is called by."""
    key: File
    """Its own private key, a JWK made by ``gsb keygen --alg Ed25519``. It signs nothing but cosignatures."""
    state: File
    """Folder of what it has cosigned; it is made where its parent exists. An older copy of it would let it cosign two
    histories: never restore it from a backup, but begin with a new name and a new key."""
    listen: ListenTable = ListenTable()
    logs: list[LogTable] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Settings:
    """A witness's file, read and right."""

    folder: Path
    file: WitnessFile
    cosigner: Cosigner
    logs: tuple[Known, ...]


def read_settings(path: Path) -> Settings:
    """What the file says, or that of the name ``witness.toml`` in a folder. Raises ConfigInvalid with everything wrong
    with it, or OSError."""
    path = path / "witness.toml" if path.is_dir() else path
    data = path.read_bytes()
    try:
        tables = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigInvalid([Finding(path.name, "", f"is not TOML: {error}")]) from error
    folder = path.parent.resolve()
    file, findings = validate(WitnessFile, tables, path.name, folder)
    if file is None:
        raise ConfigInvalid(findings)
    findings = [Finding(path.name, where, message) for where, message in _lint(file)]
    cosigner = None
    try:
        cosigner = Cosigner(file.name, read_ed25519(file.key.read_bytes())[1])
    except (KeyUnfit, OSError) as error:
        findings.append(Finding(path.name, "key", f"{error} gsb keygen --alg Ed25519 makes one"))
    if findings or cosigner is None:
        raise ConfigInvalid(findings)
    return Settings(folder, file, cosigner, tuple(_known(table) for table in file.logs))


def _known(table: LogTable) -> Known:
    return Known(table.origin, tuple(Verifier.of(vkey) for vkey in table.keys), table.yearly)


def _lint(file: WitnessFile) -> Iterator[tuple[str, str]]:
    if file.listen.tls is None and not is_loopback(file.listen.host):
        yield "listen.host", 'plain HTTP is only for loopback addresses; set listen.tls, or listen.tls = "upstream"'
    if not file.state.parent.is_dir():
        yield "state", f"there is no folder {file.state.parent}"
    for index, table in enumerate(file.logs):
        names = [Verifier.of(vkey).name for vkey in table.keys]
        # A key that is named after another log was most likely copied to the wrong place.
        for number, name in enumerate(names):
            if table.yearly and not _known(table).covers(name):
                yield f"logs.{index}.keys.{number}", f"is the key of {name}, not of {table.origin} and a year"
        if any(other.origin == table.origin for other in file.logs[:index]):
            yield f"logs.{index}.origin", "stands twice; give one log all its keys"
