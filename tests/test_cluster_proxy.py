"""The tests' own network does what the fault tests believe of it, on real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from tests.cluster.proxy import Network, Wire, network
from tests.support.sockets import Listener, listening

DELAY = 0.2
WITHIN = 60.0
"""Seconds for whatever must happen, on a machine that is busy with other things."""


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.write(b"the end")


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture
async def server() -> AsyncIterator[Listener]:
    async with listening(echo) as found:
        yield found


@pytest.fixture
def wire(net: Network, server: Listener) -> Wire:
    return net.wire(("127.0.0.1", server.port))


class Caller:
    """One connection over the wire."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, line: bytes) -> None:
        self.writer.write(line)

    async def hear(self) -> bytes:
        async with asyncio.timeout(WITHIN):
            return await self.reader.readline()

    async def says(self, line: bytes) -> bytes:
        self.send(line)
        return await self.hear()


@pytest.fixture
async def caller(wire: Wire) -> AsyncIterator[Caller]:
    made = await call(wire)
    yield made
    made.writer.close()


async def call(wire: Wire) -> Caller:
    return Caller(*await asyncio.open_connection("127.0.0.1", wire.port))


async def test_what_is_sent_arrives_both_ways_to_its_end(wire: Wire, caller: Caller) -> None:
    assert await caller.says(b"hello\n") == b"hello\n"
    large = b"x" * 60_000 + b"\n"
    assert await caller.says(large) == large
    caller.writer.write_eof()
    assert await caller.reader.read() == b"the end"
    assert wire.carried == 2 * (6 + len(large)) + len(b"the end")


async def test_a_cut_resets_what_is_open_and_refuses_what_comes(wire: Wire, caller: Caller) -> None:
    assert await caller.says(b"hello\n") == b"hello\n"
    assert wire.connections == 1
    wire.cut()
    assert wire.connections == 0
    with pytest.raises(ConnectionResetError):
        await caller.hear()
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            await call(wire)
    wire.cut()
    wire.restore()
    again = await call(wire)
    assert await again.says(b"again\n") == b"again\n"
    again.writer.close()


async def test_a_silent_wire_refuses_nothing_and_delivers_when_it_is_restored(wire: Wire, caller: Caller) -> None:
    assert await caller.says(b"hello\n") == b"hello\n"
    wire.hang()
    other = await call(wire)
    caller.send(b"one\n")
    other.send(b"two\n")
    heard = [asyncio.create_task(each.hear()) for each in (caller, other)]
    done, _ = await asyncio.wait(heard, timeout=DELAY)
    assert not done
    wire.restore()
    assert await asyncio.gather(*heard) == [b"one\n", b"two\n"]
    other.writer.close()


async def test_a_deaf_wire_lets_questions_pass_and_no_answers(net: Network) -> None:
    heard = asyncio.Event()

    async def hearing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
            if line == b"two\n":
                heard.set()

    async with listening(hearing) as server:
        wire = net.wire(("127.0.0.1", server.port))
        caller = await call(wire)
        assert await caller.says(b"one\n") == b"one\n"
        wire.deafen()
        caller.send(b"two\n")
        async with asyncio.timeout(WITHIN):
            await heard.wait()
        answer = asyncio.create_task(caller.hear())
        done, _ = await asyncio.wait([answer], timeout=DELAY)
        assert not done
        wire.cut()
        with pytest.raises(ConnectionResetError):
            await answer


async def test_a_slow_wire_delays_every_piece_and_keeps_their_order(wire: Wire, caller: Caller) -> None:
    wire.slow(DELAY)
    began = time.monotonic()
    for line in (b"one\n", b"two\n", b"three\n"):
        assert await caller.says(line) == line
    assert time.monotonic() - began >= 6 * DELAY
    wire.restore()
    assert await caller.says(b"four\n") == b"four\n"


async def test_a_cut_ends_what_hangs_and_what_is_slow(wire: Wire, caller: Caller) -> None:
    wire.slow(3_600)
    caller.send(b"one\n")
    other = await call(wire)
    wire.hang()
    wire.cut()
    for each in (caller, other):
        with pytest.raises(ConnectionResetError):
            await each.hear()
    wire.restore()
    again = await call(wire)
    assert await again.says(b"again\n") == b"again\n"
    for each in (again, other):
        each.writer.close()


async def test_a_server_that_is_not_there_is_a_connection_that_breaks(net: Network) -> None:
    async with listening(echo) as gone:
        wire = net.wire(("127.0.0.1", gone.port))
    # The reset may be there before the connection is known to be made.
    with pytest.raises(ConnectionResetError):
        await (await call(wire)).says(b"hello\n")


async def test_whoever_comes_in_the_moment_of_a_cut_is_let_go(wire: Wire) -> None:
    for _ in range(100):
        coming = [asyncio.create_task(asyncio.open_connection("127.0.0.1", wire.port)) for _ in range(10)]
        await asyncio.to_thread(wire.cut)
        for came in await asyncio.gather(*coming, return_exceptions=True):
            if isinstance(came, BaseException):
                continue
            reader, writer = came
            async with asyncio.timeout(WITHIN):
                with suppress(OSError):
                    assert await reader.read() == b""
            writer.close()
        await asyncio.to_thread(wire.restore)
