"""What the image is made from: locked by hashes and not stale, from nothing unlisted, by a build that sees no keys.

What the built image does and holds is shown by ``make image-test`` (``tests/image``).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "helm" / "image"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
RECIPE = (ROOT / "Containerfile").read_text("utf-8")
NOT_IN_IT = {"bench", "dev"}
"""Extras for whoever measures or changes the bus."""
SENT = {"LICENSE", "README.md", "adapters", "gsb", "helm/image", "pyproject.toml"}
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "python_version": "3.11"}
LINUX |= {"python_full_version": "3.11.2", "platform_python_implementation": "CPython"}


@dataclass(slots=True)
class Pin:
    """One locked distribution, and who wants it."""

    version: Version
    hashes: list[str] = field(default_factory=list)
    wanted_by: set[str] = field(default_factory=set)


def locked(name: str) -> dict[str, Pin]:
    """What a lock file holds. Raises AssertionError at a line that is anything but a pin, a hash or a comment."""
    pins: dict[str, Pin] = {}
    pin = Pin(Version("0"))
    for line in (IMAGE / name).read_text("utf-8").splitlines():
        if found := re.fullmatch(r"([a-z0-9-]+)==(\S+) \\", line):
            pins[found[1]] = pin = Pin(Version(found[2]))
        elif found := re.fullmatch(r"    --hash=sha256:([0-9a-f]{64})( \\)?", line):
            pin.hashes.append(found[1])
        elif found := re.fullmatch(r"    # (?:via)? *(.*)", line):
            pin.wanted_by |= {found[1]} - {""}
        else:
            assert line.startswith("#"), line
    return pins


def wanted(requirements: list[str]) -> dict[str, Requirement]:
    found = (Requirement(each) for each in requirements)
    return {canonicalize_name(each.name): each for each in found if not each.marker or each.marker.evaluate(LINUX)}


def in_the_image() -> dict[str, Requirement]:
    """What the bus needs with all extras that the image has."""
    project = PROJECT["project"]
    extras = [
        each for name, group in project["optional-dependencies"].items() if name not in NOT_IN_IT for each in group
    ]
    return wanted([*project["dependencies"], *extras])


@pytest.mark.parametrize(
    ("name", "needed", "root"),
    [
        ("requirements.txt", in_the_image(), "gsb (pyproject.toml)"),
        ("build.txt", wanted(PROJECT["build-system"]["requires"]), "(itself)"),
    ],
)
def test_a_lock_is_of_hashes_alone_and_not_stale(name: str, needed: dict[str, Requirement], root: str) -> None:
    pins = locked(name)
    assert all(pin.hashes for pin in pins.values())
    asked = {each for each, pin in pins.items() if root in pin.wanted_by or not pin.wanted_by}
    assert asked == needed.keys(), "run make lock"
    for each, requirement in needed.items():
        assert pins[each].version in requirement.specifier, f"{each}: run make lock"
    assert {who.partition("[")[0] for pin in pins.values() for who in pin.wanted_by - {root}} <= pins.keys()


# --- the recipe


def instructions() -> Iterator[tuple[str, str]]:
    """Each instruction of the Containerfile in turn, its continued lines joined."""
    text = re.sub(r"(?m)^#.*\n", "", RECIPE).replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, " ".join(rest.split())


def test_every_stage_begins_from_the_base_nothing_or_another_stage() -> None:
    stages: list[str] = []
    for word, rest in instructions():
        if word == "FROM":
            start, *named = rest.split(" AS ")
            assert start in {"${BASE}", "scratch", *stages}
            stages += named
        if word == "COPY" and rest.startswith("--from="):
            assert rest.split()[0].removeprefix("--from=") in stages
    last = RECIPE[RECIPE.rindex("\nFROM ") :]
    assert "RUN " not in last
    assert RECIPE.count("FROM ${BASE}") == 1


def test_nothing_of_the_base_is_in_the_image() -> None:
    """The stages that reach the last one without the base's files: they begin from nothing, and copy two folders."""
    assert re.search(
        r"(?m)^FROM scratch AS whole\nCOPY --from=debian /image /\nCOPY --from=python /opt/gsb /opt/gsb$", RECIPE
    )
    assert RECIPE.split("\nFROM ")[-1].startswith("whole\n")


def test_the_base_is_pinned_and_of_no_registry() -> None:
    (base,) = (
        rest.removeprefix("BASE=") for word, rest in instructions() if word == "ARG" and rest.startswith("BASE=")
    )
    assert re.fullmatch(r"debian:bookworm-[0-9]{8}-slim(@sha256:[0-9a-f]{64})?", base)


def test_whatever_is_installed_is_held_to_hashes_or_built_here() -> None:
    installs = [
        part for word, rest in instructions() if word == "RUN" for part in rest.split("&&") if " install " in part
    ]
    by_pip = [each for each in installs if "pip" in each.split(" install ")[0]]
    assert len(by_pip) == 3
    for each in by_pip:
        assert "--require-hashes" in each or "--no-index" in each
        assert "--only-binary :all:" in each or "--no-index" in each
    assert "--no-build-isolation" in RECIPE


def test_it_runs_as_the_charts_user_where_the_chart_mounts() -> None:
    said = dict(instructions())
    pod = (ROOT / "helm/gsb/templates/_helpers.tpl").read_text("utf-8")
    user = re.search(r"runAsUser: ([0-9]+)", pod)
    assert user is not None
    assert said["USER"] == f"{user[1]}:{user[1]}"
    assert said["WORKDIR"] == "/var/lib/gsb"
    assert said["CMD"] == '["serve", "/etc/gsb"]'
    for place in ("/etc/gsb", "/var/lib/gsb", "/tmp"):
        assert f"mountPath: {place}" in pod
        assert f'"$root{place}"' in (IMAGE / "assemble.sh").read_text("utf-8")


# --- what is sent to the build


def ignored() -> list[str]:
    lines = (ROOT / ".containerignore").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_only_what_is_listed_is_sent_to_the_build() -> None:
    first, *rules = ignored()
    assert first == "*"
    assert {each[1:] for each in rules if each.startswith("!")} == SENT
    copied = {
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    }
    assert {each for each in copied if not any(each == sent or each.startswith(f"{sent}/") for sent in SENT)} == set()


def test_no_key_lies_in_what_is_sent() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z", *SENT], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        names = [str(path.relative_to(ROOT)) for sent in SENT for path in (ROOT / sent).rglob("*")]
    else:
        names = tracked.stdout.split("\0")
    assert [
        name for name in names if any(fnmatch(name, each) for each in ("*.jwk", "*.key", "*.pem", "*.sqlite"))
    ] == []


# --- the script


def test_without_buildah_there_is_one_clear_line(tmp_path: Path) -> None:
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    environment = {"PATH": str(tmp_path), "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run([IMAGE / "build.sh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr == "buildah is needed to build the image. Install it, then repeat make image.\n"
