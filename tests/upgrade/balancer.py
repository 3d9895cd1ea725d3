"""A balancer in front of a cluster's gateways: HAProxy, which forwards TCP and looks at ``/readyz`` of each.

    with balancer(tmp_path, {"gateway-1": deployment, "gateway-2": other}) as it:
        ...  # the API is at it.port, the operations port at it.operations_port

It behaves as a Kubernetes Service does: a node that is not ready, or was taken out, gets no new connection, and those
that are open stay. It tries no connection a second time, so that one that was refused is seen and counted.
"""

from __future__ import annotations

import asyncio
import csv
import io
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.deployment import Deployment, free_ports
from tests.support.needs import needs

PROGRAM = shutil.which("haproxy") or next((path for path in ("/usr/sbin/haproxy",) if Path(path).exists()), None)
WITHIN = 60.0
"""Seconds within which the balancer must see what has happened, on a machine that is busy with other things."""
LOOK = 0.05
SIDES = ("api", "operations")
WRONG = ("econ", "wretr", "wredis")
"""Its counters of connections that no node took, were tried again, or went to another node then."""
SETTINGS = """
global
    stats socket {socket} mode 600 level admin
defaults
    mode tcp
    retries 0
    timeout connect 10s
    timeout client 10m
    timeout server 10m
    timeout check 10s
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter 200ms fall 2 rise 1
"""


class Balancer:
    """``port`` and ``operations_port`` are its own; nodes are known by the names that they were given."""

    def __init__(self, port: int, operations_port: int, socket_path: Path) -> None:
        self.port, self.operations_port = port, operations_port
        self._socket = socket_path

    def take_out(self, name: str) -> None:
        """Give it no new connection, as when a pod's end begins, whatever it says of itself."""
        self._set(name, "drain")

    def put_back(self, name: str) -> None:
        """Let its readiness decide again."""
        self._set(name, "ready")

    async def takes(self, name: str) -> None:
        """Wait until both its sides are found ready."""
        await self._until(name, "status", "UP")

    async def left(self, name: str) -> None:
        """Wait until nobody has a connection to it any more."""
        await self._until(name, "scur", "0")

    async def _until(self, name: str, column: str, value: str) -> None:
        end = time.monotonic() + WITHIN
        while any(row[column] != value for row in self._rows() if row["svname"] == name):
            assert time.monotonic() < end, f"{column} of {name} does not become {value}: {self._rows()}"
            await asyncio.sleep(LOOK)

    def wrong(self) -> dict[str, int]:
        """Connections, by side, node and what went wrong with them; empty if nothing did."""
        found = {
            f"{row['pxname']} {row['svname']} {name}": int(row[name] or 0) for row in self._rows() for name in WRONG
        }
        return {name: count for name, count in found.items() if count}

    def _set(self, name: str, state: str) -> None:
        for side in SIDES:
            said = self._say(f"set server {side}/{name} state {state}").strip()
            assert not said, said

    def _rows(self) -> list[dict[str, str]]:
        """One for each node on each side."""
        rows = csv.DictReader(io.StringIO(self._say("show stat").removeprefix("# ")))
        return [row for row in rows if row["svname"] not in ("FRONTEND", "BACKEND")]

    def _say(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as there:
            there.connect(str(self._socket))
            there.sendall(command.encode() + b"\n")
            heard = b""
            while data := there.recv(65_536):
                heard += data
        return heard.decode()


@contextmanager
def balancer(gateways: Mapping[str, Deployment]) -> Iterator[Balancer]:
    """Listening; nodes may come later. Skips the test where HAProxy is not installed."""
    needs(PROGRAM is not None, "HAProxy, which make deps-test installs, is not here")
    ports = free_ports(2)
    # The path of a socket must be short, which that of a test's folder need not be.
    with tempfile.TemporaryDirectory(prefix="gsb-lb-") as root:
        at = Path(root) / "socket"
        lines = [SETTINGS.format(socket=at)]
        for side, port in zip(SIDES, ports, strict=True):
            lines.append(f"listen {side}\n    bind 127.0.0.1:{port}")
            for name, each in gateways.items():
                to = each.port if side == "api" else each.operations_port
                lines.append(f"    server {name} 127.0.0.1:{to} port {each.operations_port}")
        settings = Path(root) / "settings"
        settings.write_text("\n".join(lines) + "\n", "ascii")
        process = subprocess.Popen([str(PROGRAM), "-q", "-db", "-f", str(settings)])
        try:
            _wait(process, at)
            yield Balancer(ports[0], ports[1], at)
        finally:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen[bytes], at: Path) -> None:
    """Until it listens: its own socket is there when all others are. A connection to those would be one to a node."""
    end = time.monotonic() + WITHIN
    while not at.exists():
        assert process.poll() is None, "HAProxy has ended"
        assert time.monotonic() < end, "HAProxy does not listen"
        time.sleep(LOOK)
