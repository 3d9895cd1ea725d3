"""Replies: only what the bus signed in answer to this very request is believed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb import compact, jws
from gsb.jwk import ALGORITHMS, PrivateKey, generate, read_private, to_base64url
from gsb.jws import ReplyClaims, ReplyFacts, ReplyRefused
from gsb.model import State
from tests.support.tokens import BUS, IAT, KEY, KEYS, MEMBERS, NOW, code, parts_of, request, sign_raw

EXCHANGE = "01890a5d-ac96-774b-bcce-b302099a8057"
ENTRY = to_base64url(bytes(range(32)))
BUS_KEY = read_private(generate("ES256"))

REQUEST = request()
ANSWER = b'{"tax":{"amount":"12.00","currency":"XOF"}}'
FACTS = ReplyFacts(200, ANSWER, "application/json", EXCHANGE, "done", "done", ENTRY)


def reply(facts: ReplyFacts = FACTS, key: PrivateKey = BUS_KEY, **changes: Any) -> str:
    said: dict[str, Any] = {
        "issuer": BUS,
        "audience": "payroll",
        "request_jti": parts_of(REQUEST)[1]["jti"],
        "request_hash": jws.request_hash(REQUEST),
        "now": NOW,
    }
    return jws.sign_reply(key, facts=facts, **(said | changes))


def believe(token: str | None, **changes: Any) -> ReplyClaims:
    got: dict[str, Any] = {
        "bus": BUS,
        "caller": "payroll",
        "request_jws": REQUEST,
        "status": 200,
        "body": ANSWER,
        "content_type": "application/json",
        "now": NOW,
    }
    return jws.verify_reply(token, {BUS_KEY.kid: BUS_KEY.public}, **(got | changes))


def disbelief(token: str | None, **changes: Any) -> str:
    with pytest.raises(ReplyRefused) as caught:
        believe(token, **changes)
    assert str(caught.value) == caught.value.reason
    return caught.value.reason


def restate(**claims: Any) -> str:
    without = [name for name, value in claims.items() if value is ...]
    header, old = parts_of(reply())
    changed = {name: value for name, value in (old | claims).items() if name not in without}
    return sign_raw(orjson.dumps(header), orjson.dumps(changed), BUS_KEY)


def test_a_reply_says_what_was_stated() -> None:
    token = reply()
    claims = believe(token)
    assert claims == ReplyClaims(
        issuer=BUS,
        audience="payroll",
        issued_at=IAT,
        jti=parts_of(token)[1]["jti"],
        request_jti=parts_of(REQUEST)[1]["jti"],
        request_hash=jws.request_hash(REQUEST),
        status=200,
        content_digest=jws.content_digest(ANSWER),
        content_type="application/json",
        exchange=EXCHANGE,
        state="done",
        effect="done",
        entry=ENTRY,
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_bus_may_sign_with_each_algorithm(algorithm: str) -> None:
    key = KEYS[algorithm]
    token = reply(key=key)
    jws.verify_reply(
        token,
        {key.kid: key.public},
        bus=BUS,
        caller="payroll",
        request_jws=REQUEST,
        status=200,
        body=ANSWER,
        content_type="application/json",
        now=NOW,
    )
    assert parts_of(token)[0] == {"alg": algorithm, "kid": key.kid, "typ": "gsb-res+jwt"}


def test_states_and_effects_of_an_exchange() -> None:
    for state in State:
        facts = replace(FACTS, state=state, effect="none" if state.final else None)
        assert believe(reply(facts)).state == state.value
        wrong = replace(facts, effect=None if state.final else "none")
        assert "effect" in disbelief(reply(wrong))


def test_a_reply_about_this_call_alone() -> None:
    alone = ReplyFacts(429, b'{"code":"rate_exceeded"}', "application/problem+json", None, None, None, None)
    claims = believe(reply(alone), status=429, body=alone.body, content_type=alone.content_type)
    assert (claims.exchange, claims.state, claims.effect, claims.entry) == (None,) * 4


def test_a_reply_without_a_body_has_no_content_type() -> None:
    empty = replace(FACTS, status=204, body=b"")
    assert believe(reply(empty), status=204, body=b"").content_type is None
    assert believe(reply(empty), status=204, body=b"", content_type=None).content_type is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"bus": "other.example"}, "iss"),
        ({"caller": "tax"}, "aud"),
        ({"request_jws": request()}, "req_jti"),
        ({"request_jws": REQUEST[:-4] + "AAAA"}, "req_hash"),
        ({"status": 201}, "status"),
        ({"body": ANSWER + b"\n"}, "content_digest"),
        ({"body": b""}, "content_digest"),
        ({"content_type": None}, "content_type"),
        ({"content_type": "application/problem+json"}, "content_type"),
        ({"now": NOW + 121}, "iat"),
        ({"now": NOW - 121}, "iat"),
    ],
)
def test_a_reply_to_something_else_or_with_something_else(change: dict[str, Any], word: str) -> None:
    assert f"claim {word} " in disbelief(reply(), **change)


def test_clocks_may_differ_by_two_minutes() -> None:
    for skew in (-119, 119):
        assert believe(reply(), now=NOW + skew)


def test_replies_that_nobody_or_somebody_else_signed() -> None:
    assert "missing" in disbelief(None)
    assert "8 KiB" in disbelief("x" * 9000)
    assert "three parts" in disbelief("x.y")
    assert "typ" in disbelief(REQUEST)
    assert "kid" in disbelief(reply(key=KEY))
    header, claims = parts_of(reply())
    assert "verify" in disbelief(sign_raw(orjson.dumps(header), orjson.dumps(claims), KEY))
    other = sign_raw(orjson.dumps(header | {"alg": "PS256"}), orjson.dumps(claims), BUS_KEY)
    assert "verify" in disbelief(other)
    padded = reply() + "="
    assert "base64url" in disbelief(padded)


def test_a_reply_is_no_request_and_a_request_no_reply() -> None:
    MEMBERS[BUS_KEY.kid] = BUS_KEY.public
    try:
        assert code(reply()) == "signature_type_refused"
    finally:
        del MEMBERS[BUS_KEY.kid]


@pytest.mark.parametrize("name", sorted(compact.REPLY_RULES.required))
def test_a_reply_that_lacks_a_claim(name: str) -> None:
    assert name in disbelief(restate(**{name: ...}))


@pytest.mark.parametrize("name", compact.REPLY_RULES.forms)
@pytest.mark.parametrize("value", [None, True, "", 1.5, -1, [], {}])
def test_a_claim_of_a_reply_in_another_form(name: str, value: Any) -> None:
    assert f"claim {name} has" in disbelief(restate(**{name: value}))


@pytest.mark.parametrize(
    ("claims", "word"),
    [
        ({"exchange": ...}, "exchange"),
        ({"state": ...}, "exchange"),
        ({"exchange": ..., "state": ...}, "effect"),
        ({"exchange": ..., "state": ..., "effect": ...}, "entry"),
        ({"effect": ...}, "effect"),
        ({"state": "running"}, "effect"),
        ({"state": "finished"}, "state"),
        ({"effect": "once"}, "effect"),
        ({"exchange": EXCHANGE.upper()}, "exchange"),
        ({"entry": ENTRY + "A"}, "entry"),
        ({"status": 600}, "status"),
        ({"status": "200"}, "status"),
        ({"exp": IAT + 60}, "not known"),
        ({"status": 204}, "status"),
        ({"content_type": ...}, "content_type"),
    ],
)
def test_replies_that_contradict_themselves(claims: dict[str, Any], word: str) -> None:
    assert word in disbelief(restate(**claims))


@settings(max_examples=300, deadline=None)
@given(st.integers(min_value=0), st.integers(0, 6))
def test_no_bit_of_a_reply_can_be_turned(place: int, bit: int) -> None:
    token = STATED
    place %= len(token)
    disbelief(token[:place] + chr(ord(token[place]) ^ 1 << bit) + token[place + 1 :])


STATED = reply()
