"""What each system of a catalogue needs to be run: its adapter, the adapter's settings, and on what they depend.

It imports allowed adapters and reads their settings and secrets; it opens none. A crash means nothing: whoever
asked for the plans keeps what they have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gsb.calls import Identity, identity
from gsb.catalogue import Catalogue, SystemInfo
from gsb.installed import Loaded, installed, load_adapter, read_settings
from gsb.load import ConfigInvalid, Finding
from gsb.sdk.adapter import SecretFile


@dataclass(frozen=True, slots=True)
class Plan:
    """One system, ready to be opened: its adapter and the adapter's settings, validated."""

    system: SystemInfo
    loaded: Loaded
    settings: Any
    services: Mapping[str, Any]
    essence: Essence


@dataclass(frozen=True, slots=True)
class Essence:
    """What a system's line depends on: while this stays equal, so may the line."""

    loaded: Loaded
    timeout: float
    concurrency: int
    settings: Mapping[str, Any]
    services: Mapping[str, Mapping[str, Any]]
    folder: Path
    """Where relative paths in the settings start."""
    secrets: Mapping[Path, bytes]
    """Of each secret file the SHA-256, since an adapter may have read it only when it opened."""
    caller: Identity | None
    """As whom its adapter calls other services."""


def plans(catalogue: Catalogue) -> Iterator[Plan]:
    """Every system's plan. Raises ConfigInvalid for what has changed since the catalogue was built."""
    found = installed()
    for system in catalogue.systems.values():
        file = f"systems/{system.id}.toml"
        try:
            loaded = load_adapter(system.adapter, found)
        except LookupError as error:
            raise ConfigInvalid([Finding(file, "adapter", str(error.args[0]))]) from error
        kind = loaded.kind
        settings, findings = read_settings(kind.Settings, dict(system.settings), file, catalogue.folder)
        services = {}
        for service in system.services:
            file = f"services/{service.id}.toml"
            services[service.id], wrong = read_settings(
                kind.ServiceSettings, dict(service.settings), file, catalogue.folder, service.effect
            )
            findings += wrong
        if findings:
            raise ConfigInvalid(findings)
        yield Plan(system, loaded, settings, services, _essence(catalogue, system, loaded, [settings, services]))


def _essence(catalogue: Catalogue, system: SystemInfo, loaded: Loaded, validated: Any) -> Essence:
    try:
        secrets = {path: hashlib.sha256(path.read_bytes()).digest() for path in secret_files(validated)}
    except OSError as error:
        message = f"the secret file {error.filename} cannot be read: {error.strerror}"
        raise ConfigInvalid([Finding(f"systems/{system.id}.toml", "settings", message)]) from error
    services = {service.id: dict(service.settings) for service in system.services}
    return Essence(
        loaded=loaded,
        timeout=system.timeout,
        concurrency=system.concurrency,
        settings=dict(system.settings),
        services=services,
        folder=catalogue.folder,
        secrets=secrets,
        caller=identity(catalogue, system),
    )


def secret_files(value: Any) -> Iterator[Path]:
    """The secret files that validated settings name."""
    match value:
        case SecretFile():
            yield value.path
        case BaseModel():
            yield from secret_files([each for _, each in value])
        case Mapping():
            yield from secret_files(list(value.values()))
        case list() | tuple():
            for each in value:
                yield from secret_files(each)
