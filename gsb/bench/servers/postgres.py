"""A real PostgreSQL of one's own: made in a new folder, run by a user without privileges, reached by a socket in that
folder and, if a port is given, over TCP on loopback.

It is ended by its process id. A crash of this program leaves the server running and its folder behind.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from gsb.bench.servers.installed import START, NotInstalled, room

PORT = 5432
"""Part of the socket's name where there is no port."""
MISSING = "PostgreSQL is not installed (Debian: postgresql)"


def programs() -> Path | None:
    """The folder of PostgreSQL's own programs; Debian keeps them out of the path."""
    found = [Path(each) for each in (shutil.which("initdb"), shutil.which("postgres")) if each is not None]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    folders = [path.resolve().parent for path in found]
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def _user() -> str | None:
    """Whoever is to run the server when this program runs as root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    names = {each.pw_name for each in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class Server:
    """One that can be stopped and started again on the same data."""

    def __init__(self, folder: Path, bin_: Path, port: int | None) -> None:
        self._folder, self._bin, self._user = folder, bin_, _user()
        self._process: subprocess.Popen[bytes] | None = None
        self._port = port or PORT
        self.settings = {"listen_addresses": "127.0.0.1" if port else "", "shared_buffers": "64MB"}
        """What it is started with."""
        self.dsn = f"postgresql://bus@/postgres?host={folder}&port={self._port}"

    def _as_user(self, *command: str | Path) -> list[str | Path]:
        # The program in between becomes the server, so its pid is the server's.
        as_user: list[str | Path] = []
        if self._user is not None:
            group = pwd.getpwnam(self._user).pw_gid
            as_user = ["setpriv", "--reuid", self._user, "--regid", str(group), "--clear-groups"]
        return [*as_user, *command]

    def make(self) -> None:
        """An empty database. Raises RuntimeError with what initdb said."""
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        command = self._as_user(self._bin / "initdb", "-D", self._folder / "data", "-U", "bus", "-A", "trust", "-N")
        made = subprocess.run([*command, "-E", "UTF8", "--no-locale"], check=False, capture_output=True, cwd="/")
        if made.returncode:
            raise RuntimeError(f"initdb in {self._folder}: {made.stderr.decode(errors='replace').strip()}")

    def start(self) -> None:
        """Returns when it answers. Raises RuntimeError with its log."""
        where: list[str | Path] = ["-D", self._folder / "data", "-k", self._folder, "-p", str(self._port)]
        where += [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            # In a session of its own, so that Ctrl-C does not end it before those that use it.
            self._process = subprocess.Popen(
                self._as_user(self._bin / "postgres", *where), stdout=log, stderr=log, cwd="/", start_new_session=True
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


S = TypeVar("S", bound=Server)


@contextmanager
def running(kind: type[S], *, port: int | None = None, where: Path | None = None) -> Iterator[S]:
    """A new server of this class, with its data in a new folder in ``where``. Without a port it does not listen for
    TCP. Raises NotInstalled, RuntimeError."""
    if (bin_ := programs()) is None:
        raise NotInstalled(MISSING)
    with room("gsb-pg-", where) as folder:
        server = kind(folder, bin_, port)
        try:
            server.make()
            server.start()
            yield server
        finally:
            server.stop()
