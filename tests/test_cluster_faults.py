"""Promises 1 to 3 on a cluster whose nodes, servers and network fail under load, and proof that this suite would notice
if they were broken.

``GSB_CLUSTER_FAULTS`` says how often each kind of fault happens (5 times unless stated), ``GSB_CLUSTER_SEED`` in which
order and how.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import gsb
from tests.cluster.battle import DEFECTS, WIDTH, Battle, battle
from tests.cluster.faults import FAULTS, drawn
from tests.cluster.members import DUTY, NO_DUTY, only_folder
from tests.support.logs import by_go, go_verifier

pytestmark = pytest.mark.slow

TIMES = int(os.environ.get("GSB_CLUSTER_FAULTS", "5"))
SEED = int(os.environ.get("GSB_CLUSTER_SEED", "1"))
KINDS = os.environ.get("GSB_CLUSTER_KINDS", "").split(",")
"""Only faults in whose names one of these stands, as in ``halted,slow``."""


@pytest.fixture
def tell(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[[object], None]:
    """Shows how far a test is, at once, if pytest was asked to be verbose."""

    def tell(line: object) -> None:
        if request.config.get_verbosity() > 0:
            with capsys.disabled():
                print(f"\n    {line}", end="", flush=True)

    return tell


async def test_a_cluster_keeps_every_promise(tmp_path: Path, tell: Callable[[object], None]) -> None:
    go_verifier()
    async with battle(tmp_path, seed=SEED) as it:
        await it.start()
        faults = drawn([kind for kind in FAULTS if any(part in kind for part in KINDS)], TIMES, SEED)
        for number, kind in enumerate(faults, start=1):
            await it.survive(FAULTS[kind](it))
            tell(f"{number:4}/{len(faults)}  {kind:30} {len(it.load.ops):6} calls")
            assert [str(finding) for finding in it.findings] == [], kind
        await it.conclude()
        assert it.findings == []
        folder = only_folder(it.deployment.log_folder)
        judged = await asyncio.to_thread(by_go, folder, it.deployment.log_verifier(folder.name).vkey, None)
        assert judged.verified, judged.said
        if KINDS == [""]:  # then faults must have met what they were meant to meet
            assert it.operator.acts["resolve"] > 0
            # Each time one at work was killed another took over: it may have told nobody, and it stands in the store.
            assert await it.terms() > TIMES
        states = Counter(op.ended.state for op in it.load.ops if op.ended)
        tell(f"{len(it.load.ops)} calls: {dict(states)}; the operator: {dict(it.operator.acts)}")


def test_what_nodes_are_listened_for_is_what_they_say() -> None:
    said = "\n".join(path.read_text("utf-8") for path in Path(gsb.__path__[0]).rglob("*.py"))
    assert [line for line in (*DEFECTS, DUTY, NO_DUTY) if line not in said] == []


async def repeated(it: Battle) -> None:
    """A node dies, and its callers repeat; it dies again if nobody was waiting there for what had its effect."""
    for _ in range(5):
        await it.load.full()
        await it.members[0].kill()
        await it.watch("twice", within=35.0)  # a lease takes 28 of them
        if "twice" in it.kinds:
            break
        await it.members[0].start()
        it.load.new_life()


async def watched(it: Battle) -> None:
    """Nothing needs to go wrong."""
    await it.watch("twice", within=180.0)


async def forgotten(it: Battle) -> None:
    """The server dies before it has written by itself what nobody waited for, and nobody can make up for it."""
    await it.load.full()
    it.postgres.halt("walwriter")
    since = len(it.load.ops)
    await it.load.until(lambda: sum(op.ended is not None for op in it.load.ops[since:]) >= WIDTH)
    for member in it.members:
        await member.kill()
    await asyncio.to_thread(it.postgres.kill)
    await asyncio.to_thread(it.postgres.start)
    await it.examine(ended=False)


async def passed_over(it: Battle) -> None:
    """Nodes commit beside each other."""
    await it.load.until(lambda: sum(op.ended is not None for op in it.load.ops) > 3 * WIDTH)
    await it.conclude()


async def forked(it: Battle) -> None:
    """Both recorders record."""
    await it.watch("forged", within=180.0)


@pytest.mark.parametrize(
    ("sabotage", "happens", "found"),
    [
        ("reservation", repeated, "twice"),
        ("lease", watched, "twice"),
        ("retry", watched, "twice"),
        ("durability", forgotten, "lost"),
        ("order", passed_over, "unrecorded"),
        ("comparison", forked, "forged"),
    ],
)
async def test_the_suite_notices_a_cluster_without(
    tmp_path: Path, sabotage: str, happens: Callable[[Battle], Awaitable[None]], found: str
) -> None:
    async with battle(tmp_path, plan={"all": 2}, with_kafka=False) as it:
        for member in it.members:
            member.spoil(sabotage)
        await it.start()
        await happens(it)
        assert found in it.kinds
