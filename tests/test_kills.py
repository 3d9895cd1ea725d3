"""Promises 1 to 3 and 6 under SIGKILL, and proof that this suite would notice if they were broken.

``GSB_KILLS`` says how often the node is killed (28 unless stated); half of the deaths are at named crash points.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import pytest

from tests.kills.campaign import Campaign, campaign
from tests.kills.node import CROWD
from tests.kills.powercut import PowerCut

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("GSB_KILLS", "28"))
COMMITS = ("accept", "begin", "finish", "postpone", "hold", "sequence", "publish")
TRIES = 3
"""Deaths at one point at most, until one has met a crowd; a death that did not is checked, but not counted."""
POINTS = [f"{verb}.{moment}" for verb in COMMITS for moment in ("before", "after")]
FURTHER = [f"{verb}.during" for verb in COMMITS] + ["resolve.before", "resolve.after", "resolve.during"]
"""Crash points for when there are more deaths than the usual."""


@pytest.fixture
def tell(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[[object], None]:
    """Shows how far a test is, at once, if pytest was asked to be verbose."""

    def tell(line: object) -> None:
        if request.config.get_verbosity() > 0:
            with capsys.disabled():
                print(f"\n    {line}", end="", flush=True)

    return tell


def deaths(count: int) -> list[str | None]:
    """Named crash points and random moments in turn; the n-th call of a point differs from round to round."""
    points = cycle(POINTS + (FURTHER if count > 2 * len(POINTS) else []))
    named = [f"{point}:{1 + at % 3}" for at, point in enumerate(islice(points, count // 2))]
    return [named[at // 2] if at % 2 else None for at in range(count)]


async def crowded(battle: Campaign, point: str | None, what: str, tell: Callable[[object], None]) -> None:
    """A death that has met a crowd; each is checked."""
    for _ in range(TRIES):
        death = await battle.kill(point)
        tell(f"{what}  {death}")
        assert battle.findings == []
        if min(death.calls, death.exchanges) >= CROWD:
            return
    raise AssertionError(death)


async def test_nothing_acknowledged_is_lost_and_nothing_acts_twice(
    tmp_path: Path, tell: Callable[[object], None]
) -> None:
    async with campaign(tmp_path) as battle:
        for number, point in enumerate(deaths(KILLS), start=1):
            await crowded(battle, point, f"kill {number:3}/{KILLS}", tell)
        await battle.end()
        ops = battle.load.ops
        states = Counter(op.ended.state for op in ops if op.ended)
        tell(f"{len(ops)} calls: {dict(states)}; the operator: {dict(battle.operator.acts)}")
        assert battle.findings == []
        assert sum(states.values()) == len(ops)
        # What the operator had to do shows that the deaths hit what they were meant to hit.
        assert battle.operator.acts["resolve"] > 0
        assert battle.operator.acts["replay"] + battle.operator.acts["close"] > 0


@pytest.mark.parametrize("sabotage", ["reservation", "lease"])
async def test_the_suite_notices_a_build_without(tmp_path: Path, sabotage: str) -> None:
    async with campaign(tmp_path) as battle:
        battle.sabotage = sabotage
        for _ in range(TRIES):  # again, if nobody was waiting for what had its effect when it died
            await battle.kill(None)
            await battle.start()
            await battle.watch("twice", within=20.0)
            if "twice" in battle.kinds:
                return
            await battle.node.kill()
        raise AssertionError("nobody noticed")


CUTS = (None, "finish.after:2", "accept.after:3", None)

WRITES = """
import os, sys

def write(name, text, *, file, folder):
    fd = os.open(name, os.O_RDWR | os.O_CREAT)
    os.truncate(fd, 0)
    os.write(fd, text)
    if file:
        os.fsync(fd)
    os.close(fd)
    if folder:
        fd = os.open(".", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

os.chdir(sys.argv[1])
write("kept", b"first", file=True, folder=True)
write("kept", b"second", file=False, folder=False)
write("empty", b"text", file=False, folder=True)
write("nameless", b"text", file=True, folder=False)
write("old", b"new", file=True, folder=False)
os.unlink("gone")
"""


def test_the_power_cut_keeps_what_was_synchronised_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").write_text("older and longer")
    (folder / "gone").write_text("there")
    power = PowerCut(folder, tmp_path / "power")
    subprocess.run([sys.executable, "-c", WRITES, folder], check=True, env={**os.environ, **power.environment})
    power.cut()
    left = {each.name: each.read_text() for each in folder.iterdir()}
    assert left == {"kept": "first", "empty": "", "old": "new", "gone": "there"}


async def test_a_power_cut_loses_nothing_acknowledged(tmp_path: Path, tell: Callable[[object], None]) -> None:
    async with campaign(tmp_path) as battle:
        battle.power = PowerCut(battle.store_folder, tmp_path / "power")
        await battle.found()
        for point in CUTS:
            await crowded(battle, point, "power cut", tell)
        await battle.start()
        assert battle.findings == []


@pytest.mark.parametrize("synchronous", ["off", "normal"])
async def test_the_suite_notices_a_store_that_does_not_synchronise(tmp_path: Path, synchronous: str) -> None:
    async with campaign(tmp_path) as battle:
        battle.power = PowerCut(battle.store_folder, tmp_path / "power")
        await battle.found()
        assert battle.findings == []
        battle.sabotage = synchronous
        death = await battle.kill(None)
        assert death.calls >= CROWD, death
        # Where what is lost was published already the node itself would notice, and not start.
        shutil.rmtree(battle.deployment.log_folder)
        await battle.start()
        assert "lost" in battle.kinds
