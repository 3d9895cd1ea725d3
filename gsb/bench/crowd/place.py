"""The benchmarks' deployment with neighbours: a second agency, and systems that are quick, slow and dead.

It adds files to a deployment that ``gsb.bench.place`` has laid out, before a node is started on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from gsb import jwk
from gsb.bench.place import ADAPTER, CONSUMER, PURPOSE, READ, SCHEMA, Place, private_file

NEIGHBOUR = "neighbour"
QUICK, SLOW, DEAD = "quick/read/v1", "slow/read/v1", "dead/read/v1"
TIMEOUT = 0.5
"""Seconds for which the bus waits for the slow and the dead system."""
TAKES: Mapping[str, float] = {QUICK: 0.02, SLOW: 0.45, DEAD: 60.0}
"""Seconds that the systems take; quick is what the core systems that we tried take for a call: 5 to 40 ms."""
WAIT = 1.0
"""Seconds that a call waits for its outcome, so that callers of a dead system come back."""

_AGREEMENT = """
title = "What {consumer} may do beside the others"
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


def add_neighbours(place: Place) -> None:
    """Write the second agency, its key and grants, and the systems with one read each."""
    private = jwk.generate("ES256")
    files = {
        "keys/neighbour.jwk": jwk.public_of(private).decode(),
        private_file(NEIGHBOUR): private.decode(),
        f"agencies/{NEIGHBOUR}.toml": 'name = "The one next door"\nkeys = [{ file = "keys/neighbour.jwk" }]\n',
        f"agreements/{NEIGHBOUR}.toml": _agreement(NEIGHBOUR, [READ, *TAKES]),
        f"agreements/{CONSUMER}-more.toml": _agreement(CONSUMER, [*TAKES]),
    }
    for service, seconds in TAKES.items():
        system = service.partition("/")[0]
        timeout, expires = (60, 300) if service == QUICK else (TIMEOUT, 5)  # a quick one fails nobody
        files[f"systems/{system}.toml"] = (
            f'title = "A {system} one"\nagency = "provider"\nadapter = "late"\ntimeout = {timeout}\n'
        )
        files[f"services/{service}.toml"] = (
            f'title = "Answers after {seconds:g} s"\neffect = "none"\nexpires = {expires}\n'
            f"[settings]\nseconds = {seconds}\n"
        )
        for side in ("request", "reply"):
            files[f"schemas/{service}/{side}.json"] = json.dumps(SCHEMA)
    gsb = (place.folder / "gsb.toml").read_text("utf-8")
    files["gsb.toml"] = gsb.replace(f'allow = ["{ADAPTER}"]', f'allow = ["{ADAPTER}", "late"]') + (
        f"[limits]\nwait = {WAIT}\n"
    )
    for name, text in files.items():
        _write(place.folder / name, text)
    _write(place.site / "late-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: late\nVersion: 1\n")
    entry = "[gsb.adapters]\nlate = gsb.bench.crowd.late:Late\n"
    _write(place.site / "late-1.dist-info/entry_points.txt", entry)


def _agreement(consumer: str, services: list[str]) -> str:
    grants = (_GRANT.format(service=service, purpose=PURPOSE) for service in services)
    return _AGREEMENT.format(consumer=consumer) + "".join(grants)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    if path.parent.name == "keys":
        path.chmod(0o600)
