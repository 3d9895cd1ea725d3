"""The tax engine is slowed, cut off, killed, stopped and started again while exchanges run: none is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.real import real
from tests.support.survival import ENOUGH, Ask, survives

SERVICE = "tax/income-tax/v1"


@pytest.mark.slow
async def test_the_tax_engine_comes_and_goes(tmp_path: Path) -> None:
    asks = [
        Ask(
            SERVICE,
            {"tin": "TIN-0000042", "period": "2026-09", "gross": {"amount": f"{4200 + number}", "currency": "XOF"}},
        )
        for number in range(ENOUGH)
    ]
    async with real("openfisca", tmp_path) as system:
        told = await survives(tmp_path, system, "tax", asks)
    assert told.states == {"done": ENOUGH}
