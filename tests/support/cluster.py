"""Several nodes of one deployment over one PostgreSQL, each a process of its own with its own roles and ports.

    async with cluster(tmp_path, dsn, ["gateway", "worker", "recorder", "recorder"], brokers="127.0.0.1:9092") as nodes:
        async with nodes[0].client() as client:
            ...

A node is given as its roles, separated by commas, or ``all``; ``brokers`` None: work stays in the process, and then
each node must play all. All share one folder of configuration and one of the log. ``node.start()`` starts one that was
killed again.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from gsb.backends import KafkaTable
from gsb.broker.kafka.admin import Topics
from gsb.broker.topics import topics
from gsb.catalogue import Catalogue, build
from tests.support.deployment import Deployment, free_ports, standard
from tests.support.node import GSB, STARTED, RunningNode

NOTHING: Mapping[str, Sequence[str]] = {}


class Member(RunningNode):
    """One node of a cluster; ``url`` is its own, also where it is no gateway and nobody listens."""

    def __init__(
        self, deployment: Deployment, roles: str, port: int, more: Sequence[str], serve: Sequence[str | Path]
    ) -> None:
        played = [] if roles == "all" else [part for role in roles.split(",") for part in ("--role", role)]
        ports = ["--port", str(port), "--operations-port", "0"]
        super().__init__(deployment, [*serve, deployment.folder, *played, *ports, *more])
        self.roles, self._port = roles, port

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def operations_url(self) -> str:
        """Where it listens, as it said when it started last."""
        said = [json.loads(line) for line in self.log if STARTED in line]
        return f"http://127.0.0.1:{said[-1]['operations_port']}"

    async def readiness(self) -> tuple[int, Any]:
        """Status and body of ``/readyz``."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.operations_url}/readyz") as answer:
            return answer.status, await answer.json()

    async def numbers(self) -> dict[str, float]:
        """``/metrics``, by the name and labels of each series."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.operations_url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}


def spread(deployment: Deployment, dsn: str, ports: Sequence[int], brokers: str | None = None) -> Deployment:
    """Let this deployment stand on a PostgreSQL (in a schema of its own) and, with ``brokers``, on a Kafka."""
    (deployment.folder / "dsn").write_text(protected(dsn) + "\n", "utf-8")
    schema = f"gsb_{uuid.uuid4().hex[:12]}"
    deployment.gsb["store"] = {"kind": "postgres", "dsn": "dsn", "key": "store.key", "schema_name": schema}
    if brokers is not None:
        prefix = f"t{uuid.uuid4().hex[:12]}"
        deployment.gsb["broker"] = {
            "kind": "kafka", "brokers": brokers.split(","), "topic_prefix": prefix, "partitions": 4, "replication": 1,
        }  # fmt: skip
    deployment.gsb["limits"].setdefault("notice", 0)  # nobody spreads calls here
    deployment.gsb["bus"]["base_urls"] = [f"http://127.0.0.1:{port}" for port in ports]
    deployment.bus_url = deployment.gsb["bus"]["base_urls"][0]
    return deployment


def protected(dsn: str) -> str:
    """The URI of a server of tests, said not to need TLS where it says nothing of it."""
    return dsn if "sslmode=" in dsn else f"{dsn}{'&' if '?' in dsn else '?'}sslmode=disable"


async def make_topics(catalogue: Catalogue) -> None:
    """What ``gsb topics apply`` does, where there is a Kafka."""
    if isinstance(table := catalogue.gsb.broker, KafkaTable):
        async with Topics(table) as kafka:
            await kafka.apply(topics(table, catalogue.systems))


@asynccontextmanager
async def cluster(
    tmp_path: Path,
    dsn: str,
    roles: Sequence[str],
    *,
    brokers: str | None = None,
    deployment: Deployment | None = None,
    more: Mapping[str, Sequence[str]] = NOTHING,
    serve: Sequence[str | Path] = (GSB, "serve"),
) -> AsyncIterator[list[Member]]:
    """The nodes, started and ready, the first before the others. Killed when the body raises. ``more``: options of the
    nodes with these roles; ``serve``: the command that runs one."""
    ports = free_ports(len(roles))
    deployment = spread(deployment or standard(tmp_path), dsn, ports, brokers)
    folder = deployment.write()
    if set(roles) != {"recorder"}:
        await make_topics(build(folder))
    nodes = [Member(deployment, each, port, more.get(each, ()), serve) for each, port in zip(roles, ports, strict=True)]
    async with AsyncExitStack() as stack:
        for node in nodes:
            stack.push_async_callback(_end, node)
        await nodes[0].start()
        await asyncio.gather(*(node.start() for node in nodes[1:]))
        yield nodes
        for node in nodes:
            if node.running:
                await node.stop()


async def _end(node: Member) -> None:
    if node.running:
        await node.kill()
