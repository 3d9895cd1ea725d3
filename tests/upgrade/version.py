"""The version before this one, as its code was: taken from this repository's history into a folder of the test's own.

Its nodes run with today's Python environment, and find their own ``gsb`` and adapters before today's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.deployment import SITE

ROOT = Path(__file__).parents[2]
PREVIOUS = os.environ.get("GSB_UPGRADE_FROM", "fe9e255baf7eb5c58e11c9c1f53992b440cc621e")
"""What this version is an upgrade of, unless another commit is asked for. It moves with each release, to the commit of
the release before. 3ca668f is the last commit whose PostgreSQL store has another layout."""
PREVIOUS_DRAINS = False
"""Whether a node of that version, while it stops, takes the calls of connections that are there. If not, callers must
make a connection for each call, and the node must have none when it is told to stop, or they hear 503 and repeat."""
PARTS = ("gsb", "adapters")


def previous(folder: Path) -> Mapping[str, str] | None:
    """The environment in which ``gsb`` is the previous version, made in this folder; None where the history has no such
    commit, as in a shallow clone, or nobody can ask it."""
    if shutil.which("git") is None:
        return None
    packed = subprocess.run(["git", "archive", PREVIOUS, *PARTS], cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        return None
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    found = {"PYTHONPATH": os.pathsep.join(map(str, (folder, folder / "adapters", SITE)))}
    where = "import gsb.node as it, gsb_adapters.http_json as its; print(it.__file__, its.__file__, sep='\\n')"
    said = subprocess.run(
        [sys.executable, "-c", where], env=os.environ | found, cwd="/", capture_output=True, check=True
    )
    assert all(Path(line).is_relative_to(folder) for line in said.stdout.decode().split()), said.stdout
    return found
