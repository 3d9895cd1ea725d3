"""The declarative HTTP adapter against Kinto, a registry that somebody else wrote, and against bad servers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from config.systems.running import Copy
from gsb.sdk import Broken, Clock, Refused, Unavailable
from gsb_adapters.http_json import HttpJson
from tests.support.adapters import opened, request
from tests.support.kinto import PASSWORD, USER, kinto
from tests.support.sockets import answering, http

module_loop = pytest.mark.asyncio(loop_scope="module")

RECORD = "/buckets/registry/collections/businesses/records/{brn}"
REPLY = {"brn": "answer.data.brn", "name": "answer.data.name", "capital": "decimal(answer.data.capital, `2`)"}
SERVICES: dict[str, dict[str, Any]] = {
    "registry/business/v1": {"path": RECORD, "reply": REPLY, "refused": {"404": "not_found"}},
    "registry/search/v1": {
        "path": "/buckets/registry/collections/businesses/records",
        "query": {"status": "body.status", "_sort": "'brn'", "_limit": "body.limit"},
        "reply": {"numbers": "answer.data[*].brn"},
    },
    "registry/register/v1": {
        "method": "PUT",
        "path": RECORD,
        "parameters": {"brn": "body.business.number"},
        "headers": {"If-None-Match": "'*'"},
        "content": {
            "data": {
                "brn": "body.business.number",
                "name": "body.business.name",
                "status": "'ACTIVE'",
                "capital": "body.capital",
            }
        },
        "reply": REPLY,
        "refused": {"412": "conflict", "400": "invalid", "403": "forbidden"},
        "find": {"path": RECORD, "parameters": {"brn": "body.business.number"}, "reply": REPLY},
    },
}


def settings(system: Copy, **more: Any) -> dict[str, Any]:
    auth = {"kind": "basic", "user": USER, "password": "password.txt"}
    return {"url": f"{system.url}/v1", "auth": auth, "check": "/__heartbeat__", **more}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deployment")
    (folder / "password.txt").write_text(f"{PASSWORD}\n")
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(folder: Path) -> AsyncIterator[Copy]:
    async with kinto(folder) as system:
        yield system


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def registry(system: Copy, folder: Path) -> AsyncIterator[HttpJson]:
    async with opened(HttpJson, settings(system), SERVICES, folder=folder) as adapter:
        yield adapter


def register(number: str, **more: Any) -> Any:
    business = {"number": number, "name": "Société Aïssa"}
    return request("registry/register/v1", {"business": business, **more})


# --- a real registry


@pytest.mark.slow
@module_loop
async def test_what_is_written_can_be_read(registry: HttpJson) -> None:
    written = await registry.handle(register("BRN-000001", capital=1250000.5))
    read = await registry.handle(request("registry/business/v1", {"brn": "BRN-000001"}))
    assert written.body == read.body
    assert read.body == {"brn": "BRN-000001", "name": "Société Aïssa", "capital": "1250000.50"}


@pytest.mark.slow
@module_loop
async def test_a_second_registration_is_a_conflict(registry: HttpJson) -> None:
    await registry.handle(register("BRN-000002"))
    with pytest.raises(Refused) as raised:
        await registry.handle(register("BRN-000002"))
    assert raised.value.code == "conflict"
    assert "412" in raised.value.detail


@pytest.mark.slow
@module_loop
async def test_what_the_registry_refuses(registry: HttpJson) -> None:
    with pytest.raises(Refused) as raised:
        await registry.handle(request("registry/business/v1", {"brn": "BRN-999999"}))
    assert raised.value.code == "not_found"
    with pytest.raises(Refused) as raised:
        await registry.handle(register("not-a-number"))
    assert raised.value.code == "invalid"


@pytest.mark.slow
@module_loop
async def test_a_search_leaves_out_what_is_null(registry: HttpJson) -> None:
    for number in ("BRN-000011", "BRN-000012", "BRN-000013"):
        await registry.handle(register(number))
    two = await registry.handle(request("registry/search/v1", {"status": "ACTIVE", "limit": 2}))
    everything = await registry.handle(request("registry/search/v1", {}))
    assert len(two.body["numbers"]) == 2
    assert {"BRN-000011", "BRN-000012", "BRN-000013"} <= set(everything.body["numbers"])
    none = await registry.handle(request("registry/search/v1", {"status": "STRUCK_OFF"}))
    assert none.body == {"numbers": []}


@pytest.mark.slow
@module_loop
async def test_find_tells_whether_it_was_registered(registry: HttpJson) -> None:
    asked = register("BRN-000021")
    assert await registry.find(asked) is None
    written = await registry.handle(asked)
    found = await registry.find(asked)
    assert found is not None
    assert found.body == written.body
    assert await registry.find(request("registry/business/v1", {"brn": "BRN-000021"})) is None, "a read has no find"


@pytest.mark.slow
@module_loop
async def test_a_percent_encoded_identifier_stays_one_segment(registry: HttpJson) -> None:
    for brn in ("../../../../accounts/gsb", "a/b", "BRN-000001?x=1", "%2e%2e", "é"):
        with pytest.raises((Refused, Broken)) as raised:
            await registry.handle(request("registry/business/v1", {"brn": brn}))
        assert "account" not in str(raised.value)
        assert any(status in raised.value.detail for status in ("400", "404"))


@pytest.mark.slow
@module_loop
async def test_a_password_is_read_anew_at_each_call(system: Copy, folder: Path) -> None:
    (folder / "other.txt").write_text("wrong")
    auth = {"kind": "basic", "user": USER, "password": "other.txt"}
    check = SERVICES["registry/search/v1"]["path"]
    async with opened(HttpJson, settings(system, auth=auth, check=check), SERVICES, folder=folder) as adapter:
        with pytest.raises(Broken, match="401"):
            await adapter.handle(request("registry/search/v1", {}))
        with pytest.raises(Broken, match="credentials"):
            await adapter.check()
        (folder / "other.txt").write_text("gsbpw\n")
        await adapter.handle(request("registry/search/v1", {}))
        await adapter.check()
        (folder / "other.txt").unlink()
        with pytest.raises(Unavailable) as raised:
            await adapter.handle(request("registry/search/v1", {}))
        assert raised.value.sent is False


@pytest.mark.slow
async def test_a_stopped_registry_is_unavailable_and_a_started_one_is_back(folder: Path) -> None:
    async with kinto(folder) as system, opened(HttpJson, settings(system), SERVICES, folder=folder) as adapter:
        await adapter.check()
        await adapter.handle(register("BRN-000001"))
        await system.stop()
        with pytest.raises(Unavailable) as raised:
            await adapter.handle(register("BRN-000002"))
        assert raised.value.sent is False
        with pytest.raises(Unavailable):
            await adapter.check()
        await system.start()
        await adapter.check()
        await adapter.handle(register("BRN-000001"))


@pytest.mark.slow
async def test_the_registry_gets_the_pause_it_asks_for(folder: Path) -> None:
    now = 100.0
    clock = Clock(steady=lambda: now)
    async with (
        kinto(folder, backoff=7) as system,
        opened(HttpJson, settings(system, backoff="Backoff"), SERVICES, folder=folder, clock=clock) as adapter,
    ):
        await adapter.handle(register("BRN-000001"))
        now = 106.5
        with pytest.raises(Unavailable) as raised:
            await adapter.handle(register("BRN-000002"))
        assert (raised.value.sent, raised.value.after) == (False, 0.5)
        now = 107.0
        await adapter.handle(register("BRN-000002"))


# --- what a real registry cannot be made to do

GET = {"system/thing/v1": {"path": "/things/{id}"}}
ASK = request("system/thing/v1", {"id": "7"})


@pytest.mark.parametrize(
    ("status", "error", "sent"),
    [
        (400, Broken, None),
        (401, Broken, None),
        (418, Refused, None),
        (429, Unavailable, False),
        (451, Unavailable, True),
        (500, Broken, None),
        (502, Broken, None),
        (503, Unavailable, True),
        (304, Broken, None),
    ],
)
async def test_what_a_status_means(status: int, error: type[Exception], sent: bool | None) -> None:
    table = {**GET["system/thing/v1"], "refused": {"418": "conflict"}, "unavailable": [503, 451]}
    async with (
        answering(http(b"the system's own words", f"{status} X", "Retry-After: 5")) as server,
        opened(HttpJson, {"url": server.url}, {"system/thing/v1": table}) as adapter,
    ):
        with pytest.raises(error) as raised:
            await adapter.handle(ASK)
    assert "own words" in raised.value.detail or status == 304  # type: ignore[attr-defined]
    if isinstance(raised.value, Unavailable):
        assert (raised.value.sent, raised.value.after) == (sent, 5.0)


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_gateways_errors_may_have_been_sent(status: int) -> None:
    async with answering(http(b"", f"{status} X")) as server, opened(HttpJson, {"url": server.url}, GET) as adapter:
        with pytest.raises(Unavailable) as raised:
            await adapter.handle(ASK)
        assert raised.value.sent is True
        with pytest.raises(Unavailable):
            await adapter.check()


async def test_a_pause_without_end_is_not_believed() -> None:
    now = 100.0
    clock = Clock(steady=lambda: now)
    async with (
        answering(http(b"{}", "200 OK", "Backoff: 999999999")) as server,
        opened(HttpJson, {"url": server.url, "backoff": "Backoff"}, GET, clock=clock) as adapter,
    ):
        await adapter.handle(ASK)
        with pytest.raises(Unavailable) as raised:
            await adapter.handle(ASK)
        assert raised.value.after == 300.0
        now = 400.0
        await adapter.handle(ASK)


@pytest.mark.parametrize("auth", ["basic", "bearer", "header"])
async def test_credentials_come_from_files(tmp_path: Path, auth: str) -> None:
    (tmp_path / "secret").write_text("s3cret-ö\n" if auth == "basic" else "s3cret\n")
    tables = {
        "basic": {"user": "gsb", "password": "secret"},
        "bearer": {"token": "secret"},
        "header": {"name": "X-Api-Key", "value": "secret"},
    }
    expected = {
        "basic": "Authorization: Basic " + base64.b64encode("gsb:s3cret-ö".encode()).decode(),
        "bearer": "Authorization: Bearer s3cret",
        "header": "X-Api-Key: s3cret",
    }
    table = {"kind": auth, **tables[auth]}
    async with (
        answering(http(b"{}")) as server,
        opened(HttpJson, {"url": server.url, "auth": table}, GET, folder=tmp_path) as adapter,
    ):
        await adapter.handle(ASK)
        assert "s3cret" not in repr(adapter.context)
    assert expected[auth] in server.requests[0].decode()


async def test_the_request_is_built_from_the_exchange() -> None:
    table = {
        "method": "POST",
        "path": "/v2/{id}/notes",
        "query": {"tag": "body.tags", "urgent": "body.urgent", "none": "body.none"},
        "headers": {"Idempotency-Key": "exchange", "X-On-Behalf": "sub"},
        "content": {"text": "body.text", "by": "agency", "none": "body.none", "who": {"case": "case"}},
        "reply": "{at: answer.at, status: status, id: body.id}",
    }
    asked = request(
        "system/thing/v1", {"id": 7, "tags": ["a b", "ü"], "urgent": True, "text": "Aïcha"}, sub="clerk-1", case="C/1"
    )
    async with (
        answering(http(b'{"at": 12, "more": "dropped"}', "201 Created")) as server,
        opened(HttpJson, {"url": server.url + "/api"}, {"system/thing/v1": table}) as adapter,
    ):
        reply = await adapter.handle(asked)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /api/v2/7/notes?tag=a%20b&tag=%C3%BC&urgent=true HTTP/1.1"
    assert f"Idempotency-Key: {asked.exchange}" in lines
    assert "X-On-Behalf: clerk-1" in lines
    assert json.loads(body) == {"text": "Aïcha", "by": "payroll", "who": {"case": "C/1"}}
    assert reply.body == {"at": 12, "status": 201, "id": 7}


async def test_an_answer_without_a_body_is_null() -> None:
    table = {"method": "DELETE", "path": "/things/{id}", "reply": {"status": "status", "gone": "answer == null"}}
    async with (
        answering(http(b"", "204 No Content")) as server,
        opened(HttpJson, {"url": server.url}, {"system/thing/v1": table}) as adapter,
    ):
        assert (await adapter.handle(ASK)).body == {"status": 204, "gone": True}


@pytest.mark.parametrize("value", ["", ".", "..", None, {"a": 1}, ["a"]], ids=str)
async def test_what_cannot_stand_in_a_path_is_refused_unsent(value: object) -> None:
    async with answering(http(b"{}")) as server, opened(HttpJson, {"url": server.url}, GET) as adapter:
        with pytest.raises(Refused) as raised:
            await adapter.handle(request("system/thing/v1", {"id": value}))
    assert raised.value.code == "invalid"
    assert server.requests == []


@pytest.mark.parametrize(
    ("value", "segment"),
    [("a/b", "a%2Fb"), ("../x", "..%2Fx"), ("x?y=1#z", "x%3Fy%3D1%23z"), ("%2e", "%252e"), ("é", "%C3%A9"), (7, "7")],
)
async def test_a_value_in_a_path_stays_one_segment(value: object, segment: str) -> None:
    async with answering(http(b"{}")) as server, opened(HttpJson, {"url": server.url}, GET) as adapter:
        await adapter.handle(request("system/thing/v1", {"id": value}))
    assert server.requests[0].startswith(f"GET /things/{segment} HTTP/1.1".encode())


@pytest.mark.parametrize(
    "part",
    [
        {"headers": {"X-Note": "body.note"}},
        {"query": {"note": "body.object"}},
        {"query": {"note": "join(',', body.note)"}},
        {"method": "POST", "content": "length(`7`)"},
    ],
    ids=["header", "query", "function", "content"],
)
async def test_what_cannot_be_built_is_refused_unsent(part: Mapping[str, Any]) -> None:
    table = {"path": "/things/{id}", **part}
    async with (
        answering(http(b"{}")) as server,
        opened(HttpJson, {"url": server.url}, {"system/thing/v1": table}) as adapter,
    ):
        with pytest.raises(Refused) as raised:
            await adapter.handle(request("system/thing/v1", {"id": 1, "note": "a\r\nb: c", "object": {}}))
    assert raised.value.code == "invalid"
    assert server.requests == []


@pytest.mark.parametrize("answer", [b"<html>", b"{", b"\xff"], ids=str)
async def test_an_answer_that_is_not_json_is_broken(answer: bytes) -> None:
    async with answering(http(answer)) as server, opened(HttpJson, {"url": server.url}, GET) as adapter:
        with pytest.raises(Broken):
            await adapter.handle(ASK)


async def test_find_proves_nothing_by_a_refusal_or_a_null() -> None:
    table = {
        "method": "POST",
        "path": "/notes",
        "find": {"path": "/notes", "query": {"key": "exchange"}, "reply": "answer[0]"},
    }
    for answer, found in ((http(b"[]"), None), (http(b"", "404 X"), None), (http(b'[{"n": 1}]'), {"n": 1})):
        async with (
            answering(answer) as server,
            opened(HttpJson, {"url": server.url}, {"system/thing/v1": table}) as adapter,
        ):
            reply = await adapter.find(ASK)
            assert (reply and reply.body) == found
        assert f"GET /notes?key={ASK.exchange} ".encode() in server.requests[0]


async def test_calls_at_once_share_nothing() -> None:
    table = {"path": "/things/{id}", "reply": "{id: body.id}"}
    async with (
        answering(http(b"{}")) as server,
        opened(HttpJson, {"url": server.url}, {"system/thing/v1": table}) as adapter,
    ):
        asked = [request("system/thing/v1", {"id": number}) for number in range(50)]
        replies = await asyncio.gather(*map(adapter.handle, asked))
    assert [reply.body["id"] for reply in replies] == list(range(50))
