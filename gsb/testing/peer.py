"""The core system of the contract suite: a real server on loopback that plays cassettes, or misbehaves as it is told.

It listens on one port for as long as it lives, but while it is ``DOWN``; each mood is one way in which systems fail. It
speaks as much HTTP/1.1 (RFC 9112) as it takes to be asked and to answer. Of other protocols it knows nothing: there it
stands in front of a program of the adapter's own that does, and breaks what that says.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from gsb.testing.cassette import Played, Tape

SLICES = 10
"""In which a barrier lingers: a machine that stands still takes one of them, and whoever was on the way still comes."""
WISH = 7
"""Seconds for which a throttled adapter is asked to wait."""
HUNG_UP = (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError)
START, END = 30.0, 5.0
"""Seconds that a program has to say where it listens, and to end, on a machine that does many other things."""
VOLATILE = frozenset({"traceparent", "host", "content-length", "connection", "accept-encoding"})
"""Headers that say nothing of what is asked."""


class Mood(Enum):
    """How it answers."""

    PLAY = "as the cassettes say"
    SILENT = "not at all"
    TRICKLE = "a byte now and then"
    CUT = "by hanging up after the whole request"
    HALF = "with half an answer, then with the end of it"
    NOISE = "with bytes that are no HTTP"
    SAY = "with what it is told to say"


class Seen(NamedTuple):
    """One request, as far as it matters."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    content: bytes

    @property
    def writes(self) -> bool:
        return self.method not in {"GET", "HEAD", "OPTIONS"}


@dataclass
class Barrier:
    """Holds every answer back until so many requests are there at once, then a little longer for more to come."""

    count: int
    there: int = 0
    most: int = 0
    patience: float = 3.0
    lingering: float = 0.1

    def __post_init__(self) -> None:
        self._full = asyncio.Event()

    async def wait(self) -> None:
        self.there += 1
        self.most = max(self.most, self.there)
        if self.there >= self.count:
            self._full.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.patience):
                await self._full.wait()
                for _ in range(SLICES):
                    await asyncio.sleep(self.lingering / SLICES)
        self.there -= 1


class Peer:
    """One system. Give it a ``mood``, and a ``tape`` to play. A ``raw`` one speaks no HTTP: whatever comes in first is
    what it was asked, and it can only misbehave. One that stands before the program that listens at ``behind`` passes
    everything on, and in any mood but ``PLAY`` only the first ``most`` bytes of what the program says."""

    def __init__(self, *, raw: bool = False, behind: int | None = None) -> None:
        self._raw = raw
        self._behind = behind
        self.most = 0
        self.said_bytes = 0
        """How many of the program's bytes were passed on."""
        self.mood = Mood.PLAY
        self.tape = Tape(())
        self.said = Played(method="GET", path="/")
        """What it says in the mood ``SAY``."""
        self.seen: list[Seen] = []
        self.bytes = 0
        """How much came in, requests or not."""
        self.asked = asyncio.Event()
        """Set by each request; clear it before waiting for one."""
        self.barrier: Barrier | None = None
        self.plays = 0
        """After how many more requests that it plays it is in the mood ``then``, or gone if that is None; 0: never."""
        self.then: Mood | None = None
        self.port = 0
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def up(self) -> None:
        """Listen, at the same port as before."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Be gone: nothing listens, and every connection is closed."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.ensure_future(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)
        try:
            await talk
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        act = self._noise if self.mood is Mood.NOISE else self._exchange if self._behind is None else self._relay
        with suppress(*HUNG_UP):
            while await act(reader, writer):
                await writer.drain()

    async def _noise(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.bytes += len(await reader.read(65_536))
        writer.write(b"\x00\x15\x03\x01garbage\r\n\xff\xfe" * 20)
        return False

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        ways = [
            asyncio.ensure_future(self._asked_of(reader, far_writer)),
            asyncio.ensure_future(self._said_by(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            far_writer.transport.abort()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        return False

    async def _asked_of(self, reader: asyncio.StreamReader, far: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65_536):
            self.bytes += len(piece)
            self.asked.set()
            far.write(piece)
            await far.drain()

    async def _said_by(self, far: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await far.read(65_536):
            if self.mood is not Mood.PLAY:
                piece = piece[: max(0, self.most - self.said_bytes)]
            self.said_bytes += len(piece)
            writer.write(piece)
            await writer.drain()
            if self.mood is not Mood.PLAY and self.said_bytes >= self.most:
                break
        if self.mood is Mood.HALF:
            writer.write_eof()
        if self.mood in (Mood.HALF, Mood.SILENT):
            await asyncio.Event().wait()  # until whoever asked hangs up

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        seen = await self._read(reader)
        if self.barrier is not None:
            await self.barrier.wait()
        match self.mood:
            case Mood.SILENT:
                await reader.read()
            case Mood.TRICKLE:
                for byte in _written(Played(method="GET", path="/", answer_text="x" * 10_000)):
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.02)
            case Mood.HALF:
                writer.write(_written(self.said)[:-1])
                writer.write_eof()
                await reader.read()
            case Mood.SAY:
                writer.write(_written(self.said))
                return True
            case Mood.PLAY:
                call = self.tape.play(seen.method, seen.path, seen.content)
                absent = Played(method="GET", path="/", status=404, answer_text="no cassette holds this call")
                self._turn()
                writer.write(_written(call or absent))
                return self._server is not None
        return False

    def _turn(self) -> None:
        """One of the requests that it plays before it turns."""
        if self.plays == 0:
            return
        self.plays -= 1
        if self.plays == 0 and self.then is not None:
            self.mood = self.then
        elif self.plays == 0 and self._server is not None:
            self._server.close()
            self._server = None

    async def _read(self, reader: asyncio.StreamReader) -> Seen:
        if self._raw:
            content = await reader.read(65_536)
            self.bytes += len(content)
            self.asked.set()
            return Seen("", "", (), content)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        content = await reader.readexactly(int(headers.get("content-length", "0")))
        told = tuple(sorted((name, value) for name, value in headers.items() if name and name not in VOLATILE))
        seen = Seen(method, path, told, content)
        self.bytes += len(head) + len(content)
        self.seen.append(seen)
        self.asked.set()
        return seen


def _written(call: Played) -> bytes:
    body = call.body
    kind = "text/plain" if call.answer_text is not None else "application/json"
    headers = {"Content-Type": kind} | dict(call.headers) | {"Content-Length": str(len(body))}
    lines = [f"HTTP/1.1 {call.status} Played", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


@asynccontextmanager
async def peering(*, raw: bool = False, behind: int | None = None) -> AsyncIterator[Peer]:
    """A peer that is up, and gone in the end."""
    peer = Peer(raw=raw, behind=behind)
    await peer.up()
    try:
        yield peer
    finally:
        await peer.down()


@asynccontextmanager
async def program(path: Path) -> AsyncIterator[int]:
    """The port where this Python program listens, started in its own folder: its first line says it. It must end when
    its standard input does. Raises ValueError if it says no port."""
    running = await asyncio.create_subprocess_exec(sys.executable, path.name, cwd=path.parent, stdin=PIPE, stdout=PIPE)
    if running.stdin is None or running.stdout is None:
        raise ValueError("it has no standard input and output")
    try:
        async with asyncio.timeout(START):
            line = await running.stdout.readline()
        yield int(line)
    finally:
        running.stdin.close()
        try:
            async with asyncio.timeout(END):
                await running.wait()
        except TimeoutError:
            running.kill()
            await running.wait()
