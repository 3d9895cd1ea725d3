"""The registers survive Kinto being slowed, cut off, killed and stopped: each registration is there once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.real import real
from tests.support.registry import BUSINESSES, as_registrar
from tests.support.survival import ENOUGH, Ask, survives


@pytest.mark.slow
async def test_each_business_is_registered_once_whatever_happens_to_the_register(tmp_path: Path) -> None:
    async with real("kinto", tmp_path) as system:

        async def registered(exchange: str, body: Any) -> int:
            records = (await as_registrar(system, "GET", f"{BUSINESSES}/records"))["data"]
            assert sum(each["brn"] == body["brn"] for each in records) <= 1
            return sum(each.get("exchange") == exchange for each in records)

        asks = [
            Ask("registry/register-business/v1", {"brn": f"BRN-{number:06}", "name": f"Business {number}"})
            for number in range(800_000, 800_000 + ENOUGH)
        ]
        told = await survives(tmp_path, system, "registry", asks, registered)
        assert set(told.states) == {"done"}
