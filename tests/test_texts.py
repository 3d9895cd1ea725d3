"""What the project's own texts may not say: ``gsb`` on the public index of packages is somebody else's project."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("gsb", "adapters", "config", "helm")
ENDINGS = {".md", ".py", ".toml", ".txt", ".yaml", ".tpl", ".sh", ".service", ".socket", ".timer", ""}
FROM_AN_INDEX = re.compile(
    r"""(?:\bpip3?\s+install|\bpipx\s+(?:install|run)|\buv\s+(?:add|pip\s+install|tool\s+install)|\buvx)"""
    r"""\s+(?:-\S+\s+)*['"]?gsb(?![\w.-])"""
)
"""A command that would fetch the stranger's, with an extra or a version or without."""


def texts() -> list[Path]:
    """Everything that somebody may read who installs or runs the bus."""
    found = [path for path in ROOT.glob("*") if path.is_file()]
    for folder in FOLDERS:
        for place, inside, files in os.walk(ROOT / folder):
            inside[:] = [name for name in inside if not name.startswith((".", "__"))]
            found += [Path(place, name) for name in files]
    return [path for path in found if path.suffix in ENDINGS]


def test_nobody_is_told_to_install_the_bus_from_an_index() -> None:
    found = {path.relative_to(ROOT): path.read_text("utf-8", errors="replace") for path in texts()}
    assert {Path("README.md"), Path("gsb/lint.py"), Path("adapters/README.md"), Path("helm/gsb/README.md")} <= set(
        found
    )
    assert [f"{path}: {told[0]}" for path, text in found.items() for told in FROM_AN_INDEX.finditer(text)] == []


def test_nothing_that_is_installed_beside_the_bus_fetches_one() -> None:
    template = ROOT / "gsb" / "cli" / "adapter" / "template" / "pyproject.toml.txt"
    assert tomllib.loads(template.read_text("utf-8"))["project"]["dependencies"] == []


@pytest.mark.parametrize(
    "command",
    ["pip install gsb", "pip install 'gsb[backup]'", 'pip install -U "gsb>=0.1"', "uv add gsb", "pipx install gsb"],
)
def test_it_knows_such_a_command(command: str) -> None:
    assert FROM_AN_INDEX.search(f"needs the extra: {command}")


@pytest.mark.parametrize("command", ["pip install .", "pip install '.[backup]'", "pip install gsb-adapters-of-ours"])
def test_it_knows_others(command: str) -> None:
    assert not FROM_AN_INDEX.search(command)
