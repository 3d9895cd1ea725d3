"""Writes a complete small deployment into a folder: configuration, generated keys, schemas.

    deployment = Deployment(tmp_path)                      # agencies, operators, bus, store; no services yet
    deployment.system("registry", adapter="http_json", settings={...})
    deployment.service("registry/person/v1", effect="none", request=closed({...}), reply=closed({...}))
    deployment.agreement("a-1", grants=[{"service": "registry/person/v1", "purpose": "audit", "fields": []}])
    folder = deployment.write()

Everything is a plain table until ``write``, so a test may bend any of it: ``deployment.gsb["limits"]["wait"]
= 1`` or ``deployment.files["systems/registry.toml"]["timeout"] = 0.2``. ``standard(tmp_path)`` is one with a
registry of three services, one for each effect, behind the adapter ``echo`` of ``tests/support/site``.

Keys are made once per process, since they cost more than everything else here.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

from gsb import jwk
from gsb.bench.servers import installed
from gsb.evidence.checkpoint import Signer, Verifier

SITE = Path(__file__).parent / "site"
"""Installed adapters that exist only for tests; a subprocess finds them with this folder on PYTHONPATH."""
if str(SITE) not in sys.path:
    sys.path.insert(0, str(SITE))

BUS = "bus.test"
THE_BUS = "(the bus)"
THE_LOG = "(its log)"
CONSUMER = "payroll"
PROVIDER = "hrmis-agency"
AGENCIES = ("payroll", "audit-office", "hrmis-agency", "tax-agency")
OPERATORS = {
    "olive": ["observer", "operator"],
    "otto": ["observer"],
    "ines": ["inspector"],
    "aude": ["auditor"],
    "elsa": ["eraser"],
}

Table = dict[str, Any]


@cache
def _private(owner: str, algorithm: str) -> bytes:
    return jwk.generate(algorithm)


def agency_key(name: str) -> jwk.PrivateKey:
    """With which the agency or operator of this name signs in every deployment of this process."""
    return jwk.read_private(_private(name, "ES256"))


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that were free a moment ago, all different."""
    return installed.free_ports(count)


def toml(value: Any) -> str:
    """A value as TOML; mappings become inline tables, and members that are None are left out."""
    if isinstance(value, Mapping):
        members = (f"{json.dumps(name)} = {toml(each)}" for name, each in value.items() if each is not None)
        return "{" + ", ".join(members) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(each) for each in value) + "]"
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, (str, Path)):
        return json.dumps(str(value), ensure_ascii=False)
    return json.dumps(value)


def closed(properties: Mapping[str, Any], *examples: Any, required: Sequence[str] | None = None) -> Table:
    """A JSON Schema of an object with exactly these members, all required unless said otherwise."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": dict(properties),
        "required": list(properties if required is None else required),
        "additionalProperties": False,
        "examples": list(examples),
    }


class Deployment:
    """A deployment in the making. ``folder`` is the one to give to ``gsb check`` or ``gsb serve``."""

    def __init__(self, root: Path, *, bus: str = BUS) -> None:
        self.folder = root / "deployment"
        self.bus = bus
        self.port, self.operations_port = free_ports(2)
        self.bus_url = f"http://127.0.0.1:{self.port}"
        self.operations_url = f"http://127.0.0.1:{self.operations_port}"
        self.files: dict[str, Table] = {}
        """The tables by the path of their file, ``gsb.toml`` among them."""
        self.schemas: dict[str, Any] = {}
        """The schemas by the path of their file below ``schemas/``."""
        self.secrets = root / "private"
        self.log_folder = root / "log"
        self.secrets.mkdir(parents=True, exist_ok=True)
        (self.folder / "keys").mkdir(parents=True, exist_ok=True)
        self.gsb = self._gsb()
        self.files["gsb.toml"] = self.gsb
        for agency in AGENCIES:
            self.agency(agency)
        for operator, roles in OPERATORS.items():
            self.operator(operator, roles)

    def _gsb(self) -> Table:
        (self.folder / "keys" / "bus.jwk.json").write_bytes(_private(THE_BUS, "ES256"))
        (self.folder / "keys" / "log.jwk.json").write_bytes(_private(THE_LOG, "Ed25519"))
        key = base64.urlsafe_b64encode(os.urandom(32)).rstrip(b"=")
        (self.folder / "store.key").write_bytes(key + b"\n")
        return {
            "bus": {
                "id": self.bus,
                "base_urls": [self.bus_url],
                "operations_url": self.operations_url,
                "keys": [{"file": "keys/bus.jwk.json"}],
            },
            "listen": {"port": self.port, "operations_port": self.operations_port},
            "store": {"path": "store.db", "key": "store.key"},
            "log": {"path": str(self.log_folder), "key": "keys/log.jwk.json"},
            "limits": {},
            "adapters": {"allow": []},
            "schemas": "schemas",
        }

    # --- keys

    def key(self, owner: str, algorithm: str = "ES256") -> jwk.PrivateKey:
        """The private key of an agency or operator. Of another algorithm than ES256 it is registered by asking
        for it, which must happen before ``write``.
        """
        self._register(owner, algorithm)
        return jwk.read_private(_private(owner, algorithm))

    def bus_key(self) -> jwk.PrivateKey:
        """The private key with which the bus signs."""
        return jwk.read_private(_private(THE_BUS, "ES256"))

    def log_verifier(self, name: str) -> Verifier:
        """Of the log in the folder of this name, unless its origin was configured."""
        _, key = jwk.read_ed25519(_private(THE_LOG, "Ed25519"))
        return Signer(f"{self.bus_url.partition('://')[2]}/log/{name}", key).verifier

    def key_file(self, owner: str, algorithm: str = "ES256") -> Path:
        """A file with the private key of an agency or operator, outside the deployment's folder."""
        self._register(owner, algorithm)
        path = self.secrets / f"{owner}-{algorithm.lower()}.jwk.json"
        path.write_bytes(_private(owner, algorithm))
        path.chmod(0o600)
        return path

    def _register(self, owner: str, algorithm: str) -> None:
        kind = "operators" if f"operators/{owner}.toml" in self.files else "agencies"
        keys = self.files[f"{kind}/{owner}.toml"]["keys"]
        published = self._publish(owner, algorithm)
        if published["file"] not in [key["file"] for key in keys]:
            keys.append(published)

    def _publish(self, owner: str, algorithm: str) -> Table:
        name = f"keys/{owner}-{algorithm.lower()}.pub.jwk.json"
        path, key = self.folder / name, jwk.public_of(_private(owner, algorithm))
        if not path.exists() or path.read_bytes() != key:  # a node that watches its files would take it for a change
            path.write_bytes(key)
        return {"file": name}

    # --- tables

    def agency(self, name: str, **more: Any) -> Table:
        keys = [self._publish(name, "ES256")]
        return self._put(f"agencies/{name}.toml", {"name": f"The {name}", "keys": keys} | more)

    def operator(self, name: str, roles: Sequence[str], **more: Any) -> Table:
        keys = [self._publish(name, "ES256")]
        return self._put(f"operators/{name}.toml", {"name": name.title(), "roles": list(roles), "keys": keys} | more)

    def system(
        self,
        name: str,
        *,
        agency: str = PROVIDER,
        adapter: str = "echo",
        settings: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Table:
        """A system; its adapter becomes an allowed one."""
        if adapter not in self.gsb["adapters"]["allow"]:
            self.gsb["adapters"]["allow"].append(adapter)
        table = {
            "title": f"The {name}",
            "agency": agency,
            "adapter": adapter,
            "settings": dict(settings or {}),
        }
        return self._put(f"systems/{name}.toml", table | more)

    def service(
        self,
        name: str,
        *,
        effect: str = "none",
        request: Any = None,
        reply: Any = None,
        settings: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Table:
        self.schemas[f"{name}/request.json"] = closed({}, {}) if request is None else request
        self.schemas[f"{name}/reply.json"] = closed({}, {}) if reply is None else reply
        table = {"title": f"Service {name}", "effect": effect, "settings": dict(settings or {})}
        return self._put(f"services/{name}.toml", table | more)

    def agreement(
        self,
        name: str,
        *,
        grants: Sequence[Mapping[str, Any]],
        consumer: str = CONSUMER,
        provider: str = PROVIDER,
        **more: Any,
    ) -> Table:
        table = {
            "title": f"Agreement {name}",
            "consumer": consumer,
            "provider": provider,
            "legal_basis": "Data Sharing Act, section 7",
            "valid_from": date(2020, 1, 1),
            "valid_until": date(2099, 12, 31),
            "grants": [dict(grant) for grant in grants],
        }
        return self._put(f"agreements/{name}.toml", table | more)

    def _put(self, path: str, table: Table) -> Table:
        self.files[path] = table
        return table

    # --- on disk

    def write(self) -> Path:
        """Write everything as it now stands, and return the deployment's folder. May be called again."""
        for path, table in self.files.items():
            lines = (f"{json.dumps(name)} = {toml(value)}\n" for name, value in table.items() if value is not None)
            self._file(path, "".join(lines))
        for path, schema in self.schemas.items():
            self._file(f"schemas/{path}", json.dumps(schema, indent=2))
        return self.folder

    def _file(self, path: str, text: str) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")


PERSON = {
    "id": "P-0001",
    "name": "Ada",
    "salary": {"amount": "1234.50", "currency": "XOF"},
    "phones": ["1", "2"],
}
"""What ``registry/person/v1`` of ``standard`` answers."""


def standard(root: Path) -> Deployment:
    """A registry with a read, a repeatable write and a write, all granted to payroll; not yet written.

    ``registry/person/v1`` answers ``PERSON``, of which payroll may see all but the phones under the purpose
    ``payroll``; ``registry/mark/v1`` (repeatable) and ``registry/note/v1`` (once) answer their request.
    """
    deployment = Deployment(root)
    deployment.system("registry")
    money = {
        "type": "object",
        "properties": {
            "amount": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"},
            "currency": {"type": "string"},
        },
        "required": ["amount", "currency"],
        "additionalProperties": False,
    }
    identifier = {"type": "string", "pattern": "^P-[0-9]{4}$", "x-personal": True, "x-subject": True}
    deployment.service(
        "registry/person/v1",
        request=closed({"id": identifier}, {"id": "P-0001"}),
        reply=closed(
            {
                "id": identifier,
                "name": {"type": "string", "x-personal": True},
                "salary": money,
                "phones": {"type": "array", "items": {"type": "string"}},
            },
            PERSON,
        ),
        settings={"reply": PERSON},
    )
    note = {"id": identifier, "text": {"type": "string", "maxLength": 200}}
    for name, effect in (("mark", "repeatable"), ("note", "once")):
        schema = closed(note, {"id": "P-0001", "text": "moved"})
        deployment.service(f"registry/{name}/v1", effect=effect, request=schema, reply=schema)
    read = {"service": "registry/person/v1", "purpose": "payroll", "fields": ["/id", "/name", "/salary"]}
    writes = [{"service": f"registry/{name}/v1", "purpose": "payroll", "fields": [""]} for name in ("mark", "note")]
    deployment.agreement("a-1", grants=[read, *writes])
    return deployment
