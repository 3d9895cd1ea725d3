"""A server as an agency runs it: it publishes a key set over TLS, on loopback, and does what the test wants instead.

async with key_server(tmp_path, jwk_set(key)) as server:
    deployment.agency("audit-office", keys=[], jwks=server.table())
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from gsb.jwk import PublicKey
from tests.support.certificates import certificate
from tests.support.deployment import free_ports

NETWORKS = ["127.0.0.0/8", "::1/128"]


def jwk_set(*keys: PublicKey) -> bytes:
    return orjson.dumps({"keys": [key.jwk for key in keys]})


@dataclass
class KeyServer:
    body: bytes
    ca: Path
    port: int
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    asked: list[str | None] = field(default_factory=list)
    """The If-None-Match of each request."""
    answers: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    """What is done instead."""
    seen: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/jwks.json"

    def table(self, **more: Any) -> dict[str, Any]:
        return {"url": self.url, "ca": str(self.ca), "networks": NETWORKS} | more

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.headers.get("If-None-Match"))
        self.seen.set()
        if self.answers is not None:
            return await self.answers(request)
        if self.asked[-1] is not None and self.asked[-1] == self.headers.get("ETag"):
            return web.Response(status=304, headers=self.headers)
        return web.Response(body=self.body, status=self.status, headers=self.headers)


@asynccontextmanager
async def key_server(folder: Path, body: bytes, port: int | None = None) -> AsyncIterator[KeyServer]:
    """With a certificate for localhost, by an authority of its own."""
    if not (folder / "ca.pem").exists():
        certificate(folder, "ca")
        certificate(folder, "localhost", "ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "localhost.pem")
    server = KeyServer(body, folder / "ca.pem", port or free_ports(1)[0])
    app = web.Application()
    app.router.add_get("/{any:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "localhost", server.port, ssl_context=context).start()
    try:
        yield server
    finally:
        await runner.cleanup()
