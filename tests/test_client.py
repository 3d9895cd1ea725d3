"""The client against a bus on loopback that signs, lies, stalls and breaks off as its script says."""

from __future__ import annotations

import asyncio
import shlex
import time

import orjson
import pytest
from aiohttp import web

from gsb.client import (
    BusProblem,
    Client,
    OutcomePending,
    ReplyUntrusted,
    Unreachable,
    sign_curl,
)
from gsb.errors import Fault
from tests.support.signing_bus import (
    AGENCY,
    BUS,
    ENTRY,
    EXCHANGE,
    KEY,
    MINE,
    SERVICE,
    Seen,
    Step,
    done,
    reset,
    signing_bus,
    talking,
)


async def test_a_call_is_signed_for_what_is_sent_and_its_reply_is_returned() -> None:
    async with talking(done) as (bus, client, _):
        result = await client.call(
            SERVICE, {"id": "P-0001"}, purpose="payroll", idempotency_key="k-1", wait=7, sub="ada", case="c-1"
        )
    seen = bus.seen[0]
    assert seen.http.headers["Idempotency-Key"] == '"k-1"'
    assert seen.http.headers["Prefer"] == "wait=7"
    assert (seen.http.path, orjson.loads(seen.body)) == (f"/services/{SERVICE}", {"id": "P-0001"})
    assert (seen.signed.purpose, seen.signed.sub, seen.signed.case) == ("payroll", "ada", "c-1")
    assert seen.signed.idempotency_key == "k-1"
    assert (result.status, result.body, result.requests) == (200, {"ok": True}, 1)
    assert (result.exchange, result.state, result.effect, result.entry) == (EXCHANGE, "done", "done", ENTRY)
    assert (result.final, result.signed, result.replayed) == (True, True, False)


async def test_bytes_are_sent_as_they_are() -> None:
    async with talking(done) as (bus, client, _):
        await client.call(SERVICE, b'{ "id" :1}', purpose="payroll")
    assert bus.seen[0].body == b'{ "id" :1}'


async def test_a_done_exchange_may_have_no_body() -> None:
    def empty(seen: Seen) -> web.Response:
        return seen.answer(204, None, exchange=EXCHANGE, state="done", effect="done")

    async with talking(empty) as (_, client, _pauses):
        result = await client.call(SERVICE, {}, purpose="payroll")
    assert (result.status, result.body, result.state) == (204, None, "done")


async def test_an_outcome_given_before_says_so() -> None:
    async with talking(lambda seen: seen.done(**{"Idempotent-Replayed": "true"})) as (_, client, _pauses):
        assert (await client.call(SERVICE, {}, purpose="payroll")).replayed


async def test_each_call_has_a_key_of_its_own_unless_told_otherwise() -> None:
    async with talking(done) as (bus, client, _):
        await client.call(SERVICE, {}, purpose="payroll")
        await client.call(SERVICE, {}, purpose="payroll")
    keys = {seen.signed.idempotency_key for seen in bus.seen}
    assert len(keys) == 2
    assert None not in keys


# --- repeating


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_what_may_pass_is_repeated_after_the_time_the_bus_asks_for(status: int) -> None:
    async with talking(lambda seen: seen.problem(status, "busy", after=3), done) as (bus, client, pauses):
        result = await client.call(SERVICE, {}, purpose="payroll")
    assert (result.requests, pauses) == (2, [3.0])
    assert len({seen.signed.jti for seen in bus.seen}) == 2
    assert len({seen.signed.idempotency_key for seen in bus.seen}) == 1


async def test_without_retry_after_the_pauses_grow() -> None:
    broken: list[Step] = [lambda seen: seen.problem(500, "internal_error")] * 6
    async with talking(*broken, done) as (_, client, pauses):
        assert (await client.call(SERVICE, {}, purpose="payroll")).requests == 7
    # Each is doubled and then stretched by up to two, so that each is more than the one before last.
    assert all(later > earlier for earlier, later in zip(pauses, pauses[2:], strict=False))


async def test_a_wish_to_wait_longer_than_the_time_left_ends_the_call() -> None:
    async with talking(lambda seen: seen.problem(429, "rate_exceeded", after=90)) as (_, client, pauses):
        with pytest.raises(BusProblem) as caught:
            await client.call(SERVICE, {}, purpose="payroll", timeout=10)
    assert (caught.value.code, caught.value.requests, pauses) == ("rate_exceeded", 1, [])


async def test_a_final_state_ends_the_call_whatever_its_status() -> None:
    def expired(seen: Seen) -> web.Response:
        return seen.problem(504, "exchange_expired", exchange=EXCHANGE, state="expired", effect="none")

    async with talking(expired) as (bus, client, _):
        with pytest.raises(BusProblem) as caught:
            await client.call(SERVICE, {}, purpose="payroll")
    assert len(bus.seen) == 1
    assert (caught.value.exchange, caught.value.state, caught.value.effect) == (EXCHANGE, "expired", "none")


async def test_a_lost_answer_is_asked_for_again_under_the_same_key() -> None:
    async with talking(reset, done) as (bus, client, _):
        result = await client.call(SERVICE, {"n": 1}, purpose="payroll")
    first, second = (seen.signed for seen in bus.seen)
    assert result.requests == 2
    assert first.jti != second.jti
    assert (first.idempotency_key, first.content_digest) == (second.idempotency_key, second.content_digest)


async def test_a_jti_that_the_http_library_sent_twice_is_replaced() -> None:
    async with talking(lambda seen: seen.problem(409, "replayed"), done) as (_, client, _pauses):
        assert (await client.call(SERVICE, {}, purpose="payroll")).requests == 2


async def test_nobody_there_is_unreachable_and_says_under_which_key_to_repeat() -> None:
    async with talking(done) as (bus, client, _):
        await client.services()
    async with Client(bus.url, bus=BUS, agency=AGENCY, key=MINE, bus_keys={KEY.kid: KEY.public}) as late:
        with pytest.raises(Unreachable) as caught:
            await late.call(SERVICE, {}, purpose="payroll", timeout=0)
    assert caught.value.idempotency_key


async def test_a_silent_bus_is_given_up_when_the_time_is_over() -> None:
    released = asyncio.Event()

    async def silent(seen: Seen) -> web.StreamResponse:
        await released.wait()
        return seen.done()

    async with talking(silent) as (_, client, _pauses):
        with pytest.raises(Unreachable):
            await client.call(SERVICE, {}, purpose="payroll", timeout=0.2)
        released.set()


@pytest.mark.parametrize(
    ("wait", "timeout", "most"), [(None, 600, 20), (None, 6, 5), (30, 6, 5), (3, 600, 3), (9, 0, 0)]
)
async def test_the_bus_is_asked_to_wait_no_longer_than_there_is_time(
    wait: int | None, timeout: float, most: int
) -> None:
    async with talking(done) as (bus, client, _):
        await client.call(SERVICE, {}, purpose="payroll", wait=wait, timeout=timeout)
    name, _, seconds = bus.seen[0].http.headers["Prefer"].partition("=")
    assert name == "wait"
    assert (0 if timeout == 6 else most) <= int(seconds) <= most  # a slow machine may have used some of the six


async def test_with_less_time_than_the_bus_would_wait_the_exchange_is_known_all_the_same() -> None:
    """A bus that is not told otherwise waits longer than this caller, who then knew nothing."""

    async def waiting(seen: Seen) -> web.StreamResponse:
        if "Prefer" not in seen.http.headers:
            await asyncio.Event().wait()
        return seen.pending(after=60)

    async with talking(waiting) as (_, client, _pauses):
        with pytest.raises(OutcomePending) as caught:
            await client.call(SERVICE, {}, purpose="payroll", timeout=50)
    assert caught.value.exchange == EXCHANGE


async def test_what_the_bus_said_before_it_fell_silent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gsb.client.PAUSE_MAX", 3_600.0)  # so that a pause is soon longer than the time left
    async with talking(lambda seen: seen.problem(503, "store_unavailable"), reset) as (_, client, _pauses):
        with pytest.raises(Unreachable, match="; before that: 503 store_unavailable") as caught:
            await client.call(SERVICE, {}, purpose="payroll", timeout=60)
    assert isinstance(caught.value.__cause__, BusProblem)
    assert caught.value.requests > 2


async def test_an_answer_that_was_not_to_be_believed_is_told_although_there_was_none_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gsb.client.PAUSE_MAX", 3_600.0)

    def forged(seen: Seen) -> web.Response:
        return web.Response(status=200, headers={"GSB-Signature": "forged"})

    async with talking(forged, reset) as (_, client, _pauses):
        with pytest.raises(ReplyUntrusted):
            await client.call(SERVICE, {}, purpose="payroll", timeout=60)


# --- problems


async def test_a_refusal_is_raised_at_once_with_all_it_says() -> None:
    more = {"title": "T", "detail": "D", "origin": "consumer", "errors": [{"pointer": "/a", "detail": "wrong"}]}
    async with talking(lambda seen: seen.problem(422, "body_invalid", more=more)) as (bus, client, _):
        with pytest.raises(BusProblem, match="422 body_invalid: D") as caught:
            await client.call(SERVICE, {}, purpose="payroll")
    problem = caught.value
    assert len(bus.seen) == 1
    assert (problem.status, problem.code, problem.origin, problem.title) == (422, "body_invalid", "consumer", "T")
    assert problem.pointers == (Fault("/a", "wrong"),)
    assert (problem.signed, problem.exchange, problem.state) == (True, None, None)


async def test_an_unsigned_problem_is_only_a_hint() -> None:
    document = {"code": "key_unknown", "status": 401, "origin": "consumer"}
    async with talking(lambda _: web.json_response(document, status=401)) as (_, client, _pauses):
        with pytest.raises(BusProblem) as caught:
            await client.call(SERVICE, {}, purpose="payroll")
    assert (caught.value.code, caught.value.signed, caught.value.state) == ("key_unknown", False, None)


async def test_something_in_front_of_the_bus_is_not_followed_elsewhere() -> None:
    def elsewhere(seen: Seen) -> web.Response:
        return web.Response(status=307, headers={"Location": f"{seen.bus.url}/elsewhere"})

    async with talking(elsewhere) as (bus, client, _):
        with pytest.raises(BusProblem, match="http_307"):
            await client.call(SERVICE, {}, purpose="payroll")
    assert len(bus.seen) == 1


# --- following


async def test_202_is_followed_to_the_outcome() -> None:
    async with talking(lambda seen: seen.pending(after=2), lambda seen: seen.pending("running", after=4), done) as (
        bus,
        client,
        pauses,
    ):
        result = await client.call(SERVICE, {}, purpose="payroll")
    assert (result.status, result.body, result.requests, pauses) == (200, {"ok": True}, 3, [2.0, 4.0])
    asked = [(seen.http.method, seen.http.path) for seen in bus.seen[1:]]
    assert asked == [("GET", f"/exchanges/{EXCHANGE}/reply")] * 2
    assert bus.seen[1].signed.purpose is None
    assert bus.seen[1].http.headers["Prefer"] == "wait=20"


async def test_a_follower_survives_a_lost_answer() -> None:
    async with talking(lambda seen: seen.pending(), reset, done) as (_, client, _pauses):
        assert (await client.call(SERVICE, {}, purpose="payroll")).status == 200


async def test_respond_async_returns_the_202_to_be_followed_later() -> None:
    async with talking(lambda seen: seen.pending(), done) as (bus, client, _):
        promised = await client.call(SERVICE, {}, purpose="payroll", respond_async=True)
        assert (promised.status, promised.state, promised.final) == (202, "accepted", False)
        assert bus.seen[0].http.headers["Prefer"] == "respond-async"
        assert promised.exchange is not None
        assert (await client.follow(promised.exchange)).state == "done"


async def test_an_exchange_that_waits_for_an_operator_is_pending() -> None:
    async with talking(lambda seen: seen.pending("unknown", after=60)) as (_, client, _pauses):
        with pytest.raises(OutcomePending) as caught:
            await client.call(SERVICE, {}, purpose="payroll", timeout=30)
    assert (caught.value.exchange, caught.value.state) == (EXCHANGE, "unknown")


async def test_trouble_while_following_leaves_the_exchange_pending() -> None:
    def trouble(seen: Seen) -> web.Response:
        return seen.problem(503, "busy", after=90)

    async with talking(lambda seen: seen.pending(), trouble) as (_, client, _pauses):
        with pytest.raises(OutcomePending) as caught:
            await client.call(SERVICE, {}, purpose="payroll", timeout=30)
    assert isinstance(caught.value.__cause__, BusProblem)


async def test_the_reply_must_be_of_the_exchange_that_is_followed() -> None:
    def swapped(seen: Seen) -> web.Response:
        return seen.answer(200, {}, exchange=EXCHANGE[:-1] + "2", state="done", effect="none")

    async with talking(swapped) as (_, client, _pauses):
        with pytest.raises(ReplyUntrusted, match="another exchange"):
            await client.reply(EXCHANGE)
        with pytest.raises(OutcomePending):
            await client.follow(EXCHANGE)


async def test_reply_and_exchange_ask_once() -> None:
    async with talking(
        lambda seen: seen.pending(),
        lambda seen: seen.answer(200, {"state": "done"}, exchange=EXCHANGE, state="done", effect="none"),
    ) as (bus, client, _):
        assert (await client.reply(EXCHANGE)).status == 202
        assert (await client.exchange(EXCHANGE)).body == {"state": "done"}
    assert [seen.http.path for seen in bus.seen] == [f"/exchanges/{EXCHANGE}/reply", f"/exchanges/{EXCHANGE}"]


# --- operators


async def test_an_act_is_signed_for_the_operations_port_and_never_repeated() -> None:
    async with talking(lambda seen: seen.answer(200, {"exchanges": []}), reset) as (bus, client, _):
        client.operations_url = bus.url
        found = await client.admin("GET", "/admin/exchanges?state=held&reason=a%20look")
        assert found.body == {"exchanges": []}
        with pytest.raises(Unreachable):
            await client.admin("POST", f"/admin/exchanges/{EXCHANGE}/close", {"reason": "done by hand"})
    assert bus.seen[0].signed.target_uri == f"{bus.url}/admin/exchanges?state=held&reason=a%20look"
    assert len(bus.seen) == 2


async def test_acts_need_the_operations_url() -> None:
    async with talking(done) as (_, client, _pauses):
        with pytest.raises(ValueError, match="operations_url"):
            await client.admin("GET", "/admin/exchanges")


async def test_wait_and_respond_async_exclude_each_other() -> None:
    async with talking(done) as (_, client, _pauses):
        with pytest.raises(ValueError, match="not both"):
            await client.call(SERVICE, {}, purpose="payroll", wait=1, respond_async=True)


# --- curl


async def test_the_curl_line_makes_the_call_once() -> None:
    async with signing_bus(MINE) as bus:
        bus.script = [done]
        body = b'{"name":"O\'Hara $(id) @x"}'
        line = sign_curl(
            MINE,
            issuer=AGENCY,
            bus=BUS,
            base_url=bus.url,
            service=SERVICE,
            body=body,
            purpose="payroll",
            idempotency_key="k-1",
            now=time.time(),
        )
        shell = await asyncio.create_subprocess_exec("sh", "-c", line, stdout=asyncio.subprocess.PIPE)
        output, _ = await shell.communicate()
    assert output.startswith(b"HTTP/1.1 200")
    assert (bus.seen[0].body, bus.seen[0].signed.idempotency_key) == (body, "k-1")


def test_a_body_beyond_a_command_line_gets_no_curl_line() -> None:
    with pytest.raises(ValueError, match="command line"):
        sign_curl(
            MINE, issuer=AGENCY, bus=BUS, base_url="https://b", service=SERVICE, body=b" " * 100_001, purpose="p", now=0
        )


def test_a_body_that_is_no_text_gets_no_curl_line() -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        sign_curl(MINE, issuer=AGENCY, bus=BUS, base_url="https://b", service=SERVICE, body=b"\xff", purpose="p", now=0)


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "bus.example", "ftp://bus.example", ""])
def test_what_is_no_base_url_is_told_before_anything_is_sent(url: str) -> None:
    with pytest.raises(ValueError, match="is no base URL"):
        Client(url, bus=BUS, agency=AGENCY, key=MINE, bus_keys={KEY.kid: KEY.public})


def test_the_curl_line_is_one_shell_command() -> None:
    line = sign_curl(
        MINE, issuer=AGENCY, bus=BUS, base_url="https://b", service=SERVICE, body=b"{}", purpose="p", now=0
    )
    words = shlex.split(line)
    assert (words[0], words[-2:]) == ("curl", ["{}", f"https://b/services/{SERVICE}"])
