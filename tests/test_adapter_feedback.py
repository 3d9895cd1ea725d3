"""The feedback adapter against a real Roundup, also with crashes and repeats on the way to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from config.systems.roundup import web
from config.systems.running import Copy
from gsb.schema import Schema
from gsb.sdk import Broken, Refused, Request, Unavailable
from gsb_adapters.feedback import Feedback
from tests.support.adapters import opened, request
from tests.support.real import shared
from tests.support.sockets import Listener, answering, http, listening, read_request
from tests.support.tracker import SERVICES, adapter, all_filed, as_user, complaint, filed

SCHEMAS = Path(__file__).parents[1] / "schemas"
FILED_WITHIN = 120.0
"""Seconds, on a machine that is busy with other things."""
module_loop = pytest.mark.asyncio(loop_scope="module")


def schema(service: str, side: str) -> Schema:
    return Schema.compile(json.loads((SCHEMAS / service / f"{side}.json").read_bytes()), service)


async def submit(feedback: Feedback, asked: Request) -> str:
    body = (await feedback.handle(asked)).body
    assert schema("feedback/submit/v1", "reply").faults(body) == []
    return str(body["complaint"])


async def status(feedback: Feedback, number: str) -> Any:
    body = (await feedback.handle(request("feedback/status/v1", {"complaint": number}))).body
    assert schema("feedback/status/v1", "reply").faults(body) == []
    return body


system = shared("roundup")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def feedback(system: Copy) -> AsyncIterator[Feedback]:
    async with adapter(system) as feedback:
        yield feedback


@pytest.mark.slow
@module_loop
async def test_what_a_citizen_says_arrives(system: Copy, feedback: Feedback) -> None:
    asked = complaint("Nid-de-poule à Thiès, طريق ٢", text="Il grandit.\n大きい", contact="+221 00 000 00 00")
    assert schema("feedback/submit/v1", "request").faults(asked.body) == []
    number = await submit(feedback, asked)
    _, issue, _ = await as_user(system, "GET", f"issue/{number}")
    assert issue["attributes"]["title"] == asked.body["subject"]
    (message,) = issue["attributes"]["messages"]
    _, content, _ = await as_user(system, "GET", f"msg/{message['id']}/content")
    (text,) = (system.place.folder / "tracker/db/files/msg").rglob(f"msg{message['id']}")
    assert text.read_text("utf-8") == "Il grandit.\n大きい\n\nContact: +221 00 000 00 00"
    assert content["id"] == message["id"]


@pytest.mark.slow
@module_loop
async def test_a_repeat_is_answered_like_the_first(system: Copy, feedback: Feedback) -> None:
    asked = complaint()
    assert await feedback.find(asked) is None
    reply = await feedback.handle(asked)
    assert await feedback.handle(asked) == reply
    assert await feedback.find(asked) == reply
    assert await filed(system, asked.exchange) == [reply.body["complaint"]]
    assert await submit(feedback, complaint()) != reply.body["complaint"], "another exchange is another complaint"


@pytest.mark.slow
@module_loop
async def test_of_many_tries_at_once_one_files_it(system: Copy, feedback: Feedback) -> None:
    asked = complaint("Many at once")
    came = await asyncio.gather(*(feedback.handle(asked) for _ in range(8)), return_exceptions=True)
    numbers = {each.body["complaint"] for each in came if not isinstance(each, BaseException)}
    others = [each for each in came if isinstance(each, BaseException)]
    assert len(numbers) == 1
    for each in others:
        assert isinstance(each, Unavailable)
        assert each.sent is True
        assert each.after is not None
        assert 0 < each.after <= 60
    assert await all_filed(system, "Many at once") == 1
    assert {await submit(feedback, asked)} == numbers


async def until_filed(feedback: Feedback, asked: Request) -> str:
    """As the bus would: again and again while it is unavailable."""
    async with asyncio.timeout(FILED_WITHIN):
        while True:
            with suppress(Unavailable):
                return await submit(feedback, asked)
            await asyncio.sleep(0.2)


@pytest.mark.slow
@module_loop
async def test_a_try_that_was_lost_is_made_again_when_nothing_can_come_of_it_any_more(system: Copy) -> None:
    asked = complaint("Lost on the way")
    await as_user(system, "POST", "keyword", {"name": f"{asked.exchange}.1"})
    async with adapter(system, hold=300) as patient:
        with pytest.raises(Unavailable) as raised:
            await patient.handle(asked)
        assert raised.value.sent is True
        assert await patient.find(asked) is None
    async with adapter(system, hold=3) as feedback:
        several = await asyncio.gather(*(until_filed(feedback, asked) for _ in range(3)))
    assert len(set(several)) == 1
    assert await all_filed(system, "Lost on the way") == 1


@pytest.mark.slow
@module_loop
async def test_what_comes_after_its_time_is_not_filed(system: Copy) -> None:
    """The promise of Roundup on which the second try rests."""
    _, token, _ = await as_user(system, "POST", "issue/@poe", {"lifetime": 1})
    async with asyncio.timeout(FILED_WITHIN):
        while True:
            _, _, date = await as_user(system, "GET", "status")
            if parsedate_to_datetime(date).timestamp() > token["expires"]:
                break
            await asyncio.sleep(0.1)
    late = token["link"].rpartition("/")[2]
    answer, _, _ = await as_user(system, "POST", f"issue/@poe/{late}", {"title": "Too late"})
    assert answer == 400
    assert await all_filed(system, "Too late") == 0


def on_the_way(system: Copy, *, times: int, answers: bool = True) -> AbstractAsyncContextManager[Listener]:
    """A way to the tracker on which what files a complaint arrives so many times, and its answer perhaps not at all."""

    async def once(content: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(system.host, system.port)
        writer.write(content)
        answer = await read_request(reader)
        writer.close()
        return answer

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            content = await read_request(reader)
            files = b"/issue/@poe/" in content.split(b"\r\n")[0]
            for _ in range(times if files else 1):
                answer = await once(content)
            if files and not answers:
                return
            writer.write(answer)
            await writer.drain()

    return listening(talk)


@pytest.mark.slow
@module_loop
async def test_a_request_that_is_repeated_on_its_way_is_answered_by_what_the_first_did(system: Copy) -> None:
    asked = complaint("Repeated by a proxy")
    async with (
        on_the_way(system, times=2) as way,
        adapter(system, url=f"{way.url}/feedback", web=web(system.place)) as feedback,
    ):
        assert [await submit(feedback, asked)] == await filed(system, asked.exchange)
    assert await all_filed(system, "Repeated by a proxy") == 1


@pytest.mark.slow
@module_loop
async def test_a_complaint_whose_answer_was_lost_is_found_again(system: Copy, feedback: Feedback) -> None:
    asked = complaint("Answer lost")
    async with (
        on_the_way(system, times=1, answers=False) as way,
        adapter(system, url=f"{way.url}/feedback", web=web(system.place)) as unlucky,
    ):
        with pytest.raises(Unavailable) as raised:
            await unlucky.handle(asked)
        assert raised.value.sent is True
    found = await feedback.find(asked)
    assert found is not None
    assert [await submit(feedback, asked)] == [found.body["complaint"]] == await filed(system, asked.exchange)


@pytest.mark.slow
@module_loop
async def test_how_a_complaint_stands(system: Copy, feedback: Feedback) -> None:
    number = await submit(feedback, complaint())
    first = await status(feedback, number)
    assert first["state"] == "RECEIVED"
    for kept, state in (("in-progress", "IN_PROGRESS"), ("resolved", "RESOLVED")):
        _, issue, _ = await as_user(system, "GET", f"issue/{number}", user="admin")
        answer, _, _ = await as_user(
            system, "PUT", f"issue/{number}", {"status": kept}, user="admin", If_Match=issue["@etag"]
        )
        assert answer == 200
        assert await status(feedback, number) == {
            **first,
            "state": state,
            "changed_at": (await status(feedback, number))["changed_at"],
        }
    async with adapter(system, states={"unread": "RECEIVED"}) as other:
        with pytest.raises(Broken, match="status"):
            await status(other, number)
    for unknown in ("999999", "../user/1"):
        with pytest.raises((Refused, Broken)):
            await status(feedback, unknown)
    with pytest.raises(Refused) as raised:
        await status(feedback, "999999")
    assert raised.value.code == "not_found"


@pytest.mark.slow
@module_loop
async def test_credentials_and_addresses_that_are_wrong_call_an_operator(system: Copy) -> None:
    secret = system.place.folder / "other.txt"
    secret.write_text("wrong\n")
    async with adapter(system, password="other.txt") as feedback:
        for attempt in (feedback.check(), feedback.handle(complaint())):
            with pytest.raises(Broken, match="401"):
                await attempt
        secret.write_text((system.place.folder / "gsb.txt").read_text())
        await feedback.check()
        secret.unlink()
        with pytest.raises(Unavailable) as raised:
            await feedback.check()
        assert raised.value.sent is False
    async with adapter(system, web="http://elsewhere.example/feedback/") as feedback:
        with pytest.raises(Broken):
            await feedback.handle(complaint("From elsewhere"))
    assert await all_filed(system, "From elsewhere") == 0


@pytest.mark.slow
@module_loop
async def test_a_tracker_that_was_killed_has_what_it_had_said(system: Copy, feedback: Feedback) -> None:
    asked = complaint()
    number = await submit(feedback, asked)
    await system.kill()
    for attempt in (feedback.handle(asked), feedback.check()):
        with pytest.raises(Unavailable) as raised:
            await attempt
        assert raised.value.sent is False
    await system.start()
    await feedback.check()
    assert await submit(feedback, asked) == number


@pytest.mark.parametrize("subject", ["", " ", "\t", "two\nlines"])
def test_a_complaint_without_a_subject_is_refused_before_the_tracker_is_asked(subject: str) -> None:
    """Roundup itself would take it."""
    assert schema("feedback/submit/v1", "request").faults({"subject": subject, "text": "x"})


# --- what a real tracker cannot be made to answer


async def told(tmp_path: Path, answer: bytes, asked: Request) -> BaseException:
    (tmp_path / "password").write_text("x")
    async with answering(answer) as server:
        settings = {"url": f"{server.url}/feedback", "user": "gsb", "password": "password"}
        async with opened(Feedback, settings, SERVICES, folder=tmp_path) as feedback:
            try:
                await feedback.handle(asked)
            except (Broken, Refused, Unavailable) as error:
                return error
    raise AssertionError("it was believed")


@pytest.mark.parametrize(("code", "sent"), [(429, False), (502, True), (503, True), (504, True)])
async def test_a_tracker_that_has_no_time(tmp_path: Path, code: int, sent: bool) -> None:
    error = await told(tmp_path, http(b"{}", f"{code} X", "Retry-After: 30"), complaint())
    assert isinstance(error, Unavailable)
    assert (error.sent, error.after) == (sent, 30.0)


DATE = "Date: Sun, 22 Nov 2026 07:05:00 GMT"


@pytest.mark.parametrize(
    ("answer", "headers"),
    [
        (b'{"data": {"collection": []}}', ()),
        (b'{"data": {"collection": {}}}', (DATE,)),
        (b'{"data": {"collection": [3]}}', (DATE,)),
        (b'{"data": {"collection": [{"id": 3, "creation": "2026-11-22.07:04:59"}]}}', (DATE,)),
        (b'{"data": {"collection": [{"id": "3", "creation": "yesterday"}]}}', (DATE,)),
        (b"[]", (DATE,)),
    ],
)
async def test_claims_that_make_no_sense_are_broken(tmp_path: Path, answer: bytes, headers: tuple[str, ...]) -> None:
    assert isinstance(await told(tmp_path, http(answer, "200 OK", *headers), complaint()), Broken)


@pytest.mark.parametrize("line", ["400 Bad", "403 Forbidden", "404 Not Found", "409 Conflict", "500 Oops"])
async def test_any_other_status_is_broken(tmp_path: Path, line: str) -> None:
    for asked in (complaint(), request("feedback/status/v1", {"complaint": "1"}), request("feedback/other/v1", {})):
        assert isinstance(await told(tmp_path, http(b"no", line, DATE), asked), Broken)
