"""What the roles share, as far as nothing else shows it: what keeps a node from its work."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tests.support.bus import bus_of
from tests.support.deployment import standard

LAST = datetime(2090, 1, 1, tzinfo=UTC)


async def test_a_bus_that_can_sign_nothing_is_not_ready(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.gsb["bus"]["keys"][0]["until"] = LAST
    async with bus_of(deployment) as hands:
        assert await hands.bus.unready() == []
        hands.clock.now = LAST.timestamp()
        assert await hands.bus.unready() == ["keys"]
