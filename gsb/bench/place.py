"""The small deployment that benchmarks of the whole bus measure: one read, one write, one agency, a grant for each.

Its adapter answers at once with what it was asked (``gsb.bench.instant``), so that all that is measured is the bus.
The adapter must not stand among those that an operator finds installed; its entry point therefore lies in a folder
beside the deployment, which only the measured process has on its path, as any other installed package would be.
Everything is written to a folder of the benchmark's own; a crash leaves it behind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsb import jwk
from gsb.bench.servers.installed import free_ports
from gsb.store.seal import new_key

BUS = "bus.bench"
CONSUMER = "consumer"
PURPOSE = "benchmark"
READ, WRITE = "bench/read/v1", "bench/write/v1"
ADAPTER = "instant"

MESSAGE: Mapping[str, Any] = {
    "person": "P-0000001",
    "period": "2026-01",
    "lines": [
        {
            "code": f"L-{number:03}",
            "title": f"Allowance number {number} of this month",
            "amount": {"amount": f"{1_234_567 + number}.50", "currency": "XOF"},
        }
        for number in range(16)
    ],
}
"""About 2 KB of JSON, as a payslip might be; a service's reply has the form of its request."""
SCHEMA: Mapping[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "required": ["person", "period", "lines"],
    "properties": {
        "person": {"type": "string", "pattern": "^P-[0-9]{7}$"},
        "period": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$"},
        "lines": {"type": "array", "maxItems": 100, "items": {"$ref": "#/$defs/line"}},
    },
    "$defs": {
        "line": {
            "type": "object",
            "additionalProperties": False,
            "required": ["code", "title", "amount"],
            "properties": {
                "code": {"type": "string", "pattern": "^L-[0-9]{3}$"},
                "title": {"type": "string", "maxLength": 80},
                "amount": {"$ref": "#/$defs/money"},
            },
        },
        "money": {
            "type": "object",
            "additionalProperties": False,
            "required": ["amount", "currency"],
            "properties": {
                "amount": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"},
                "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
            },
        },
    },
    "examples": [MESSAGE],
}

_GSB = """
[bus]
id = "{bus}"
base_urls = {urls}
operations_url = "http://127.0.0.1:{operations}"
keys = [{{ file = "keys/bus.jwk" }}]
[listen]
port = {port}
operations_port = {operations}
{backend}
[log]
path = "log"
key = "keys/log.jwk"
[adapters]
allow = ["{adapter}"]
"""
ON_ONE_MACHINE = """
[store]
path = "store.db"
key = "keys/store.key"
"""
"""What it runs on; beyond one machine it is something else."""
_AGREEMENT = """
title = "What the benchmark may do"
consumer = "{consumer}"
provider = "provider"
legal_basis = "None: nobody's data"
valid_from = 2020-01-01
valid_until = 2099-12-31
"""
_GRANT = """
[[grants]]
service = "{service}"
purpose = "{purpose}"
fields = ["/person", "/period", "/lines"]
"""


@dataclass(frozen=True, slots=True)
class Place:
    """A deployment on disk. ``url`` is the first gateway's; ``other`` a free port, for what it is compared with."""

    folder: Path
    site: Path
    """To be put on the path of the process that runs the node."""
    url: str
    urls: Sequence[str]
    """Of each gateway."""
    other: int
    key: jwk.PrivateKey
    """The consumer's."""
    bus_key: jwk.PublicKey


def lay_out(root: Path, backend: str = ON_ONE_MACHINE, gateways: int = 1) -> Place:
    """Write the deployment into an empty folder; ``backend`` are its tables ``[store]`` and ``[broker]``."""
    folder, site = root / "deployment", root / "site"
    operations, other, *ports = free_ports(2 + gateways)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    private, bus = jwk.generate("ES256"), jwk.generate("ES256")
    files = {
        "gsb.toml": _GSB.format(
            bus=BUS, urls=json.dumps(urls), port=ports[0], operations=operations, adapter=ADAPTER, backend=backend
        ),
        "keys/bus.jwk": bus.decode(),
        "keys/store.key": new_key(),
        "keys/log.jwk": jwk.generate("Ed25519").decode(),
        "keys/consumer.jwk": jwk.public_of(private).decode(),
        private_file(CONSUMER): private.decode(),
        f"agencies/{CONSUMER}.toml": 'name = "The one who asks"\nkeys = [{ file = "keys/consumer.jwk" }]\n',
        "agencies/provider.toml": 'name = "The one who answers"\n',
        "systems/bench.toml": f'title = "Nothing"\nagency = "provider"\nadapter = "{ADAPTER}"\nconcurrency = 256\n',
        "agreements/all.toml": _AGREEMENT.format(consumer=CONSUMER)
        + "".join(_GRANT.format(service=service, purpose=PURPOSE) for service in (READ, WRITE)),
    }
    for service, effect in ((READ, "none"), (WRITE, "once")):
        files[f"services/{service}.toml"] = f'title = "Answers at once"\neffect = "{effect}"\n'
        for side in ("request", "reply"):
            files[f"schemas/{service}/{side}.json"] = json.dumps(SCHEMA)
    for name, text in files.items():
        _write(folder / name, text)
    _write(site / "instant-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: instant\nVersion: 1\n")
    _write(site / "instant-1.dist-info/entry_points.txt", f"[gsb.adapters]\n{ADAPTER} = gsb.bench.instant:Instant\n")
    return Place(folder, site, urls[0], urls, other, jwk.read_private(private), jwk.read_private(bus).public)


def private_file(agency: str) -> str:
    """Where the private key of an agency lies in the deployment, for processes of the benchmark's own."""
    return f"keys/{agency}.private.jwk"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    if path.parent.name == "keys":
        path.chmod(0o600)
