"""Adapters that are wrong in themselves are told before they can do harm."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from gsb.check import check
from gsb.model import Effect
from tests.support.adapters import GOOD, install
from tests.support.deployment import Deployment, standard


def found(deployment: Deployment) -> list[tuple[str, str, str]]:
    return [(finding.file, finding.where, finding.message) for finding in check(deployment.write())]


@pytest.mark.parametrize(
    ("module", "code", "options", "text"),
    [
        ("wrong_a", GOOD, {}, None),
        ("wrong_b", GOOD, {"api": "2"}, "api: Input should be 1"),
        ("wrong_c", GOOD, {"owner": None}, "owner: Field required"),
        ("wrong_d", GOOD, {"name": "right"}, "calls itself 'right'"),
        ("wrong_e", GOOD, {"copies": 2}, "is installed 2 times"),
        ("wrong_f", "1 / 0", {}, "cannot be imported: ZeroDivisionError"),
        ("wrong_g", "class Wrong: pass", {}, "is not an adapter"),
        ("wrong_h", GOOD.replace("Wrong", "Other"), {}, "cannot be imported: AttributeError"),
        ("wrong_n", GOOD + "    ServiceSettings = dict\n", {}, "ServiceSettings of the adapter 'wrong' is no class of"),
        ("wrong_m", GOOD.replace("handle", "handel"), {}, "the adapter 'wrong' has no method handle"),
    ],
)
def test_adapters_that_are_wrong_in_themselves_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: str, options: dict[str, Any], text: str | None
) -> None:
    install(tmp_path / "site", module, code, **options)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    deployment = Deployment(tmp_path)
    deployment.system("registry", adapter="wrong")
    findings = found(deployment)
    if text is None:
        assert findings == []
    else:
        assert [(file, where) for file, where, _ in findings] == [("gsb.toml", "adapters.allow.0")]
        assert text in findings[0][2]


JUDGES = (
    GOOD
    + """
from pydantic import model_validator
from gsb.sdk import Settings
class Judged(Settings):
    depth: int = 1
    @model_validator(mode="after")
    def _deep(self):
        return self if self.depth else {}["canary"]
    def fits(self, effect):
        if effect == "once":
            raise ValueError("not so")
        if effect == "repeatable":
            raise KeyError("canary")
Wrong.Settings = Wrong.ServiceSettings = Judged
"""
)


def test_settings_are_judged_by_the_adapter_and_whatever_it_raises_is_one_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "wrong_o", JUDGES)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    deployment = Deployment(tmp_path)
    deployment.system("registry", adapter="wrong")
    for effect in Effect:
        deployment.service(f"registry/{effect}/v1", effect=effect)
    deployment.service("registry/deep/v1", settings={"depth": 0})
    broken = "the adapter cannot read them: KeyError: 'canary'"
    assert found(deployment) == [
        ("services/registry/deep/v1.toml", "settings", broken),
        ("services/registry/once/v1.toml", "settings", "not so"),
        ("services/registry/repeatable/v1.toml", "settings", broken),
    ]


def test_a_manifest_that_does_not_fit_keeps_the_code_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    install(tmp_path / "site", "wrong_i", f"open({str(ran)!r}, 'w').close()\n{GOOD}", api="2")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    deployment = Deployment(tmp_path)
    deployment.system("registry", adapter="wrong")
    assert len(found(deployment)) == 1
    assert not ran.exists()


def test_an_adapter_that_is_not_allowed_is_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    install(tmp_path / "site", "wrong_j", f"open({str(ran)!r}, 'w').close()\n{GOOD}")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    deployment = standard(tmp_path)
    assert found(deployment) == []
    assert not ran.exists()


def test_an_entry_point_without_a_module_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", "wrong_k", GOOD)
    shutil.rmtree(tmp_path / "site" / "wrong_k")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    deployment = Deployment(tmp_path)
    deployment.system("registry", adapter="wrong")
    ((_, _, message),) = found(deployment)
    assert "wrong_k" in message
    for file in (tmp_path / "site").glob("*/entry_points.txt"):
        file.write_text("[gsb.adapters]\nwrong = wrong_k.inner:Wrong\n")
    ((_, _, message),) = found(deployment)
    assert message == "the adapter 'wrong' names the module wrong_k.inner, which is not there"


def test_a_manifest_that_is_no_toml_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", "wrong_l", GOOD)
    (tmp_path / "site/wrong_l/adapter.toml").write_text("name = ")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    deployment = Deployment(tmp_path)
    deployment.system("registry", adapter="wrong")
    ((_, _, message),) = found(deployment)
    assert message.startswith("the manifest of the adapter 'wrong' cannot be read: ")
