"""The form of tokens and claims: what is refused before any key is looked up, and how each refusal is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb import compact
from gsb.jwk import from_base64url, to_base64url
from gsb.jws import content_digest
from tests.support.tokens import (
    BASE,
    BODY,
    BUS,
    IAT,
    KEY,
    code,
    never,
    parts_of,
    refusal,
    request,
    resign,
    sign_raw,
    verify,
)


def test_nothing_is_no_signature() -> None:
    assert code(None, never) == "signature_missing"
    assert code("", never) == "signature_missing"


def test_what_is_too_large_is_not_even_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def count(segment: str) -> bytes:
        decoded.append(segment)
        return from_base64url(segment)

    monkeypatch.setattr(compact, "from_base64url", count)
    header = to_base64url(b'{"alg":"ES256","x":"%b"}' % (b"x" * 5_000_000))
    assert code(f"{header}.e30.AAAA", never) == "signature_too_large"
    assert code("." * 8193, never) == "signature_too_large"
    assert decoded == []
    verify(request())
    assert len(decoded) in (2, 3), "the count counts"


def test_8192_bytes_are_taken_and_one_more_is_not() -> None:
    room = 8192 - len(request(target_uri=BASE + "/"))
    longest = next(
        token
        for padding in range(room * 3 // 4 + 4, 0, -1)
        if len(token := resign(target_uri=BASE + "/" + "x" * padding)) <= 8192
    )
    assert len(longest) >= 8190
    assert verify(longest).issuer == "payroll"
    assert code(longest + "A" * (8193 - len(longest)), never) == "signature_too_large"


def spoil(position: int, change: Callable[[str], str]) -> str:
    parts = request().split(".")
    parts[position] = change(parts[position])
    return ".".join(parts)


def stray_bit(part: str) -> str:
    """The same bytes with a bit behind the last one, for a part whose length leaves such bits."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(part) % 4 != 0
    return part[:-1] + alphabet[alphabet.index(part[-1]) + 1]


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize(
    "change",
    [
        lambda part: part + "=",
        lambda part: part + "==",
        lambda part: part + "\n",
        lambda part: " " + part,
        lambda part: part[:8] + " " + part[8:],
        lambda part: part[:8] + "\r\n" + part[8:],
        lambda part: part[:8] + "+" + part[9:],
        lambda part: part[:8] + "/" + part[9:],
        lambda part: part[:8] + "é" + part[9:],
        lambda part: part[:8] + "\udc80" + part[9:],
        lambda part: part[:8] + "\0" + part[8:],
        lambda part: part + "." + part,
    ],
)
def test_lax_base64_is_refused(position: int, change: Callable[[str], str]) -> None:
    assert code(spoil(position, change), never) == "signature_malformed"


def test_stray_bits_are_refused() -> None:
    assert code(spoil(2, stray_bit), never) == "signature_malformed"
    header, claims, signature = request().split(".")
    for spaces in (b"", b" ", b"  "):
        spaced = to_base64url(from_base64url(header) + spaces)
        if len(spaced) % 4:
            assert code(f"{stray_bit(spaced)}.{claims}.{signature}", never) == "signature_malformed"


@pytest.mark.parametrize("token", ["x", "a.b", "..", "e30.e30", "e30.e30.AA.AA", "{}.{}.{}", ".e30.AA"])
def test_what_has_not_three_parts_is_refused(token: str) -> None:
    assert code(token, never) == "signature_malformed"


def test_the_json_form_of_jws_is_refused() -> None:
    header, claims, signature = request().split(".")
    form = orjson.dumps({"protected": header, "payload": claims, "signature": signature}).decode()
    assert code(form, never) == "signature_malformed"


def test_detached_and_unencoded_payloads_are_refused() -> None:
    header, _, signature = request().split(".")
    assert code(f"{header}..{signature}", never) == "signature_malformed"
    unencoded = resign(header={"b64": False, "crit": ["b64"]})
    assert code(unencoded, never) == "signature_header_refused"


@pytest.mark.parametrize(
    "member",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": True},
        {"jku": "https://evil.example/keys"},
        {"jwk": KEY.public.jwk},
        {"x5u": "https://evil.example/certificate"},
        {"x5c": ["AAAA"]},
        {"x5t#S256": "AAAA"},
        {"cty": "json"},
        {"zip": "DEF"},
        {"kid": 7},
        {"alg": None},
        {"typ": ["gsb-req+jwt"]},
    ],
)
def test_the_header_holds_exactly_three_strings(member: dict[str, Any]) -> None:
    assert code(resign(header=member), never) == "signature_header_refused"


@pytest.mark.parametrize("missing", ["alg", "kid", "typ"])
def test_a_header_that_lacks_one_is_refused(missing: str) -> None:
    header, claims = parts_of(request())
    del header[missing]
    assert code(sign_raw(orjson.dumps(header), orjson.dumps(claims)), never) == "signature_header_refused"


@pytest.mark.parametrize("kind", ["JWT", "gsb-res+jwt", "GSB-REQ+JWT", "application/gsb-req+jwt", "gsb-req+jwt ", ""])
def test_another_type_is_refused(kind: str) -> None:
    assert code(resign(header={"typ": kind}), never) == "signature_type_refused"


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "HS256", "RS256", "ES384", "ES512", "ES521", "PS512", "ES256K", "es256", "Ed448", ""]
)
def test_another_algorithm_is_refused(algorithm: str) -> None:
    assert code(resign(header={"alg": algorithm}), never) == "algorithm_refused"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b"{}x",
        b'{"a":NaN}',
        b'{"a":1,}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'\xef\xbb\xbf{"a":1}',
        b"[" * 2000,
        b'{"iat":9007199254740993}',
    ],
)
def test_header_and_claims_are_strict_json_objects(text: bytes) -> None:
    header, claims = parts_of(request())
    assert code(sign_raw(text, orjson.dumps(claims)), never) == "signature_malformed"
    assert code(sign_raw(orjson.dumps(header), text), never) == "signature_malformed"


@pytest.mark.parametrize("name", [*compact.REQUEST_RULES.forms, "alg", "kid", "typ"])
def test_nothing_stands_twice(name: str) -> None:
    documents = list(parts_of(request()))
    written = [orjson.dumps(document) for document in documents]
    place = 0 if name in documents[0] else 1
    again = orjson.dumps({name: documents[place][name]})
    written[place] = written[place][:-1] + b"," + again[1:]
    assert code(sign_raw(written[0], written[1]), never) == "signature_malformed"
    escaped = again.replace(f'"{name}"'.encode(), f'"\\u{ord(name[0]):04x}{name[1:]}"'.encode(), 1)
    written[place] = orjson.dumps(documents[place])[:-1] + b"," + escaped[1:]
    assert code(sign_raw(written[0], written[1]), never) == "signature_malformed"


@pytest.mark.parametrize("name", sorted(compact.REQUEST_RULES.required))
def test_required_claims_that_are_missing_are_named(name: str) -> None:
    problem = refusal(resign(without=name), never)
    assert (problem.code, problem.extra) == ("claim_missing", {"claim": name})


@pytest.mark.parametrize("name", compact.REQUEST_RULES.forms)
@pytest.mark.parametrize("value", [None, True, False, "", 1.5, -1, [], ["payroll"], {}, {"a": 1}])
def test_a_claim_of_another_type_is_named(name: str, value: Any) -> None:
    problem = refusal(resign(**{name: value}), never)
    assert (problem.code, problem.extra) == ("claim_invalid", {"claim": name})


WRONG: list[tuple[str, object]] = [
    ("iss", "pay roll"),
    ("iss", "x" * 129),
    ("iss", "päyroll"),
    ("aud", [BUS]),
    ("aud", [BUS, "other"]),
    ("iat", str(IAT)),
    ("iat", float(IAT)),
    ("exp", float(IAT + 60)),
    ("exp", str(IAT + 60)),
    ("jti", "x" * 15),
    ("jti", "x" * 65),
    ("jti", "x" * 16 + " "),
    ("jti", "x" * 16 + "\n"),
    ("jti", "é" * 16),
    ("jti", 10**15),
    ("method", "post"),
    ("method", "POST "),
    ("target_uri", BASE + "/a b"),
    ("target_uri", BASE + "/é"),
    ("target_uri", BASE + "/\n"),
    ("content_digest", content_digest(BODY)[:-1]),
    ("content_digest", content_digest(BODY) + "\n"),
    ("content_digest", content_digest(BODY).replace("sha-256", "sha-512")),
    ("content_digest", "SHA-256" + content_digest(BODY)[7:]),
    ("content_digest", content_digest(BODY)[:-3] + "B=:"),
    ("content_digest", content_digest(BODY) + ", " + content_digest(BODY)),
    ("content_type", "application/json\r\n"),
    ("content_type", "x" * 256),
    ("idempotency_key", "x" * 129),
    ("idempotency_key", "a b"),
    ("idempotency_key", "é"),
    ("purpose", "Payroll"),
    ("purpose", "pay_roll"),
    ("purpose", "payroll-"),
    ("purpose", "payroll\n"),
    ("purpose", "x" * 65),
    ("sub", "x" * 129),
    ("sub", "a\nb"),
    ("sub", "a\x00b"),
    ("case", "x" * 129),
    ("case", "a\u2028b"),
    ("case", "a\u202eb"),
    ("nbf", IAT),
    ("cnf", {"jkt": "x"}),
    ("ISS", "payroll"),
    ("", "x"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_claim_of_another_form_or_name_is_named(name: str, value: Any) -> None:
    problem = refusal(resign(**{name: value}), never)
    assert (problem.code, problem.extra) == ("claim_invalid", {"claim": name})
    if isinstance(value, str) and len(value) > 3 and name in compact.REQUEST_RULES.forms:
        assert value not in f"{problem} {problem.extra}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jti", "x" * 16),
        ("jti", "~._-" * 16),
        ("idempotency_key", "~" * 128),
        ("purpose", "x" * 64),
        ("purpose", "a-1-b"),
        ("sub", "\U0001f600" * 128),
        ("case", "é" * 128),
    ],
)
def test_the_edges_of_what_is_allowed(name: str, value: Any) -> None:
    assert getattr(verify(resign(**{name: value})), name) == value


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.text(alphabet="eyJ0.=-_ {}", max_size=60))
def test_any_text_is_refused_by_its_form(token: str) -> None:
    assert code(token, never).startswith("signature_")
