"""The built image, mounted, and programs in it as a pod of the chart would run them.

``make image-test`` has built it. It needs root, or a user's own namespace (``buildah unshare``), in which it starts.
It changes nothing of the image: what runs in it cannot write there. A crash leaves a working container behind, which
``buildah rm`` takes away.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
USER = 65532
SITE = "opt/gsb/lib/python3.11/site-packages"


def version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"])


NAME = os.environ.get("IMAGE") or f"localhost/gsb:{version()}"
"""Of the image that is looked at."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose files lie below ``root``, and what it says of itself, as the OCI image specification has it."""

    root: Path
    said: dict[str, Any]

    def bill(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "usr/share/sbom/gsb.cdx.json").read_bytes())
        return found

    def command(self, deployment: Path, data: Path, *program: str, **variables: str) -> list[str]:
        """Of a process of this machine that becomes ``program`` in the image, with more variables than the image's."""
        chamber = str(Path(__file__).with_name("chamber.sh"))
        apart = ["/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", chamber]
        environment = [*self.said["Env"], *(f"{name}={value}" for name, value in variables.items())]
        return ["/usr/bin/env", "-i", *environment, *apart, str(self.root), str(deployment), str(data), *program]


@dataclass(frozen=True, slots=True)
class Chamber:
    """An image with a deployment and a volume for data, which belongs to the image's user as a pod's volume does."""

    image: Image
    deployment: Path
    data: Path

    def command(self, *program: str, **variables: str) -> list[str]:
        return self.image.command(self.deployment, self.data, *program, **variables)

    def run(self, *program: str, **variables: str) -> str:
        """What the program says on both ways. It must end with 0."""
        command = self.command(*program, **variables)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)
        said = done.stdout.decode()
        assert done.returncode == 0, said
        return said

    def lay(self, source: Path, name: str) -> str:
        """A copy of a file on the volume, which the image's user may read; by its path in the image."""
        shutil.copyfile(source, self.data / name)
        return f"/var/lib/gsb/{name}"

    def python(self, program: str, *words: str) -> str:
        return self.run("python", "-c", program, *words)


def _buildah(*words: str) -> str:
    try:
        done = subprocess.run(["buildah", *words], capture_output=True, text=True, check=False)
    except OSError:
        pytest.fail("buildah is not installed: make image", pytrace=False)
    if done.returncode:
        pytest.fail(f"buildah {' '.join(words)}: {done.stderr.strip()} (make image builds it)", pytrace=False)
    return done.stdout.strip()


@contextmanager
def mounted(name: str = NAME) -> Iterator[Image]:
    """The image of this name."""
    said = json.loads(_buildah("inspect", "--type", "image", name))["OCIv1"]["config"]
    container = _buildah("from", "--pull-never", name)
    try:
        yield Image(Path(_buildah("mount", container)), said)
    finally:
        _buildah("umount", container)
        _buildah("rm", container)


def readable(folder: Path) -> None:
    """Give a deployment to the image's group, as Kubernetes does with ``fsGroup``, and to nobody else."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 0, USER)
        path.chmod(0o550 if path.is_dir() else 0o440)


def main(words: list[str]) -> int:
    """The tests beside this, as root or in a namespace of one's own."""
    command = [sys.executable, "-m", "pytest", str(Path(__file__).with_name("served.py")), *words]
    if os.geteuid():
        command = ["buildah", "unshare", *command]
    return subprocess.run(command, check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
