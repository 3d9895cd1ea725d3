"""The core system of the contract suite: a real server on loopback that plays cassettes, or misbehaves as it is told.

It listens on one port for as long as it lives, but while it is ``DOWN``; each mood is one way in which systems fail. It
speaks as much HTTP/1.1 (RFC 9112) as it takes to be asked and to answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from gsb.testing.cassette import Played, Tape

WISH = 7
"""Seconds for which a throttled adapter is asked to wait."""
HUNG_UP = (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, ValueError)
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
                await asyncio.sleep(self.lingering)
        self.there -= 1


class Peer:
    """One system. Give it a ``mood``, and a ``tape`` to play. A ``raw`` one speaks no HTTP: whatever comes in first is
    what it was asked, and it can only misbehave."""

    def __init__(self, *, raw: bool = False) -> None:
        self._raw = raw
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
        act = self._noise if self.mood is Mood.NOISE else self._exchange
        with suppress(*HUNG_UP):
            while await act(reader, writer):
                await writer.drain()

    async def _noise(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        self.bytes += len(await reader.read(65_536))
        writer.write(b"\x00\x15\x03\x01garbage\r\n\xff\xfe" * 20)
        return False

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
                writer.write(_written(call or absent))
                return True
        return False

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
async def peering(*, raw: bool = False) -> AsyncIterator[Peer]:
    """A peer that is up, and gone in the end."""
    peer = Peer(raw=raw)
    await peer.up()
    try:
        yield peer
    finally:
        await peer.down()
