"""Settings of systems over HTTP, heeded by every adapter whose settings derive from them."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gsb.sdk import Adapter, HttpSettings, NoSettings, Reply, Request, Unavailable
from tests.support.adapters import opened, request
from tests.support.certificates import certificate
from tests.support.sockets import answering, http


class Plain(Adapter[HttpSettings, NoSettings]):
    Settings = HttpSettings

    async def handle(self, request: Request) -> Reply:
        answer = await self.context.http.request("POST", f"{self.context.settings.url}/a", json={})
        return Reply(answer.json())


class Opening(Plain):
    async def open(self) -> None:
        await super().open()


async def called(kind: type[Plain], folder: Path, **settings: Any) -> Reply:
    async with opened(kind, settings, {"a/b/v1": {}}, folder=folder) as adapter:
        return await adapter.handle(request("a/b/v1", {}))


@pytest.mark.parametrize("kind", [Plain, Opening])
async def test_certificates_of_the_settings_are_shown_and_asked_for(tmp_path: Path, kind: type[Plain]) -> None:
    authority = certificate(tmp_path, "authority")
    served = certificate(tmp_path, "localhost", "authority")
    certificate(tmp_path, "bus", "authority")
    certificate(tmp_path, "stranger")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served)
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    async with answering(http(b"[1]"), tls=context) as server:
        url = f"https://localhost:{server.port}"
        tls = {"authority": "authority.pem", "certificate": "bus.pem"}
        assert (await called(kind, tmp_path, url=url, tls=tls)).body == [1]
        for wrong in (tls | {"authority": "stranger.pem"}, {"authority": "authority.pem"}):
            with pytest.raises(Unavailable):
                await called(kind, tmp_path, url=url, tls=wrong)
    assert len(server.requests) == 1


async def test_the_proxy_of_the_settings_is_on_the_way(tmp_path: Path) -> None:
    async with answering(http(b"[2]")) as proxy:
        reply = await called(Plain, tmp_path, url="http://registry.example/base", proxy=proxy.url)
    assert reply.body == [2]
    assert proxy.requests[0].startswith(b"POST http://registry.example/base/a ")


async def test_a_file_that_is_no_certificate_is_told_when_the_adapter_opens(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    with pytest.raises(ssl.SSLError):
        await called(Plain, tmp_path, url="https://localhost:1", tls={"authority": "no.pem"})


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "ftp://a"},
        {"url": "http://a/"},
        {"url": "http://user@a"},
        {"url": "http://a?b"},
        {"url": "http://a", "proxy": "https://p"},
        {"url": "http://a", "proxy": "http://user:word@p"},
        {"url": "http://a", "tls": {"authority": "none.pem"}},
        {"url": "http://a", "tls": {"verify": False}},
    ],
    ids=str,
)
def test_what_cannot_be_such_settings_is_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HttpSettings.model_validate(settings, context={"folder": tmp_path})
