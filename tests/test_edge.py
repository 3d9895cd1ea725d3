"""The edge over real sockets: paths, problems, signatures, probes. What the wire says, nothing less."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from gsb import jws
from gsb.client import BusProblem, Client
from gsb.model import Reply, Request
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ, puppet, puppet_deployment
from tests.support.deployment import BUS, PERSON
from tests.support.node import InProcess, node_in_process, running_node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[InProcess]:
    """A node whose registry echoes."""
    async with node_in_process(tmp_path) as node:
        yield node


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def signed(node: InProcess, method: str, path: str, body: bytes = b"", **claims: Any) -> dict[str, str]:
    said: dict[str, Any] = {
        "issuer": "payroll",
        "audience": BUS,
        "method": method,
        "target_uri": node.url + path,
        "body": body,
        "content_type": "application/json" if body else None,
        "now": time.time(),
    } | claims
    headers = {"GSB-Signature": jws.sign_request(node.deployment.key(said["issuer"]), **said)}
    return headers | ({"Content-Type": "application/json"} if body else {})


async def raw(node: InProcess, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Bytes to the API's port as they are, and what comes back before it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.deployment.port)
    writer.write(data)
    await writer.drain()
    async with asyncio.timeout(90):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "path_unknown"),
        ("GET", "/nowhere", 404, "path_unknown"),
        ("GET", "/exchanges/not-an-id", 404, "path_unknown"),
        ("GET", "/livez", 404, "path_unknown"),
        ("GET", "/services/registry/person/v1", 405, "method_refused"),
        ("DELETE", "/services", 405, "method_refused"),
        ("POST", "/services/registry/person/v1", 415, "media_type_refused"),
        ("GET", "/exchanges/01a0c450-6c00-71b6-b1a8-e21f6124ae04", 401, "signature_missing"),
    ],
)
async def test_what_cannot_be_answered_is_a_problem(
    node: InProcess, session: aiohttp.ClientSession, method: str, path: str, status: int, code: str
) -> None:
    async with session.request(method, node.url + path) as answer:
        problem = await answer.json(content_type="application/problem+json")
        assert (answer.status, problem["status"], problem["code"]) == (status, status, code)
        assert problem["type"] == f"{node.url}/problems/{code}"
        assert problem["instance"].startswith("urn:uuid:")
        assert answer.headers["Cache-Control"] == "no-store, no-transform"
        assert ("WWW-Authenticate" in answer.headers) == (status == 401)
        assert ("Allow" in answer.headers) == (status == 405)
        assert "GSB-Signature" not in answer.headers


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"POST /services/a/b/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: nine\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_not_http_is_a_problem_too(node: InProcess, data: bytes) -> None:
    status, headers, body = await raw(node, data + b"\r\n\r\n")
    assert status == 400
    assert headers["content-type"] == "application/problem+json"
    assert orjson.loads(body)["code"] == "bad_request"
    assert b"Traceback" not in body


async def test_the_raw_target_is_what_is_routed(node: InProcess) -> None:
    for target in (b"//services", b"/./services", b"/%73ervices", b"/services/", b"/services/x/../y"):
        status, _, body = await raw(node, b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert status in (404, 405), target
        assert orjson.loads(body)["code"] in ("path_unknown", "method_refused")


async def test_a_body_beyond_the_limit_is_refused_before_it_is_read(
    node: InProcess, session: aiohttp.ClientSession
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 65_536

    for data in (b" " * 600_000, endless()):
        async with session.post(
            f"{node.url}/services/{READ}", data=data, headers={"Content-Type": "application/json"}
        ) as answer:
            assert answer.status == 413
            assert (await answer.json(content_type=None))["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("GSB-Signature", "header_repeated"),
        ("Idempotency-Key", "header_repeated"),
        ("Prefer", "header_repeated"),
        ("Content-Type", "bad_request"),  # the HTTP parser itself refuses these
        ("Content-Length", "bad_request"),
    ],
)
async def test_a_header_that_must_stand_once_may_not_stand_twice(node: InProcess, name: str, code: str) -> None:
    lines = b"".join(name.encode() + b": 1\r\n" for _ in range(2))
    request = b"GET /services HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + lines + b"\r\n"
    status, _, body = await raw(node, request)
    assert (status, orjson.loads(body)["code"]) == (400, code)


async def test_compressed_bodies_are_refused(node: InProcess, session: aiohttp.ClientSession) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    async with session.post(f"{node.url}/services/{READ}", data=b"{}", headers=headers) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (415, "content_coding_refused")


async def test_every_answer_to_a_known_caller_is_signed_errors_too(node: InProcess) -> None:
    async with node.client() as client:
        done = await client.call(READ, PERSON_BODY, purpose="payroll")
        assert (done.status, done.state, done.effect, done.signed) == (200, "done", "none", True)
        assert done.body == {name: PERSON[name] for name in ("id", "name", "salary")}
        assert done.entry is not None
        for purpose, code in (("curiosity", "purpose_not_granted"), ("payroll", "body_invalid")):
            with pytest.raises(BusProblem) as refused:
                await client.call(READ, {"id": "nobody"}, purpose=purpose)
            assert (refused.value.code, refused.value.signed) == (code, True)
        assert [fault.pointer for fault in refused.value.pointers] == ["/id"]
        with pytest.raises(BusProblem) as unknown:
            await client.exchange("01a0c450-6c00-71b6-b1a8-e21f6124ae04")
        assert (unknown.value.code, unknown.value.signed) == ("exchange_unknown", True)


async def test_a_binding_error_is_signed_and_a_forged_signature_gets_none(
    node: InProcess, session: aiohttp.ClientSession
) -> None:
    headers = signed(node, "GET", "/services", target_uri=node.url + "/elsewhere")
    async with session.get(f"{node.url}/services", headers=headers) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (401, "target_mismatch")
        assert "GSB-Signature" in answer.headers
    header, payload, signature = signed(node, "GET", "/services")["GSB-Signature"].split(".")
    forged = base64.urlsafe_b64encode(bytes(byte ^ 1 for byte in base64.urlsafe_b64decode(signature + "=="))).decode()
    async with session.get(
        f"{node.url}/services", headers={"GSB-Signature": f"{header}.{payload}.{forged.rstrip('=')}"}
    ) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (401, "signature_invalid")
        assert "GSB-Signature" not in answer.headers


async def test_a_jti_counts_on_reads_too(node: InProcess, session: aiohttp.ClientSession) -> None:
    headers = signed(node, "GET", "/services", jti=secrets.token_urlsafe(16))
    async with session.get(f"{node.url}/services", headers=headers) as answer:
        assert answer.status == 200
        (person, *_) = [each for each in (await answer.json())["services"] if each["service"] == "registry/person/v1"]
        assert person["grants"][0]["purpose"] == "payroll"
    async with session.get(f"{node.url}/services", headers=headers) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (409, "replayed")


async def test_only_public_services_are_shown_to_anybody(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    deployment = puppet_deployment(tmp_path)
    deployment.files[f"services/{READ}.toml"]["public"] = True
    async with node_in_process(tmp_path, deployment) as node, session.get(f"{node.url}/services") as answer:
        told = await answer.json()
        assert [each["service"] for each in told["services"]] == [READ]
        assert told["kept"] == {"keys_days": 30, "bodies_days": 30, "exchanges_days": 365}


async def test_an_exchange_is_followed_through_its_links(node: InProcess) -> None:
    async with node.client() as client, node.client("audit-office") as stranger:
        accepted = await client.call(ONCE, NOTE, purpose="payroll", respond_async=True)
        assert (accepted.status, accepted.headers["Preference-Applied"]) == (202, "respond-async")
        assert accepted.exchange is not None
        done = await client.follow(accepted.exchange)
        assert (done.status, done.state, done.effect, done.body) == (200, "done", "done", NOTE)
        seen = await client.exchange(accepted.exchange)
        assert (seen.body["state"], seen.body["effect"]) == ("done", "done")
        assert [each["kind"] for each in seen.body["timeline"]] == ["accepted", "outcome"]
        assert seen.body["links"]["reply"] == accepted.headers["Location"]
        for look in (stranger.exchange, stranger.reply):
            with pytest.raises(BusProblem) as refused:
                await look(accepted.exchange)
            assert refused.value.code == "exchange_unknown"


async def test_the_bus_publishes_its_keys(node: InProcess, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{node.url}/.well-known/jwks.json") as answer:
        (key,) = (await answer.json(content_type="application/jwk-set+json"))["keys"]
    assert key["kid"] == node.deployment.bus_key().kid
    assert "d" not in key
    own_keys: dict[str, Any] = {"bus": BUS, "agency": "payroll", "key": node.deployment.key("payroll")}
    async with Client(node.url, **own_keys) as client:
        assert (await client.call(READ, PERSON_BODY, purpose="payroll")).status == 200


async def test_probes_say_what_is_missing(node: InProcess, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{node.operations_url}/livez") as answer:
        assert answer.status == 200
    async with session.get(f"{node.operations_url}/readyz") as answer:
        assert (answer.status, (await answer.json())["missing"]) == (200, [])
    await node.node.bus.store.close()
    async with session.get(f"{node.operations_url}/readyz") as answer:
        assert (answer.status, (await answer.json())["missing"]) == (503, ["store"])
    async with session.get(f"{node.operations_url}/livez") as answer:
        assert answer.status == 200


async def test_more_calls_than_the_limit_are_told_to_come_again(tmp_path: Path, session: aiohttp.ClientSession) -> None:
    deployment = puppet_deployment(tmp_path)
    deployment.gsb["limits"]["in_flight"] = 1
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Reply:
        entered.set()
        await leave.wait()
        return Reply(PERSON)

    async with node_in_process(tmp_path, deployment) as node, node.client() as client:
        puppet().acts = slow
        node.deployment.files["systems/registry.toml"]["timeout"] = 5
        asked = asyncio.create_task(client.call(READ, PERSON_BODY, purpose="payroll"))
        await entered.wait()
        async with session.get(f"{node.url}/services") as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (503, "busy")
            assert int(answer.headers["Retry-After"]) >= 1
        leave.set()
        assert (await asked).status == 200
    puppet().reset()


async def test_the_command_serves_and_ends_with_0(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, node.client() as client:
        assert (await client.call(READ, PERSON_BODY, purpose="payroll")).status == 200
        log = [orjson.loads(line) for line in node.log]
        assert "started" in [line["message"] for line in log]
        await node.stop()
    said = [orjson.loads(line) for line in node.log]
    (ended,) = [line for line in said if line["message"] == "exchange ended"]
    assert (ended["state"], ended["service"], ended["agency"]) == ("done", READ, "payroll")
    assert not any(value in line for line in node.log for value in ("P-0001", "Ada", "1234.50"))


async def test_the_digest_of_an_empty_body_is_signed_too(node: InProcess, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{node.url}/services", headers=signed(node, "GET", "/services")) as answer:
        token = answer.headers["GSB-Signature"]
        claims = orjson.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        digest = base64.b64encode(hashlib.sha256(await answer.read()).digest()).decode()
        assert claims["content_digest"] == f"sha-256=:{digest}:"
        assert claims["status"] == 200
        assert "exchange" not in claims
