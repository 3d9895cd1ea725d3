"""One machine whose node is replaced by another one while an agency calls it.

    async with alone(tmp_path) as it:
        await it.live(RunningNode(it.deployment))
        assert await it.conclude(RunningNode(it.deployment)) == []

Held to what is held to a node that is killed (``tests.kills``): nothing is lost, nothing acts twice, all is proved.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from config.systems.running import running
from gsb.store.seal import read_key
from gsb.store.sqlite import SqliteStore
from tests.cluster.battle import ENDS_WITHIN
from tests.cluster.members import only_folder
from tests.histories import checker
from tests.histories.deployment import ledger
from tests.histories.desk import Operator
from tests.histories.load import Load
from tests.support.deployment import Deployment
from tests.support.ledger import Ledger
from tests.support.node import Reachable, RunningNode
from tests.upgrade.strict import WIDTH, Sent, Strict, session, strict


class Alone:
    """``client`` is that of the agency, whose faults may be asked for."""

    def __init__(self, deployment: Deployment, effects: Path, client: Strict, operator: Operator) -> None:
        self.deployment, self.client = deployment, client
        self._effects, self._operator = effects, operator
        self._load = Load(client, 1, WIDTH)

    async def live(self, node: RunningNode) -> None:
        """One life of a node, which is ended by SIGTERM in the middle of its work."""
        await node.start()
        try:
            self._load.new_life()
            async with asyncio.timeout(ENDS_WITHIN):
                await self._load.full()
        finally:
            await node.stop()

    async def conclude(self, node: RunningNode) -> list[str]:
        """Let this one end what the others have left; what is wrong."""
        self._load.stop()
        await node.start()
        try:
            async with asyncio.timeout(ENDS_WITHIN):
                await self._load.settled()
                findings = await checker.acknowledged(self._load.client, self._load.ops)
            await self._operator.stop()
        finally:
            await node.stop()
        return [str(each) for each in findings + await self._left()]

    async def _left(self) -> list[checker.Finding]:
        ops, lines = self._load.ops, checker.read_effects(self._effects)
        findings = checker.effects_of(lines) + checker.outcomes_of(ops, lines) + checker.pursuits_of(ops)
        folder = only_folder(self.deployment.log_folder)
        published, wrong = checker.published(folder, self.deployment.log_verifier(folder.name), ())
        key = read_key(self.deployment.folder / "store.key")
        store = SqliteStore(self.deployment.folder / "store" / "store.db", key)
        await store.open()
        try:
            everything = await checker.everything(store)
            entered = await checker.entered(store, everything)
        finally:
            await store.close()
        findings += checker.kept(everything, ops) + checker.standing(everything, ops)
        return findings + checker.recorded(entered, published) + wrong

    async def close(self) -> None:
        await self._load.close()
        await self._operator.stop()


@asynccontextmanager
async def alone(root: Path) -> AsyncIterator[Alone]:
    """The core system and the callers; no node yet."""
    effects = root / "effects.jsonl"
    async with running(Ledger(effects), root / "core") as core:
        deployment = ledger(root, core.url)
        deployment.write()
        async with session(Sent()) as there, Reachable(deployment).operator() as desk:
            operator = Operator(desk, effects, core.url)
            operator.start()
            it = Alone(deployment, effects, strict(deployment, "payroll", there), operator)
            try:
                yield it
            finally:
                await it.close()
