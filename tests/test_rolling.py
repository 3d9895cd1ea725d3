"""A rolling restart: each node of a cluster is stopped by SIGTERM and started again under load, and nobody notices.

``GSB_ROLLING_ROUNDS`` says how often it goes round all nodes (once unless stated).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.upgrade.roll import rolling

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("GSB_ROLLING_ROUNDS", "1"))


async def test_every_node_in_turn_is_restarted_and_no_call_fails(tmp_path: Path) -> None:
    async with rolling(tmp_path, {"notice": 2}) as it:
        await it.start()
        for _ in range(ROUNDS):
            for member in sorted(it.members, key=lambda each: each.name.partition("-")[2]):
                await it.replace(member)
        assert await it.conclude() == []
        assert sum(each.duties for each in it.members) >= ROUNDS, "the recorder's duty did not change hands"
