"""The guide for integrators, done as it says: every command in it is run, in its order, in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gsb.testing.cassette import Cassette, read_cassettes
from tests.support.deployment import Deployment
from tests.support.node import GSB
from tests.support.played import played

GUIDE = (Path(__file__).parents[1] / "adapters/README.md").read_text("utf-8")
REAL = "https://registry.example"


def commands() -> list[str]:
    return [line for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]


class Desk:
    """An integrator's folder and what they typed in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: dict[str, str] = {}
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        self._environment["PATH"] = (
            f"{GSB.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}" + os.environ["PATH"]
        )

    def type(self, command: str) -> None:
        ended = subprocess.run(
            command,
            shell=True,
            check=False,
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ended.returncode == 0, f"$ {command}\n{ended.stdout}{ended.stderr}"
        self.said[command] = ended.stdout

    def install(self) -> None:
        """What a package manager leaves of the package."""
        project = tomllib.loads((self.folder / "land_registry/pyproject.toml").read_text("utf-8"))["project"]
        ((group, points),) = project["entry-points"].items()
        metadata = self.folder / "site" / "land_registry-0.1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n")
        lines = [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
        (metadata / "entry_points.txt").write_text("\n".join(lines))
        shutil.copytree(self.folder / "land_registry/land_registry", self.folder / "site/land_registry")
        self._environment["PYTHONPATH"] = str(self.folder / "site")

    def deploy(self) -> None:
        """A deployment that takes up the adapter's system and services, as the guide says."""
        deployment = Deployment(self.folder)
        deployment.agency("justice")
        deployment.gsb["adapters"]["allow"] = ["land_registry"]
        deployment.write()
        shutil.copytree(self.folder / "land_registry/config", deployment.folder, dirs_exist_ok=True)
        shutil.copytree(self.folder / "land_registry/schemas", deployment.folder / "schemas", dirs_exist_ok=True)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def registry(desk: Desk) -> Iterator[str]:
    """The real system of the guide: here one that plays the template's examples."""
    template = Path(__file__).parents[1] / "gsb/cli/adapter/template/land_registry/contract"
    examples = [Cassette.model_validate_json(path.read_bytes()) for path in sorted(template.glob("*.json.txt"))]
    with played(examples) as url:
        yield url


@pytest.mark.slow
def test_every_command_works_as_it_is_written(desk: Desk, registry: str) -> None:
    typed = commands()
    assert len(typed) >= 10
    for command in typed:
        if "check" in command:
            desk.install()
            desk.deploy()
        desk.type(command)
        if command == "gsb adapter new land_registry":
            system = desk.folder / "land_registry/config/systems/land-registry.toml"
            text = system.read_text("utf-8")
            assert REAL in text
            system.write_text(text.replace(REAL, registry), "utf-8")
    said = "\n".join(desk.said.values())
    assert "17 passed" in said
    assert '"owner": "P-1001"' in said
    assert "refused: exit code 4" in said
    assert "owner: as it was" in said
    assert "land_registry: 17 kept" in said
    assert "nothing wrong" in said
    kept = read_cassettes(desk.folder / "land_registry/land_registry/contract", "owner.json")["owner"]
    assert kept.reply["owner"] != "P-1001"


def test_the_commands_of_the_guide_are_those_that_there_are() -> None:
    told = {match[1] for command in commands() if (match := re.match(r"gsb adapter (\w+)", command))}
    assert told == {"new", "try", "record", "replay", "grade"}
