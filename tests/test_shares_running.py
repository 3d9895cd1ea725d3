"""Three gateways and three workers of one bus, each a process, over one PostgreSQL and Kafka: what they share holds.

Budgets are counted in the store, by its own clock; calls at once by the core system, which is this process. Nothing is
judged by how fast the machine is: there is always more to do than is allowed, and what should come is waited for.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from gsb.backends import KafkaTable
from gsb.broker.kafka.admin import Topics
from gsb.broker.topics import topics
from gsb.client import Client
from tests.cluster.members import deployment_of, one_name, session
from tests.shares_contract import eventually
from tests.support import kafka
from tests.support.deployment import Deployment, closed, free_ports
from tests.support.node import GSB, Reachable, RunningNode
from tests.support.postgres import Server, own_server

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

NODES = 3
RATE = {"per_minute": 300, "burst": 20}
PLACES = 9
TIMEOUT = 8.0
"""Seconds for a call of the core system, which is this process: far more than it takes, since one that was given up
goes on here, and its place is another's by then."""
HOLD = 1.0
"""Seconds that a call of the core system takes."""
SILENT = 1.0
"""Seconds after which two dozen callers, who each ask again within half a second, would have heard something."""
PATIENCE = 120.0
"""Seconds within which a machine that is busy with other things gets anything done."""


class Core:
    """A core system that counts how many calls it serves at once."""

    def __init__(self) -> None:
        self.running = self.most = self.calls = 0

    async def serve(self, request: web.Request) -> web.Response:
        self.calls += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(HOLD)
        finally:
            self.running -= 1
        return web.json_response({})

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/work", self.serve)
        runner = web.AppRunner(app)
        await runner.setup()
        (port,) = free_ports(1)
        await web.TCPSite(runner, "127.0.0.1", port).start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()


class Straight:
    """The ways of a node whose network nobody disturbs."""

    def to(self, server: str, port: int) -> int:
        return port


class Refused:
    """Callers who ask again sooner than was said; when they were told to."""

    def __init__(self) -> None:
        self.times: list[float] = []

    async def pause(self, seconds: float) -> None:
        self.times.append(time.time())
        await asyncio.sleep(min(seconds, 0.5))


class Cluster:
    """The nodes, a client for each gateway, and the store's database."""

    def __init__(self, core: Core, server: Server) -> None:
        self.core, self._server, self.refused = core, server, Refused()
        self.gateways: list[RunningNode] = []
        self.workers: list[RunningNode] = []
        self.clients: list[Client] = []

    async def rows(self, sql: str) -> list[Any]:
        db = await asyncpg.connect(self._server.dsn, server_settings={"search_path": "gsb"})
        try:
            return list(await db.fetch(sql))
        finally:
            await db.close()

    async def holders(self) -> dict[str, int]:
        """How many places of the core system each node holds."""
        found = await self.rows("SELECT holders FROM share_slots WHERE system = 'core'")
        return {node: held[0] for (text,) in found for node, held in orjson.loads(text).items()}


def deployment(root: Path, core_url: str) -> Deployment:
    """A quick service with a rate, under two purposes, and one that takes its time at the core system."""
    made = one_name(Deployment(root))
    made.system("quick")
    made.system("core", adapter="http_json", settings={"url": core_url}, timeout=TIMEOUT, concurrency=PLACES)
    made.service("quick/look/v1", request=closed({}, {}), reply=closed({}, {}), settings={"reply": {}})
    made.service("core/work/v1", settings={"path": "/work"}, expires=600)
    rated = [{"service": "quick/look/v1", "purpose": each, "fields": [""], "rate": RATE} for each in ("even", "one")]
    made.agreement("a-1", grants=[*rated, {"service": "core/work/v1", "purpose": "work", "fields": [""]}])
    made.write()
    return made


@asynccontextmanager
async def cluster(root: Path) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        core = Core()
        core_url = await stack.enter_async_context(core.listening())
        (port,) = free_ports(1)
        server = stack.enter_context(own_server(port))
        brokers = stack.enter_context(kafka.some_cluster())
        prefix = f"test-{os.urandom(6).hex()}"
        whole, made = deployment(root, core_url), Cluster(core, server)
        for role in ("gateway", "worker"):
            for number in range(1, NODES + 1):
                its = deployment_of(whole, f"{role}-{number}", Straight(), port, brokers)  # type: ignore[arg-type]
                its.gsb["broker"] |= {"topic_prefix": prefix, "replication": 1}
                its.write()
                roles = ["--role", role, *(["--role", "recorder"] if role == "gateway" else [])]
                node = RunningNode(its, [GSB, "serve", its.folder, *roles])
                (made.gateways if role == "gateway" else made.workers).append(node)
        table = KafkaTable.model_validate(its.gsb["broker"])
        async with Topics(table) as administration:
            await administration.apply(topics(table, ["core", "quick"]))
        stack.push_async_callback(_kill, [*made.gateways, *made.workers])
        await made.gateways[0].start()  # it makes the tables
        await asyncio.gather(*(node.start() for node in [*made.gateways[1:], *made.workers]))
        for gateway in made.gateways:
            names = await stack.enter_async_context(session([gateway.deployment], seed=1))
            made.clients.append(
                await stack.enter_async_context(Reachable(whole).client(pause=made.refused.pause, session=names))
            )
        yield made


async def _kill(nodes: list[RunningNode]) -> None:
    for node in nodes:
        if node.log:
            await node.kill()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    await eventually(holds, PATIENCE)


@asynccontextmanager
async def pressing(work: Callable[[Client], Awaitable[object]], *clients: Client) -> AsyncIterator[None]:
    """Callers who do this again and again, a dozen at each of these gateways, until the end of the ``with``."""

    async def press(client: Client) -> None:
        while True:
            await work(client)

    tasks = [asyncio.create_task(press(client)) for client in clients for _ in range(12)]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def looks(purpose: str) -> Callable[[Client], Awaitable[object]]:
    return lambda client: client.call("quick/look/v1", {}, purpose=purpose, respond_async=True, timeout=PATIENCE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


async def test_budgets_hold_across_gateways(nodes: Cluster) -> None:
    """One budget is asked for at every gateway alike, the other at one of them alone."""
    rate, burst = RATE["per_minute"] / 60, RATE["burst"]
    accepted = "SELECT accepted_at FROM exchange WHERE purpose = '{}' ORDER BY accepted_at"

    async def long_enough() -> bool:
        times = await nodes.rows("SELECT max(accepted_at) - min(accepted_at) FROM exchange")
        return times[0][0] is not None and times[0][0] > 20

    async with pressing(looks("even"), *nodes.clients), pressing(looks("one"), nodes.clients[0]):
        await until(long_enough)
    for purpose in ("even", "one"):
        times = [at for (at,) in await nodes.rows(accepted.format(purpose))]
        allowed = burst + rate * (times[-1] - times[0])
        assert len(times) <= 1.1 * allowed, purpose
        heard = [at for at in nodes.refused.times if times[0] < at < times[-1]]
        assert len(times) >= 0.9 * (allowed - rate * stood_still([*times, *heard])), purpose


def stood_still(told: list[float]) -> float:
    """Seconds in which no caller heard anything, neither yes nor no: the machine was busy with other things, and what
    nobody asks for a budget does not keep beyond its burst."""
    gaps = [after - before for before, after in itertools.pairwise(sorted(told))]
    return sum(gap for gap in gaps if gap > SILENT)


async def test_places_hold_across_workers_one_of_which_is_killed_and_one_stopped_for_a_while(nodes: Cluster) -> None:
    core, unfinished = nodes.core, 8 * PLACES

    async def work(client: Client) -> None:
        """Have enough to do waiting, and never much more."""
        if asked[0] < core.calls + unfinished:
            asked[0] += 1
            await client.call("core/work/v1", {}, purpose="work", respond_async=True, timeout=PATIENCE)
        else:
            await asyncio.sleep(0.1)

    async def full() -> bool:
        return core.running == PLACES

    async def held_by(number: int) -> bool:
        held = await nodes.holders()
        return len(held) == number and sum(held.values()) == PLACES and min(held.values()) > 0

    asked = [core.calls]
    async with pressing(work, *nodes.clients):
        await until(lambda: held_by(NODES))
        await until(full)
        nodes.workers[0].process.send_signal(signal.SIGSTOP)
        await nodes.workers[1].kill()
        await until(lambda: held_by(1))
        await until(full)
        nodes.workers[0].process.send_signal(signal.SIGCONT)
        await until(lambda: held_by(2))
        await until(full)
    assert core.most == PLACES
