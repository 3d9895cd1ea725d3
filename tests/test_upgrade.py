"""An upgrade and its way back: the nodes of a cluster are replaced by those of another version, under load.

The version before this one is the code of an earlier commit; in a clone that is too shallow to have it, this version
stands in for it. ``GSB_ROLLING_ROUNDS`` says how often it goes there and back (once unless stated), and
``GSB_UPGRADE_FROM`` from which commit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.node import RunningNode
from tests.upgrade.alone import alone
from tests.upgrade.roll import NOTHING, rolling
from tests.upgrade.version import PREVIOUS, PREVIOUS_DRAINS, previous

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("GSB_ROLLING_ROUNDS", "1"))
LIMITS = {"drain": 12}
"""A worker of the version before goes on taking work until a call might not end any more."""


@pytest.fixture
def older(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Mapping[str, str]:
    """The environment of the version before; of this one, and said in a line, where there is none."""
    found = previous(tmp_path / "previous")
    if found is None:
        with capsys.disabled():
            print(f"\nthere is no commit {PREVIOUS[:7]} here: the present version replaces itself", flush=True)
    return found or NOTHING


async def test_nodes_of_two_versions_replace_each_other_and_no_call_fails(
    tmp_path: Path, older: Mapping[str, str]
) -> None:
    async with rolling(tmp_path, LIMITS, kept=PREVIOUS_DRAINS, version=older) as it:
        await it.start()
        halves = [[each for each in it.members if each.name.endswith(number)] for number in ("-1", "-2")]
        for version in (NOTHING, older) * ROUNDS:
            for half in halves:
                await it.replace(*half, version=version, taken_out=True)
        assert await it.conclude() == []
        assert await it.terms() > 2 * ROUNDS, "the recorder's duty did not change hands"


async def test_one_machine_goes_to_the_next_version_and_back(tmp_path: Path, older: Mapping[str, str]) -> None:
    """Its callers wait and repeat while it is replaced; nothing is lost, and nothing acts twice."""
    async with alone(tmp_path) as it:
        for version in (older, NOTHING) * ROUNDS:
            await it.live(RunningNode(it.deployment, environment=version))
        assert await it.conclude(RunningNode(it.deployment, environment=older)) == []
