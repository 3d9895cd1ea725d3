"""A real PostgreSQL for tests (``gsb.bench.servers.postgres``) that can be halted and killed too.

``GSB_TEST_POSTGRES`` (a connection URI of somebody who may create schemas) points to another server instead.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gsb.bench.servers import postgres
from gsb.bench.servers.installed import START
from gsb.bench.servers.postgres import programs
from tests.support.memory import in_memory
from tests.support.needs import needs

VARIABLE = "GSB_TEST_POSTGRES"


class Server(postgres.Server):
    """A server of the tests' own, which can be stopped, killed and started again on the same data."""

    @staticmethod
    def over(port: int) -> str:
        """The URI of whoever comes over TCP, by this port of loopback: the server's own, or one that leads to it."""
        return f"postgresql://bus@127.0.0.1:{port}/postgres"

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


@contextmanager
def own_server(port: int | None = None) -> Iterator[Server]:
    """A new server; skips the test where PostgreSQL is not installed. Without a port it does not listen for TCP."""
    needs(programs() is not None, f"{postgres.MISSING}, which make deps-test installs, nor is {VARIABLE} set")
    with postgres.running(Server, port=port, where=in_memory()) as server:
        yield server


@contextmanager
def some_server() -> Iterator[str]:
    """The URI of a server that keeps running: the one that is named in the environment, or one of the tests' own."""
    if (given := os.environ.get(VARIABLE)) is not None:
        yield given
        return
    with own_server() as server:
        yield server.dsn
