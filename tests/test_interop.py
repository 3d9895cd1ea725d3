"""A client in another language, written from the wire profile's page alone, against a running bus and a lying proxy."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from yarl import URL

from gsb import jwk, jws
from tests.support.deployment import PERSON, standard
from tests.support.needs import needs
from tests.support.node import RunningNode, running_node

INTEROP = Path(__file__).parent / "interop"
GRANTED = {name: value for name, value in PERSON.items() if name != "phones"}
NOTE = {"id": "P-0001", "text": "moved"}


@pytest.fixture(autouse=True)
def node_js() -> None:
    installed = shutil.which("node") is not None and (INTEROP / "node_modules" / "jose").is_dir()
    needs(installed, "node and npm jose: run make deps-test")


@dataclass(frozen=True)
class Ran:
    """How the Node program ended: 0 with an answer, 2 when it refused the reply."""

    status: int
    answer: Any
    reason: str


async def run(node: RunningNode, service: str, body: Any, *, algorithm: str = "ES256", **more: Any) -> Ran:
    """One job for the program, as the payroll agency."""
    job = {
        "base_url": node.url,
        "bus": node.bus_id,
        "agency": "payroll",
        "key": json.loads(node.deployment.key_file("payroll", algorithm).read_bytes()),
        "service": service,
        "purpose": "payroll",
        "body": body,
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        INTEROP / "client.mjs",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, reason = await process.communicate(orjson.dumps(job | more))
    assert process.returncode is not None
    return Ran(process.returncode, json.loads(output) if output else None, reason.decode().strip())


@pytest.mark.parametrize("algorithm", ["ES256", "Ed25519", "PS256"])
async def test_it_calls_the_bus_and_believes_its_replies(tmp_path: Path, algorithm: str) -> None:
    deployment = standard(tmp_path)
    deployment.key("payroll", algorithm)  # asking for it before the node starts registers it
    async with running_node(tmp_path, deployment) as node:
        read = await run(node, "registry/person/v1", {"id": "P-0001"}, algorithm=algorithm)
        assert (read.status, read.reason) == (0, "")
        assert (read.answer["status"], read.answer["state"], read.answer["effect"]) == (200, "done", "none")
        assert read.answer["body"] == GRANTED

        note = {"algorithm": algorithm, "idempotency_key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
        first = await run(node, "registry/note/v1", NOTE, **note, respond_async=True)
        again = await run(node, "registry/note/v1", NOTE, **note)
        assert (first.status, first.answer["body"], first.answer["effect"]) == (0, NOTE, "done")
        assert first.answer["requests"] > 1
        assert (again.answer["exchange"], again.answer["body"]) == (first.answer["exchange"], NOTE)
        assert (first.answer["replayed"], again.answer["replayed"]) == (False, True)

        wrong = await run(node, "registry/person/v1", {"id": 1, "x": 2}, algorithm=algorithm)
        assert (wrong.status, wrong.answer["status"], wrong.answer["body"]["code"]) == (0, 422, "body_invalid")
        assert {each["pointer"] for each in wrong.answer["body"]["errors"]} >= {"/id"}


async def test_an_agency_that_the_bus_does_not_know_gets_nothing_to_believe(tmp_path: Path) -> None:
    async with running_node(tmp_path, standard(tmp_path)) as node:
        stranger = json.loads(jwk.generate("ES256"))
        ran = await run(node, "registry/person/v1", {"id": "P-0001"}, key=stranger)
    assert (ran.status, ran.answer, ran.reason) == (2, None, "refused: the reply (status 401) is not signed")


# --- a proxy that lies


@dataclass
class Reply:
    """What the bus answered to this request."""

    request: str
    status: int
    body: bytes
    headers: dict[str, str]


@dataclass
class Liar:
    """A proxy in front of the bus that tells the truth until it has a ``lie``."""

    url: str = ""
    upstream: str = ""
    bus_key: jwk.PrivateKey | None = None
    lie: Callable[[Liar, Reply], Reply] | None = None
    kept: list[Reply] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        reply = await self.forward(request)
        if request.method == "POST":
            self.kept.append(reply)
            if self.lie is not None:
                reply = self.lie(self, reply)
        return web.Response(status=reply.status, body=reply.body, headers=reply.headers)

    async def forward(self, request: web.Request) -> Reply:
        kept = ("GSB-Signature", "Content-Type", "Idempotency-Key", "Prefer")
        headers = {name: value for name, value in request.headers.items() if name in kept}
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method,
                URL(self.upstream + request.raw_path, encoded=True),
                data=await request.read() or None,
                headers=headers,
            ) as answer,
        ):
            told = {name: answer.headers[name] for name in kept if name in answer.headers}
            return Reply(headers.get("GSB-Signature", ""), answer.status, await answer.read(), told)


def swapped(liar: Liar, reply: Reply) -> Reply:
    """A true reply, but to the call before."""
    return liar.kept[-2]


def wrong_req_hash(liar: Liar, reply: Reply) -> Reply:
    """The bus's own key, the right jti, the hash of another request."""
    assert liar.bus_key is not None
    claims = claims_of(reply.headers["GSB-Signature"])
    facts = jws.ReplyFacts(
        status=reply.status,
        body=reply.body,
        content_type=claims["content_type"],
        exchange=claims["exchange"],
        state=claims["state"],
        effect=claims["effect"],
        entry=claims["entry"],
    )
    token = jws.sign_reply(
        liar.bus_key,
        issuer=claims["iss"],
        audience=claims["aud"],
        request_jti=claims["req_jti"],
        request_hash=jws.request_hash(liar.kept[-2].request),
        facts=facts,
        now=claims["iat"],
    )
    return Reply(reply.request, reply.status, reply.body, reply.headers | {"GSB-Signature": token})


def tampered_body(liar: Liar, reply: Reply) -> Reply:
    """A raise, under the true signature."""
    return Reply(reply.request, reply.status, reply.body.replace(b"1234.50", b"9234.50"), reply.headers)


def tampered_digest(liar: Liar, reply: Reply) -> Reply:
    """A raise, and the digest in the claims made to fit it."""
    raised = tampered_body(liar, reply)
    token = reply.headers["GSB-Signature"]
    header, _, signature = token.split(".")
    claims = claims_of(token) | {"content_digest": jws.content_digest(raised.body)}
    payload = base64.urlsafe_b64encode(orjson.dumps(claims)).rstrip(b"=").decode()
    changed = {"GSB-Signature": f"{header}.{payload}.{signature}"}
    return Reply(reply.request, reply.status, raised.body, reply.headers | changed)


def claims_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert isinstance(claims, dict)
    return claims


LIES: Mapping[Callable[[Liar, Reply], Reply], str] = {
    swapped: "refused: req_jti is not the jti of this request",
    wrong_req_hash: "refused: req_hash is not the hash of this request",
    tampered_body: "refused: content_digest is not the digest of the body",
    tampered_digest: "refused: the signature does not verify",
}


@asynccontextmanager
async def lying() -> AsyncIterator[Liar]:
    liar = Liar()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", liar.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        liar.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield liar
    finally:
        await runner.cleanup()


async def test_it_refuses_a_reply_that_was_swapped_or_tampered_with(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    async with lying() as liar:
        deployment.gsb["bus"]["base_urls"].append(liar.url)
        liar.bus_key = deployment.bus_key()
        async with running_node(tmp_path, deployment) as node:
            liar.upstream = node.url
            person = ("registry/person/v1", {"id": "P-0001"})
            truthful = await run(node, *person, base_url=liar.url)
            assert (truthful.status, truthful.answer["body"]) == (0, GRANTED)
            told = {}
            for lie in LIES:
                liar.lie = lie
                ran = await run(node, *person, base_url=liar.url)
                assert (ran.status, ran.answer) == (2, None)
                told[lie] = ran.reason
    assert told == LIES
