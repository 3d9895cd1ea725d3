"""Servers under measure: each a process of its own, held to one core, while the load comes from another.

Nothing is measured here. A crash leaves the benchmark's folder behind; the processes are ended by their ids as soon
as the benchmark ends, however it does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gsb.bench.load import Target, load
from gsb.bench.place import Place, lay_out
from gsb.bench.store import filesystem

IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
UP_WITHIN = 90.0
STOPPED_WITHIN = 40.0
LOOK = 0.05
"""Seconds between two looks whether a server takes connections."""
SERVE = ("-c", "import sys; from gsb.cli.main import main; sys.argv[0] = 'gsb'; main()", "serve")
"""What the command ``gsb serve`` runs, with this interpreter."""
_TICK = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one server did in one turn."""

    rate: float
    """Exchanges a second."""
    processor: float
    """Seconds of processor for each exchange, of all threads of the server."""
    p99: float
    """Seconds from sending to answer."""


class Server:
    """A running server; ``said`` is where its standard output goes, beside its log."""

    def __init__(self, url: str, process: asyncio.subprocess.Process, said: Path) -> None:
        self.url = url
        self.said = said
        self._process = process

    async def up(self) -> None:
        """Returns once it takes connections. Raises RuntimeError with its last lines when it does not."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        loop = asyncio.get_running_loop()
        end = loop.time() + UP_WITHIN
        while self._process.returncode is None and loop.time() < end:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(LOOK)
                continue
            writer.close()
            return
        raise RuntimeError(f"{self.url} did not come up:\n{self.said.with_suffix('.log').read_text('utf-8')[-2_000:]}")

    async def stop(self) -> None:
        """SIGTERM by its id, and SIGKILL if that does not end it."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOPPED_WITHIN):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def send(self, how: signal.Signals) -> None:
        """SIGSTOP halts it, SIGCONT lets it go on."""
        self._process.send_signal(how)

    def processor(self) -> float:
        """Seconds of processor that it has used; 0 where /proc does not tell."""
        stat = Path(f"/proc/{self._process.pid}/stat")
        if not stat.exists():
            return 0.0
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK

    def resident(self) -> int:
        """Bytes of its memory that are resident; only where there is /proc."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    async def turn(self, place: Place, service: str, in_flight: int, seconds: float) -> Turn:
        """Let it answer for so long."""
        before = self.processor()
        counted = await load(Target(place, self.url, service), in_flight=in_flight, seconds=seconds)
        used = self.processor() - before
        times = sorted(counted.times)
        return Turn(counted.answers / seconds, used / counted.answers, times[len(times) * 99 // 100])


class Servers:
    """Starts servers of one deployment on one core."""

    def __init__(self, place: Place, root: Path, stack: AsyncExitStack) -> None:
        self.place = place
        self._root = root
        self._stack = stack

    async def node(self) -> Server:
        """The bus, as ``gsb serve`` runs it."""
        return await self.start("node", self.place.url, *SERVE, str(self.place.folder))

    async def floor(self) -> Server:
        port = str(self.place.other)
        return await self.start(
            "floor", f"http://127.0.0.1:{port}", "-m", "gsb.bench.floor", str(self.place.folder), port
        )

    async def start(self, name: str, url: str, *arguments: str) -> Server:
        said = self._root / f"{name}.out"
        path = os.pathsep.join(filter(None, [str(self.place.site), os.environ.get("PYTHONPATH", "")]))
        with said.open("wb") as out, said.with_suffix(".log").open("wb") as log, _on_core(0):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
            )
        server = Server(url, process, said)
        self._stack.push_async_callback(server.stop)
        await server.up()
        return server


@asynccontextmanager
async def servers(folder: Path) -> AsyncIterator[Servers]:
    """A deployment in a new folder below ``folder``. What runs in the body runs on another core than its servers."""
    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gsb-bench-", dir=folder)))
        stack.enter_context(_on_core(-1))
        yield Servers(lay_out(root), root, stack)


@contextmanager
def _on_core(which: int) -> Iterator[None]:
    """Hold this thread, and whatever it starts, to one of the cores that it may use; where that can be done at all."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {_CORES[which]})
        yield
    finally:
        os.sched_setaffinity(0, before)


_CORES: Sequence[int] = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def on_disk(folder: Path | None) -> Path | None:
    """The folder to measure in, or None, having said why, for one in which no commit is durable."""
    folder = (folder or Path.cwd()).resolve()
    if (kind := filesystem(folder)) in IN_MEMORY:
        print(f"{folder} is on a {kind}: nothing written there is durable; name a folder on a disk", file=sys.stderr)
        return None
    return folder
