"""Complaints survive Roundup being slowed, cut off, killed and stopped: each is on file once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config.systems.roundup import web
from tests.support.real import real
from tests.support.survival import ENOUGH, Ask, survives
from tests.support.tracker import all_filed, filed


@pytest.mark.slow
async def test_each_complaint_is_filed_once_whatever_happens_to_the_tracker(tmp_path: Path) -> None:
    async with real("roundup", tmp_path) as system:

        async def on_file(exchange: str, body: Any) -> int:
            found = await filed(system, exchange)
            assert await all_filed(system, body["subject"]) == len(found)
            return len(found)

        asks = [
            Ask("feedback/submit/v1", {"subject": f"Complaint-{number}", "text": "It grows."})
            for number in range(1000, 1000 + ENOUGH)
        ]
        # The tracker takes only what was meant for its own address, which is not that of the way to it.
        way = {"web": web(system.place), "hold": 8}
        told = await survives(tmp_path, system, "feedback", asks, on_file, settings=way)
        assert set(told.states) == {"done"}
