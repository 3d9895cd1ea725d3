"""The tests' own PostgreSQL can be killed, restarted and reached over TCP, and keeps what it committed."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import asyncpg
import pytest

from tests.cluster.proxy import network
from tests.support.deployment import free_ports
from tests.support.postgres import Server, own_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def port() -> int:
    (free,) = free_ports(1)
    return free


@pytest.fixture(scope="module")
def server(port: int) -> Iterator[Server]:
    with own_server(port) as made:
        yield made


async def rows(dsn: str) -> list[int]:
    db = await asyncpg.connect(dsn)
    try:
        return [row["n"] for row in await db.fetch("SELECT n FROM kept ORDER BY n")]
    finally:
        await db.close()


async def test_what_was_committed_outlives_kills_and_restarts(server: Server, port: int) -> None:
    for number, end in enumerate((server.kill, server.stop, lambda: server.stop(signal.SIGQUIT), server.kill)):
        db = await asyncpg.connect(server.over(port))
        await db.execute("CREATE TABLE IF NOT EXISTS kept (n int)")
        await db.execute("INSERT INTO kept VALUES ($1)", number)
        end()
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.PostgresError, OSError)):
            await db.execute("SELECT 1")
        db.terminate()
        server.start()
    assert await rows(server.dsn) == [0, 1, 2, 3]


async def test_a_wire_leads_to_it_and_can_be_cut(server: Server, port: int) -> None:
    with network() as net:
        wire = net.wire(("127.0.0.1", port))
        db = await asyncpg.connect(server.over(wire.port))
        assert await db.fetchval("SELECT 1") == 1
        wire.cut()
        with pytest.raises((asyncpg.PostgresConnectionError, OSError)):
            await db.fetchval("SELECT 1")
        with pytest.raises(ConnectionRefusedError):
            await asyncpg.connect(server.over(wire.port))
        wire.restore()
        other = await asyncpg.connect(server.over(wire.port))
        assert await other.fetchval("SELECT 1") == 1
        await other.close()
        db.terminate()
