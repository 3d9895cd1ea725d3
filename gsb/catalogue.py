"""A whole deployment as one frozen look-up, built from its folder or not at all.

``build`` runs every rule that ``gsb check`` runs, so a node starts exactly when the check finds nothing. A catalogue
is never changed: a new configuration is a new catalogue, swapped whole.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gsb import config
from gsb.jwk import PrivateKey
from gsb.keys import BusKeys, Registry
from gsb.lint import lint
from gsb.load import ConfigInvalid, Finding, Tables, load
from gsb.material import Material, read_material
from gsb.model import Effect
from gsb.policy import Grant, Policy
from gsb.schema import Schema
from gsb.store.contract import Business

__all__ = ["BusinessKey", "Catalogue", "ConfigInvalid", "Finding", "ServiceInfo", "SystemInfo", "build"]


@dataclass(frozen=True, slots=True)
class BusinessKey:
    """Where in a request stands what a service's own people know an exchange by."""

    path: tuple[str, ...]
    personal: bool

    def of(self, body: Any) -> Business | None:
        """The business key of a request; None where it has none that is a text or an integer."""
        value = _text_at(self.path, body)
        return None if value is None else Business(value, self.personal)


def _text_at(path: tuple[str, ...], body: Any) -> str | None:
    """The text or integer at this place of a body, as text; None where there is none."""
    for name in path:
        if not isinstance(body, dict) or name not in body:
            return None
        body = body[name]
    return None if isinstance(body, bool) or not isinstance(body, str | int) else str(body)


@dataclass(frozen=True, slots=True, eq=False)
class ServiceInfo:
    """One service, with everything that admitting and performing need to know of it."""

    id: str
    system: str
    provider: str
    title: str
    summary: str
    effect: Effect
    public: bool
    expires: float
    """Seconds after which nothing begins any more."""
    body: int
    """Bytes of a request body at most."""
    request: Schema
    reply: Schema
    settings: Mapping[str, Any]
    business_key: BusinessKey | None = None
    subject_path: tuple[str, ...] | None = None
    """Where in a request stands whom it is about: the member that its schema marks ``x-subject``. What stands in a list
    is not found: such a request is about nobody alone."""

    def business(self, body: Any) -> Business | None:
        """The business key of a request, if this service has one."""
        return None if self.business_key is None else self.business_key.of(body)

    def subject(self, body: Any) -> str | None:
        """Whom a request is about, if its schema says where that stands and it does stand there."""
        return None if self.subject_path is None else _text_at(self.subject_path, body)


@dataclass(frozen=True, slots=True)
class CallsInfo:
    """How a system calls other services."""

    key: PrivateKey
    url: str | None


@dataclass(frozen=True, slots=True, eq=False)
class SystemInfo:
    """One core system behind its adapter."""

    id: str
    title: str
    agency: str
    adapter: str
    timeout: float
    """Seconds for one call of the adapter."""
    concurrency: int
    settings: Mapping[str, Any]
    services: tuple[ServiceInfo, ...]
    calls: CallsInfo | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """One deployment."""

    folder: Path
    gsb: config.Gsb
    services: Mapping[str, ServiceInfo]
    systems: Mapping[str, SystemInfo]
    agencies: Mapping[str, config.Agency]
    operators: Mapping[str, config.Operator]
    agreements: Mapping[str, config.Agreement]
    keys: Registry
    bus_keys: BusKeys
    kids: frozenset[str]
    """The ids of all keys that the files name, whosever they are."""
    log_keys: tuple[Ed25519PrivateKey, ...]
    """With which checkpoints are signed: the present one, and those that signed logs before."""
    policy: Policy
    digest: str
    """SHA-256, in hex, over every file that took part, but for private keys and secrets."""

    @property
    def log_key(self) -> Ed25519PrivateKey:
        """The present one."""
        return self.log_keys[0]


def build(folder: Path) -> Catalogue:
    """The catalogue of a deployment. Raises ConfigInvalid with every finding at once, or OSError without a folder."""
    tables, findings = load(folder)
    material, wrong = read_material(tables)
    findings += wrong
    findings += lint(tables, material, time.time())
    if findings or tables.gsb is None or not material.log:
        raise ConfigInvalid(findings)
    services = {name: _service(name, tables, tables.gsb, material) for name in tables.services}
    return Catalogue(
        folder=tables.folder,
        gsb=tables.gsb,
        services=MappingProxyType(services),
        systems=MappingProxyType({name: _system(name, tables, services, material) for name in tables.systems}),
        agencies=MappingProxyType(dict(tables.agencies)),
        operators=MappingProxyType(dict(tables.operators)),
        agreements=MappingProxyType(dict(tables.agreements)),
        keys=Registry(material.keys),
        bus_keys=BusKeys(material.bus),
        kids=material.kids,
        log_keys=material.log,
        policy=Policy(_grants(tables)),
        digest=_digest({**tables.contents, **material.contents}),
    )


def _service(name: str, tables: Tables, gsb: config.Gsb, material: Material) -> ServiceInfo:
    table = tables.services[name]
    request = material.schemas[f"{name}/request"]
    system = name.partition("/")[0]
    return ServiceInfo(
        id=name,
        system=system,
        provider=tables.systems[system].agency,
        title=table.title,
        summary=table.summary,
        effect=table.effect,
        public=table.public,
        expires=table.expires,
        body=gsb.limits.body if table.body is None else table.body,
        request=request,
        reply=material.schemas[f"{name}/reply"],
        settings=MappingProxyType(table.settings),
        business_key=_business_key(table.business_key, request),
        subject_path=None if request.subject is None else _path(request.subject),
    )


def _path(pointer: str) -> tuple[str, ...]:
    """The names of members in a JSON Pointer (RFC 6901)."""
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:])


def _business_key(pointer: str | None, request: Schema) -> BusinessKey | None:
    """It is personal when the member is, or anything that holds it, or when it says whom the data are about."""
    if pointer is None:
        return None
    tokens = pointer.split("/")
    holders = {"/".join(tokens[:count]) for count in range(1, len(tokens) + 1)}
    personal = bool(holders & (request.personal | {request.subject}))
    return BusinessKey(_path(pointer), personal)


def _system(name: str, tables: Tables, services: Mapping[str, ServiceInfo], material: Material) -> SystemInfo:
    table = tables.systems[name]
    return SystemInfo(
        id=name,
        title=table.title,
        agency=table.agency,
        adapter=table.adapter,
        timeout=table.timeout,
        concurrency=table.concurrency,
        settings=MappingProxyType(table.settings),
        services=tuple(service for service in services.values() if service.system == name),
        calls=None if table.calls is None else CallsInfo(material.callers[name], table.calls.url),
    )


def _grants(tables: Tables) -> Iterator[Grant]:
    for name, agreement in tables.agreements.items():
        digest = hashlib.sha256(tables.contents[f"agreements/{name}.toml"]).hexdigest()
        for grant in agreement.grants:
            yield Grant(
                agreement=name,
                agreement_digest=digest,
                consumer=agreement.consumer,
                provider=agreement.provider,
                service=grant.service,
                purpose=grant.purpose,
                fields=tuple(grant.fields),
                rate=grant.rate,
                sub=grant.sub,
                case=grant.case,
                valid_from=_midnight(agreement.valid_from),
                valid_until=_midnight(agreement.valid_until + timedelta(days=1)),
                suspended=agreement.suspended,
            )


def _midnight(day: date) -> float:
    return datetime.combine(day, time_of_day(), UTC).timestamp()


def _digest(contents: Mapping[str, bytes]) -> str:
    """Over the SHA-256 of each file and its name, one a line and sorted: the form that ``sha256sum`` prints."""
    lines = sorted(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in contents.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
