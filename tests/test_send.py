"""One signed call: which replies are believed, and with which keys of the bus."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import orjson
import pytest
from aiohttp import web

from gsb import jwk, jws
from gsb.client import Client, ReplyUntrusted, Unreachable
from gsb.send import BusKeys
from tests.support.signing_bus import (
    AGENCY,
    BUS,
    EXCHANGE,
    KEY,
    MINE,
    OTHER,
    SERVICE,
    Seen,
    Step,
    done,
    signing_bus,
    talking,
)
from tests.support.sockets import Talk, listening, read_request


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call is all there is time for, however long that takes on a busy machine."""
    monkeypatch.setattr("gsb.client.LEAST", 60.0)


# --- replies that must not be believed


def foreign_key(seen: Seen) -> web.Response:
    return signed_by_hand(seen, key=OTHER)


def wrong_hash(seen: Seen) -> web.Response:
    return signed_by_hand(seen, request_hash=jws.request_hash("another.request.entirely"))


def tampered_body(seen: Seen) -> web.Response:
    return signed_by_hand(seen, sent=b'{"ok":tru1}')


def tampered_status(seen: Seen) -> web.Response:
    return signed_by_hand(seen, status=201)


def tampered_type(seen: Seen) -> web.Response:
    return signed_by_hand(seen, kind="application/xml")


def twice(seen: Seen) -> web.Response:
    answer = seen.done()
    answer.headers.add("GSB-Signature", answer.headers["GSB-Signature"])
    return answer


def unsigned(_: Seen) -> web.Response:
    return web.json_response({"ok": True})


def success_without_state(seen: Seen) -> web.Response:
    return seen.answer(200, {"ok": True})


def signed_by_hand(
    seen: Seen,
    *,
    key: jwk.PrivateKey = KEY,
    request_hash: str | None = None,
    sent: bytes = b'{"ok":true}',
    status: int = 200,
    kind: str = "application/json",
) -> web.Response:
    """The reply to a done exchange, with one thing about it untrue."""
    facts = jws.ReplyFacts(
        status=200,
        body=b'{"ok":true}',
        content_type="application/json",
        exchange=EXCHANGE,
        state="done",
        effect="done",
        entry=None,
    )
    token = seen.sign(facts, key=key, request_hash=request_hash)
    return web.Response(status=status, body=sent, headers={"Content-Type": kind, "GSB-Signature": token})


LIES = [foreign_key, wrong_hash, tampered_body, tampered_status, tampered_type, twice, unsigned]


@pytest.mark.parametrize("lie", LIES)
async def test_a_reply_that_does_not_verify_is_never_returned(lie: Step) -> None:
    async with talking(lie) as (bus, client, _):
        with pytest.raises(ReplyUntrusted) as caught:
            await client.call(SERVICE, {}, purpose="payroll", idempotency_key="k-1", timeout=0)
    assert (caught.value.requests, caught.value.idempotency_key) == (len(bus.seen), "k-1") == (1, "k-1")


@pytest.mark.parametrize("lie", LIES)
async def test_it_is_repeated_with_a_new_jti_and_the_same_key(lie: Step) -> None:
    async with talking(lie, done) as (bus, client, _):
        result = await client.call(SERVICE, {}, purpose="payroll")
    assert (result.body, result.requests) == ({"ok": True}, 2)
    assert len({seen.signed.jti for seen in bus.seen}) == 2
    assert len({seen.signed.idempotency_key for seen in bus.seen}) == 1


async def test_a_reply_to_another_call_is_not_believed() -> None:
    kept: list[web.Response] = []

    def keep(seen: Seen) -> web.Response:
        kept.append(answer := seen.done())
        return answer

    def swap(_: Seen) -> web.Response:
        return web.Response(body=kept[0].body, headers=kept[0].headers)

    async with talking(keep, swap) as (_, client, _pauses):
        await client.call(SERVICE, {}, purpose="payroll")
        with pytest.raises(ReplyUntrusted):
            await client.call(SERVICE, {}, purpose="payroll", timeout=0)


async def test_success_without_a_final_state_is_no_outcome() -> None:
    async with talking(success_without_state) as (_, client, _pauses):
        with pytest.raises(ReplyUntrusted, match="final state"):
            await client.call(SERVICE, {}, purpose="payroll")


async def test_a_reply_that_is_too_old_is_not_believed() -> None:
    """The bus's clock is right, and the client's an hour ahead once the call is signed."""
    async with signing_bus(MINE) as bus:
        bus.script = [done]
        times = iter([time.time()])

        def clock() -> float:
            return next(times, time.time() + 3600)

        async with Client(bus.url, bus=BUS, agency=AGENCY, key=MINE, clock=clock) as client:
            with pytest.raises(ReplyUntrusted):
                await client.call(SERVICE, {}, purpose="payroll", timeout=0)


# --- keys


async def test_keys_are_fetched_once_for_any_number_of_calls() -> None:
    async with talking(done) as (bus, client, _):
        await client.call(SERVICE, {}, purpose="payroll")
        await client.call(SERVICE, {}, purpose="payroll")
    assert bus.fetches == 1


async def test_a_lie_does_not_make_the_client_fetch_keys_again_within_a_minute() -> None:
    async with talking(foreign_key) as (bus, client, _):
        for _ in range(3):
            with pytest.raises(ReplyUntrusted):
                await client.call(SERVICE, {}, purpose="payroll", timeout=0)
    assert bus.fetches == 1


async def test_a_new_key_of_the_bus_is_learnt_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gsb.send.REFETCH", 0.0)
    async with talking(done, foreign_key) as (bus, client, _):
        await client.call(SERVICE, {}, purpose="payroll")
        bus.jwks.append(OTHER)
        assert (await client.call(SERVICE, {}, purpose="payroll")).requests == 1
    assert bus.fetches == 2


async def test_what_another_call_has_learnt_meanwhile_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with talking() as (bus, _, _), aiohttp.ClientSession() as session:
        keys = BusKeys(bus.url, None)
        known = await keys.current(session)
        bus.jwks.append(OTHER)
        assert await keys.renewed(session, known) is None, "they were fetched less than a minute ago"
        monkeypatch.setattr("gsb.send.REFETCH", 0.0)
        learnt = await keys.renewed(session, known)
        monkeypatch.undo()
        assert learnt is not None
        assert OTHER.kid in learnt
        assert await keys.renewed(session, known) is learnt
        assert await keys.renewed(session, learnt) is None
    assert bus.fetches == 2


async def test_given_keys_are_the_only_ones() -> None:
    async with talking(foreign_key, bus_keys={KEY.kid: KEY.public}) as (bus, client, _):
        bus.jwks.append(OTHER)
        with pytest.raises(ReplyUntrusted):
            await client.call(SERVICE, {}, purpose="payroll", timeout=0)
    assert bus.fetches == 0


def test_keys_are_not_fetched_in_the_clear() -> None:
    with pytest.raises(ValueError, match="TLS or loopback"):
        Client("http://bus.example", bus=BUS, agency=AGENCY, key=MINE)
    Client("http://bus.example", bus=BUS, agency=AGENCY, key=MINE, bus_keys={})
    Client("https://bus.example", bus=BUS, agency=AGENCY, key=MINE)


async def test_something_else_than_keys_is_no_key_set() -> None:
    async with talking(done) as (bus, client, _):
        bus.jwks_text = b'{"keys": 7}'
        with pytest.raises(ReplyUntrusted, match="JWK set"):
            await client.call(SERVICE, {}, purpose="payroll", timeout=0)
    assert bus.seen == []


async def test_a_key_of_a_kind_that_is_not_known_does_not_hide_the_others() -> None:
    async with talking(done) as (bus, client, _):
        bus.jwks_text = orjson.dumps({"keys": [{"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}, KEY.public.jwk]})
        assert (await client.call(SERVICE, {}, purpose="payroll")).signed


async def test_a_reply_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gsb.send.REPLY_LIMIT", 1_000)
    async with talking(lambda seen: seen.done("x" * 2_000)) as (_, client, _pauses):
        with pytest.raises(ReplyUntrusted, match="larger than 1000 bytes"):
            await client.call(SERVICE, {}, purpose="payroll", timeout=0)


async def test_a_session_that_was_given_stays_open() -> None:
    async with aiohttp.ClientSession() as session, talking(done, session=session) as (_, client, _pauses):
        await client.call(SERVICE, {}, purpose="payroll")
        await client.__aexit__(None, None, None)
        assert not session.closed


# --- no answer


async def closed(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await read_request(reader)


async def without_tls(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(
    ("talk", "scheme", "reason"),
    [
        (None, "http", "Connection refused"),
        (closed, "http", "the connection was closed without an answer"),
        (without_tls, "https", "no TLS connection could be made"),
    ],
)
async def test_why_there_was_no_answer_is_told_without_the_query(talk: Talk | None, scheme: str, reason: str) -> None:
    async with listening(talk or closed) as listener:
        if talk is not None:
            said = await unreachable(f"{scheme}://127.0.0.1:{listener.port}")
    if talk is None:
        said = await unreachable(listener.url)
    assert said == f"GET {scheme}://127.0.0.1:{listener.port}/admin/exchanges: {reason}"


async def unreachable(url: str) -> str:
    """What is said of an administrative call that gets no answer there."""
    keys = {KEY.kid: KEY.public}
    async with Client(url, bus=BUS, agency=AGENCY, key=MINE, bus_keys=keys, operations_url=url) as client:
        with pytest.raises(Unreachable) as caught:
            await client.admin("GET", "/admin/exchanges?reason=a%20name")
    return str(caught.value)
