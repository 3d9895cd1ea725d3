"""Personnel on Tryton is slowed, cut off, killed, stopped and started again while it is read, and nothing is lost."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from config.systems.tryton import CREDENTIAL, DATABASE, SYSTEM, USER
from tests.support import survival
from tests.support.deployment import toml
from tests.support.real import real
from tests.support.survival import ENOUGH, ROOT, Ask, survives

pytestmark = pytest.mark.slow


def write_government(root: Path) -> None:
    """One whose personnel system is Tryton, with the services of the adapter's contract."""
    contract = tomllib.loads((ROOT / "adapters/gsb_adapters/hrmis/contract/contract.toml").read_text("utf-8"))
    where = {"url": f"http://127.0.0.1:{SYSTEM.port}", "database": DATABASE, "user": USER}
    settings = where | {"password": f"../../var/systems/{SYSTEM.name}/{CREDENTIAL}"}
    files = {
        f"services/{name}.toml": {"title": name, "effect": table["effect"], "settings": table["settings"]}
        for name, table in contract["services"].items()
    }
    system = {"title": "Personnel", "agency": "ministry-of-finance", "adapter": "hrmis", "settings": settings}
    for path, table in (files | {"systems/hrmis.toml": system}).items():
        target = root / "config" / "government" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{name} = {toml(value)}\n" for name, value in table.items()), "utf-8")
    shutil.copytree(ROOT / "schemas" / "hrmis", root / "schemas" / "hrmis")


async def test_a_personnel_system_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_government(tmp_path)
    people = [Ask("hrmis/employee/v1", {"employee": f"E-{number:06}"}) for number in range(1, 5)]
    asks = [*people, Ask("hrmis/payroll-list/v1", {"ministry": "MOF", "limit": 3}), Ask("hrmis/post/v1", {"post": 2})]
    async with real("tryton", tmp_path) as system:
        monkeypatch.setattr(survival, "ROOT", tmp_path)
        monkeypatch.setattr(survival, "GOVERNMENT", tmp_path / "config" / "government")
        told = await survives(tmp_path, system, "hrmis", (asks * ENOUGH)[:ENOUGH])
    assert told.states == {"done": ENOUGH}
