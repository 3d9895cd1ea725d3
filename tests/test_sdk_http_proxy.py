"""The adapters' HTTP client through a proxy: real sockets again, and again precise about what was sent."""

from __future__ import annotations

import asyncio

import pytest

from gsb.sdk import Http, Unavailable
from gsb_adapters.http_json import HttpJson
from tests.support.adapters import opened, request
from tests.support.deployment import free_ports
from tests.support.sockets import answering, http, listening, read_request


async def test_a_plain_request_goes_to_the_proxy_with_its_whole_url() -> None:
    async with answering(http(b"{}")) as proxy, Http(5.0) as client:
        client.use_proxy(proxy.url)
        assert (await client.request("POST", "http://registry.example/a?b=1", json={})).status == 200
    assert proxy.requests[0].startswith(b"POST http://registry.example/a?b=1 HTTP/1.1\r\n")


@pytest.mark.parametrize("status", ["403 Forbidden", "502 Bad Gateway"])
async def test_a_proxy_that_makes_no_tunnel_sent_nothing(status: str) -> None:
    async with answering(http(b"", status)) as proxy, Http(5.0) as client:
        client.use_proxy(proxy.url)
        with pytest.raises(Unavailable, match=f"the proxy answered {status[:3]}") as raised:
            await client.request("POST", "https://registry.example/", json={})
    assert raised.value.sent is False
    assert proxy.requests[0].startswith(b"CONNECT registry.example:443 ")


async def test_a_proxy_that_is_down_sent_nothing() -> None:
    (port,) = free_ports(1)
    async with Http(5.0) as client:
        client.use_proxy(f"http://127.0.0.1:{port}")
        for url in ("http://registry.example/", "https://registry.example/"):
            with pytest.raises(Unavailable) as raised:
                await client.request("POST", url, json={})
            assert raised.value.sent is False


async def test_a_proxy_that_breaks_off_after_the_request_may_have_sent_it() -> None:
    async def broken_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        proxy.requests.append(await read_request(reader))

    async with listening(broken_off) as proxy, Http(5.0) as client:
        client.use_proxy(proxy.url)
        with pytest.raises(Unavailable) as raised:
            await client.request("POST", "http://registry.example/", json={})
    assert raised.value.sent is True
    assert len(proxy.requests) == 1


async def test_an_adapter_by_configuration_takes_the_proxy_of_its_settings() -> None:
    url, service = "http://registry.example", "registry/business/v1"
    async with (
        answering(http(b"{}")) as proxy,
        opened(HttpJson, {"url": url, "proxy": proxy.url}, {service: {"path": "/a"}}) as adapter,
    ):
        await adapter.handle(request(service, {}))
    assert proxy.requests[0].startswith(f"GET {url}/a ".encode())
