"""Nothing personal and no secret in anything that comes out of running nodes, but signed replies to who asked.

Gateway, worker and recorder as processes of their own over PostgreSQL and Kafka, a core system that quotes what it was
asked, a collector of traces, and ``gsb doctor``: values are planted wherever a caller, a core system, an operator or
the deployment has a place for one, and every byte that came out is searched. Of each exchange there is one line.
"""

from __future__ import annotations

import asyncio
import json
import tarfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import orjson
import pytest

from gsb.manual.lines import SCHEMA
from gsb.model import FINAL
from tests.support.bus import ONCE, READ, REPEATABLE
from tests.support.canaries import Caller, Planted
from tests.support.cluster import Member, cluster
from tests.support.collector import Collector, collecting
from tests.support.core import Asked, Core, beside, core_system
from tests.support.deployment import PERSON, Deployment
from tests.support.node import GSB

pytestmark = pytest.mark.slow
ROLES = ["gateway", "worker", "recorder"]
MERGED = ("/bin/sh", "-c", 'exec "$0" "$@" 1>&2', GSB, "serve")
"""Runs a node whose standard output is read with its log."""
LINE = jsonschema_rs.validator_for(orjson.loads((files("gsb") / SCHEMA).read_bytes()))
LEGAL = {"legal_basis": "Data Protection Act 2019, section 17"}


@pytest.fixture
async def core() -> AsyncIterator[Core]:
    async with core_system() as found:
        yield found


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as found:
        yield found


@pytest.fixture
def planted() -> Planted:
    return Planted()


@pytest.fixture
async def nodes(
    tmp_path: Path, dsn: str, kafka: str, core: Core, collector: Collector, planted: Planted
) -> AsyncIterator[list[Member]]:
    deployment = beside(tmp_path, core, auth={"kind": "bearer", "token": "token"})
    deployment.gsb["limits"]["wait"] = 60  # a machine that stands still is no reason for a 202
    (deployment.folder / "token").write_text(planted.text("token") + "\n", "utf-8")
    deployment.gsb["tracing"] = {"endpoint": collector.url, "ratio": 1.0}
    secrets(deployment, planted)
    more = {role: ["--verbose"] for role in ROLES}
    more["gateway"] += ["--operations-port", str(deployment.operations_port)]
    async with cluster(tmp_path, dsn, ROLES, brokers=kafka, deployment=deployment, more=more, serve=MERGED) as found:
        yield found


def secrets(deployment: Deployment, planted: Planted) -> None:
    """Everything in the deployment that nobody may learn."""
    planted.keep("the store's key", (deployment.folder / "store.key").read_text("utf-8").strip())
    for path in (deployment.folder / "keys").glob("*.jwk.json"):
        if private := json.loads(path.read_text("utf-8")).get("d"):
            planted.keep(f"private key {path.name}", private)
    for owner in ("payroll", "olive"):
        planted.keep(f"private key of {owner}", json.loads(deployment.key_file(owner).read_text("utf-8"))["d"])


class Run:
    """What happens, and what came out of it."""

    def __init__(self, gateway: Member, core: Core, planted: Planted) -> None:
        self.core, self.planted, self.caller = core, planted, Caller(gateway, planted)
        self.gateway = gateway

    async def call(self, service: str, body: Any, **more: Any) -> tuple[int, Any]:
        """A call with values in every place for one."""
        told = self.planted.text
        claims: dict[str, Any] = {"purpose": "payroll", "sub": told("sub"), "case": told("case"), "key": told("key")}
        return await self.caller.send("POST", f"/services/{service}", body, **(claims | more))

    def note(self) -> dict[str, str]:
        return {"id": self.planted.person(), "text": self.planted.text("text")}

    def says(self, status: int, **members: str) -> None:
        """Let the core system answer so, and quote what it was asked and by whom."""
        told = {name: self.planted.text(name) for name in ("detail", "trail")}

        def answers(asked: Asked) -> tuple[int, Any]:
            return status, {**told, "asked": asked.path, "by": asked.headers.get("Authorization"), **members}

        self.core.answers = answers

    async def everything(self) -> None:
        await self.good()
        await self.bad()
        await self.refused()
        await self.acts()

    async def good(self) -> None:
        person = PERSON | {"id": self.planted.person(), "name": self.planted.text("name")}
        self.core.answers = lambda asked: (200, person if asked.method == "GET" else asked.body)
        assert (await self.call(READ, {"id": person["id"]}))[0] == 200
        written, key = self.note(), self.planted.text("key")
        again: dict[str, Any] = {"purpose": "payroll", "sub": self.planted.text("sub"), "case": None, "key": key}
        for _ in range(2):
            assert (await self.call(ONCE, written, **again))[0] == 200
        assert (await self.call(ONCE, self.note(), **again))[0] == 422
        assert (await self.call(REPEATABLE, self.note()))[0] == 200

    async def bad(self) -> None:
        """A system that refuses, answers nonsense, is broken, and leaves unknown what it did."""
        self.says(404)
        assert (await self.call(READ, {"id": self.planted.person()}))[0] == 422
        assert (await self.call(ONCE, self.note()))[0] == 422
        self.says(200)
        assert (await self.call(READ, {"id": self.planted.person()}))[0] == 502
        self.says(418)
        assert (await self.call(READ, {"id": self.planted.person()}))[1]["state"] == "held"
        assert (await self.call(REPEATABLE, self.note()))[1]["state"] == "held"
        self.says(500)
        assert (await self.call(ONCE, self.note()))[1]["state"] == "unknown"
        self.core.answers = lambda asked: (200, asked.body)

    async def refused(self) -> None:
        told, person = self.planted.text, {"id": self.planted.person()}
        wrong = {"id": told("id"), "more": {"deep": told("deep")}}
        twice, jti = f'{{"id": "{told("twice")}", "id": 1}}'.encode(), told("jti")
        said = [
            await self.call(READ, wrong),
            await self.call(READ, twice),
            await self.call(told("service"), person),
            await self.call(READ, person, purpose=told("purpose")),
            await self.call(READ, person, owner="audit-office"),
            await self.call(READ, person, issuer=told("agency")),
            await self.call(READ, person, jti=jti),
            await self.call(READ, person, jti=jti),
        ]
        assert [status for status, _ in said] == [422, 400, 404, 403, 403, 401, 502, 409]
        await self.caller.send("GET", f"/{told('path')}?{told('query')}")
        for name in ("traceparent", "tracestate", "baggage", "User-Agent", "GSB-Signature", "Prefer", told("header")):
            headers = {"Content-Type": "application/json", name: told("header")}
            url = f"{self.gateway.url}/services/{READ}?{told('query')}"
            await self.caller.unsigned("POST", url, orjson.dumps({"id": told("id")}), headers)

    async def acts(self) -> None:
        act, told = self.caller.act, self.planted.text
        for each in await self.exchanges():
            path = f"/admin/exchanges/{each['exchange']}"
            for owner, more in (("ines", "/body"), ("ines", "/evidence"), ("otto", "/body")):
                await act("GET", f"{path}{more}?reason={told('reason')}", owner=owner)
            if each["state"] == "held" and each["service"] == READ:
                ending = {"state": "failed", "effect": "none", "reason": told("reason")}
                assert (await act("POST", f"{path}/close", ending))[0] == 200
            elif each["state"] == "held":
                assert (await act("POST", f"{path}/replay", {"reason": told("reason")}))[0] == 200
            elif each["state"] == "unknown":
                ending = {"state": "done", "effect": "done", "reason": told("reason")}
                assert (await act("POST", f"{path}/resolve", ending))[0] == 200
        law = {**LEGAL, "reason": told("reason"), "salt": told("salt"), "subject": self.planted.person()}
        await act("POST", "/admin/erase", law, owner="elsa")
        await act("GET", f"/admin/exchanges?reason={told('reason')}&business_key={told('query')}&code={told('code')}")

    async def exchanges(self) -> list[dict[str, Any]]:
        """All of them, as an operator sees them."""
        reason = self.planted.text("reason")
        status, said = await self.caller.act("GET", f"/admin/exchanges?reason={reason}&limit=100")
        assert (status, said["next"]) == (200, None)
        return list(said["exchanges"])

    async def until_all_ended(self) -> list[dict[str, Any]]:
        async with asyncio.timeout(180):
            while True:
                found = await self.exchanges()
                if all(each["state"] in FINAL for each in found):
                    return found
                await asyncio.sleep(0.2)


async def came_out(run: Run, nodes: list[Member], collector: Collector, folder: Path) -> dict[str, bytes]:
    """Every byte; the nodes are stopped, so that what they say last is in it."""
    out: dict[str, bytes] = {}
    async with aiohttp.ClientSession() as session:
        for node in nodes:
            for path in ("/metrics", "/readyz"):
                async with session.get(node.operations_url + path) as answer:
                    out[f"{node.roles}{path}"] = await answer.read()
    bundle = folder / "bundle.tar.gz"
    for options in (["--bundle", bundle], ["--json"]):
        command = [GSB, "doctor", "--config", nodes[0].deployment.folder, *options]
        doctor = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out[f"doctor {options[0]}"], _ = await doctor.communicate()
        assert doctor.returncode in (0, 1), out[f"doctor {options[0]}"]
    with tarfile.open(bundle) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            out[f"bundle {member.name}"] = content.read()
    for node in nodes:
        await node.stop()
        assert len(node.log) < (node.log.maxlen or 0), "lines are missing"
        out[f"{node.roles} log"] = "\n".join(node.log).encode()
    out["spans"] = b"\n".join(collector.bodies)
    return out | {"problems": b"\n".join(run.caller.refusals), "headers": b"\n".join(run.caller.headers)}


async def test_nothing_personal_and_no_secret_comes_out_and_each_exchange_has_one_line(
    nodes: list[Member], core: Core, collector: Collector, planted: Planted, tmp_path: Path
) -> None:
    run = Run(nodes[0], core, planted)
    await run.everything()
    exchanges = await run.until_all_ended()
    out = await came_out(run, nodes, collector, tmp_path)
    assert planted.found(out) == []
    held_to_the_schema({each["exchange"]: each for each in exchanges}, nodes)
    # The search was one: much was planted, and all that came out is there.
    assert len(planted.values) > 150
    assert all(asked.headers["Authorization"].startswith("Bearer canary-token") for asked in core.asked)
    assert {each["state"] for each in exchanges} == {"done", "refused", "failed"}
    for name in ("worker log", "spans"):
        assert all(each["exchange"].encode() in out[name] for each in exchanges if each["state"] == "done")
    assert {f"{role}/metrics" for role in ROLES} <= out.keys()
    assert {"findings.json", "metrics.txt"} <= {name.rpartition("/")[2] for name in out}
    assert {each.name for each in collector.spans} >= {"accept", "dispatch", "perform", "request", "reply"}


def held_to_the_schema(exchanges: Mapping[str, Mapping[str, Any]], nodes: list[Member]) -> None:
    """One line of each that has ended, on one node, and each as the schema says."""
    lines = [json.loads(line) for node in nodes for line in node.log if '"exchange ended"' in line]
    for line in lines:
        assert [error.message for error in LINE.iter_errors(line)] == [], line
    assert Counter(line["exchange"] for line in lines) == dict.fromkeys(exchanges, 1)
    for line in lines:
        assert (line["state"], line["service"]) == tuple(exchanges[line["exchange"]][n] for n in ("state", "service"))
    assert {"operator" in line for line in lines} == {True, False}


@pytest.mark.parametrize(
    "wrong",
    [
        {"sub": "clerk-7"},
        {"purpose": "payroll"},
        {"state": "held"},
        {"code": "Not found: P-0001"},
        {"operator": "olive"},
        {"trace": None},
        {"exchange": "P-0001"},
    ],
)
def test_the_schema_of_the_line_takes_nothing_else(wrong: dict[str, Any]) -> None:
    line: dict[str, Any] = {
        "at": "2026-03-01T12:00:00.000Z",
        "level": "info",
        "logger": "gsb.exchange",
        "message": "exchange ended",
        "exchange": "0197a3c0-0000-7000-8000-000000000000",
        "agency": "payroll",
        "service": READ,
        "attempt": 1,
        "milliseconds": 12,
        "trace": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "state": "done",
        "effect": "none",
        "code": None,
    }
    assert LINE.is_valid(line)
    assert not LINE.is_valid(line | wrong)
