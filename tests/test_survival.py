"""The tax engine is slowed, cut off, killed, stopped and started again while exchanges run, and none is lost; and what
shows that would tell a double effect, and does not lose who took effect without an answer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from config.systems.running import Copy, running
from tests.histories.checker import read_effects
from tests.histories.deployment import ledger
from tests.support import survival
from tests.support.deployment import toml
from tests.support.ledger import Ledger
from tests.support.real import real
from tests.support.survival import ENOUGH, Ask, Told, survives

pytestmark = pytest.mark.slow


async def test_the_tax_engine_comes_and_goes(tmp_path: Path) -> None:
    asks = [
        Ask(
            "tax/income-tax/v1",
            {
                "tin": "TIN-0000042",
                "period": "2026-09",
                "gross": {"amount": f"{4200 + number}.00", "currency": "XOF"},
            },
        )
        for number in range(ENOUGH)
    ]
    async with real("openfisca", tmp_path) as system:
        told = await survives(tmp_path, system, "tax", asks)
    assert told.states == {"done": ENOUGH}


async def ledger_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effect: str) -> Told:
    """The ledger acts before it answers, which takes longer than it takes to cut it off."""
    effects = tmp_path / "effects.jsonl"
    body = {"key": "k", "delay": 300, "early": True, "mood": "fine"}

    async def count_effects(exchange: str, body: Any) -> int:
        return sum(line.exchange == exchange for line in read_effects(effects))

    asks = [Ask("ledger/post/v1", body)] * ENOUGH
    async with running(Ledger(effects), tmp_path) as core:
        write_government(tmp_path, core, effect)
        monkeypatch.setattr(survival, "ROOT", tmp_path)
        monkeypatch.setattr(survival, "GOVERNMENT", tmp_path / "config" / "government")
        return await survives(tmp_path, core, "ledger", asks, count_effects, finds=False)


def write_government(root: Path, core: Copy, effect: str) -> None:
    """With the ledger alone, whose service ``post`` acts at every call."""
    deployment = ledger(root / "made", f"http://127.0.0.1:{core.system.port}")
    deployment.files["services/ledger/post/v1.toml"]["effect"] = effect
    files = {f"config/government/{path}": table for path, table in deployment.files.items() if "ledger" in path}
    for path, table in files.items():
        text = "".join(f"{name} = {toml(value)}\n" for name, value in table.items())
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, "utf-8")
    for path, schema in deployment.schemas.items():
        (root / "schemas" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "schemas" / path).write_text(json.dumps(schema), "utf-8")


async def test_a_system_that_acts_at_every_call_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = await ledger_survives(tmp_path, monkeypatch, "once")
    assert told.states["done"] + told.states["failed"] == ENOUGH
    assert told.resolved > 0


async def test_a_double_effect_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its deployment says that a repeat does no harm, which is not so; what two faults meet acts three times."""
    with pytest.raises(AssertionError, match=r"took effect [2-9] times"):
        await ledger_survives(tmp_path, monkeypatch, "repeatable")
