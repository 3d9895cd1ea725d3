"""Nodes of one cluster, each with its own ways to the servers, which the tests' network cuts, silences and slows.

All have one deployment, copied: only ports and the ways to PostgreSQL and Kafka differ. Callers know one name of the
bus, which stands for every gateway, as in a DNS with several addresses: who is refused by one goes on to the next.
"""

from __future__ import annotations

import copy
import random
import shutil
import socket
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from tests.cluster.proxy import Network, Wire
from tests.support.deployment import Deployment, free_ports
from tests.support.node import GSB, RunningNode
from tests.support.postgres import Server

DUTY, NO_DUTY = "this node is the recorder now", "this node stands by as a recorder"
"""What a recorder says when it takes its duty, and when another has it."""
LIFE = "a life of this member begins"
"""Stands in its log where it was started."""
PARTITIONS = 4
"""Of the topic on which the system's work is."""
ALL = "all"
"""The role of a member that plays every one."""
BUS_URL = "http://localhost:1"
OPERATIONS_PORT = 2
OPERATIONS_URL = f"http://localhost:{OPERATIONS_PORT}"
"""Names that nobody but the callers' own resolver knows; plain HTTP is allowed to this machine's only."""


class Member(RunningNode):
    """One node, which plays one role; ``wires`` are its ways to each server."""

    def __init__(self, name: str, role: str, deployment: Deployment, wires: Mapping[str, Sequence[Wire]]) -> None:
        super().__init__(deployment)
        self.name, self.role, self.wires = name, role, wires
        self._command = [str(GSB), "serve", *self._arguments()]

    def spoil(self, sabotage: str) -> None:
        """Let its next lives be those of a node that was built wrongly."""
        self._command = [sys.executable, "-m", "tests.cluster.node", sabotage, *self._arguments()]

    @property
    def version(self) -> Mapping[str, str]:
        """What its next life is told by ``become``."""
        return self._environment

    def become(self, version: Mapping[str, str]) -> None:
        """Let its next lives be those of the program that is found in this environment; empty: of this one."""
        self._environment = dict(version)

    def _arguments(self) -> list[str]:
        return [str(self.deployment.folder), *([] if self.role == ALL else ["--role", self.role])]

    async def start(self) -> None:
        # What it said of its duty in another life says nothing of this one.
        self.log.append(LIFE)
        await super().start()

    @property
    def on_duty(self) -> bool:
        """Whether it is the recorder, as it said last in this life."""
        said = [DUTY in line for line in self.log if line == LIFE or DUTY in line or NO_DUTY in line]
        return self.running and bool(said) and said[-1]

    async def at_work(self) -> bool:
        """Whether it says of itself that it is the recorder; a node that was so from its start has told nobody."""
        if not self.running:
            return False
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{self.deployment.operations_url}/metrics") as answer:
                return "\ngsb_recorder_at_work 1" in await answer.text()
        except aiohttp.ClientError:
            return False

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None


class Ways:
    """The ways of one member: to PostgreSQL one, to each node of Kafka one."""

    def __init__(self, net: Network) -> None:
        self._net = net
        self.wires: dict[str, list[Wire]] = {"postgres": [], "kafka": []}

    def to(self, server: str, port: int) -> int:
        """Make one more; answers the port by which the member goes."""
        self.wires[server].append(wire := self._net.wire(("127.0.0.1", port)))
        return wire.port


def deployment_of(whole: Deployment, name: str, ways: Ways, postgres: int, brokers: str | None) -> Deployment:
    """The same deployment for one member, written."""
    made = copy.copy(whole)
    made.folder = whole.folder.with_name(name)
    shutil.copytree(whole.folder, made.folder)
    made.gsb = copy.deepcopy(whole.gsb)
    made.files = {**whole.files, "gsb.toml": made.gsb}
    made.port, made.operations_port = free_ports(2)
    made.operations_url = f"http://127.0.0.1:{made.operations_port}"
    made.gsb["listen"] = {"port": made.port, "operations_port": made.operations_port}
    (made.folder / "dsn").write_text(Server.over(ways.to("postgres", postgres)) + "\n", "utf-8")
    made.gsb["store"] = {"kind": "postgres", "dsn": "dsn", "key": "store.key"}
    if brokers is not None:
        made.gsb["broker"] = {"kind": "kafka", "brokers": brokers.split(","), "partitions": PARTITIONS}
    made.write()
    return made


class Front(Protocol):
    """Whatever listens to callers: a gateway, or what stands before some."""

    port: int
    operations_port: int


class Names(AbstractResolver):
    """The bus's two addresses, each of which stands for a port of every gateway, in any order."""

    def __init__(self, gateways: Iterable[Front], seed: int) -> None:
        self._gateways, self._random = list(gateways), random.Random(seed)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        there = self._random.sample(self._gateways, len(self._gateways))
        ports = [each.operations_port if port == OPERATIONS_PORT else each.port for each in there]
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=at, family=family, proto=0, flags=0) for at in ports
        ]

    async def close(self) -> None:
        """Nothing is open."""


def session(gateways: Iterable[Deployment], seed: int) -> aiohttp.ClientSession:
    """For clients of the bus by its names."""
    connector = aiohttp.TCPConnector(limit=0, resolver=Names(gateways, seed), use_dns_cache=False)
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), connector=connector)


def one_name(deployment: Deployment) -> Deployment:
    """Let the deployment be known by the names that stand for every gateway."""
    deployment.bus_url, deployment.operations_url = BUS_URL, OPERATIONS_URL
    deployment.gsb["bus"] |= {"base_urls": [BUS_URL], "operations_url": OPERATIONS_URL}
    return deployment


def only_folder(path: Path) -> Path:
    """The one folder in this folder."""
    (found,) = (each for each in path.iterdir() if each.is_dir())
    return found
