"""Starts the demonstration's programs, each a process of its own, and stops them again.

It ends only what it started, by process id. If this process is killed outright its children stay; the next
run then says which port is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from config.demo.report import Report

READY_WITHIN = 90.0
"""Seconds that a program has to become ready, on a machine that is busy with other things."""
STOP_WITHIN = 60.0
"""Seconds that it has to end after SIGTERM: a node drains for 25 of them at most."""
LAST_LINES = 12


class NotStarted(Exception):
    """Something could not be started; the text says what and why."""


class PortTaken(NotStarted):
    """Another program listens where one of ours would."""


def claim(ports: Sequence[tuple[str, str, int]]) -> None:
    """Check that each (who, host, port) is free. Raises PortTaken for the first that is not."""
    for who, host, port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                taken = f"{host}:{port}, where {who} would listen, is taken ({error.strerror})"
                ways = "end what listens there (make systems-stop, if it is one of those), or change the port"
                raise PortTaken(f"{taken}; {ways} in the deployment") from None


@dataclass(slots=True)
class Child:
    """A program that runs beside this one, and the file its output goes to."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    killed: bool = False

    @classmethod
    async def start(cls, name: str, command: Sequence[str | Path], folder: Path, log: Path) -> Child:
        """Start it in a session of its own, so that Ctrl-C reaches only us and we end it in order."""
        try:
            with log.open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    cwd=folder,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError as error:
            raise NotStarted(f"{name} cannot be started: {command[0]}: {error.strerror}") from None
        return cls(name, process, log)

    async def ready(self, url: str) -> None:
        """Wait until ``url`` answers 200. Raises NotStarted, with its last lines, when that does not come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WITHIN), aiohttp.ClientSession() as session:
                while self.process.returncode is None:
                    if await _answers(session, url):
                        return
                    await asyncio.sleep(0.05)
        state = f"ended with {code}" if (code := self.process.returncode) is not None else "is not ready"
        raise NotStarted(f"{self.name} {state}; the end of {self.log}:\n{self.last_lines()}")

    def last_lines(self) -> str:
        return "\n".join("  " + line for line in self.log.read_text("utf-8", "replace").splitlines()[-LAST_LINES:])

    def kill(self) -> None:
        """As a loss of power would end it."""
        self.killed = True
        self.process.kill()

    async def stop(self) -> int:
        """SIGTERM, then after ``STOP_WITHIN`` SIGKILL for it and its workers; its exit code."""
        if self.process.returncode is None:
            self.process.terminate()
            try:
                async with asyncio.timeout(STOP_WITHIN):
                    await self.process.wait()
            except TimeoutError:
                os.killpg(self.process.pid, signal.SIGKILL)
        return await self.process.wait()


class Programs:
    """What runs beside the demonstration until ``stack`` closes. One that ends by itself ends the demonstration."""

    def __init__(self, stack: AsyncExitStack, report: Report, folder: Path, logs: Path) -> None:
        self._stack, self._report, self._folder, self._logs = stack, report, folder, logs
        self._this = asyncio.current_task()

    async def start(self, name: str, command: Sequence[str | Path], ready: str) -> Child:
        """Start a program, wait until it is ready, and have it stopped at the end. Raises NotStarted."""
        log = self._logs / f"{name.removeprefix('the ').replace(' ', '-')}.log"
        child = await Child.start(name, command, self._folder, log)

        def ended_by_itself(_: asyncio.Task[int]) -> None:
            if child.killed:
                return
            self._report.trouble = f"{name} ended by itself; its last words are in {child.log}"
            if self._this is not None:
                self._this.cancel()

        async def stop() -> None:
            watch.remove_done_callback(ended_by_itself)
            self._report.chapter = "The end"
            title = f"{name} was killed" if child.killed else f"{name} ends when asked to"
            step = self._report.step(title, f"exit {-signal.SIGKILL if child.killed else 0}")
            with step.running():
                step.got[f"exit {await child.stop()}"] += 1

        watch = asyncio.create_task(child.process.wait())
        self._stack.push_async_callback(stop)
        await child.ready(ready)
        watch.add_done_callback(ended_by_itself)
        return child


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=2)) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
