"""The social insurance fund on a real PostgreSQL that is slowed, cut off, killed, stopped and back, while contributions
come in: none is lost and none is recorded twice.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest

from config.government.play.insurance import ROWS, SCHEMA
from config.systems.base import HOST, Place
from config.systems.running import Copy
from tests.support.deployment import free_ports
from tests.support.postgres import Server, own_server
from tests.support.survival import ENOUGH, Ask, survives

ASKS = [
    Ask(
        "social-insurance/contribution/v1",
        {
            "employer": "EMP-00001",
            "person": f"NID-{number:07}",
            "period": "2026-09",
            "earnings": {"amount": "1000.00", "currency": "XOF"},
            "contribution": {"amount": "100.00", "currency": "XOF"},
        },
    )
    for number in range(1, ENOUGH + 1)
]


@dataclass
class Database:
    """The server, as ``survives`` has its systems."""

    server: Server
    place: Place
    host: str = HOST
    system: Any = None

    def __post_init__(self) -> None:
        self.port = self.place.port
        self.system = SimpleNamespace(port=self.port)

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def kill(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def lay(self) -> None:
        owner = await asyncpg.connect(self.server.dsn)
        await owner.execute(SCHEMA)
        for statement, rows in ROWS:
            table, count = statement.split()[2], len(rows[0])
            marks = ", ".join(f"${number}" for number in range(1, count + 1))
            await owner.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
        await owner.close()

    async def count(self, exchange: str, body: Any) -> int:
        """How often it was recorded, as the fund itself sees it."""
        query = "SELECT count(*) FROM contributions WHERE exchange = $1 AND person = $2"
        return await self.asked(query, exchange, body["person"])

    async def asked(self, query: str, *values: str) -> int:
        """One number, read beside the bus."""
        owner = await asyncpg.connect(self.server.dsn)
        found = await owner.fetchval(query, *values)
        await owner.close()
        return int(found)


@pytest.mark.slow
async def test_no_contribution_is_lost_or_recorded_twice(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with own_server(port) as server:
        database = Database(server, Place(tmp_path / "fund" / "data", port))
        await database.lay()
        url = {"url": "postgresql+asyncpg://bus@127.0.0.1:{port}/postgres"}
        told = await survives(tmp_path, cast(Copy, database), "social-insurance", ASKS, database.count, settings=url)
        assert told.states == {"done": ENOUGH}
        assert told.resolved == 0
        assert await database.asked("SELECT count(*) FROM contributions") == ENOUGH
