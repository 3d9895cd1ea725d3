"""What real nodes tell in numbers: strangers do not make it more, and what alerts and dashboards ask for is there.

GSB_SERIES=100000 pytest tests/test_series.py        # more strangers
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gsb import jws
from tests.cluster.proxy import network
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ
from tests.support.cluster import cluster
from tests.support.deployment import BUS, Deployment, free_ports, standard
from tests.support.node import Reachable, running_node
from tests.support.postgres import Server, own_server

pytestmark = pytest.mark.slow
STRANGERS = int(os.environ.get("GSB_SERIES", "10000"))
"""Paths, agencies and services that there are not, so many of each."""
FEWER = STRANGERS // 5
"""Of each other kind."""
METHODS = STRANGERS // 20
"""Each needs a connection of its own."""
CONNECTIONS = 8
AT_ONCE = 50
"""Requests that one connection sends before it reads the answers."""
SCRAPE = aiohttp.ClientTimeout(total=10.0)
"""As long as Prometheus waits for an answer; then it has none of the numbers."""
CHART = Path(__file__).parents[1] / "helm" / "gsb"
ROLES = ["gateway", "worker", "recorder"]
WORKERS_ONLY = {"gsb_breaker_state", "gsb_system_places"}
"""Metrics whose series are systems, of which only workers call any."""
NOBODY_HERE = {"gsb_key_set_age_seconds"}
"""Metrics whose series are agencies of a kind that the deployment has none of: those that publish their keys."""

Series = set[tuple[str, frozenset[tuple[str, str]]]]


async def told(node: Reachable) -> tuple[Series, str]:
    """Every series of a node, as the official parser reads them, and the text."""
    url = f"{node.operations_url}/metrics"
    async with aiohttp.ClientSession(timeout=SCRAPE) as session, session.get(url) as answer:
        text = await answer.text()
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    found = {(each.name, frozenset(each.labels.items())) for each in samples}
    assert len(found) == len(samples), "a series stands twice"
    return found, text


# --- strangers


def paths(number: int) -> bytes:
    """Paths that nobody has, of every form."""
    path = ("canary-{}", "services/canary-{}", "problems/canary_{}", "exchanges/{}", "log/canary-{}/checkpoint")[
        number % 5
    ]
    return request("GET", f"/{path.format(number)}?canary={number}")


def headers(number: int) -> bytes:
    """Keys, preferences, traces and tokens that nobody has, with a method that is not for this."""
    fields = {
        "Idempotency-Key": f"canary-{number}",
        "Prefer": f"canary-{number}",
        "User-Agent": f"canary-{number}",
        "traceparent": f"00-{number + 1:032x}-{number + 1:016x}-01",
        "GSB-Signature": f"canary.{number}.canary",
    }
    return request("PUT", f"/services/{READ}", fields=fields)


def agencies(deployment: Deployment) -> Callable[[int], bytes]:
    """Agencies that nobody knows, each with a signature that is right but for that. One of them signs for all: what is
    signed is looked at only once it is known who signed."""
    return lambda number: signed(deployment, ONCE, f"canary-{number}", number)


def services(deployment: Deployment) -> Callable[[int], bytes]:
    """Services that there are not, asked for by an agency that is known."""
    return lambda number: signed(deployment, f"canary/canary-{number}/v1", "payroll", number)


def purposes(deployment: Deployment) -> Callable[[int], bytes]:
    """Purposes and keys that nobody has, of an agency that is known."""
    return lambda number: signed(deployment, ONCE, "payroll", number, purpose=f"canary-{number}")


def signed(deployment: Deployment, service: str, issuer: str, number: int, purpose: str = "payroll") -> bytes:
    body = json.dumps({**NOTE, "text": f"canary-{number}"}).encode()
    target, key = f"/services/{service}", f"canary-{number}"
    token = jws.sign_request(
        deployment.key("payroll"), issuer=issuer, audience=BUS, method="POST", now=time.time(),
        target_uri=deployment.bus_url + target, body=body, content_type="application/json", idempotency_key=key,
        purpose=purpose,
    )  # fmt: skip
    fields = {"GSB-Signature": token, "Idempotency-Key": key, "Content-Type": "application/json"}
    return request("POST", target, body, fields)


def request(method: str, target: str, body: bytes = b"", fields: dict[str, str] | None = None) -> bytes:
    said = {"Host": "canary", "Content-Length": str(len(body)), **(fields or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body


async def sent(port: int, requests: Iterator[bytes]) -> int:
    """Send them all over a few connections; how many were refused, which must be all of them."""
    return sum(await asyncio.gather(*(_sent(port, requests) for _ in range(CONNECTIONS))))


async def _sent(port: int, requests: Iterator[bytes]) -> int:
    count = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while some := list(islice(requests, AT_ONCE)):
        writer.write(b"".join(some))
        for _ in some:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 4"), head
            length = re.search(rb"Content-Length: ([0-9]+)", head)
            assert length is not None
            await reader.readexactly(int(length[1]))
            count += 1
    writer.close()
    await writer.wait_closed()
    return count


async def method(port: int, number: int) -> None:
    """A method that there is not, which ends its connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(f"CANARY{number}", "/"))
    assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
    writer.close()
    await writer.wait_closed()


async def test_ten_thousand_strangers_make_no_series_more(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    kinds: dict[Callable[[int], bytes], int] = dict.fromkeys(
        (paths, agencies(deployment), services(deployment)), STRANGERS
    )
    kinds |= dict.fromkeys((headers, purposes(deployment)), FEWER)
    async with running_node(tmp_path, deployment) as node:
        async with node.client() as client:
            await client.call(READ, PERSON_BODY, purpose="payroll")
        for kind, each in kinds.items():
            await sent(deployment.port, iter([kind(each)]))
        before, _ = await told(node)
        for kind, each in kinds.items():
            assert await sent(deployment.port, map(kind, range(each))) == each
        for number in range(METHODS):
            await method(deployment.port, number)
        after, text = await told(node)
    assert after == before
    assert "canary" not in text.lower()
    refused = sum(
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("gsb_problems_total{")
    )
    assert refused == sum(kinds.values()) + len(kinds) + METHODS


# --- what is asked for is there


def asked_for() -> dict[str, set[str]]:
    """The metrics that each alert and each dashboard names."""
    rules = yaml.safe_load((CHART / "rules" / "alerts.yaml").read_text("utf-8"))["groups"]
    found = {rule["alert"]: rule["expr"] for group in rules for rule in group["rules"]}
    found |= {path.name: path.read_text("utf-8") for path in (CHART / "dashboards").glob("*.json")}
    return {name: set(re.findall(r"\b(?:gsb|process)_[a-z_]+", text)) for name, text in found.items()}


async def test_what_alerts_and_dashboards_ask_for_is_told_by_nodes_of_every_role(
    tmp_path: Path, dsn: str, kafka: str
) -> None:
    async with cluster(tmp_path, dsn, ROLES, brokers=kafka) as nodes:
        async with nodes[0].client() as client:
            await client.call(READ, PERSON_BODY, purpose="payroll")
        said = {node.roles: await told(node) for node in nodes}
    names = {role: {name for name, _ in series} for role, (series, _) in said.items()}
    assert all(f"# TYPE {name} gauge" in text for name in NOBODY_HERE for _, text in said.values())
    asked = asked_for()
    assert min(map(len, asked.values())) > 0
    wanted = set().union(*asked.values())
    assert len(wanted) > 15
    for role in ROLES:
        assert wanted - names[role] - NOBODY_HERE <= (set() if role == "worker" else WORKERS_ONLY), role


async def test_whoever_cannot_ask_the_store_says_so_by_what_it_leaves_out(tmp_path: Path, kafka: str) -> None:
    async def who_can() -> list[str]:
        said = await asyncio.gather(*(told(node) for node in nodes))
        names = {node.roles: {name for name, _ in series} for node, (series, _) in zip(nodes, said, strict=True)}
        assert all("gsb_info" in each for each in names.values())
        return [roles for roles, each in names.items() if "gsb_exchanges_standing" in each]

    (port,) = free_ports(1)
    with network() as net, own_server(port):
        wire = net.wire(("127.0.0.1", port))
        async with cluster(tmp_path, Server.over(wire.port), ROLES, brokers=kafka) as nodes:
            assert await who_can() == ROLES
            wire.hang()
            assert await who_can() == []
            assert await who_can() == []
            wire.restore()
            until = time.monotonic() + 90.0
            while await who_can() != ROLES:
                assert time.monotonic() < until
                await asyncio.sleep(0.2)
