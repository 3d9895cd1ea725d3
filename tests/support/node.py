"""Runs a real node for tests: as a process of its own, or in the test's event loop.

    async with running_node(tmp_path, deployment) as node:      # `gsb serve`, its own process
        async with node.client() as client:
            result = await client.call("registry/person/v1", {"id": "P-0001"}, purpose="payroll")

``deployment`` is written first; without one it is ``standard(tmp_path)``. A node is ready when it says so in its log
and ``/readyz`` agrees; it is stopped by its own process id with SIGTERM and must then exit 0.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from gsb.catalogue import Catalogue
from gsb.client import Client
from gsb.node import Node
from gsb.store.contract import Store
from tests.support.deployment import SITE, Deployment, standard

GSB = Path(sys.executable).parent / "gsb"
READY_WITHIN = 90.0
STOPPED_WITHIN = 90.0
STARTED = '"started"'
"""Stands in the line of the log by which a node says that it is up."""
ROOT = Path(__file__).parents[2]


@dataclass
class Reachable:
    """Where a node is, and clients for it."""

    deployment: Deployment

    @property
    def url(self) -> str:
        return self.deployment.bus_url

    @property
    def operations_url(self) -> str:
        return self.deployment.operations_url

    @property
    def bus_id(self) -> str:
        return self.deployment.bus

    def client(self, owner: str = "payroll", algorithm: str = "ES256", **options: Any) -> Client:
        """A client of an agency, or of an operator; ``async with`` it."""
        public = self.deployment.bus_key().public
        given: dict[str, Any] = {
            "bus": self.bus_id,
            "agency": owner,
            "key": self.deployment.key(owner, algorithm),
            "bus_keys": {public.kid: public},
            "operations_url": self.operations_url,
        }
        return Client(self.url, **(given | options))

    def operator(self, owner: str = "olive", **options: Any) -> Client:
        """A client for ``admin`` calls."""
        return self.client(owner, **options)


class RunningNode(Reachable):
    """A node in a process of its own; ``log`` holds the last lines that it wrote."""

    def __init__(
        self,
        deployment: Deployment,
        command: Sequence[str | Path] | None = None,
        environment: Mapping[str, str] | None = None,
        ready: bool = True,
        held: Sequence[int] = (),
    ) -> None:
        """``ready``: it counts as started when it is ready, and not before. ``held``: descriptors that it is given."""
        super().__init__(deployment)
        self._wanted_ready, self._held = ready, held
        self.log: deque[str] = deque(maxlen=1_000)
        self._command = [str(part) for part in command or (GSB, "serve", deployment.folder)]
        self._environment = dict(environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "the node was not started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    async def start(self) -> None:
        """Raises RuntimeError with what the node wrote if it ends, or is not ready within the time."""
        started = asyncio.Event()
        paths = [str(ROOT), str(SITE), os.environ.get("PYTHONPATH", "")]
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=self._held,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **self._environment},
        )
        self._reading = asyncio.create_task(self._read(started))
        try:
            async with asyncio.timeout(READY_WITHIN):
                await started.wait()
                if self._wanted_ready:
                    await self._ready()
        except (TimeoutError, aiohttp.ClientError) as error:
            await self.kill()
            raise RuntimeError("the node did not start:\n" + "\n".join(self.log)) from error
        except BaseException:
            await self.kill()
            raise

    async def _ready(self) -> None:
        """Whoever stood still since it said that it was up may have to catch up with its log first."""
        async with aiohttp.ClientSession() as session:
            while True:
                async with session.get(f"{self.operations_url}/readyz") as answer:
                    if answer.status == 200 or self.process.returncode is not None:
                        return answer.raise_for_status()
                await asyncio.sleep(0.05)

    async def _read(self, started: asyncio.Event) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self.log.append(line.decode(errors="replace").rstrip())
            if STARTED in self.log[-1]:
                started.set()
        await self.process.wait()
        started.set()

    async def kill(self) -> None:
        """SIGKILL, unless it has ended; reaped in any case."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.ended()

    async def ended(self) -> int:
        """The exit status, once the process is reaped and all that it wrote is read."""
        status = await self.process.wait()
        if self._reading is not None:
            await self._reading
        return status

    async def stop(self) -> None:
        """SIGTERM; raises AssertionError if it does not drain and exit 0 within the time."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOPPED_WITHIN):
                status = await self.ended()
        except BaseException:
            await self.kill()
            raise
        assert status == 0, f"the node exited {status}:\n" + "\n".join(self.log)


@asynccontextmanager
async def running_node(
    tmp_path: Path, deployment: Deployment | None = None, **options: Any
) -> AsyncIterator[RunningNode]:
    """A node of its own process, by ``gsb serve`` unless ``command`` says otherwise; ``environment`` is added to its.

    If the body has ended it (``kill``, or its own SIGTERM) nothing is asserted about its exit.
    """
    deployment = deployment or standard(tmp_path)
    deployment.write()
    node = RunningNode(deployment, **options)
    await node.start()
    try:
        yield node
    except BaseException:
        await node.kill()
        raise
    if node.process.returncode is None:
        await node.stop()


@dataclass
class InProcess(Reachable):
    """A node in the test's own event loop, so that a test can reach into it."""

    node: Node


@asynccontextmanager
async def node_in_process(
    tmp_path: Path,
    deployment: Deployment | None = None,
    *,
    make_store: Callable[[Catalogue], Store] | None = None,
) -> AsyncIterator[InProcess]:
    """A node in this event loop; cheap, and open to the test as ``.node``."""
    deployment = deployment or standard(tmp_path)
    node = Node(deployment.write(), make_store=make_store)
    await node.start()
    try:
        yield InProcess(deployment, node)
    finally:
        await node.stop()
