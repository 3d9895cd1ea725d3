"""A real PostgreSQL for tests: started in a temporary folder by an unprivileged user, reached by a socket in it and,
if a port is given, over TCP on loopback.

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
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.needs import needs

VARIABLE = "GSB_TEST_POSTGRES"
PORT = 5432
"""Part of the socket's name where there is no port."""
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

    def __init__(self, folder: Path, bin_: Path, port: int | None) -> None:
        self._folder, self._bin, self._user = folder, bin_, _user()
        self._process: subprocess.Popen[bytes] | None = None
        self._port = port or PORT
        self.settings = {"listen_addresses": "127.0.0.1" if port else "", "shared_buffers": "64MB"}
        """What it is started with."""
        self.dsn = f"postgresql://bus@/postgres?host={folder}&port={self._port}"

    @staticmethod
    def over(port: int) -> str:
        """The URI of whoever comes over TCP, by this port of loopback: the server's own, or one that leads to it."""
        return f"postgresql://bus@127.0.0.1:{port}/postgres"

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
        where: list[str | Path] = ["-D", self._folder / "data", "-k", self._folder, "-p", str(self._port)]
        where += [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._as_user(self._bin / "postgres", *where), stdout=log, stderr=log, cwd="/"
            )
        asked: list[str | Path] = [self._bin / "pg_isready", "-q", "-h", self._folder, "-p", str(self._port)]
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

    def halt(self, part: str) -> None:
        """SIGSTOP to the process of this name; it is killed with the others."""
        assert self._process is not None
        for pid in _children(self._process.pid):
            if part in Path(f"/proc/{pid}/cmdline").read_text("utf-8"):
                os.kill(int(pid), signal.SIGSTOP)
                return
        raise AssertionError(f"no {part} runs")

    def kill(self) -> None:
        """SIGKILL to all its processes at once: nothing that is only in its memory is written any more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)  # so that it begets no others meanwhile
        sessions = [int(pid) for pid in _children(self._process.pid)]
        for pid in sessions:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stop(signal.SIGKILL)
        # Its next life cannot begin as long as one of them holds the memory that they shared.
        until = time.monotonic() + START
        while any(_lives(pid) for pid in sessions) and time.monotonic() < until:
            time.sleep(0.02)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()


def _lives(pid: int) -> bool:
    """Whether the process holds anything; one that nobody has asked about its end holds nothing."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _in_memory() -> Path | None:
    """A large file system in memory, if there is one: tests kill servers, not machines, and wait for no disk there."""
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM
    return memory if roomy else None


@contextmanager
def own_server(port: int | None = None) -> Iterator[Server]:
    """A new server; skips the test where PostgreSQL is not installed. Without a port it does not listen for TCP."""
    bin_ = programs()
    needs(bin_ is not None, f"PostgreSQL is not installed (make deps-test installs it), nor is {VARIABLE} set")
    assert bin_ is not None
    folder = Path(tempfile.mkdtemp(prefix="gsb-pg-", dir=_in_memory()))
    server = Server(folder, bin_, port)
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
