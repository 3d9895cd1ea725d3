"""What is published of a contracting process, and the checker of the standard's authors to hold it against.

The checker is ``libcoveocds`` in an environment of its own, with the schemas of OCDS 1.1.5 from a file (``make
deps-test``); it is AGPL and never imported.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gsb.model import new_id
from gsb.schema import Schema
from tests.support.adapters import request
from tests.support.needs import needs

RELEASE, RECORD = "procurement/release/v1", "procurement/record/v1"
SCHEMAS = Path(__file__).parents[2] / "schemas"
CHECKER = Path(__file__).parents[2] / ".deps" / "ocds"
STANDARD = CHECKER / "standard.zip"
MISSING = "the checker of open contracting data is not installed: make deps-test"


def schema(service: str, side: str) -> Schema:
    return Schema.compile(json.loads((SCHEMAS / service / f"{side}.json").read_bytes()), f"{service}/{side}")


def published(process: str, **more: Any) -> Any:
    """A request to publish what concerns ``process``; the last release of it so far."""
    body = json.loads((SCHEMAS / RELEASE / "request.json").read_bytes())["examples"][0] | {"process": process} | more
    assert schema(RELEASE, "request").faults(body) == []
    return request(RELEASE, body)


def money(amount: str, currency: str = "XOF") -> dict[str, str]:
    return {"amount": amount, "currency": currency}


SUPPLIER = {"id": "SN-0042", "name": 'Toits & Charpentes "Ndar"'}
AWARD = {
    "id": "A1",
    "status": "active",
    "date": "2026-10-20T10:00:00Z",
    "value": money("11999999.99"),
    "suppliers": [SUPPLIER],
}
CONTRACT = {
    "id": "C1",
    "awardID": "A1",
    "status": "active",
    "value": money("11999999.99"),
    "dateSigned": "2026-11-02T09:00:00+00:00",
    "implementation": {
        "transactions": [{"id": "T1", "date": "2026-11-20T09:00:00Z", "value": money("0.10"), "payee": SUPPLIER}]
    },
}
PARTIES = [
    {"id": "SN-MOH", "name": "Ministère de la Santé", "roles": ["buyer", "procuringEntity"]},
    SUPPLIER | {"roles": ["supplier", "tenderer", "payee"]},
]
LATER = {"tag": ["award", "contract"], "parties": PARTIES, "awards": [AWARD], "contracts": [CONTRACT]}


async def checked(document: Mapping[str, Any]) -> dict[str, Any]:
    """What libcoveocds finds in a package, as a process of its own with nothing but files."""
    needs(STANDARD.exists(), MISSING)
    text = json.dumps(document, default=float)
    path = STANDARD.parent / f"checked-{new_id()}.json"
    path.write_text(text, "utf-8")
    command: list[Path | str] = [CHECKER / "bin" / "libcoveocds", "--standard-zip", STANDARD, path]
    # A proxy that nobody runs: whatever the checker would fetch, it does not get.
    away = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=away
        )
        said, complaint = await process.communicate()
    finally:
        path.unlink()
    assert process.returncode == 0, complaint.decode()
    found: dict[str, Any] = json.loads(said)
    assert found["version_used"] == "1.1"
    return found
