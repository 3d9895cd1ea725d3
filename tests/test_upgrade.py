"""An upgrade and its way back: the nodes of a cluster are replaced by those of another version, under load.

The version before this one is the code of an earlier commit; in a clone that is too shallow to have it, this version
stands in for it. ``GSB_ROLLING_ROUNDS`` says how often it goes there and back (once unless stated).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from config.systems.running import running
from gsb.store.seal import read_key
from gsb.store.sqlite import SqliteStore
from tests.cluster.battle import ENDS_WITHIN
from tests.cluster.members import only_folder
from tests.histories import checker
from tests.histories.deployment import ledger
from tests.histories.desk import Operator
from tests.histories.load import Load, briefly
from tests.support.deployment import Deployment
from tests.support.ledger import Ledger
from tests.support.node import Reachable, running_node
from tests.upgrade.roll import NOTHING, WIDTH, rolling
from tests.upgrade.version import PREVIOUS, PREVIOUS_DRAINS, previous

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("GSB_ROLLING_ROUNDS", "1"))
LIMITS = {"drain": 12}
"""A worker of the version before goes on taking work until a call might not end any more."""


async def before(root: Path) -> Mapping[str, str]:
    found = await asyncio.to_thread(previous, root / "previous")
    if found is None:
        print(f"this clone has no commit {PREVIOUS[:7]}: rolled within the present version")
    return found or NOTHING


async def test_nodes_of_two_versions_replace_each_other_and_no_call_fails(tmp_path: Path) -> None:
    older = await before(tmp_path)
    async with rolling(tmp_path, LIMITS, kept=PREVIOUS_DRAINS, version=older) as it:
        await it.start()
        halves = [[each for each in it.members if each.name.endswith(number)] for number in ("-1", "-2")]
        for version in (NOTHING, older) * ROUNDS:
            for half in halves:
                await it.replace(*half, version=version, taken_out=True)
        assert await it.conclude() == []
        assert sum(each.duties for each in it.members) >= ROUNDS, "the recorder's duty did not change hands"


async def test_one_machine_goes_to_the_next_version_and_back(tmp_path: Path) -> None:
    """Its callers wait and repeat while it is replaced; nothing is lost, and nothing acts twice."""
    older = await before(tmp_path)
    effects = tmp_path / "effects.jsonl"
    async with running(Ledger(effects), tmp_path / "core") as core:
        deployment = ledger(tmp_path, core.url)
        deployment.write()
        at = Reachable(deployment)
        async with at.client(pause=briefly) as client, at.operator() as desk:
            load, operator = Load(client, 1, WIDTH), Operator(desk, effects)
            operator.start()
            for version in (older, NOTHING) * ROUNDS:
                async with running_node(tmp_path, deployment, environment=version):
                    load.new_life()
                    await load.full()
            async with running_node(tmp_path, deployment, environment=older), asyncio.timeout(ENDS_WITHIN):
                load.stop()
                await load.settled()
                findings = await checker.acknowledged(client, load.ops)
                await operator.stop()
    assert findings + await stood(deployment, effects, load) == []


async def stood(deployment: Deployment, effects: Path, load: Load) -> list[checker.Finding]:
    """What is wrong with what a node has left behind, held to what the agency was told."""
    lines = checker.read_effects(effects)
    findings = checker.effects_of(lines) + checker.outcomes_of(load.ops, lines) + checker.pursuits_of(load.ops)
    folder = only_folder(deployment.log_folder)
    published, wrong = checker.published(folder, deployment.log_verifier(folder.name), ())
    store = SqliteStore(deployment.folder / "store" / "store.db", read_key(deployment.folder / "store.key"))
    await store.open()
    try:
        everything = await checker.everything(store)
        entered = await checker.entered(store, everything)
    finally:
        await store.close()
    findings += checker.kept(everything, load.ops) + checker.standing(everything, load.ops)
    return findings + checker.recorded(entered, published) + wrong
