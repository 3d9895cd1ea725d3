"""The adapters' HTTP client against real sockets: what it says was sent, and what it refuses to read."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from gsb.sdk import Broken, Http, HttpReply, Unavailable
from gsb.telemetry import child_trace, trace
from tests.support.certificates import certificate
from tests.support.deployment import free_ports
from tests.support.sockets import answering, http, listening, read_request


@pytest.fixture
async def client() -> AsyncIterator[Http]:
    async with Http(5.0, limit=100_000) as client:
        yield client


# --- was it sent?


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
async def test_a_refused_connection_sent_nothing(client: Http, method: str) -> None:
    (port,) = free_ports(1)
    with pytest.raises(Unavailable) as raised:
        await client.request(method, f"http://127.0.0.1:{port}/")
    assert raised.value.sent is False


async def test_a_handshake_that_never_ends_sent_nothing() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with listening(silent) as server, Http(0.4) as client:
        with pytest.raises(Unavailable, match="ConnectionTimeout") as raised:
            await client.request("POST", f"https://127.0.0.1:{server.port}/", json={})
    assert raised.value.sent is False


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
async def test_a_reset_may_have_been_sent_and_is_not_repeated(client: Http, method: str) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.requests.append(await read_request(reader))
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with listening(reset) as server:
        with pytest.raises(Unavailable) as raised:
            await client.request(method, server.url + "/")
    assert raised.value.sent is True
    if method != "GET":  # a safe request may be sent again
        assert len(server.requests) == 1


async def test_a_half_closed_connection_may_have_been_sent(client: Http) -> None:
    async def half_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.requests.append(await read_request(reader))
        writer.write_eof()
        await reader.read()

    async with listening(half_close) as server:
        with pytest.raises(Unavailable) as raised:
            await client.request("PUT", server.url + "/", json={"a": 1})
    assert raised.value.sent is True
    assert len(server.requests) == 1


async def test_a_system_that_does_not_answer_may_have_been_sent() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.requests.append(await read_request(reader))
        await reader.read()

    async with listening(silent) as server, Http(0.3) as client:
        with pytest.raises(Unavailable) as raised:
            await client.request("POST", server.url + "/", json={})
    assert raised.value.sent is True
    assert len(server.requests) == 1


async def test_an_answer_that_breaks_off_may_have_been_sent(client: Http) -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this") as server:
        with pytest.raises(Unavailable) as raised:
            await client.request("POST", server.url + "/", json={})
    assert raised.value.sent is True


async def test_a_request_that_may_act_has_a_connection_of_its_own(client: Http) -> None:
    async with answering(http(b"{}"), close=False) as server:
        await client.request("GET", server.url + "/")
        await client.request("GET", server.url + "/")
        assert server.connections == 1
        await client.request("POST", server.url + "/", json={})
        await client.request("POST", server.url + "/", json={})
        assert server.connections == 3


# --- answers that make no sense


@pytest.mark.parametrize(
    "answer",
    [
        b"HELLO I AM NOT HTTP\r\n\r\n",
        b"HTTP/1.1 banana OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        http(b"not gzip at all", "200 OK", "Content-Encoding: gzip"),
        http(b"", "302 Found", "Location: http://127.0.0.1:1/"),
        http(b"", "307 Temporary Redirect", "Location: /elsewhere"),
    ],
    ids=["not-http", "status", "length", "header", "gzip", "302", "307"],
)
async def test_what_is_not_an_answer_is_broken(client: Http, answer: bytes) -> None:
    async with answering(answer) as server:
        with pytest.raises(Broken):
            await client.request("POST", server.url + "/", json={})
    assert len(server.requests) == 1


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
async def test_a_body_is_read_up_to_the_limit(client: Http, packed: bool) -> None:
    headers = ["Content-Encoding: gzip"] if packed else []
    fits, exceeds = (b"x" * size for size in (100_000, 100_001))
    for body in (fits, exceeds):
        sent = gzip.compress(body) if packed else body
        async with answering(http(sent, "200 OK", *headers)) as server:
            if body is fits:
                assert (await client.request("GET", server.url + "/")).body == body
            else:
                with pytest.raises(Broken, match="larger"):
                    await client.request("GET", server.url + "/")


async def test_any_status_is_an_answer(client: Http) -> None:
    for status in (200, 204, 404, 429, 500, 503):
        body = b"" if status == 204 else b"why"
        async with answering(http(body, f"{status} Something")) as server:
            reply = await client.request("GET", server.url + "/")
        assert (reply.status, reply.body) == (status, body)


# --- what goes out


async def test_the_request_goes_out_as_given(client: Http) -> None:
    async with answering(http(b"{}")) as server:
        await client.request(
            "POST",
            server.url + "/a%2Fb/../c",
            json={"amount": Decimal("1234.50"), "name": "Aïcha"},
            headers={"If-None-Match": "*"},
            params={"q": "a&b=c/d", "n": 5},
        )
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /a%2Fb/../c?q=a%26b%3Dc%2Fd&n=5 HTTP/1.1"
    assert "If-None-Match: *" in lines
    assert "Content-Type: application/json" in lines
    assert json.loads(body, parse_float=Decimal) == {"amount": Decimal("1234.5"), "name": "Aïcha"}


async def test_bytes_go_out_unchanged(client: Http) -> None:
    async with answering(http()) as server:
        await client.request("PUT", server.url + "/", data=b"\x00\xff", headers={"Content-Type": "image/x"})
    assert server.requests[0].endswith(b"\r\n\r\n\x00\xff")


async def test_the_trace_goes_on(client: Http) -> None:
    parent = child_trace(None)
    async with answering(http()) as server:
        await client.request("GET", server.url + "/")
        token = trace.set(parent)
        await client.request("GET", server.url + "/")
        trace.reset(token)
    assert b"traceparent" not in server.requests[0]
    sent = next(line for line in server.requests[1].decode().split("\r\n") if line.startswith("traceparent: "))
    assert sent.removeprefix("traceparent: ")[:36] == parent[:36]
    assert sent.removeprefix("traceparent: ") != parent


async def test_no_proxy_is_taken_from_the_environment(client: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    async with answering(http(b"here")) as server:
        assert (await client.request("GET", server.url + "/")).body == b"here"


async def test_no_cookie_is_kept(client: Http) -> None:
    async with answering(http(b"", "200 OK", "Set-Cookie: session=1")) as server:
        await client.request("GET", server.url + "/")
        await client.request("GET", server.url + "/")
    assert not any(b"session" in request for request in server.requests)


@pytest.mark.parametrize("url", ["/a b", "/é", "/a\r\nX: 1", "/\x7f"])
async def test_a_url_that_was_not_encoded_is_not_sent(client: Http, url: str) -> None:
    async with answering(http()) as server:
        with pytest.raises(Broken):
            await client.request("GET", server.url + url)
    assert server.connections == 0


@pytest.mark.parametrize("value", [Decimal("0.12345678901234567890"), {1, 2}, float], ids=str)
async def test_what_json_cannot_say_exactly_is_not_sent(client: Http, value: object) -> None:
    async with answering(http()) as server:
        with pytest.raises(Broken):
            await client.request("POST", server.url + "/", json={"value": value})
    assert server.connections == 0


async def test_a_header_cannot_smuggle_another(client: Http) -> None:
    async with answering(http()) as server:
        with pytest.raises(Broken):
            await client.request("GET", server.url + "/", headers={"A": "b\r\nC: d"})
    assert server.requests == []


# --- reading a reply


def reply(body: bytes, **headers: str) -> HttpReply:
    return HttpReply(200, headers, body)


def test_numbers_with_a_fraction_are_decimals() -> None:
    value = reply(b'{"a": 0.1, "b": 630.0, "c": 7, "d": 1e2}').json()
    assert value == {"a": Decimal("0.1"), "b": Decimal("630.0"), "c": 7, "d": Decimal("1e2")}
    assert [type(each) for each in value.values()] == [Decimal, Decimal, int, Decimal]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{", b'{"a": NaN}', b"[Infinity]", b'"\xff"', b"[" * 100_000], ids=lambda b: b[:10]
)
def test_what_is_not_json_is_broken(body: bytes) -> None:
    with pytest.raises(Broken):
        reply(body).json()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("Sun, 06 Nov 1994 08:50:07 GMT", 30.0),
        ("Sunday, 06-Nov-94 08:50:07 GMT", 30.0),
        ("Sun, 06 Nov 1994 08:49:07 GMT", 0.0),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("٣", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    now = dt.datetime(1994, 11, 6, 8, 49, 37, tzinfo=dt.UTC).timestamp()
    assert HttpReply(503, {"Retry-After": value}, b"").after(now=now) == seconds


def test_without_retry_after_there_is_no_wish() -> None:
    assert reply(b"").after() is None
    assert HttpReply(200, {"Backoff": "7"}, b"").after("Backoff") == 7.0


# --- TLS


async def test_tls_with_an_authority_and_a_client_certificate(tmp_path: Path) -> None:
    authority, stranger = certificate(tmp_path, "authority"), certificate(tmp_path, "stranger")
    served, shown = (certificate(tmp_path, name, "authority") for name in ("localhost", "bus"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served)
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    async with answering(http(b"hello"), tls=context) as server:
        url = f"https://localhost:{server.port}/"
        async with Http(5.0) as client:
            client.use_tls(authority=authority, certificate=shown)
            assert (await client.request("POST", url, json={})).body == b"hello"
        async with Http(5.0) as client:
            client.use_tls(authority=stranger, certificate=shown)
            with pytest.raises(Unavailable) as raised:
                await client.request("POST", url, json={})
            assert raised.value.sent is False
        async with Http(5.0) as client:
            client.use_tls(authority=authority)
            with pytest.raises(Unavailable):
                await client.request("POST", url, json={})
    assert len(server.requests) == 1


async def test_unreadable_tls_files_are_told_at_once(tmp_path: Path) -> None:
    async with Http(5.0) as client:
        with pytest.raises(OSError, match="No such file"):
            client.use_tls(authority=tmp_path / "none.pem")
