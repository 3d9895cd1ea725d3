"""What every real core system of the project tells about itself: how it is installed, laid out, started and checked.

A system is a program that somebody else wrote, in an environment of its own below ``.deps/``; none is ever imported
here. ``make systems`` and the tests start them by the same means (``running.py``). This module starts nothing but
installations. A crash while something is installed or built leaves no stamp, so the next call takes it up again.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SYSTEMS = Path(__file__).parent
ROOT = SYSTEMS.parents[1]
DEPS = ROOT / ".deps"
HOST = "127.0.0.1"
UNPRIVILEGED = ("--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=+dac_override")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
MARKED = re.compile(r"\[?(error|fatal)\b", re.IGNORECASE)

Command = Sequence[str | Path]


class NotInstalled(Exception):
    """A system cannot be installed; the text says why."""


class NotStarted(Exception):
    """A system cannot be started, or does not become ready; the text says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """One running copy of a system: the folder of its data, and the port of loopback where it listens."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """For systems that speak HTTP; without a slash at the end."""
        return f"http://{HOST}:{self.port}"


class System(ABC):
    """A core system. Its module has one as ``SYSTEM``, and stands in ``catalogue.NAMES``."""

    name: str
    """The name of its module or package here, of ``NAME.txt`` with what pip installs, and of ``.deps/NAME``."""
    title: str
    """For people: the product and what it is here, such as "OpenFisca, tax"."""
    port: int
    """Where ``make systems`` lets it listen; 0 if it listens nowhere."""
    forgets: bool = False
    """Whether a stop loses its data, so that it is seeded after every start and not only the first."""
    ready_within: float = 90.0
    """Seconds, on a machine that is busy with other things."""
    stop_within: float = 15.0
    """Seconds after SIGTERM."""

    # --- what is installed once

    @property
    def deps(self) -> Path:
        """The folder of its environment, which is kept between runs."""
        return DEPS / self.name

    @property
    def golden(self) -> Path:
        """What ``build`` made: the data that every copy begins with."""
        return self.deps / "golden"

    def program(self, name: str) -> Path:
        """One of the programs of its environment."""
        return self.deps / "bin" / name

    @property
    def requirements(self) -> Path:
        """What pip installs into its environment, every version pinned; a system without this file has none."""
        return SYSTEMS / f"{self.name}.txt"

    def missing(self) -> str | None:
        """One line that says what stops it from being started, or None."""
        stale = self.requirements.exists() and not _newer(self.deps / ".installed", self.requirements)
        if stale or (self._builds() and not self._built()):
            return f"{self.title} is not installed as config/systems says: make deps-test installs it"
        return None

    def install(self) -> None:
        """Make its environment and its golden data, as far as they are not there. Raises NotInstalled."""
        if self.requirements.exists() and not _newer(self.deps / ".installed", self.requirements):
            run(self, [ROOT / "tests/deps/environment.sh", self.deps, "-r", self.requirements])
        if self._builds() and not self._built():
            unfinished = self.deps / "golden.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            self.build(unfinished)
            shutil.rmtree(self.golden, ignore_errors=True)
            unfinished.rename(self.golden)
            self._stamp.write_text(self._sources(), "ascii")

    def build(self, folder: Path) -> None:
        """Make the golden data in this empty folder, which then becomes ``golden``: what takes long and is the same
        each time. It is made anew when the module of the system or its requirements change. Raises NotInstalled.
        """
        raise NotImplementedError

    def _builds(self) -> bool:
        return type(self).build is not System.build

    def _built(self) -> bool:
        return self.golden.is_dir() and self._stamp.exists() and self._stamp.read_text("ascii") == self._sources()

    @property
    def _stamp(self) -> Path:
        return self.deps / ".built"

    def _sources(self) -> str:
        """A fingerprint of the files that decide what ``build`` makes."""
        digest = hashlib.sha256()
        for path in (Path(inspect.getfile(type(self))), *_files(SYSTEMS / self.name), self.requirements):
            if path.exists():
                digest.update(path.read_bytes())
        return digest.hexdigest()

    # --- one copy of it

    @abstractmethod
    def lay(self, place: Place) -> None:
        """Write what a copy needs into its new, empty folder: a copy of the golden data, settings, secrets as files."""

    @abstractmethod
    def command(self, place: Place) -> Command:
        """What starts it; it stays in the foreground and ends at SIGTERM. It runs in ``place.folder``."""

    def environment(self, place: Place) -> Mapping[str, str]:
        """Variables beside those of this process."""
        return {}

    @abstractmethod
    async def ready(self, place: Place) -> bool:
        """Whether it answers. It is asked again and again, and must give up by itself."""

    async def seed(self, place: Place) -> None:
        """Enter what a copy begins with over the system's own interface; asked once it is ready."""
        return

    @abstractmethod
    async def check(self, place: Place) -> str:
        """Make one real call and say in a few words what it showed. Raises NotStarted if it showed something else."""


def run(system: System, command: Command, environment: Mapping[str, str] | None = None) -> str:
    """Run a step of an installation to its end; what it wrote. Raises NotInstalled with the line that tells why."""
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise NotInstalled(f"{system.title}: {command[0]}: {error.strerror}") from None
    if done.returncode:
        raise NotInstalled(f"{system.title}: {command[0]} ended with {done.returncode}: {_telling(done.stdout)}")
    return done.stdout


def _telling(said: str) -> str:
    """The line that tells most: the first that a tool marks as an error, or else the last."""
    lines = [line.strip() for line in COLOURS.sub("", said).splitlines() if line.strip()]
    marked = [line for line in lines if MARKED.match(line)]
    return (marked or lines[-1:] or ["it said nothing"])[0]


def unprivileged(command: Command) -> Command:
    """The command for a program that refuses to be root: as root it runs it as nobody, who still may read and write
    where root may, since a checkout often lies where only root does. Of anybody else's command it changes nothing.
    """
    if os.getuid() != 0:
        return command
    return ["setpriv", *UNPRIVILEGED, "--ambient-caps=+dac_override", *command]


def _newer(stamp: Path, source: Path) -> bool:
    return stamp.exists() and stamp.stat().st_mtime >= source.stat().st_mtime


def _files(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
