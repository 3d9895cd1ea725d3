"""A whole cluster with its agency, its operator and its core system, to which faults happen one after the other.

    async with battle(tmp_path) as it:
        await it.survive("worker killed")
        await it.conclude()
        assert it.findings == []

Checked after each fault: that work flows again, what was acknowledged before it, the ledger's effects, and the log as
it is published. In the end, when everything has ended: every call, every exchange in the store, every entry.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import asyncpg

from config.systems.running import running
from gsb.backends import KafkaTable
from gsb.broker.kafka.admin import Topics
from gsb.broker.topics import topics
from gsb.duty import NAME
from gsb.store.postgres import PostgresStore
from gsb.store.seal import read_key
from tests.cluster.members import ALL, PARTITIONS, Member, Ways, deployment_of, one_name, only_folder, session
from tests.cluster.proxy import network
from tests.histories import checker
from tests.histories.deployment import ledger
from tests.histories.desk import Operator
from tests.histories.load import Load, Op, briefly
from tests.support import kafka
from tests.support.deployment import Deployment, free_ports
from tests.support.ledger import Ledger
from tests.support.node import Reachable
from tests.support.postgres import Server, own_server

PLAN = {"gateway": 2, "worker": 2, "recorder": 2}
"""How many nodes play each role."""
WIDTH = 24
"""Calls in flight."""
EVERY = 0.2
"""Seconds between checkpoints: so many that faults meet the recorder at work."""
FLOWS = 12
"""Calls begun after a fault that must end well before the next one."""
RESUMES_WITHIN = 90.0
"""Seconds within which the load must be full, and work flow again, on a machine that is busy with other things."""
ENDS_WITHIN = 150.0
"""Seconds within which everything must have ended after the last fault; a lease takes 28 of them."""
RECORDED_WITHIN = 60.0
"""Seconds after the last end within which every entry must be published."""
LOOK = 0.2
"""Seconds between two looks at what another process writes."""
ON_DUTY = 0.8
"""How often a fault of a recorder is that of the one at work."""
SAMPLE = 16
"""Calls that are repeated after each fault; the others are compared with the store in the end."""
LOOKS = 3
"""How often a log that is being written is looked at before it counts as wrong."""
DEFECTS = ("a part of the node ended", "performing failed", "a call on the store failed")
"""What a node says of its own defects, and never of those of its servers."""


class Battle:
    """``findings`` is everything that was wrong so far."""

    def __init__(
        self,
        deployment: Deployment,
        effects: Path,
        core: str,
        postgres: Server,
        brokers: kafka.Cluster | None,
        seed: int,
    ) -> None:
        """``core``: the URL of the ledger, which writes the file ``effects``."""
        self.findings: list[checker.Finding] = []
        self.deployment, self.postgres, self.kafka = deployment, postgres, brokers
        self.members: list[Member] = []
        self.random = random.Random(seed)
        self.load: Load
        self.operator: Operator
        self.effects, self.core = effects, core
        self._published: list[bytes] = []
        self._halted: dict[str, asyncio.Task[None]] = {}
        """Members that go on later."""
        self._unchecked: list[Op] = []

    # --- members

    def of(self, role: str) -> list[Member]:
        """Those that are not halted."""
        return [each for each in self.members if each.role in (role, ALL) and each.name not in self._halted]

    def one_of(self, role: str) -> Member:
        """Of the recorders mostly the one whose duty it is."""
        there = self.of(role)
        on_duty = [each for each in there if role == "recorder" and each.on_duty]
        return self.random.choice(on_duty if on_duty and self.random.random() < ON_DUTY else there)

    async def on_duty(self) -> Member:
        """The recorder at work, as soon as there is one."""
        end = time.monotonic() + RESUMES_WITHIN
        while True:
            for each in self.of("recorder"):
                if await each.at_work():
                    return each
            assert time.monotonic() < end, self._told("nobody is the recorder")
            await asyncio.sleep(LOOK)

    async def terms(self) -> int:
        """How many nodes have had the recorder's duty, one after the other; one that was started again is another."""
        async with self.stored() as store:

            async def told(db: asyncpg.Connection) -> int:
                return int(await db.fetchval("SELECT fence FROM share_lease WHERE name = $1", NAME))

            return await store.sessions.read(told)

    def go_on(self, member: Member, seconds: float) -> None:
        """Let a halted member go on after so many seconds, whatever happens meanwhile."""
        self._halted[member.name] = asyncio.create_task(self._go_on(member, seconds))

    async def _go_on(self, member: Member, seconds: float) -> None:
        await asyncio.sleep(seconds)
        member.process.send_signal(signal.SIGCONT)
        del self._halted[member.name]

    async def start(self) -> None:
        """Everybody up, and the load on."""
        first, *others = self.members
        await first.start()  # it makes the tables
        await asyncio.gather(*(each.start() for each in others))
        self.operator.start()
        self.load.new_life()

    # --- faults

    async def survive(self, fault: Awaitable[object]) -> None:
        """Have the fault happen under load; return when work flows again and what was said before it holds."""
        await self._within(self.load.full(), "the load is not full")
        self._unchecked = [op for op in self.load.ops if op.life == self.load.life]
        await fault
        self.load.new_life()
        await asyncio.gather(self.flows(), self.check())

    async def flows(self) -> None:
        """Wait until calls that were begun since the fault are carried out."""
        life = self.load.life

        def enough() -> bool:
            ended = [op.ended for op in self.load.ops if op.life == life and op.ended]
            return sum(end.state == "done" for end in ended) >= FLOWS

        await self._within(self.load.until(enough), "no work flows")

    async def check(self) -> None:
        """Hold what was acknowledged before the last fault to what the bus and the ledger say now."""
        known = [op for op in self._unchecked if op.exchange is not None]
        known = self.random.sample(known, min(SAMPLE, len(known)))
        self.findings += await checker.acknowledged(self.load.client, known)
        lines = checker.read_effects(self.effects)
        self.findings += checker.effects_of(lines) + checker.outcomes_of(self.load.ops, lines)
        await self._verify(LOOKS)
        self._listen()

    async def conclude(self) -> None:
        """Let everything end, stop every member, and hold all of it to every promise."""
        await asyncio.gather(*self._halted.values())
        self.load.stop()
        await self._within(self.load.settled(), "not every call came to its end", ENDS_WITHIN)
        self._unchecked = self.load.ops
        await self.check()
        await self.operator.stop()
        await self._recorded()
        for member in self.members:
            await self._within(member.stop(), f"{member.name} does not stop")
        self.findings += checker.pursuits_of(self.load.ops)
        await self._verify(1)
        await self.examine(ended=True)

    async def examine(self, *, ended: bool) -> None:
        """Hold the store to what the agency was told; if everything has ended, also to what must be left then."""
        async with self.stored() as store:
            everything = await checker.everything(store)
            self.findings += checker.kept(everything, self.load.ops)
            if ended:
                self.findings += checker.standing(everything, self.load.ops)
                self.findings += checker.recorded(await checker.entered(store, everything), self._published)

    async def _recorded(self) -> None:
        """Wait until the recorder has published everything that there is, but not for ever: what it leaves is found."""
        async with self.stored() as store:
            for _ in range(int(RECORDED_WITHIN / LOOK)):
                if not (await store.backlog()).entries:
                    return
                await asyncio.sleep(LOOK)

    async def _verify(self, looks: int) -> None:
        """Verify what is published, and that nothing was taken back."""
        folder = only_folder(self.deployment.log_folder)
        verifier = self.deployment.log_verifier(folder.name)
        for _ in range(looks):
            published, wrong = await asyncio.to_thread(checker.published, folder, verifier, self._published)
            if not wrong:
                self._published = published
                return
        self.findings += wrong

    def _listen(self) -> None:
        """What members say of their own defects."""
        for member in self.members:
            for line in [each for each in member.log if any(defect in each for defect in DEFECTS)]:
                self.findings.append(checker.Finding("defect", member.name, line))
                member.log.remove(line)

    @asynccontextmanager
    async def stored(self) -> AsyncIterator[PostgresStore]:
        """The store, by a way on which nothing happens."""
        store = PostgresStore(self.postgres.dsn, read_key(self.deployment.folder / "store.key"))
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    @property
    def kinds(self) -> set[str]:
        return {finding.kind for finding in self.findings}

    async def watch(self, kind: str, within: float) -> None:
        """Look at the ledger and the log until there is a finding of this kind, for at most so many seconds."""
        end = time.monotonic() + within
        while kind not in self.kinds and time.monotonic() < end:
            self.findings += checker.effects_of(checker.read_effects(self.effects))
            await self._verify(LOOKS)
            await asyncio.sleep(LOOK)

    async def _within(self, work: Awaitable[object], otherwise: str, seconds: float = RESUMES_WITHIN) -> None:
        try:
            async with asyncio.timeout(seconds):
                await work
        except TimeoutError:
            raise AssertionError(self._told(otherwise)) from None

    def _told(self, what: str) -> str:
        told = [what, *(str(finding) for finding in self.findings[:20])]
        told += [f"{op.service} {op.exchange} life {op.life}" for op in self.load.ops if op.pending][:20]
        for member in self.members:
            told += [f"--- {member.name}", *list(member.log)[-15:]]
        return "\n".join(told)

    async def close(self) -> None:
        await self.load.close()
        for task in self._halted.values():
            task.cancel()
        for member in self.members:
            if member.running:
                await member.kill()
        await self.operator.stop()


@asynccontextmanager
async def battle(
    root: Path, *, plan: Mapping[str, int] = PLAN, with_kafka: bool = True, kafka_nodes: int = 3, seed: int = 1
) -> AsyncIterator[Battle]:
    """The servers and the members, not yet started."""
    async with AsyncExitStack() as stack:
        net = stack.enter_context(network())
        (postgres_port,) = free_ports(1)
        ways = {f"{role}-{number}": Ways(net) for role, count in plan.items() for number in range(1, count + 1)}
        postgres = stack.enter_context(own_server(postgres_port))
        brokers = stack.enter_context(kafka.own_cluster(kafka_nodes, doors=_doors(ways))) if with_kafka else None
        effects = root / "effects.jsonl"
        core = await stack.enter_async_context(running(Ledger(effects), root / "core"))
        whole = one_name(ledger(root, core.url))
        whole.gsb["log"]["every"] = EVERY
        whole.write()
        it = Battle(whole, effects, core.url, postgres, brokers, seed)
        for name, way in ways.items():
            through = brokers.through(_door(name)) if brokers is not None else None
            its = deployment_of(whole, name, way, postgres_port, through)
            it.members.append(Member(name, name.partition("-")[0], its, way.wires))
        if brokers is not None:
            await _topics(brokers)
        await _callers(it, stack, seed)
        yield it


def _door(name: str) -> str:
    return name.replace("-", "_").upper()


def _doors(ways: Mapping[str, Ways]) -> dict[str, kafka.Door]:
    """Every member has its own way to each node of Kafka."""
    return {_door(name): partial(way.to, "kafka") for name, way in ways.items()}


async def _topics(brokers: kafka.Cluster) -> None:
    """What ``gsb topics apply`` makes."""
    table = KafkaTable(
        kind="kafka",
        brokers=brokers.brokers.split(","),
        partitions=PARTITIONS,
        replication=min(len(brokers.nodes), KafkaTable.model_fields["replication"].default),
    )
    async with Topics(table) as there:
        await there.apply(topics(table, ["ledger"]))


async def _callers(it: Battle, stack: AsyncExitStack, seed: int) -> None:
    gateways = [member.deployment for member in it.members if member.role in ("gateway", ALL)]
    names = await stack.enter_async_context(session(gateways, seed))
    at = Reachable(it.deployment)
    client = await stack.enter_async_context(at.client(pause=briefly, session=names))
    desk = await stack.enter_async_context(at.operator(session=names))
    it.load, it.operator = Load(client, seed, WIDTH), Operator(desk, it.effects, it.core)
    stack.push_async_callback(it.close)
