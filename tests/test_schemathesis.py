"""Another program reads the API description and tries what it allows and forbids: the bus does what it describes."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gsb import jwk
from tests.support.deployment import Deployment, closed, standard
from tests.support.needs import needs
from tests.support.node import RunningNode, running_node
from tests.support.reading import read

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / ".deps/schemathesis/bin/schemathesis"
HERE = ROOT / "tests/schemathesis"
WITHIN = 600.0
CALLS, ANSWERED = 100, 10
"""What each operation must at least have been tried, and how often with success, for a run to say anything."""
SEED = 1
"""Fixed, so that the suite says the same of the same code."""

pytestmark = pytest.mark.slow

MONEY = {
    "type": "object",
    "properties": {
        "amount": {"type": "string", "pattern": "^-?[0-9]{1,12}([.][0-9]{2})?$"},
        "currency": {"enum": ["XOF", "EUR"]},
    },
    "required": ["amount", "currency"],
    "additionalProperties": False,
}
RETURN = {
    "day": {"type": "string", "format": "date"},
    "count": {"type": "integer", "minimum": -5, "maximum": 2**53},
    "share": {"type": "number"},
    "agreed": {"type": ["boolean", "null"]},
    "lines": {"type": "array", "items": MONEY, "maxItems": 5, "uniqueItems": True},
    "by": {
        "oneOf": [
            closed({"person": {"type": "string", "pattern": "^P-[0-9]{4}$"}}),
            closed({"firm": {"type": "string", "minLength": 1}}),
        ]
    },
    "notes": {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "string", "maxLength": 20}},
}
"""Of every type and most words of JSON Schema."""
FILED = {
    "day": "2026-03-01",
    "count": 1,
    "share": 0.5,
    "lines": [{"amount": "1.00", "currency": "XOF"}],
    "by": {"firm": "x"},
}


def deployment(root: Path) -> Deployment:
    """As standard, with a service of a rich schema of which but a part is granted."""
    made = standard(root)
    filed = closed(RETURN, FILED, required=["day", "count", "lines", "by"])
    made.service("registry/return/v1", effect="repeatable", request=filed, reply=filed, public=True)
    fields = ["/day", "/count", "/lines/*/currency", "/by", "/notes"]
    made.agreement("a-2", grants=[{"service": "registry/return/v1", "purpose": "statistics", "fields": fields}])
    return made


@pytest.fixture(autouse=True)
def schemathesis() -> None:
    needs(PROGRAM.exists(), "schemathesis: run make deps-test")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[RunningNode]:
    async with running_node(tmp_path, deployment(tmp_path)) as node:
        yield node


@dataclass(frozen=True)
class Ran:
    status: int
    said: str
    counts: dict[str, dict[str, int]]


async def described(node: RunningNode) -> Any:
    _, body = await read(node, "/openapi.json", "payroll")
    return json.loads(body)


async def run(node: RunningNode, folder: Path, description: Any, *options: str) -> Ran:
    """Try the bus by this description, as the payroll agency."""
    (folder / "openapi.json").write_text(json.dumps(description), "utf-8")
    (folder / "job.json").write_text(json.dumps(await job(node, folder, description)), "utf-8")
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *("--config-file", HERE / "schemathesis.toml", "run", "openapi.json", "--url", node.url, "--seed", str(SEED)),
        *options,
        cwd=folder,
        env={**os.environ, "GSB_JOB": str(folder / "job.json"), "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py")},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(WITHIN):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, said.decode(), json.loads((folder / "counts.json").read_text("utf-8")))


async def job(node: RunningNode, folder: Path, description: Any) -> dict[str, Any]:
    """What the hooks must know: who calls, for which purposes, and ids of exchanges that it has made."""
    services = {path: item["post"] for path, item in description["paths"].items() if "post" in item}
    made = []
    async with node.client() as client:
        for number in range(4):
            note = {"id": "P-0001", "text": str(number)}
            done = await client.call("registry/note/v1", note, purpose="payroll", idempotency_key=f"note-{number}")
            made.append(done.exchange)
    return {
        "bus": node.bus_id,
        "agency": "payroll",
        "key": json.loads(node.deployment.key_file("payroll").read_bytes()),
        "other_key": json.loads(jwk.generate("ES256")),
        "purposes": {path: post["x-grants"][0]["purpose"] for path, post in services.items()},
        "exchanges": made,
        "counts": str(folder / "counts.json"),
    }


async def test_the_bus_does_what_it_describes(node: RunningNode, tmp_path: Path) -> None:
    description = await described(node)
    ran = await run(node, tmp_path, description)
    assert ran.status == 0, ran.said
    operations = {
        f"{method.upper()} {path}"
        for path, item in description["paths"].items()
        for method in item.keys() & {"get", "post"}
    }
    assert ran.counts.keys() == operations
    tried = {name: (counts["calls"], counts["2xx"]) for name, counts in ran.counts.items()}
    assert {name: counts for name, counts in tried.items() if counts[0] < CALLS or counts[1] < ANSWERED} == {}
    assert ran.counts["POST /services/registry/note/v1"]["202"] > 0


def promises_more(description: Any) -> None:
    description["components"]["schemas"]["Services"]["required"].append("total")


def forgets_a_status(description: Any) -> None:
    del description["paths"]["/services"]["get"]["responses"]["200"]


def promises_a_header(description: Any) -> None:
    header = {"required": True, "schema": {"type": "string"}}
    description["paths"]["/services"]["get"]["responses"]["200"]["headers"]["X-Total"] = header


def claims_to_be_closed(description: Any) -> None:
    description["paths"]["/services"]["get"]["security"] = [{"signature": []}]


@pytest.mark.parametrize(
    ("lie", "found"),
    [
        (promises_more, "Response violates schema"),
        (forgets_a_status, "Undocumented status code"),
        (promises_a_header, "X-Total"),
        (claims_to_be_closed, "without a good signature"),
    ],
)
async def test_a_lie_would_be_found(node: RunningNode, tmp_path: Path, lie: Callable[[Any], None], found: str) -> None:
    description = await described(node)
    lie(description)
    ran = await run(node, tmp_path, description, "--include-path", "/services", "--phases", "fuzzing")
    assert ran.status == 1, ran.said
    assert found in ran.said, ran.said
