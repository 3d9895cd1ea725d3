"""Vehicles are registered once each, whatever happens to the register and the way to it meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.real import real
from tests.support.survival import ENOUGH, Ask, survives

pytestmark = pytest.mark.slow


async def test_vehicles_are_registered_once(tmp_path: Path) -> None:
    async with real("soap", tmp_path) as system:
        journal = system.place.folder / "vehicles.tsv"

        async def registrations(exchange: str, body: Any) -> int:
            """The register's own file has a line for each, which begins with the reference."""
            lines = [line.split("\t") for line in journal.read_text("utf-8").splitlines()]
            return sum(line[0] == exchange and line[1] == body["plate"] for line in lines)

        asks = [
            Ask(
                "vehicles/register/v1",
                {
                    "plate": f"SV-{number:04}",
                    "owner": "ID-000042",
                    "category": "BUS",
                    "first_registered": "2026-01-31",
                    "mass_in_tonnes": "9.750",
                    "annual_fee": {"amount": "2400.00", "currency": "XOF"},
                },
            )
            for number in range(ENOUGH)
        ]
        told = await survives(tmp_path, system, "vehicles", asks, registrations)
        assert set(told.states) == {"done"}
