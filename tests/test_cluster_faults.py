"""Promises 1 to 3 on a cluster whose nodes, servers and network fail under load."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.battle import battle
from tests.cluster.faults import POSTGRES, drawn

pytestmark = pytest.mark.slow

TIMES = int(os.environ.get("GSB_CLUSTER_FAULTS", "5"))
SEED = int(os.environ.get("GSB_CLUSTER_SEED", "1"))


@pytest.fixture
def tell(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Callable[[object], None]:
    """Shows how far a test is, at once, if pytest was asked to be verbose."""

    def tell(line: object) -> None:
        if request.config.get_verbosity() > 0:
            with capsys.disabled():
                print(f"\n    {line}", end="", flush=True)

    return tell


async def test_one_node_over_postgres(tmp_path: Path, tell: Callable[[object], None]) -> None:
    async with battle(tmp_path, plan={"all": 1}, with_kafka=False) as it:
        await it.start()
        faults = drawn(POSTGRES, TIMES, SEED)
        for number, kind in enumerate(faults, start=1):
            await it.survive(POSTGRES[kind](it))
            tell(f"{number:3}/{len(faults)}  {kind:30} {len(it.load.ops):6} calls")
            assert it.findings == []
        await it.conclude()
        assert it.findings == []
