"""A rolling restart: each node of a cluster is stopped by SIGTERM and started again under load, and nobody notices; nor
where there is one node only, if something holds the socket meanwhile.

``GSB_ROLLING_ROUNDS`` says how often it goes round all nodes (once unless stated).
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.support.node import GSB, RunningNode
from tests.upgrade.alone import alone
from tests.upgrade.roll import rolling

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("GSB_ROLLING_ROUNDS", "1"))
NOTICE = 5
"""Seconds: far more than the balancer needs to see that a gateway is not ready, on a machine that is busy too."""


async def test_every_node_in_turn_is_restarted_and_no_call_fails(tmp_path: Path) -> None:
    async with rolling(tmp_path, {"notice": NOTICE}) as it:
        await it.start()
        for _ in range(ROUNDS):
            for member in sorted(it.members, key=lambda each: each.name.partition("-")[2]):
                await it.replace(member)
        assert await it.conclude() == []
        assert await it.terms() > ROUNDS, "the recorder's duty did not change hands"


async def test_one_machine_whose_socket_is_held_is_restarted_and_no_call_fails(tmp_path: Path) -> None:
    """As systemd does with gsb.socket: callers wait in it from the end of one node to the start of the next."""
    async with alone(tmp_path) as it:
        with socket.create_server(("127.0.0.1", it.deployment.port), backlog=1024) as door:
            given = f'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&{door.fileno()}'
            node = RunningNode(
                it.deployment, ["bash", "-c", given, GSB, "serve", it.deployment.folder], held=[door.fileno()]
            )
            for _ in range(1 + ROUNDS):
                await it.live(node)
            assert await it.conclude(node) == []
        assert it.client.calls > 0
        assert it.client.faults == []
