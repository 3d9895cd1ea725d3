"""The procurement adapter on a real Kinto."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from config.systems.running import Copy
from gsb.sdk import Broken, Refused, Reply, Request, Unavailable
from gsb_adapters.procurement import Procurement
from tests.support.adapters import opened, request
from tests.support.contracting import AWARD, CONTRACT, LATER, RECORD, RELEASE, checked, money, published, schema
from tests.support.real import real
from tests.support.sockets import answering, http

COLLECTION = "/buckets/procurement/collections/releases"
PUBLISHED_WITHIN = 90.0
"""Seconds, on a machine that is busy with other things."""
module_loop = pytest.mark.asyncio(loop_scope="module")
Adapted = tuple[Procurement, Copy]


def settings(url: str) -> dict[str, Any]:
    table = {"user": "procurement", "password": "procurement.txt", "collection": COLLECTION, "prefix": "ocds-213czf"}
    return {
        "url": f"{url}/v1",
        "publisher": "DCMP",
        "uri": "https://contracts.example/releases",
        "currency": "XOF",
        **table,
    }


async def asked_kinto(system: Copy, method: str, path: str, data: Any = None) -> tuple[int, Any]:
    """What Kinto says to its administrator; numbers with a fraction as ``Decimal``."""
    password = (system.place.folder / "admin.txt").read_text("utf-8").strip()
    async with (
        aiohttp.ClientSession(headers={"Authorization": aiohttp.encode_basic_auth("admin", password)}) as session,
        session.request(method, f"{system.url}/v1{path}", json=data) as answer,
    ):
        return answer.status, json.loads(await answer.read(), parse_float=Decimal)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a deployment whose Kinto is none."""
    folder = tmp_path_factory.mktemp("procurement")
    (folder / "procurement.txt").write_text("procurementpw\n")
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def adapted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Adapted]:
    async with real("kinto", tmp_path_factory.mktemp("systems")) as system, at(system) as adapter:
        yield adapter, system


def at(system: Copy, **more: Any) -> AbstractAsyncContextManager[Procurement]:
    services: dict[str, dict[str, Any]] = {RELEASE: {}, RECORD: {}}
    return opened(Procurement, settings(system.url) | more, services, folder=system.place.folder)


# --- published once


@pytest.mark.slow
@module_loop
async def test_a_release_is_published_once_however_often_it_is_tried(adapted: Adapted) -> None:
    adapter, system = adapted
    asked = published("ONCE-1")
    assert await adapter.find(asked) is None
    replies = [await adapter.handle(asked) for _ in range(3)]
    assert schema(RELEASE, "reply").faults(replies[0].body) == []
    assert replies[0].body["ocid"] == "ocds-213czf-ONCE-1"
    assert replies[0].body["release"] == asked.exchange
    assert replies == [replies[0]] * 3
    assert await adapter.find(asked) == replies[0]
    _, lying = await asked_kinto(system, "GET", f"{COLLECTION}/records?ocid=ocds-213czf-ONCE-1")
    assert [each["id"] for each in lying["data"]] == [asked.exchange]


@pytest.mark.slow
@module_loop
async def test_a_repeat_under_other_settings_is_told_where_the_first_was_published(adapted: Adapted) -> None:
    adapter, system = adapted
    asked = published("MOVED-1")
    first = await adapter.handle(asked)
    async with at(system, uri="https://elsewhere.example") as other:
        assert await other.handle(asked) == first


@pytest.mark.slow
@module_loop
async def test_what_others_have_put_under_the_exchange_is_not_taken_for_the_release(adapted: Adapted) -> None:
    adapter, system = adapted
    for foreign in ({}, {"uri": "x", "releases": []}, {"uri": "x", "releases": "x"}):
        asked = published("FOREIGN-1")
        document = {"data": {"ocid": "ocds-213czf-FOREIGN-1", "package": foreign}}
        path = f"{COLLECTION}/records/{asked.exchange}"
        assert (await asked_kinto(system, "PUT", path, document))[0] == 201
        for act in (adapter.handle, adapter.find):
            with pytest.raises(Broken):
                await act(asked)
        await asked_kinto(system, "DELETE", path)


async def until_published(adapter: Procurement, asked: Request) -> None:
    """As the bus would: again and again while it is unavailable."""
    async with asyncio.timeout(PUBLISHED_WITHIN):
        while True:
            with suppress(Unavailable):
                await adapter.handle(asked)
                return
            await asyncio.sleep(0.1)


@pytest.mark.slow
@module_loop
async def test_many_at_once(adapted: Adapted) -> None:
    """Each of them twice at the same moment: Kinto tells one of the two to try again."""
    adapter, _ = adapted
    asked = [published("CROWD-1") for _ in range(20)]
    came = await asyncio.gather(*(adapter.handle(each) for each in asked * 2), return_exceptions=True)
    assert all(isinstance(each, (Reply, Unavailable)) for each in came), came
    await asyncio.gather(*(until_published(adapter, each) for each in asked))
    record = await adapter.handle(request(RECORD, {"process": "CROWD-1"}))
    assert sorted(each["url"].rpartition("#")[2] for each in record.body["releases"]) == sorted(
        each.exchange for each in asked
    )


@pytest.mark.slow
@module_loop
@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"tender": {"id": "T", "value": money("1.00", "EUR")}}, "currency_invalid"),
        ({"awards": [AWARD, AWARD]}, "id_repeated"),
    ],
)
async def test_what_cannot_be_published_is_refused(adapted: Adapted, more: dict[str, Any], code: str) -> None:
    adapter, _ = adapted
    with pytest.raises(Refused) as raised:
        await adapter.handle(published(**({"process": "REFUSED-1"} | more)))
    assert raised.value.code == code


@pytest.mark.slow
@module_loop
async def test_what_the_collection_does_not_take_is_refused(adapted: Adapted) -> None:
    _, system = adapted
    async with at(system, prefix="ocds-abcdef") as other:  # the collection is another publisher's
        with pytest.raises(Refused) as raised:
            await other.handle(published("PREFIX-1"))
    assert raised.value.code == "not_accepted"


# --- the record


@pytest.mark.slow
@module_loop
async def test_a_record_says_what_holds_and_how_it_came_about(adapted: Adapted) -> None:
    adapter, _ = adapted
    tender = {"id": "T", "status": "active", "value": money("12500000.50"), "numberOfTenderers": 4}
    await adapter.handle(published("MERGED-1", tender=tender))
    await adapter.handle(published("MERGED-1", tender={"id": "T", "status": "complete"}, **LATER))
    reply = await adapter.handle(request(RECORD, {"process": "MERGED-1", "versioned": True}))
    assert schema(RECORD, "reply").faults(reply.body) == []
    compiled, versioned = reply.body["compiledRelease"], reply.body["versionedRelease"]
    assert compiled["tender"] == tender | {"status": "complete"}
    assert compiled["awards"] == [AWARD]
    assert compiled["contracts"] == [CONTRACT]
    assert compiled["tag"] == ["compiled"]
    assert [each["value"] for each in versioned["tender"]["status"]] == ["active", "complete"]
    assert [each["value"] for each in versioned["tender"]["value"]["amount"]] == ["12500000.50"]
    assert [each["tag"] for each in reply.body["releases"]] == [["tender"], ["award", "contract"]]
    plain = await adapter.handle(request(RECORD, {"process": "MERGED-1"}))
    assert plain.body == {name: value for name, value in reply.body.items() if name != "versionedRelease"}


@pytest.mark.slow
@module_loop
async def test_nothing_was_published_of_another_process(adapted: Adapted) -> None:
    adapter, _ = adapted
    await adapter.handle(published("KNOWN-10"))
    for process in ("KNOWN-1", "KNOWN-100", "known-10"):
        with pytest.raises(Refused) as raised:
            await adapter.handle(request(RECORD, {"process": process}))
        assert raised.value.code == "not_found"


@pytest.mark.slow
@module_loop
async def test_amounts_are_to_the_cent_what_they_were(adapted: Adapted) -> None:
    adapter, system = adapted
    amounts = ["0.00", "0.01", "0.10", "0.07", "1.10", "70368744177.01", "9999999999999.99", "1000000000000.00"]
    items = [{"id": str(n), "quantity": 3, "unit": {"value": money(each)}} for n, each in enumerate(amounts)]
    asked = published("CENTS-1", tender={"id": "T", "items": items})
    await adapter.handle(asked)
    _, lying = await asked_kinto(system, "GET", f"{COLLECTION}/records/{asked.exchange}")
    kept = lying["data"]["package"]["releases"][0]["tender"]["items"]
    assert [Decimal(each["unit"]["value"]["amount"]) for each in kept] == [Decimal(each) for each in amounts]
    record = await adapter.handle(request(RECORD, {"process": "CENTS-1"}))
    assert record.body["compiledRelease"]["tender"]["items"] == items


# --- before the standard


@pytest.mark.slow
@module_loop
async def test_what_lies_in_the_store_is_open_contracting_data(adapted: Adapted) -> None:
    adapter, system = adapted
    for asked in (published("VALID-1"), published("VALID-1", **LATER)):
        await adapter.handle(asked)
        _, lying = await asked_kinto(system, "GET", f"{COLLECTION}/records/{asked.exchange}")
        found = await checked(lying["data"]["package"])
        assert found["validation_errors"] == []
        assert found["additional_fields"] == []
        assert found["additional_closed_codelist_values"] == {}
        assert found["unique_ocids_count"] == 1


# --- what a real Kinto cannot be made to answer


@pytest.mark.parametrize(
    "answer",
    [
        http(b"[]", "201 Created"),
        http(b'{"data": []}', "201 Created"),
        http(b'{"data": {"package": {"uri": "u", "releases": [{}]}}}', "201 Created"),
        http(b'{"details": {}}', "412 Precondition Failed"),
        http(b"<html>", "201 Created"),
        http(b"{}", "403 Forbidden"),
        http(b"{}", "500 Oops"),
    ],
    ids=["array", "no-object", "another", "412", "html", "403", "500"],
)
async def test_an_answer_that_makes_no_sense_is_broken(answer: bytes, folder: Path) -> None:
    async with (
        answering(answer) as server,
        opened(Procurement, settings(server.url), {RELEASE: {}, RECORD: {}}, folder=folder) as adapter,
    ):
        with pytest.raises(Broken):
            await adapter.handle(published("BROKEN-1"))


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'["a"]',
        b'[{"ocid": "O"}]',
        b'[{"ocid": "O", "package": []}]',
        b'[{"ocid": "O", "package": {"uri": "u"}}]',
        b'[{"ocid": "O", "package": {"uri": "u", "releases": [{"id": "1", "date": 2026, "tag": []}]}}]',
        b'[{"ocid": "O", "package": {"uri": "u", "releases": [{"awards": [{"id": 1}, {"id": "1"}]}]}}]',
    ],
    ids=str,
)
async def test_what_are_no_releases_are_no_record(data: bytes, folder: Path) -> None:
    content = b'{"data": ' + data.replace(b'"O"', b'"ocds-213czf-BROKEN-1"') + b"}"
    async with (
        answering(http(content)) as server,
        opened(Procurement, settings(server.url), {RECORD: {}}, folder=folder) as adapter,
    ):
        with pytest.raises((Broken, Refused)) as raised:
            await adapter.handle(request(RECORD, {"process": "BROKEN-1"}))
        assert isinstance(raised.value, Broken) or data == b"{}"


@pytest.mark.parametrize(("status", "sent"), [("409 Both", False), ("429 Slow", False), ("503 Busy", True)])
async def test_a_busy_store_is_unavailable(status: str, sent: bool, folder: Path) -> None:
    async with (
        answering(http(b"", status, "Retry-After: 9")) as server,
        opened(Procurement, settings(server.url), {RELEASE: {}}, folder=folder) as adapter,
    ):
        with pytest.raises(Unavailable) as raised:
            await adapter.handle(published("BUSY-1"))
    assert (raised.value.sent, raised.value.after) == (sent, 9.0)


async def test_a_pause_that_the_store_asks_for_is_kept(folder: Path) -> None:
    async with (
        answering(http(b"", "503 Busy", "Backoff: 30")) as server,
        opened(Procurement, settings(server.url), {RELEASE: {}}, folder=folder) as adapter,
    ):
        for sent in (True, False):
            with pytest.raises(Unavailable) as raised:
                await adapter.handle(published("PAUSE-1"))
            assert raised.value.sent is sent
    assert len(server.requests) == 1


async def test_a_password_that_is_gone_keeps_everything_from_being_sent(tmp_path: Path) -> None:
    (tmp_path / "procurement.txt").write_text("procurementpw\n")
    async with (
        answering(http()) as server,
        opened(Procurement, settings(server.url), {RELEASE: {}}, folder=tmp_path) as adapter,
    ):
        (tmp_path / "procurement.txt").unlink()
        with pytest.raises(Unavailable) as raised:
            await adapter.handle(published("GONE-1"))
    assert raised.value.sent is False
    assert server.requests == []


@pytest.mark.slow
@module_loop
async def test_check_says_whether_it_is_there(adapted: Adapted) -> None:
    adapter, system = adapted
    await adapter.check()
    for wrong in ({"user": "nobody"}, {"collection": "/buckets/procurement/collections/nothing"}):
        async with at(system, **wrong) as other:
            with pytest.raises(Broken):
                await other.check()
