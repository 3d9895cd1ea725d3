"""What the edge's server does with calls that come slowly, in pieces or not at all: it keeps no place for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import orjson
import pytest

from gsb import jws
from gsb.web import server
from tests.support.bus import PERSON_BODY, READ
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
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


async def holds(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the bus has no reason to tell a test of it
            await asyncio.sleep(0)


async def test_a_body_that_does_not_come_gives_its_place_away(node: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "BODY_WITHIN", 0.2)
    waiting = asyncio.create_task(answered(node, POST + b"Content-Length: 100\r\n\r\n{"))
    await holds(lambda: node.node.api.in_flight == 1)
    listing = b"GET /services HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert (await answered(node, listing))[0] == 503
    status, body = await waiting
    assert (status, orjson.loads(body)["code"]) == (400, "bad_request")
    assert (await answered(node, listing))[0] == 200


async def test_a_connection_on_which_no_request_comes_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_WITHIN", 0.2)
    async with node_in_process(tmp_path) as node:
        for begun in (b"", b"GET /services HTTP/1.1\r\nHost"):
            assert await answered(node, begun) == (0, b"")


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
