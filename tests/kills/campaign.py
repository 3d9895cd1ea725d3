"""Runs a node, its agency, its operator and its core system, and kills the node again and again.

async with campaign(tmp_path) as battle:
    await battle.kill(None)                  # a SIGKILL at a random moment
    await battle.kill("finish.before:3")     # one at a named crash point
    await battle.end()
    assert battle.findings == []
"""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from config.systems.running import running
from gsb.model import State
from gsb.store.contract import Query
from gsb.store.seal import read_key
from gsb.store.sqlite import SqliteStore
from tests.histories import checker
from tests.histories.deployment import ledger
from tests.histories.desk import Operator
from tests.histories.load import Load, Op, briefly
from tests.kills.powercut import PowerCut
from tests.support.deployment import Deployment
from tests.support.ledger import Ledger
from tests.support.node import Reachable, RunningNode

DIES_WITHIN = 120.0
"""Seconds within which the load must be full, and an armed node must come to its crash point, on a machine that is busy
with other things."""
ENDS_WITHIN = 150.0
"""Seconds within which everything must have ended after the last restart; a lease takes 23 of them."""
LOOK = 0.2
"""Seconds between two looks at the ledger's file, which another process writes."""
SMALL_JOURNAL = 1024 * 1024
"""Bytes after which the store carries its journal over when the power may go: every few commits."""
LARGE_JOURNAL = 1024 * 1024 * 1024
"""Bytes that no life writes. Carrying the journal over synchronises it, whatever ``synchronous`` says: a store that
was built wrongly would have lost nothing if it died just after that."""
IN_FLIGHT = frozenset({State.ACCEPTED, State.RUNNING, State.WAITING})


@dataclass(frozen=True)
class Death:
    """One death of the node, and how much was in flight: as the agency and as the store count it."""

    point: str
    calls: int
    exchanges: int

    def __str__(self) -> str:
        return f"{self.point:20} {self.calls:3} calls and {self.exchanges:3} exchanges in flight"


class Campaign:
    """``findings`` is everything that was wrong so far, ``deaths`` every death of the node."""

    def __init__(self, deployment: Deployment, effects: Path, load: Load, operator: Operator, seed: int) -> None:
        self.findings: list[checker.Finding] = []
        self.deaths: list[Death] = []
        self.sabotage: str | None = None
        self.power: PowerCut | None = None
        """With it, every death of the node is that of the whole machine."""
        self.module = "tests.kills.node"
        """What is run."""
        self.environment: dict[str, str] = {}
        """Added to the node's."""
        self.deployment = deployment
        self.load = load
        self.operator = operator
        self._effects = effects
        self._random = random.Random(seed)
        self._node: RunningNode | None = None
        self._started_at = 0.0
        self._to_check: list[Op] = []
        self._published: list[bytes] = []
        """The entries of the log as it was published last."""

    @property
    def store_folder(self) -> Path:
        return self.deployment.folder / "store"

    @property
    def node(self) -> RunningNode:
        assert self._node is not None
        return self._node

    # --- lives and deaths

    async def start(self, point: str | None = None) -> None:
        """Start the node, to die at ``point`` as soon as it is told; check what was acknowledged in its last life."""
        command = [sys.executable, "-m", self.module, str(self.deployment.folder)]
        command += ["--crash", point] if point else []
        command += ["--sabotage", self.sabotage] if self.sabotage else []
        command += ["--checkpoint", str(LARGE_JOURNAL if self.sabotage else SMALL_JOURNAL)] if self.power else []
        environment = self.environment | (self.power.environment if self.power else {})
        self._node = RunningNode(self.deployment, command, environment)
        self._started_at = time.time()
        await self._node.start()
        await self.check(self._to_check)
        self.load.new_life()

    async def kill(self, point: str | None) -> Death:
        """Start the node and let it die, at ``point`` or at a random moment."""
        await self.start(point)
        await self._within(DIES_WITHIN, self.load.full(), "the load is not full")
        if point is None:
            # Not to wait for anything: to die at a moment that nobody chose.
            await asyncio.sleep(self._random.uniform(0.0, 1.0))
            await self._within(DIES_WITHIN, self.load.full(), "the load is not full any more")
            self.node.process.kill()
        else:
            self.node.process.send_signal(signal.SIGUSR1)
            await self._within(DIES_WITHIN, self.node.process.wait(), f"the node did not come to {point}")
        calls = len(self.load.fresh)
        status = await self.node.ended()
        assert status == -signal.SIGKILL, self._told(f"the node exited {status}")
        self._to_check = [op for op in self.load.ops if op.life == self.load.life]
        if self.power is not None:
            self.power.cut()
        await self._verify()
        self.deaths.append(Death(point or "any moment", calls, await self._in_flight()))
        return self.deaths[-1]

    async def found(self) -> None:
        """Make the store and stop the node as it should be stopped, under load: it drains and exits 0."""
        await self.start()
        await self._within(DIES_WITHIN, self.load.full(), "the load is not full")
        await self.node.stop()
        self._to_check = list(self.load.ops)

    async def end(self) -> None:
        """Start the node without another death, and conclude."""
        await self.start()
        await self.conclude()

    async def conclude(self) -> None:
        """Let everything end, stop the node, and hold all of it to every promise."""
        self.load.stop()
        await self._within(ENDS_WITHIN, self.load.settled(), "not every call came to its end")
        await self.check(self.load.ops)
        await self.operator.stop()
        await self.node.stop()
        self.findings += checker.pursuits_of(self.load.ops)
        await self._verify()
        async with self._stored() as store:
            everything = await checker.everything(store)
            self.findings += checker.standing(everything, self.load.ops)
            self.findings += checker.recorded(await checker.entered(store, everything), self._published)

    async def _verify(self) -> None:
        """Verify what is published, whatever became of the node, and that nothing was taken back."""
        folder = next(self.deployment.log_folder.iterdir())
        verifier = self.deployment.log_verifier(folder.name)
        self._published, wrong = await asyncio.to_thread(checker.published, folder, verifier, self._published)
        self.findings += wrong

    # --- checking

    async def check(self, ops: list[Op]) -> None:
        """Ask the running node for what these calls were told, and compare what the agency knows with the ledger."""
        self.findings += await checker.acknowledged(self.load.client, ops)
        lines = checker.read_effects(self._effects)
        self.findings += checker.effects_of(lines) + checker.outcomes_of(self.load.ops, lines)

    async def watch(self, kind: str, within: float) -> None:
        """Look at the ledger until there is a finding of this kind, for at most so many seconds."""
        end = time.monotonic() + within
        while kind not in self.kinds and time.monotonic() < end:
            self.findings += checker.effects_of(checker.read_effects(self._effects))
            await asyncio.sleep(LOOK)

    @property
    def kinds(self) -> set[str]:
        return {finding.kind for finding in self.findings}

    async def _in_flight(self) -> int:
        """Unfinished exchanges that were accepted in the life that just ended."""
        async with self._stored() as store:
            page = await store.search(Query(states=IN_FLIGHT, since=self._started_at, limit=1_000))
            return len(page.exchanges)

    @asynccontextmanager
    async def _stored(self) -> AsyncIterator[SqliteStore]:
        """The store while no node runs; a copy, since opening the store itself would tidy up what a death left."""
        with tempfile.TemporaryDirectory() as name:
            copy = Path(name) / "store"
            await asyncio.to_thread(shutil.copytree, self.store_folder, copy)
            store = SqliteStore(copy / "store.db", read_key(self.deployment.folder / "store.key"))
            await store.open()
            try:
                yield store
            finally:
                await store.close()

    async def _within(self, seconds: float, work: Awaitable[object], otherwise: str) -> None:
        try:
            async with asyncio.timeout(seconds):
                await work
        except TimeoutError:
            raise AssertionError(self._told(otherwise)) from None

    def _told(self, what: str) -> str:
        findings = "\n".join(str(finding) for finding in self.findings[:20])
        return f"{what}\n{findings}\n" + "\n".join(list(self.node.log)[-40:])

    async def close(self) -> None:
        await self.load.close()
        if self._node is not None and self._node.process.returncode is None:
            await self._node.kill()
        await self.operator.stop()


@asynccontextmanager
async def campaign(tmp_path: Path, *, seed: int = 1, clock: Callable[[], float] = time.time) -> AsyncIterator[Campaign]:
    """Core system, agency and operator, at work; the node is started by whoever kills it. ``clock`` is the agency's."""
    async with AsyncExitStack() as stack:
        effects = tmp_path / "effects.jsonl"
        core = await stack.enter_async_context(running(Ledger(effects), tmp_path / "core"))
        deployment = ledger(tmp_path, core.url)
        deployment.write()
        at = Reachable(deployment)
        client = await stack.enter_async_context(at.client(pause=briefly, clock=clock))
        desk = await stack.enter_async_context(at.operator(clock=clock))
        operator = Operator(desk, effects, core.url)
        battle = Campaign(deployment, effects, Load(client, seed), operator, seed)
        stack.push_async_callback(battle.close)
        operator.start()
        yield battle
