"""What must hold between the files of a deployment. Every rule is one small function that tells what breaks it.

A thing whose own file is wrong is told once, by whoever read it: rules speak only of what they can see, and take an
id for known when there is a file of that name. Adapters are imported here, and only those that are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gsb import hsm
from gsb.backends import SqliteTable
from gsb.config import Agreement, Gsb, Service, TimestampTable, Tls
from gsb.evidence.checkpoint import WITNESS, NoteWrong, Verifier
from gsb.evidence.entry import canonical
from gsb.evidence.tiles import ENTRY_LIMIT
from gsb.forms import ORIGIN, is_loopback
from gsb.installed import Loaded, installed, load_adapter, read_settings
from gsb.lint_backends import lint_backends
from gsb.load import KINDS, Finding, Tables, suggest
from gsb.material import Material, dotted, shown
from gsb.schema import Schema
from gsb.sources import HsmTable
from gsb.stamp import INSTALLED, read_certificates

FIELDS_LIMIT = ENTRY_LIMIT - 1_535
"""Bytes of a grant's fields in an entry; what else an entry says is bounded by the forms of ids and never more."""


def lint(tables: Tables, material: Material, now: float) -> list[Finding]:
    """Everything that does not hold at ``now`` (seconds since the epoch)."""
    findings = [*_owners(tables)]
    if tables.gsb is not None:
        findings += _bus(tables, tables.gsb)
        findings += _signing(material, now)
        findings += _hsm(tables, tables.gsb.bus.hsm)
        findings += lint_backends(tables, tables.gsb)
        findings += _log(tables, tables.gsb)
        findings += _adapters(tables, tables.gsb)
        findings += _schemas(tables, tables.gsb, material)
        findings += _callers(tables, tables.gsb, material, now)
    findings += _key_sets(tables)
    findings += _belonging(tables)
    for name, agreement in tables.agreements.items():
        findings += _agreement(tables, material, f"agreements/{name}.toml", agreement)
    findings += _overlaps(tables)
    return findings


# --- the bus and who signs


def _owners(tables: Tables) -> Iterator[Finding]:
    for name in sorted(tables.ids["agencies"] & tables.ids["operators"]):
        yield Finding(f"operators/{name}.toml", "", "an agency has this id too; agencies and operators share their ids")


def _bus(tables: Tables, gsb: Gsb) -> Iterator[Finding]:
    listen = gsb.listen
    if listen.tls is None and not is_loopback(listen.host):
        text = 'plain HTTP is only for loopback addresses; set listen.tls, or listen.tls = "upstream"'
        yield Finding("gsb.toml", "listen.host", text)
    if listen.tls != "upstream" and not is_loopback(listen.operations_host):
        text = 'the operations port speaks plain HTTP, which is only for loopback addresses or listen.tls = "upstream"'
        yield Finding("gsb.toml", "listen.operations_host", text)
    urls = {f"bus.base_urls.{index}": url for index, url in enumerate(gsb.bus.base_urls)}
    for where, url in urls.items():
        parts = urlsplit(url)
        if parts.scheme == "http" and listen.tls != "upstream" and not is_loopback(parts.hostname or ""):
            yield Finding("gsb.toml", where, "must be https: plain HTTP is only for loopback addresses")
    for (_, first), (where, second) in combinations([*urls.items(), ("bus.operations_url", gsb.bus.operations_url)], 2):
        if first == second:
            yield Finding("gsb.toml", where, f"{second} stands twice; a signature must name one place")
    if isinstance(listen.tls, Tls):
        for name in ("certificate", "key", "client_ca"):
            path = getattr(listen.tls, name)
            if path is not None and not path.is_file():
                yield Finding("gsb.toml", f"listen.tls.{name}", f"there is no file {shown(path, tables.folder)}")


def _signing(material: Material, now: float) -> Iterator[Finding]:
    # Keys that could not be read are told of already, so an empty list says nothing new.
    if material.bus and not any(life.state == "active" and life.accepted(now) for _, life in material.bus):
        yield Finding("gsb.toml", "bus.keys", "none of the bus's keys is active now, so it could sign nothing")


def _hsm(tables: Tables, table: HsmTable | None) -> Iterator[Finding]:
    """Only what its files say: a node starts, and takes up changes, while the HSM is away. gsb doctor asks it."""
    if table is None:
        return
    if not hsm.INSTALLED:
        yield Finding("gsb.toml", "bus.hsm", "install the bus with the extra pkcs11")
    for name in ("module", "pin"):
        path = getattr(table, name)
        if not path.is_file():
            yield Finding("gsb.toml", f"bus.hsm.{name}", f"there is no file {shown(path, tables.folder)}")


def _key_sets(tables: Tables) -> Iterator[Finding]:
    for name, agency in tables.agencies.items():
        ca = None if agency.jwks is None else agency.jwks.ca
        if ca is not None:
            try:
                read_certificates(ca)
            except (OSError, ValueError) as error:
                yield Finding(f"agencies/{name}.toml", "jwks.ca", f"cannot be read: {error}")


def _log(tables: Tables, gsb: Gsb) -> Iterator[Finding]:
    """The log's folder holds a log and nothing else: it is written to without looking, and read by whoever checks."""
    path = gsb.log.path.resolve()
    if not path.parent.is_dir():
        yield Finding("gsb.toml", "log.path", f"there is no folder {shown(gsb.log.path.parent, tables.folder)}")
    elif path.exists() and not path.is_dir():
        yield Finding("gsb.toml", "log.path", f"{shown(gsb.log.path, tables.folder)} is no folder")
    for name, other in _others(tables, gsb):
        if other == path or path in other.parents or (name in _READ and path.is_relative_to(other)):
            yield Finding("gsb.toml", "log.path", f"is a folder of {name} too; the log needs a folder of its own")
    if gsb.reload == "watch" and path.is_relative_to(tables.folder):
        text = 'lies in the deployment\'s folder, where reload = "watch" looks at every file each second'
        yield Finding("gsb.toml", "log.path", f"{text}; a log has thousands")
    if not re.fullmatch(ORIGIN, gsb.log_origin):
        yield Finding("gsb.toml", "log.origin", f"is missing: a log cannot be called {gsb.log_origin}")
    yield from _witnesses(gsb)
    if gsb.log.timestamp is not None:
        yield from _timestamp(gsb.log.timestamp)


def _timestamp(table: TimestampTable) -> Iterator[Finding]:
    if not INSTALLED:
        yield Finding("gsb.toml", "log.timestamp", "install the bus with the extra timestamp")
    try:
        if not any(each.issuer == each.subject for each in read_certificates(table.certificates)):
            yield Finding("gsb.toml", "log.timestamp.certificates", "holds no root certificate")
    except (OSError, ValueError) as error:
        yield Finding("gsb.toml", "log.timestamp.certificates", f"cannot be read: {error}")


def _witnesses(gsb: Gsb) -> Iterator[Finding]:
    names: set[str] = set()
    for index, table in enumerate(gsb.log.witnesses):
        where = f"log.witnesses.{index}"
        parts = urlsplit(table.url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            yield Finding("gsb.toml", f"{where}.url", "must be https: plain HTTP is only for loopback addresses")
        try:
            verifier = Verifier.of(table.key)
        except NoteWrong as error:
            yield Finding("gsb.toml", f"{where}.key", str(error))
            continue
        if verifier.kind != WITNESS:
            yield Finding("gsb.toml", f"{where}.key", "is not the key of a witness; gsb witness key prints one")
        if verifier.name in names:
            yield Finding("gsb.toml", f"{where}.key", f"{verifier.name} stands twice; each witness counts once")
        names.add(verifier.name)


_READ = ("schemas", *KINDS)
"""Folders in which nothing else may lie: whatever is in them is read."""


def _others(tables: Tables, gsb: Gsb) -> Iterator[tuple[str, Path]]:
    yield "the deployment", tables.folder
    if isinstance(gsb.store, SqliteTable):
        yield "the store", gsb.store.path.resolve()
    yield "schemas", gsb.schemas.resolve()
    yield from ((kind, tables.folder / kind) for kind in KINDS)


# --- systems and services


def _belonging(tables: Tables) -> Iterator[Finding]:
    for name, system in tables.systems.items():
        if system.agency not in tables.ids["agencies"]:
            yield _unknown(f"systems/{name}.toml", "agency", "agency", system.agency, tables.ids["agencies"])
    for name in sorted(tables.ids["services"]):
        system_id = name.partition("/")[0]
        if system_id not in tables.ids["systems"]:
            yield _unknown(f"services/{name}.toml", "", "system", system_id, tables.ids["systems"])


def _unknown(file: str, where: str, kind: str, name: str, known: frozenset[str]) -> Finding:
    return Finding(file, where, f"there is no {kind} {name!r}{suggest(name, known)}")


def _adapters(tables: Tables, gsb: Gsb) -> Iterator[Finding]:
    loaded: dict[str, Loaded] = {}
    found = installed()
    for index, name in enumerate(gsb.adapters.allow):
        try:
            loaded[name] = load_adapter(name, found)
        except LookupError as error:
            yield Finding("gsb.toml", f"adapters.allow.{index}", str(error.args[0]))
    for name, system in tables.systems.items():
        file = f"systems/{name}.toml"
        if system.adapter in loaded:
            kind = loaded[system.adapter].kind
            yield from read_settings(kind.Settings, system.settings, file, tables.folder)[1]
            yield from _service_settings(tables, name, kind.ServiceSettings)
        elif system.adapter not in gsb.adapters.allow:
            hint = suggest(system.adapter, gsb.adapters.allow)
            yield Finding(file, "adapter", f"the adapter {system.adapter!r} is not allowed in gsb.toml{hint}")


def _callers(tables: Tables, gsb: Gsb, material: Material, now: float) -> Iterator[Finding]:
    """Systems that call other services do so as their agency."""
    for name, key in material.callers.items():
        file, system = f"systems/{name}.toml", tables.systems[name]
        owned = [life for owner, each, life in material.keys if (owner, each.kid) == (system.agency, key.kid)]
        if not any(life.accepted(now) for life in owned):
            yield Finding(file, "calls.key", f"is no key of {system.agency} that is in force")
        if system.calls is not None and system.calls.url not in (None, *gsb.bus.base_urls):
            yield Finding(file, "calls.url", "is none of the bus's base URLs")


def _service_settings(tables: Tables, system: str, model: type[Any]) -> Iterator[Finding]:
    for name, service in tables.services.items():
        if name.partition("/")[0] == system:
            file = f"services/{name}.toml"
            yield from read_settings(model, service.settings, file, tables.folder, service.effect)[1]


def _schemas(tables: Tables, gsb: Gsb, material: Material) -> Iterator[Finding]:
    for name, service in tables.services.items():
        yield from _business_key(f"services/{name}.toml", service, material.schemas.get(f"{name}/request"))
    for name, schema in material.schemas.items():
        file = shown(gsb.schemas / f"{name}.json", tables.folder)
        yield from _examples(file, schema)
        if name.endswith("/request"):
            for place in schema.open_places():
                text = "takes what nothing describes; a request refuses unknown members at every level"
                yield Finding(file, dotted(place), text)


def _business_key(file: str, service: Service, request: Schema | None) -> Iterator[Finding]:
    pointer = service.business_key
    if request is not None and pointer is not None and pointer not in request.fields:
        yield Finding(file, "business_key", f"the request has no field {pointer!r}{suggest(pointer, request.fields)}")


def _examples(file: str, schema: Schema) -> Iterator[Finding]:
    if not schema.examples:
        yield Finding(file, "examples", "has no example; callers learn from them, and tests check them")
    for index, example in enumerate(schema.examples):
        for fault in schema.faults(example):
            yield Finding(file, dotted(f"/examples/{index}{fault.pointer}"), fault.detail)


# --- agreements


def _agreement(tables: Tables, material: Material, file: str, agreement: Agreement) -> Iterator[Finding]:
    for side in ("consumer", "provider"):
        agency = getattr(agreement, side)
        if agency not in tables.ids["agencies"]:
            yield _unknown(file, side, "agency", agency, tables.ids["agencies"])
    for index, grant in enumerate(agreement.grants):
        place = f"grants.{index}"
        if grant.service not in tables.ids["services"]:
            yield _unknown(file, f"{place}.service", "service", grant.service, tables.ids["services"])
            continue
        owner = _owner(tables, grant.service)
        if owner not in (None, agreement.provider):
            text = f"{grant.service} belongs to {owner}, not to this agreement's provider"
            yield Finding(file, f"{place}.service", text)
        yield from _fields(file, place, grant.fields, material.schemas.get(f"{grant.service}/reply"))


def _owner(tables: Tables, service: str) -> str | None:
    """The agency that provides a service, as far as the files say so rightly."""
    system = tables.systems.get(service.partition("/")[0])
    return system.agency if system is not None and system.agency in tables.ids["agencies"] else None


def _fields(file: str, place: str, fields: list[str], reply: Schema | None) -> Iterator[Finding]:
    if (size := len(canonical(fields))) > FIELDS_LIMIT:
        text = f"are {size:,} bytes as an entry of the evidence log names them, which takes {FIELDS_LIMIT:,}"
        yield Finding(file, f"{place}.fields", f"{text}; grant what holds them")
    if reply is None:
        return
    for index, name in enumerate(fields):
        if not reply.has_field(name):
            hint = suggest(name, reply.fields)
            yield Finding(file, f"{place}.fields.{index}", f"the reply has no field {name!r}{hint}")


def _overlaps(tables: Tables) -> Iterator[Finding]:
    """Two grants of one thing at one time: nobody could say by which of them a request was allowed."""
    places: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for name, agreement in tables.agreements.items():
        for index, grant in enumerate(agreement.grants):
            key = (agreement.consumer, grant.service, grant.purpose)
            places.setdefault(key, []).append((name, f"grants.{index}"))
    for (consumer, service, purpose), same in places.items():
        for (first, where), (second, there) in combinations(same, 2):
            if _together(tables.agreements, first, second):
                text = f"overlaps with {where} of agreements/{first}.toml: {consumer}, {service}, {purpose}"
                yield Finding(f"agreements/{second}.toml", there, f"{text}, valid at the same time")


def _together(agreements: Mapping[str, Agreement], first: str, second: str) -> bool:
    one, other = agreements[first], agreements[second]
    return one.valid_from <= other.valid_until and other.valid_from <= one.valid_until
