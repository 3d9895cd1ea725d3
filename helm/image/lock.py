"""Renews the lock files of the image, with uv: every distribution that it is made of, by version and by hashes.

    python helm/image/lock.py [--upgrade]

``requirements.txt`` is the bus with every extra but those of developers; ``build.txt`` is what builds its wheel. What
is locked already stays as it is where it fits, unless an upgrade is asked for. It installs nothing. A crash leaves the
file before as it was.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROJECT = HERE.parents[1] / "pyproject.toml"
UV = HERE.parents[1] / ".deps" / "image" / "bin" / "uv"
PYTHON = "3.11"
"""The interpreter of the image."""
NOT_IN_IT = ("bench", "dev")
"""Extras for whoever measures or changes the bus."""


def extras(project: dict[str, Any]) -> list[str]:
    """The extras of the table ``project`` that the image has."""
    return sorted(project["optional-dependencies"].keys() - set(NOT_IN_IT))


def lock(source: str, target: Path, options: list[str], text: str | None = None) -> None:
    """Raises OSError, or CalledProcessError once uv has said what is wrong."""
    fixed = ["--generate-hashes", "--python-version", PYTHON, "--python-platform", "linux", "--no-config", "--quiet"]
    called = ["--custom-compile-command", "make lock", "--output-file", str(target)]
    print(f"== locking {target.name}", flush=True)
    command = [str(UV), "pip", "compile", source, *fixed, *called, *options]
    subprocess.run(command, input=text, stdout=subprocess.DEVNULL, text=True, check=True, cwd=PROJECT.parent)


def main(upgrade: list[str]) -> int:
    said = tomllib.loads(PROJECT.read_text("utf-8"))
    chosen = [word for extra in extras(said["project"]) for word in ("--extra", extra)]
    try:
        lock(PROJECT.name, HERE / "requirements.txt", [*chosen, *upgrade])
        lock("-", HERE / "build.txt", upgrade, "\n".join(said["build-system"]["requires"]))
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"The lock files were not renewed: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
