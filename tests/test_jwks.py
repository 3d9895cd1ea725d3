"""Documents of others, read from a real server with care: which addresses, what is read of them, and which keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from gsb import fetch as fetching
from gsb import jwk
from gsb.fetch import Unread, allowed, fetch
from gsb.jwk import KeyUnfit, read_set
from tests.support.keyserver import NETWORKS, KeyServer, jwk_set, key_server

WITHIN = 30.0


def new() -> jwk.PrivateKey:
    return jwk.read_private(jwk.generate("ES256"))


OURS, NEXT = new(), new()


# --- which addresses


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *(
            "255.255.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "240.0.0.1",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
        ),
        *("ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),
        *("2001:db8::1", "2002:7f00:1::", "2001:0:7f00:1::", "100::1", "fec0::1", "4000::1"),
    ],
)
def test_no_address_that_is_not_public_is_connected_to(address: str) -> None:
    assert not allowed(ip_address(address), [])


@pytest.mark.parametrize("address", ["1.1.1.1", "::ffff:1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are(address: str) -> None:
    assert allowed(ip_address(address), [])


def test_what_is_named_is_allowed_in_every_form() -> None:
    networks = [ip_network("10.20.0.0/16"), ip_network("fd00:20::/32")]
    assert all(allowed(ip_address(each), networks) for each in ("10.20.1.1", "::ffff:10.20.1.1", "fd00:20::1"))
    assert not any(allowed(ip_address(each), networks) for each in ("10.21.1.1", "::ffff:10.21.1.1", "fd00:21::1"))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"])
async def test_an_address_is_judged_when_a_connection_is_made(tmp_path: Path, host: str) -> None:
    """Whatever the name stood for before: it is the address of the connection that counts."""
    async with key_server(tmp_path, jwk_set(OURS.public)) as server:
        with pytest.raises(Unread, match="neither a public address nor in its networks"):
            await fetch(f"https://{host}:{server.port}/jwks.json", ca=server.ca, etag=None)
        assert server.asked == []


# --- what is read


async def read(server: KeyServer, etag: str | None = None) -> fetching.Document:
    return await fetch(server.url, networks=[ip_network(each) for each in NETWORKS], ca=server.ca, etag=etag)


async def test_a_document_is_read_and_asked_for_again_by_its_tag(tmp_path: Path) -> None:
    async with key_server(tmp_path, jwk_set(OURS.public)) as server:
        server.headers = {"ETag": 'W/"1"', "Cache-Control": "public, max-age=120"}
        assert await read(server) == (server.body, 'W/"1"', 120.0)
        assert await read(server, 'W/"1"') == (None, 'W/"1"', 120.0)
        assert server.asked == [None, 'W/"1"']


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("no-cache", 0.0),
        ("max-age=60, no-store", 0.0),
        ("s-maxage=5", None),
        ('max-age="7"', 7.0),
        ("", None),
        ("x", None),
    ],
)
async def test_how_long_it_is_fresh(tmp_path: Path, said: str, seconds: float | None) -> None:
    async with key_server(tmp_path, b"{}") as server:
        server.headers = {"Cache-Control": said}
        assert (await read(server)).max_age == seconds


def body(data: bytes, **headers: str) -> Callable[[web.Request], Any]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(body=data, headers=headers)

    return answer


async def chunked(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(100):
        await response.write(b" " * 1_000)
    return response


async def moved(request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("/elsewhere")


async def never(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"{")
    await asyncio.sleep(WITHIN)
    return response


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (body(b" " * 65_537), "it has more than 65,536 bytes"),
        (chunked, "it has more than 65,536 bytes"),
        (moved, "it answers 302"),
        (body(b"x", **{"Content-Encoding": "gzip"}), "it comes compressed, though that was not asked for"),
        (never, "it was not read within 0.5 s"),
    ],
)
async def test_what_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: Callable[[web.Request], Any], expected: str
) -> None:
    if answers is never:
        monkeypatch.setattr(fetching, "WITHIN", 0.5)
    async with key_server(tmp_path, b"") as server:
        server.answers = answers
        with pytest.raises(Unread) as unread:
            await read(server)
        assert str(unread.value) == expected
        # Half a second may be over before the question has come.
        assert len(server.asked) == 1 or answers is never


async def test_the_largest_document_is_read(tmp_path: Path) -> None:
    async with key_server(tmp_path, b" " * 65_536) as server:
        assert (await read(server)).body == server.body


async def test_a_server_that_is_not_verified_is_not_asked(tmp_path: Path) -> None:
    async with key_server(tmp_path, b"{}") as server:
        networks = [ip_network(each) for each in NETWORKS]
        for ca, host in ((None, "localhost"), (server.ca, "127.0.0.1")):
            with pytest.raises(Unread, match="certificate"):
                await fetch(f"https://{host}:{server.port}/", networks=networks, ca=ca, etag=None)
        assert server.asked == []


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    async with key_server(tmp_path, b"") as server:
        pass
    with pytest.raises(Unread, match="ClientConnectorError"):
        await read(server)


def test_keys_that_are_not_fit_are_left_out_and_said() -> None:
    private = orjson.loads(jwk.generate("ES256"))
    unfit = [
        private,
        {"kty": "oct", "k": "AAAA"},
        OURS.public.jwk | {"kid": "main"},
        OURS.public.jwk | {"use": "enc"},
        7,
    ]
    keys, left_out = read_set(orjson.dumps({"keys": [*unfit, NEXT.public.jwk]}))
    assert (list(keys), [each.partition(":")[0] for each in left_out]) == ([NEXT.kid], [f"keys.{n}" for n in range(5)])
    assert private["d"] not in "".join(left_out)
    assert read_set(b'{"keys": []}') == ({}, [])


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": [], "keys": []}',
        b'{"keys": [{"kty": "oct", "k": "AAAA"}]}',
        orjson.dumps({"keys": [OURS.public.jwk] * 17}),
    ],
)
def test_what_is_no_key_set_changes_nothing(document: bytes) -> None:
    with pytest.raises(KeyUnfit):
        read_set(document)
