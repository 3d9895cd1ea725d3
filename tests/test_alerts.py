"""What somebody is told of: each alert fires on its numbers and not on a good day's, and says where help stands."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gsb.metrics import TABLE
from tests.support.needs import needs

ROOT = Path(__file__).parents[1]
RULES = ROOT / "helm" / "gsb" / "rules" / "alerts.yaml"
TESTS = ROOT / "tests" / "alerts" / "alerts.yaml"
RUNBOOK = ROOT / "helm" / "RUNBOOK.md"
ALERTS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text("utf-8"))["groups"][0]["rules"]
NAMES = [alert["alert"] for alert in ALERTS]
EXPORTED = {
    name
    for metric in TABLE
    for name in ([f"{metric.name}_{part}" for part in ("bucket", "count", "sum")] if metric.buckets else [metric.name])
}


def cases() -> list[dict[str, Any]]:
    tests = yaml.safe_load(TESTS.read_text("utf-8"))["tests"]
    return [case for test in tests for case in test["alert_rule_test"]]


def test_alerts_fire_when_they_should_and_only_then() -> None:
    needs(shutil.which("promtool") is not None, "promtool is not installed: make deps-test")
    ran = subprocess.run(["promtool", "test", "rules", str(TESTS)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_is_shown_to_fire_and_to_keep_still(name: str) -> None:
    expected = [bool(case.get("exp_alerts")) for case in cases() if case["alertname"] == name]
    assert {True, False} == set(expected)


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_asks_only_for_what_is_exported(alert: dict[str, Any]) -> None:
    named = set(re.findall(r"\bgsb_[a-z_]+", alert["expr"]))
    assert named
    assert named <= EXPORTED


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_says_how_bad_it_is_and_where_help_stands(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["runbook_url"] == f"RUNBOOK.md#{alert['alert'].lower()}"
    sections = re.findall(r"^## (.+)$", RUNBOOK.read_text("utf-8"), re.MULTILINE)
    assert alert["alert"] in sections


def test_the_runbook_speaks_of_no_other_alerts() -> None:
    text = RUNBOOK.read_text("utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == NAMES
    for section in text.split("\n## ")[1:]:
        assert [word for word in ("**What it means.**", "**Look.**", "**Do.**") if word not in section] == []
