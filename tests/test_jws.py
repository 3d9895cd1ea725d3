"""Requests: whoever signs what they send is believed, and nobody else, nor for anything else."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb import compact, jws
from gsb.errors import KeyRevoked, Problem
from gsb.jwk import ALGORITHMS, PublicKey, from_base64url, generate, read_private, to_base64url
from gsb.model import Call, Signed
from tests.support.tokens import (
    BASE,
    BODY,
    IAT,
    KEY,
    KEYS,
    NOW,
    TARGET,
    code,
    parts_of,
    refusal,
    request,
    resign,
    sign_raw,
    verify,
)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_was_signed_is_what_is_read(algorithm: str) -> None:
    token = request(KEYS[algorithm])
    signed = verify(token)
    assert signed == Signed(
        issuer="payroll",
        key_id=KEYS[algorithm].kid,
        jti=parts_of(token)[1]["jti"],
        issued_at=IAT,
        expires_at=IAT + 60,
        method="POST",
        target_uri=BASE + TARGET,
        content_digest=jws.content_digest(BODY),
        content_type="application/json",
        idempotency_key="8e03978e-40d5",
        purpose="payroll",
        sub="Aïcha Ouédraogo",
        case="2026/17",
        jws=token,
        request_hash=jws.request_hash(token),
    )
    assert parts_of(token)[0] == {"alg": algorithm, "kid": KEYS[algorithm].kid, "typ": "gsb-req+jwt"}


def test_what_is_optional_may_be_absent() -> None:
    token = request(method="GET", body=b"", content_type="x/y", idempotency_key=None, purpose=None, sub=None, case=None)
    assert parts_of(token)[1].keys() == compact.REQUEST_RULES.required
    signed = verify(token)
    assert (signed.content_type, signed.idempotency_key, signed.purpose, signed.sub, signed.case) == (None,) * 5


def test_either_name_of_ed25519_fits_a_key_that_names_either() -> None:
    for named, other in (("Ed25519", "EdDSA"), ("EdDSA", "Ed25519")):
        assert verify(resign(key=KEYS[named], header={"alg": other})).key_id == KEYS[named].kid


def test_the_digest_is_that_of_rfc_9530() -> None:
    # RFC 9530, appendix D, and the empty body.
    assert jws.content_digest(b'{"hello": "world"}\n') == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
    assert jws.content_digest(b"") == "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"


def test_each_request_has_its_own_jti_of_enough_random_bits() -> None:
    ids = {verify(request()).jti for _ in range(50)}
    assert len(ids) == 50
    assert {len(from_base64url(jti)) for jti in ids} == {16}


# --- key, signature, audience, time -------------------------------------------------------------------------


def test_the_look_up_of_keys_decides_which_are_in_force() -> None:
    assert code(resign(iss="tax")) == "key_unknown"
    assert code(resign(header={"kid": to_base64url(bytes(32))})) == "key_unknown"

    def revoked(issuer: str, kid: str) -> PublicKey:
        assert (issuer, kid) == ("payroll", KEY.kid)
        raise KeyRevoked

    assert code(request(), revoked) == "key_revoked"


@pytest.mark.parametrize("named", ALGORITHMS)
@pytest.mark.parametrize("owned", ALGORITHMS)
def test_a_key_verifies_only_with_its_own_algorithm(named: str, owned: str) -> None:
    if owned == named or {owned, named} == {"Ed25519", "EdDSA"}:
        assert verify(resign(key=KEYS[owned], header={"alg": named}))
    else:
        assert code(resign(key=KEYS[owned], header={"alg": named})) == "algorithm_refused"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_signatures_of_another_key_or_of_nobody_are_invalid(algorithm: str) -> None:
    key = KEYS[algorithm]
    other = read_private(generate(algorithm))
    header, claims = parts_of(request(key))
    assert code(sign_raw(orjson.dumps(header), orjson.dumps(claims), other)) == "signature_invalid"
    message = request(key).rpartition(".")[0]
    for signature in (b"", bytes(64), bytes(63), bytes(65), bytes(256), key.sign(message.encode()) + b"\0"):
        assert code(f"{message}.{to_base64url(signature)}") == "signature_invalid"


def test_claims_of_one_token_under_the_signature_of_another() -> None:
    first, second = request().split("."), request().split(".")
    assert code(".".join((first[0], first[1], second[2]))) == "signature_invalid"


@pytest.mark.parametrize("audience", ["bus.example.", "Bus.example", "test.bus.example", BASE])
def test_another_audience(audience: str) -> None:
    assert code(resign(aud=audience)) == "audience_mismatch"


TIMES = [
    # iat and exp as seconds from now, which is a whole second here
    (0, 60, None),
    (0, 1, None),
    (10, 70, None),
    (10, 11, None),
    (11, 71, "token_not_yet_valid"),
    (11, 12, "token_not_yet_valid"),
    (-70, -10, None),
    (-71, -11, "token_expired"),
    (-20, -11, "token_expired"),
    (-20, -10, None),
    (-365 * 86_400, -365 * 86_400 + 60, "token_expired"),
    (0, 0, "token_lifetime"),
    (0, -1, "token_lifetime"),
    (0, 61, "token_lifetime"),
    (-365 * 86_400, 60, "token_lifetime"),
    (0, 10 * 365 * 86_400, "token_lifetime"),
]


@pytest.mark.parametrize(("issued", "expires", "refused"), TIMES)
def test_times(issued: int, expires: int, refused: str | None) -> None:
    token = resign(iat=IAT + issued, exp=IAT + expires)
    if refused is None:
        assert verify(token, now=float(IAT)).expires_at == IAT + expires
        return
    problem = refusal(token, now=float(IAT))
    assert (problem.code, problem.extra) == (refused, {"now": IAT})


def test_times_are_judged_to_the_fraction_of_a_second() -> None:
    token = resign(iat=IAT + 10, exp=IAT + 70)
    assert verify(token, now=IAT + 0.0)
    assert code(token, now=IAT - 0.001) == "token_not_yet_valid"
    assert verify(token, now=IAT + 80.0)
    assert code(token, now=IAT + 80.001) == "token_expired"


def test_time_and_audience_are_told_only_to_who_signed() -> None:
    message, _, _ = resign(iat=1, exp=2, aud="other").rpartition(".")
    assert code(f"{message}.{to_base64url(bytes(64))}") == "signature_invalid"


# --- whatever is changed ------------------------------------------------------------------------------------


GOOD = {algorithm: request(KEYS[algorithm]) for algorithm in ("ES256", "Ed25519", "PS256")}


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.integers(min_value=0), st.integers(0, 6))
def test_no_bit_of_a_token_can_be_turned(algorithm: str, place: int, bit: int) -> None:
    token = GOOD[algorithm]
    place %= len(token)
    refusal(token[:place] + chr(ord(token[place]) ^ 1 << bit) + token[place + 1 :])


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.integers(min_value=0), st.integers(0, 2), st.characters())
def test_no_character_can_be_changed_added_or_left_out(algorithm: str, place: int, cut: int, put: str) -> None:
    token = GOOD[algorithm]
    place %= len(token) - 1
    changed = token[:place] + put * (cut != 2) + token[place + min(cut, 1) :]
    if changed != token:
        refusal(changed)


POSSIBLE = {
    "read",
    "claim_invalid",
    "key_unknown",
    "audience_mismatch",
    "token_expired",
    "token_not_yet_valid",
    "token_lifetime",
}
values = (
    st.none()
    | st.booleans()
    | st.integers(IAT - 100, IAT + 100)
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=140)
    | st.from_regex(r"[a-z0-9-]{1,70}", fullmatch=True)
    | st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=2)
)


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from([*compact.REQUEST_RULES.forms, "nbf", "x"]), values, max_size=3))
def test_whatever_is_claimed_is_either_refused_or_read_as_it_stands(claims: dict[str, Any]) -> None:
    token = resign(**claims)
    try:
        signed = verify(token)
    except Problem as problem:
        answered = problem.code
    else:
        answered = "read"
        assert_read(signed, claims)
    assert answered in POSSIBLE


def assert_read(signed: Signed, claims: dict[str, Any]) -> None:
    named = {"iss": "issuer", "iat": "issued_at", "exp": "expires_at"}
    for name, value in claims.items():
        if name != "aud":
            assert getattr(signed, named.get(name, name)) == value
            assert type(value) in (str, int)


# --- bound to the call --------------------------------------------------------------------------------------


CALL = Call(
    method="POST",
    target=TARGET,
    body=BODY,
    received_at=NOW,
    content_type="application/json",
    idempotency_key="8e03978e-40d5",
)
SIGNED = verify(request())


def binding(call: Call, signed: Signed = SIGNED, base_urls: tuple[str, ...] = (BASE,)) -> str | None:
    try:
        jws.bind(signed, call, base_urls)
    except Problem as problem:
        return problem.code
    return None


def test_a_call_that_is_as_signed() -> None:
    assert binding(CALL) is None
    assert binding(CALL, base_urls=("https://other.example", BASE)) is None


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"method": "GET"}, "method_mismatch"),
        ({"method": "post"}, "method_mismatch"),
        ({"target": TARGET + "?"}, "target_mismatch"),
        ({"target": TARGET + "/"}, "target_mismatch"),
        ({"target": TARGET.replace("tax", "t%61x")}, "target_mismatch"),
        ({"target": TARGET + "?a=1"}, "target_mismatch"),
        ({"target": TARGET.upper()}, "target_mismatch"),
        ({"target": ""}, "target_mismatch"),
        ({"body": BODY + b" "}, "digest_mismatch"),
        ({"body": b""}, "digest_mismatch"),
        ({"content_type": None}, "content_type_mismatch"),
        ({"content_type": "application/json; charset=utf-8"}, "content_type_mismatch"),
        ({"content_type": "Application/JSON"}, "content_type_mismatch"),
        ({"idempotency_key": None}, "idempotency_key_mismatch"),
        ({"idempotency_key": "8E03978E-40D5"}, "idempotency_key_mismatch"),
    ],
)
def test_a_call_that_is_not_as_signed(change: dict[str, Any], refused: str) -> None:
    assert binding(replace(CALL, **change)) == refused


def test_what_was_not_signed_must_not_be_there() -> None:
    without_key = verify(request(idempotency_key=None))
    assert binding(CALL, without_key) == "idempotency_key_mismatch"
    assert binding(replace(CALL, idempotency_key=None), without_key) is None
    assert binding(CALL, verify(resign(without="content_type"))) == "content_type_mismatch"


def test_without_a_body_there_is_no_content_type() -> None:
    empty = verify(request(body=b""))
    assert binding(replace(CALL, body=b"", content_type=None), empty) is None
    typed = verify(resign(content_digest=jws.content_digest(b"")))
    assert binding(replace(CALL, body=b""), typed) == "content_type_mismatch"


def test_base_urls_are_compared_byte_for_byte() -> None:
    for base in ("http://bus.example", "https://bus.example:443", "https://BUS.example", "https://bus.example/", ""):
        assert binding(CALL, base_urls=(base,)) == "target_mismatch"
    assert binding(CALL, base_urls=()) == "target_mismatch"


# --- signing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"lifetime": 0},
        {"lifetime": 61},
        {"issuer": ""},
        {"jti": "short"},
        {"method": "post"},
        {"purpose": "Pay Roll"},
        {"sub": "a\nb"},
        {"case": "\ud800"},
        {"target_uri": BASE + "/" + "x" * 8000},
    ],
)
def test_what_no_bus_would_accept_is_not_signed(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"claim|seconds|bytes"):
        request(**change)


def test_jti_and_lifetime_can_be_chosen() -> None:
    jti = secrets.token_urlsafe(24)
    signed = verify(request(jti=jti, lifetime=5))
    assert (signed.jti, signed.expires_at - signed.issued_at) == (jti, 5)
