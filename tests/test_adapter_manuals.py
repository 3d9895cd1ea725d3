"""The adapters' manuals: every example in them is valid, and no setting is missing from them."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from gsb.config import Service, System
from gsb.sdk.manifest import GROUP, find_manifest

OURS = ["feedback", "fmis", "hrmis", "http_json", "oidc", "registry", "soap", "sql", "tax", "treasury"]


def adapter(name: str) -> tuple[Any, str]:
    entry = next(found for found in entry_points(group=GROUP) if found.name == name)
    return entry.load(), (find_manifest(entry).parent / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", OURS)
def test_the_examples_are_valid(name: str, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "registry.txt").write_text("x")
    (tmp_path / "secrets" / "tryton.txt").write_text("x")
    for file in ("secrets/roundup.txt", "secrets/vehicles.txt", "wsdl/vehicle-register.wsdl"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("x")
    kind, manual = adapter(name)
    examples = re.findall(r"```toml\n(.*?)```", manual, re.DOTALL)
    assert examples
    for example in examples:
        system = example.startswith("# systems/")
        table = (System if system else Service).model_validate(tomllib.loads(example))
        model = kind.Settings if system else kind.ServiceSettings
        model.model_validate(table.settings, context={"folder": tmp_path})


@pytest.mark.parametrize("name", OURS)
def test_every_setting_is_explained(name: str) -> None:
    kind, manual = adapter(name)
    fields = {*kind.Settings.model_fields, *kind.ServiceSettings.model_fields}
    assert [field for field in sorted(fields) if f"`{field}`" not in manual] == []
