"""The network between two programs, as TCP proxies of the tests' own: cut, silenced, slowed and restored at will.

    with network() as net:
        wire = net.wire(("127.0.0.1", 5432))      # whoever connects to wire.port is connected to 5432
        wire.cut()                                # open connections are reset, new ones refused
        wire.hang()                               # nothing is refused, nothing arrives
        wire.deafen()                             # what is asked arrives, no answer does
        wire.slow(0.1)                            # every piece of a stream arrives so many seconds later
        wire.restore()

All wires of a network run in one thread of its own, so that they go on while the test is busy. What was on its way when
a wire fell silent arrives when it is restored, as it does when TCP sends again; what was on its way at a cut is lost.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

Address = tuple[str, int]
HOST = "127.0.0.1"
PIECE = 65_536
"""Bytes that are carried at once."""
PATIENCE = 60.0
"""Seconds within which the thread of a network does what it is told."""
_RESET = struct.pack("ii", 1, 0)
"""Lingering for no time: a socket closed like this resets its connection."""


class Wire:
    """One port that leads to one address. Its verbs return when they are done, and may be called from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, to: Address, port: int) -> None:
        self.port = port
        self.carried = 0
        """Bytes, both ways."""
        self._loop = loop
        self._to = to
        self._delay = 0.0
        self._there, self._back = asyncio.Event(), asyncio.Event()
        """Whether anything passes: from whoever connected, and to them."""
        self._flow(there=True, back=True)
        self._listening: socket.socket | None = None
        self._refusing: socket.socket | None = None
        self._untouched: set[socket.socket] = set()
        """Connections that were accepted and of which nothing was read yet."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._tasks)

    def cut(self) -> None:
        self._told(self._cut())

    def hang(self) -> None:
        self._told(self._set(there=False, back=False))

    def deafen(self) -> None:
        self._told(self._set(back=False))

    def slow(self, delay: float) -> None:
        self._told(self._set(delay=delay))

    def restore(self) -> None:
        self._told(self._set())

    def _told(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    # --- in the thread of the network

    async def listen(self) -> None:
        listening, self._refusing = self._refusing or _bound(self.port), None
        self.port = listening.getsockname()[1]
        listening.setblocking(False)
        listening.listen(256)
        self._listening = listening
        # Not asyncio's own server: what that one has accepted in the moment in which it is closed it never closes.
        self._loop.add_reader(listening, self._accept)

    async def close(self) -> None:
        await self._cut()
        if self._refusing is not None:
            self._refusing.close()

    async def _set(self, *, there: bool = True, back: bool = True, delay: float = 0.0) -> None:
        self._delay = delay
        self._flow(there=there, back=back)
        if self._listening is None:
            await self.listen()

    def _flow(self, *, there: bool, back: bool) -> None:
        for way, flows in ((self._there, there), (self._back, back)):
            if flows:
                way.set()
            else:
                way.clear()

    async def _cut(self) -> None:
        if self._listening is not None:
            self._loop.remove_reader(self._listening)
            self._listening.close()
            self._listening = None
            # A socket that is bound and does not listen refuses whoever comes, and keeps the port from others.
            self._refusing = _bound(self.port)
        for writer in self._open:
            _reset(writer)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._flow(there=True, back=True)

    def _accept(self) -> None:
        assert self._listening is not None
        try:
            connection, _ = self._listening.accept()
        except OSError:
            return  # whoever came has gone again
        connection.setblocking(False)
        self._untouched.add(connection)
        task = self._loop.create_task(self._carried(connection))
        self._tasks.add(task)
        task.add_done_callback(partial(self._over, connection))

    def _over(self, connection: socket.socket, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if connection in self._untouched:  # it was cut before its task had begun
            self._untouched.remove(connection)
            connection.close()

    async def _carried(self, connection: socket.socket) -> None:
        self._untouched.remove(connection)
        reader, writer = await asyncio.open_connection(sock=connection)
        self._open.add(writer)
        try:
            with suppress(OSError):
                await self._carry(reader, writer)
        finally:
            self._open.discard(writer)
            writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._there.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._to)
        except OSError:
            _reset(writer)
            raise
        self._open.add(far_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, far_writer, writer, self._there))
                both.create_task(self._pump(far_reader, writer, far_writer, self._back))
        finally:
            self._open.discard(far_writer)
            far_writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter, way: asyncio.Event
    ) -> None:
        """One direction, to its end; a connection that breaks on one side is reset on both."""
        try:
            while piece := await reader.read(PIECE):
                await self._passage(way)
                writer.write(piece)
                await writer.drain()
                self.carried += len(piece)
            await self._passage(way)
            writer.write_eof()
        except OSError:
            _reset(writer)
            _reset(back)

    async def _passage(self, way: asyncio.Event) -> None:
        """The one place where a piece waits."""
        if self._delay:
            await asyncio.sleep(self._delay)
        await way.wait()


class Network:
    """Wires, and the thread in which they run."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network")
        self._wires: list[Wire] = []

    def wire(self, to: Address, port: int = 0) -> Wire:
        """A wire to this address; its own port is any free one, unless it is given."""
        wire = Wire(self._loop, to, port)
        self._run(wire.listen())
        self._wires.append(wire)
        return wire

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        for wire in self._wires:
            self._run(wire.close())
        self._run(_others_ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)


@contextmanager
def network() -> Iterator[Network]:
    net = Network()
    net.start()
    try:
        yield net
    finally:
        net.stop()


async def _others_ended() -> None:
    """What is still being accepted, or closed, takes a few turns of the loop."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


def _bound(port: int) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind((HOST, port))
    return found


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once, so that the peer sees its connection reset."""
    if not writer.transport.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
