"""A real PostgreSQL for tests: started in a temporary folder by an unprivileged user, reached by a socket in it.

``GSB_TEST_POSTGRES`` (a connection URI of somebody who may create schemas) points to another server instead.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.needs import needs

VARIABLE = "GSB_TEST_POSTGRES"
START = 60.0
"""Seconds within which a server must answer."""
ROOM = 2 << 30
"""Bytes that servers of tests may take."""


def programs() -> Path | None:
    """The folder of PostgreSQL's own programs; Debian keeps them out of the path."""
    found = [Path(each) for each in (shutil.which("initdb"), shutil.which("postgres")) if each is not None]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    folders = [path.resolve().parent for path in found]
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def _user() -> str | None:
    """Whoever is to run the server when tests run as root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    names = {each.pw_name for each in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class Server:
    """A server of the tests' own, which can be stopped, killed and started again on the same data."""

    def __init__(self, folder: Path, bin_: Path) -> None:
        self._folder, self._bin, self._user = folder, bin_, _user()
        self._process: subprocess.Popen[bytes] | None = None
        self.dsn = f"postgresql://bus@/postgres?host={folder}"

    def _as_user(self, *command: str | Path) -> list[str | Path]:
        # The program in between becomes the server, so its pid is the server's.
        as_user: list[str | Path] = []
        if self._user is not None:
            group = pwd.getpwnam(self._user).pw_gid
            as_user = ["setpriv", "--reuid", self._user, "--regid", str(group), "--clear-groups"]
        return [*as_user, *command]

    def make(self) -> None:
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        command = self._as_user(self._bin / "initdb", "-D", self._folder / "data", "-U", "bus", "-A", "trust", "-N")
        subprocess.run([*command, "-E", "UTF8", "--no-locale"], check=True, capture_output=True, cwd="/")

    def start(self) -> None:
        command = self._as_user(self._bin / "postgres", "-D", self._folder / "data", "-k", self._folder)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-c", "listen_addresses=", "-c", "shared_buffers=64MB"], stdout=log, stderr=log, cwd="/"
            )
        asked: list[str | Path] = [self._bin / "pg_isready", "-q", "-h", self._folder]
        until = time.monotonic() + START
        while subprocess.run(asked, check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self._folder / "log").read_text("utf-8"))
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: it ends its sessions and itself; SIGQUIT: at once, without saving anything, as when it crashes."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START)
            self._process = None


def _in_memory() -> Path | None:
    """A large file system in memory, if there is one: tests kill servers, not machines, and wait for no disk there."""
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM
    return memory if roomy else None


@contextmanager
def own_server() -> Iterator[Server]:
    """A new server; skips the test where PostgreSQL is not installed."""
    bin_ = programs()
    needs(bin_ is not None, f"PostgreSQL is not installed (make deps-test installs it), nor is {VARIABLE} set")
    assert bin_ is not None
    folder = Path(tempfile.mkdtemp(prefix="gsb-pg-", dir=_in_memory()))
    server = Server(folder, bin_)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@contextmanager
def some_server() -> Iterator[str]:
    """The URI of a server that keeps running: the one that is named in the environment, or one of the tests' own."""
    if (given := os.environ.get(VARIABLE)) is not None:
        yield given
        return
    with own_server() as server:
        yield server.dsn
