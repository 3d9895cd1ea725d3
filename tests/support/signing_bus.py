"""A bus of a few lines for the clients' tests: it verifies requests and signs replies, and answers from a script.

It has no store, grants or exchanges: a script step says what is answered, and may answer wrongly on purpose.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from gsb import jwk, jws
from gsb.client import Client
from gsb.errors import KeyUnknown
from gsb.model import JSON_TYPE, PROBLEM_TYPE, Call, Signed

BUS = "bus.test"
AGENCY = "payroll"
EXCHANGE = "01999999-0000-7000-8000-000000000001"
ENTRY = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
KEY = jwk.read_private(jwk.generate("ES256"))
OTHER = jwk.read_private(jwk.generate("ES256"))
"""A key that is not the bus's."""
MINE = jwk.read_private(jwk.generate("Ed25519"))
"""The agency's."""
SERVICE = "registry/person/v1"


@dataclass
class Seen:
    """One request that verified, and how to answer it."""

    bus: SigningBus
    http: web.Request
    body: bytes
    signed: Signed

    def sign(self, facts: jws.ReplyFacts, *, key: jwk.PrivateKey = KEY, request_hash: str | None = None) -> str:
        return jws.sign_reply(
            key,
            issuer=BUS,
            audience=self.signed.issuer,
            request_jti=self.signed.jti,
            request_hash=request_hash or self.signed.request_hash,
            facts=facts,
            now=time.time(),
        )

    def answer(
        self, status: int, document: Any, *, headers: Mapping[str, str] | None = None, **facts: str
    ) -> web.Response:
        """A truthful answer: ``facts`` are exchange, state, effect, entry."""
        body = b"" if document is None else orjson.dumps(document)
        kind = None if document is None else PROBLEM_TYPE if status >= 400 else JSON_TYPE
        stated: dict[str, str | None] = {"exchange": None, "state": None, "effect": None, "entry": None}
        token = self.sign(jws.ReplyFacts(status=status, body=body, content_type=kind, **{**stated, **facts}))
        sent = {"GSB-Signature": token, **(headers or {})}
        if kind is not None:
            sent["Content-Type"] = kind
        return web.Response(status=status, body=body or None, headers=sent)

    def done(self, document: Any = None, **headers: str) -> web.Response:
        """The outcome of an exchange that was performed."""
        facts = {"exchange": EXCHANGE, "state": "done", "effect": "done", "entry": ENTRY}
        return self.answer(200, {"ok": True} if document is None else document, headers=headers, **facts)

    def pending(self, state: str = "accepted", after: int = 0) -> web.Response:
        headers = {"Retry-After": str(after), "Location": f"{self.bus.url}/exchanges/{EXCHANGE}/reply"}
        document = {"exchange": EXCHANGE, "state": state}
        return self.answer(202, document, headers=headers, exchange=EXCHANGE, state=state, entry=ENTRY)

    def problem(
        self, status: int, code: str, *, after: int | None = None, more: Any = None, **facts: str
    ) -> web.Response:
        document = {"type": f"{self.bus.url}/problems/{code}", "status": status, "code": code, "origin": "bus"}
        headers = {} if after is None else {"Retry-After": str(after)}
        return self.answer(status, document | (more or {}), headers=headers, **facts)


Step = Callable[[Seen], "web.StreamResponse | Awaitable[web.StreamResponse]"]


def done(seen: Seen) -> web.StreamResponse:
    return seen.done()


def reset(seen: Seen) -> web.StreamResponse:
    """Cut the connection after the request has been read: the client cannot know what became of it."""
    transport = seen.http.transport
    assert transport is not None
    transport.abort()
    return web.Response(status=500)


@dataclass
class SigningBus:
    """``script`` is worked off one step for each request; the last step stays."""

    keys: dict[str, jwk.PublicKey]
    script: list[Step] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    jwks: list[jwk.PrivateKey] = field(default_factory=lambda: [KEY])
    jwks_text: bytes | None = None
    """What is published instead of ``jwks``."""
    fetches: int = 0
    url: str = ""

    def find_key(self, issuer: str, key_id: str) -> jwk.PublicKey:
        if issuer != AGENCY or key_id not in self.keys:
            raise KeyUnknown
        return self.keys[key_id]

    async def published(self, _: web.Request) -> web.Response:
        self.fetches += 1
        published = orjson.dumps({"keys": [key.public.jwk for key in self.jwks]})
        return web.Response(body=self.jwks_text or published, content_type="application/jwk-set+json")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        key = request.headers.get("Idempotency-Key")
        call = Call(
            request.method,
            request.raw_path,
            body,
            time.time(),
            signature=request.headers.get("GSB-Signature"),
            content_type=request.headers.get("Content-Type"),
            idempotency_key=None if key is None else key.strip('"'),
        )
        signed = jws.verify_request(call.signature, self.find_key, BUS, time.time())
        jws.bind(signed, call, [self.url])
        self.seen.append(seen := Seen(self, request, body, signed))
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        answer = step(seen)
        return answer if isinstance(answer, web.StreamResponse) else await answer


@asynccontextmanager
async def signing_bus(*keys: jwk.PrivateKey) -> AsyncIterator[SigningBus]:
    """A bus on a loopback port that knows these keys of ``AGENCY``."""
    bus = SigningBus({key.kid: key.public for key in keys})
    app = web.Application()
    app.router.add_get("/.well-known/jwks.json", bus.published)
    app.router.add_route("*", "/{path:.*}", bus.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        bus.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield bus
    finally:
        await runner.cleanup()


class Pauses(list[float]):
    """The seconds that a client wanted to wait; it waits none of them."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def talking(*script: Step, **options: Any) -> AsyncIterator[tuple[SigningBus, Client, Pauses]]:
    """A bus with this script and a client of it that does not wait."""
    pauses = Pauses()
    async with signing_bus(MINE) as bus:
        bus.script = list(script)
        async with Client(bus.url, bus=BUS, agency=AGENCY, key=MINE, pause=pauses, **options) as client:
            yield bus, client, pauses
