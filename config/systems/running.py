"""Starts, stops and kills copies of core systems, each a process group of its own whose id is kept in its folder.

It ends only what it or an earlier run of it started: a kept id counts only together with the time at which the process
began, which no later process of the same number shares. A crash of this process leaves the systems running; whoever
asks for the same folder afterwards finds them there.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from config.systems.base import HOST, NotStarted, Place, System
from gsb.bench.servers.installed import free_ports

LAST_LINES = 12
PAUSE = 0.05


class Copy:
    """One copy of a system in its place. It may be stopped and started again there, and keeps its data."""

    def __init__(self, system: System, place: Place) -> None:
        self.system, self.place = system, place
        self.host, self.port, self.url = HOST, place.port, place.url
        self.log = place.folder / "output.log"
        self._pid = place.folder / "pid"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process, whoever started it; None if it does not run."""
        if self._process is not None:
            return self._process.pid if self._process.poll() is None else None
        with suppress(FileNotFoundError, ValueError):
            pid, began = self._pid.read_text("ascii").split()
            if _began(int(pid)) == began:
                return int(pid)
        return None

    async def begin(self) -> None:
        """Lay fresh data, start, and seed. Raises NotStarted, and OSError for old data that cannot be removed."""
        if self.place.folder.exists():
            shutil.rmtree(self.place.folder)
        self.place.folder.mkdir(parents=True)
        self.system.lay(self.place)
        await self._run()
        await self.system.seed(self.place)

    async def start(self) -> None:
        """Start it again on the data it had, until it answers. Raises NotStarted with the last lines it wrote."""
        await self._run()
        if self.system.forgets:
            await self.system.seed(self.place)

    async def _run(self) -> None:
        self._spawn()
        until = time.monotonic() + self.system.ready_within
        while self.pid is not None and time.monotonic() < until:
            if await self.system.ready(self.place):
                return
            await asyncio.sleep(PAUSE)
        state = "ended by itself" if self.pid is None else "is not ready"
        await self.stop()
        lines = self.log.read_text("utf-8", "replace").splitlines()[-LAST_LINES:]
        raise NotStarted("\n  ".join([f"{self.system.title} {state}; the end of {self.log}:", *lines]))

    def _spawn(self) -> None:
        """In a session of its own, so that Ctrl-C does not reach it, and it lives on if that is wanted."""
        command, more = self.system.command(self.place), self.system.environment(self.place)
        try:
            with self.log.open("ab") as output:
                self._process = subprocess.Popen(
                    command,
                    cwd=self.place.folder,
                    env={**os.environ, "PYTHONUNBUFFERED": "1", **more},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError as error:
            raise NotStarted(f"{self.system.title} cannot be started: {command[0]}: {error.strerror}") from None
        self._pid.write_text(f"{self._process.pid} {_began(self._process.pid)}\n", "ascii")

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for it and its workers if that does not end it in time. Nothing if it does not run."""
        if (pid := self.pid) is None:
            return
        os.kill(pid, signal.SIGTERM)
        await self._ended(self.system.stop_within)
        await self.kill(pid)

    async def kill(self, group: int | None = None) -> None:
        """SIGKILL for it and its workers at once, as a loss of power would end it."""
        if (group := group or self.pid) is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        await self._ended(self.system.stop_within)
        self._pid.unlink(missing_ok=True)

    async def _ended(self, within: float) -> None:
        """Workers may hold the port for a moment longer than the process that began them lives."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            if self.pid is None and (not self.port or is_free(self.port)):
                return
            await asyncio.sleep(PAUSE)


@asynccontextmanager
async def running(system: System, folder: Path, port: int | None = None) -> AsyncIterator[Copy]:
    """A fresh copy of an installed system with its data in ``folder``/NAME, on a free port unless one is given. Raises
    NotStarted.
    """
    listens = port if port is not None else free_ports(1)[0]
    copy = Copy(system, Place(folder / system.name, listens if system.port else 0))
    try:
        await copy.begin()
        yield copy
    finally:
        await copy.stop()


def is_free(port: int) -> bool:
    """Whether nobody listens on this port of loopback."""
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, port))
        return True
    return False


def _began(pid: int) -> str:
    """When the process began, in ticks since the machine did; "" if there is none, or only what is left of one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
