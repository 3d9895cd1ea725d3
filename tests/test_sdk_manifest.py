"""Manifests, and those of the adapters that come with the bus."""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
from pydantic import ValidationError

from gsb.sdk.manifest import GROUP, find_manifest, read_manifest

GOOD = 'name = "ledger"\ntitle = "A ledger"\nsummary = "Reads it."\nowner = "Treasury"\napi = 1\n'
OURS = ["http_json", "sql", "tax"]


def entry(name: str) -> EntryPoint:
    return next(found for found in entry_points(group=GROUP) if found.name == name)


@pytest.mark.parametrize("name", OURS)
def test_the_adapters_that_come_with_the_bus(name: str) -> None:
    path = find_manifest(entry(name))
    manifest = read_manifest(path)
    assert manifest.name == path.parent.name == name
    manual = (path.parent / "README.md").read_text("utf-8")
    assert [code for code in manifest.errors if f"`{code}`" not in manual] == []


def test_it_is_read_without_importing_the_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ledger_adapter").mkdir()
    (tmp_path / "ledger_adapter" / "__init__.py").write_text("raise SystemExit('it was imported')")
    (tmp_path / "ledger_adapter" / "adapter.toml").write_text(GOOD + '[errors]\nclosed = "The books are closed"\n')
    monkeypatch.syspath_prepend(tmp_path)
    manifest = read_manifest(find_manifest(EntryPoint("ledger", "ledger_adapter:Ledger", GROUP)))
    assert (manifest.title, manifest.errors) == ("A ledger", {"closed": "The books are closed"})
    assert "ledger_adapter" not in sys.modules


def test_the_packages_around_an_adapter_are_not_imported_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "ministry_of_books" / "adapters" / "ledger"
    inner.mkdir(parents=True)
    for package in (inner, inner.parent, inner.parent.parent):
        (package / "__init__.py").write_text("raise SystemExit('it was imported')")
    (inner / "adapter.toml").write_text(GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    found = find_manifest(EntryPoint("ledger", "ministry_of_books.adapters.ledger:Ledger", GROUP))
    assert read_manifest(found).name == "ledger"
    assert not [name for name in sys.modules if name.startswith("ministry_of_books")]


def test_an_adapter_without_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare_adapter.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LookupError, match=r"no adapter\.toml"):
        find_manifest(EntryPoint("bare", "bare_adapter:Bare", GROUP))
    with pytest.raises(LookupError, match="not there"):
        find_manifest(EntryPoint("gone", "gone_adapter:Gone", GROUP))


@pytest.mark.parametrize(
    "wrong",
    [
        GOOD.replace("api = 1", "api = 2"),
        GOOD.replace("api = 1", "api = '1'"),
        GOOD.replace("owner", "onwer"),
        GOOD.replace('"ledger"', '"Ledger"'),
        GOOD.replace('"ledger"', '"x"'),
        GOOD.replace('"Treasury"', '""'),
        GOOD + "[errors]\nclosed = 7\n",
        GOOD + 'more = "x"\n',
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "adapter.toml"
    path.write_text(wrong)
    with pytest.raises(ValidationError):
        read_manifest(path)


def test_what_is_not_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter.toml"
    path.write_text("name: ledger")
    with pytest.raises(tomllib.TOMLDecodeError):
        read_manifest(path)
    with pytest.raises(OSError, match="No such file"):
        read_manifest(tmp_path / "none.toml")
