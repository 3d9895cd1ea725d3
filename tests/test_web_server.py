"""What the edge's server does with calls that come slowly, in pieces or not at all: it keeps no place for them."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import orjson
import pytest

from gsb import jws
from gsb.web.server import read_wait
from tests.support.bus import PERSON_BODY, READ
from tests.support.certificates import certificate
from tests.support.deployment import BUS, standard
from tests.support.node import InProcess, node_in_process

POST = f"POST /services/{READ} HTTP/1.1\r\nHost: x\r\n".encode()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[InProcess]:
    """A node that takes one call at a time."""
    deployment = standard(tmp_path)
    deployment.gsb["limits"]["in_flight"] = 1
    async with node_in_process(tmp_path, deployment) as node:
        yield node


async def answered(node: InProcess, data: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to these bytes; 0 if there is none before the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.deployment.port)
    writer.write(data)
    async with asyncio.timeout(90):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


async def holds(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(90):
        while not condition():  # noqa: ASYNC110 - the bus has no reason to tell a test of it
            await asyncio.sleep(0)


LISTING = b"GET /services HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def test_a_body_that_is_still_to_come_has_its_place(node: InProcess) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", node.deployment.port)
    writer.write(POST + b"Content-Length: 100\r\n\r\n{")
    await holds(lambda: node.node.api.in_flight == 1)
    assert (await answered(node, LISTING))[0] == 503
    writer.close()
    await holds(lambda: node.node.api.in_flight == 0)
    assert (await answered(node, LISTING))[0] == 200


async def test_a_body_that_does_not_come_gives_its_place_away(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.gsb["limits"] |= {"in_flight": 1, "body_within": 0.5}
    async with node_in_process(tmp_path, deployment) as node:
        status, body = await answered(node, POST + b"Content-Length: 100\r\n\r\n{")
        assert (status, orjson.loads(body)["code"]) == (408, "request_too_slow")
        assert (await answered(node, LISTING))[0] == 200


@pytest.mark.parametrize("begun", [b"", b"GET /services HTTP/1.1\r\nHost"])
async def test_a_head_that_does_not_come_is_answered_and_closed(tmp_path: Path, begun: bytes) -> None:
    deployment = standard(tmp_path)
    deployment.gsb["limits"]["header_within"] = 0.2
    async with node_in_process(tmp_path, deployment) as node:
        status, body = await answered(node, begun)
        assert (status, orjson.loads(body)["code"]) == (408, "request_too_slow")
        # The second request of a connection has its own time, and a byte now and then does not stretch it.
        reader, writer = await asyncio.open_connection("127.0.0.1", node.deployment.port)
        writer.write(b"GET /services HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).split()[1] == b"200"
        dripping = asyncio.create_task(drip(writer, b"GET /services HTTP/1.1\r\n"))
        async with asyncio.timeout(90):
            assert b"HTTP/1.1 408 " in await reader.read()
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        writer.close()


async def drip(writer: asyncio.StreamWriter, begun: bytes) -> None:
    """A byte every twentieth of a second, for ever."""
    writer.write(begun + b"X: ")
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.05)


async def test_a_connection_without_requests_is_closed(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.gsb["limits"] |= {"idle": 0.2, "header_within": 20}
    async with node_in_process(tmp_path, deployment) as node:
        reader, writer = await asyncio.open_connection("127.0.0.1", node.deployment.port)
        writer.write(b"GET /services HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(90):
            assert (await reader.read()).count(b"HTTP/1.1") == 1
        writer.close()


async def test_connections_beyond_the_limit_are_told_so_and_closed(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.gsb["limits"]["connections"] = 2
    async with node_in_process(tmp_path, deployment) as node:
        opened = [await asyncio.open_connection("127.0.0.1", deployment.port) for _ in range(2)]
        listing = b"GET /services HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        for reader, writer in opened:  # they are there, not only on their way
            writer.write(listing.replace(b"Connection: close\r\n", b""))
            assert (await reader.readuntil(b"\r\n")).split()[1] == b"200"
        status, body = await answered(node, b"")
        assert (status, orjson.loads(body)["code"]) == (503, "busy")
        opened[0][1].close()
        await opened[0][1].wait_closed()
        async with asyncio.timeout(90):
            while (await answered(node, listing))[0] != 200:  # noqa: ASYNC110 - its end is noticed a moment later
                await asyncio.sleep(0)
        opened[1][1].close()


TRICKLE = b"GET /services HTTP/1.1\r\nHost: x\r\nX: "


@asynccontextmanager
async def connected(node: InProcess) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.deployment.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize(
    ("limits", "data", "answer"),
    [
        ({"header_within": 0.2}, TRICKLE, b"request_too_slow"),
        ({"connections": 1}, b"", b"busy"),
        ({}, TRICKLE + b"x" * 40_000, b"bad_request"),
        ({}, POST + b"Content-Length: 99999999\r\n\r\n{", b"body_too_large"),
        ({}, TRICKLE + b"\r\nConnection: close\r\n\r\n", b'"services"'),
    ],
)
async def test_a_connection_is_not_reset_while_the_caller_reads_the_last_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, float], data: bytes, answer: bytes
) -> None:
    """A kernel resets a connection that is closed over unread input, and what was answered may be lost with it."""
    monkeypatch.setattr("gsb.web.server.LINGER", 60.0)
    deployment = standard(tmp_path)
    deployment.gsb["limits"] |= limits
    async with node_in_process(tmp_path, deployment) as node, connected(node) as first, connected(node) as second:
        reader, writer = second if "connections" in limits else first
        writer.write(data)
        async with asyncio.timeout(90):
            assert answer in await reader.read()
        for _ in range(3):  # a write after a reset fails
            writer.write(b"x")
            await writer.drain()


async def sent_for_ever(writer: asyncio.StreamWriter, piece: bytes) -> None:
    """Raises ConnectionError once the other side does not listen any more."""
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)


@pytest.mark.parametrize("piece", [b"x", b"x" * 1_000_000])
async def test_a_caller_that_sends_on_after_the_last_answer_is_left_in_the_end(tmp_path: Path, piece: bytes) -> None:
    async with node_in_process(tmp_path) as node, connected(node) as (reader, writer), asyncio.timeout(90):
        writer.write(b"nonsense\r\n\r\n")
        assert b" 400 " in await reader.read()
        with pytest.raises(ConnectionError):
            await sent_for_ever(writer, piece)


async def test_over_tls_the_last_answer_is_read_too(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    pem = str(certificate(tmp_path, "localhost"))
    deployment.gsb["listen"]["tls"] = {"certificate": pem, "key": pem}
    deployment.gsb["limits"]["header_within"] = 0.2
    trusting = ssl.create_default_context(cafile=pem)
    async with node_in_process(tmp_path, deployment) as node, asyncio.timeout(90):
        port = node.deployment.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="localhost")
        dripping = asyncio.create_task(drip(writer, TRICKLE))
        assert b"request_too_slow" in await reader.read()
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        writer.close()


async def test_far_too_many_connections_are_not_kept_for_a_moment_longer(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.gsb["limits"]["connections"] = 1
    async with node_in_process(tmp_path, deployment) as node, connected(node), connected(node) as second:
        assert b"busy" in await second[0].read()
        async with connected(node) as (reader, writer):
            assert await reader.read()
            with pytest.raises(ConnectionError):
                await sent_for_ever(writer, b"x")


async def test_a_header_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.gsb["limits"]["header"] = 9_000
    async with node_in_process(tmp_path, deployment) as node:
        head = b"GET /services HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: "
        assert (await answered(node, head + b"x" * 8_900 + b"\r\n\r\n"))[0] == 200
        status, body = await answered(node, head + b"x" * 9_100 + b"\r\n\r\n")
        assert (status, orjson.loads(body)["code"]) == (400, "bad_request")


async def test_a_body_that_breaks_off_is_no_failure_of_the_bus(
    node: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    for rest in (b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n"):
        _, writer = await asyncio.open_connection("127.0.0.1", node.deployment.port)
        writer.write(POST + rest)
        await holds(lambda: node.node.api.in_flight == 1)
        writer.write(b"no chunk")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await holds(lambda: node.node.api.in_flight == 0)
    assert caplog.records == []


@pytest.mark.parametrize("trace", [b"\xff\xfe", b"00-" + b"a" * 9_000])
async def test_a_traceparent_that_is_none_is_not_kept(node: InProcess, trace: bytes) -> None:
    body = orjson.dumps(PERSON_BODY)
    token = jws.sign_request(
        node.deployment.key("payroll"),
        issuer="payroll",
        audience=BUS,
        method="POST",
        target_uri=f"{node.url}/services/{READ}",
        body=body,
        content_type="application/json",
        purpose="payroll",
        now=time.time(),
    )
    lines = f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    head = POST + f"{lines}GSB-Signature: {token}\r\ntraceparent: ".encode() + trace
    status, said = await answered(node, head + b"\r\n\r\n" + body)
    assert (status, orjson.loads(said)["name"]) == (200, "Ada")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("wait=3", 3),
        ("Wait = 3", 3),
        ('wait="3"', 3),
        ("wait=3; why=hurry", 3),
        ("handling=lenient, wait=3", 3),
        ("respond-async", 0),
        ("Respond-Async; soon", 0),
        ("respond-async, wait=3", 3),
        ("wait=-3", None),
        ("wait=3.5", None),
        ('wait="3', None),
        ("wait", None),
        ("await=3", None),
    ],
)
def test_preferences_are_read_in_every_form_that_they_may_have(header: str | None, seconds: float | None) -> None:
    assert read_wait(header) == seconds
