"""Against PyJWT: it reads what we sign, we read what it signs, and we refuse what it would let pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jwt
import orjson
import pytest

from gsb import jwk, jws
from gsb.errors import Problem
from tests.support.tokens import BASE, BODY, BUS, IAT, NOW, TARGET, request

NAMES = {"ES256": "ES256", "EdDSA": "EdDSA", "PS256": "PS256"}
"""PyJWT 2.15 does not know the newer name Ed25519."""


def their_key(document: bytes, algorithm: str) -> Any:
    return jwt.PyJWK(orjson.loads(document) | {"alg": algorithm}).key


def sign(key: bytes, claims: dict[str, Any], headers: dict[str, Any]) -> str:
    return jwt.encode(claims, their_key(key, headers["alg"]), algorithm=headers["alg"], headers=headers)


def claims() -> dict[str, Any]:
    return {
        "iss": "payroll",
        "aud": BUS,
        "iat": IAT,
        "exp": IAT + 60,
        "jti": "0123456789abcdefghijkl",
        "method": "POST",
        "target_uri": BASE + TARGET,
        "content_digest": jws.content_digest(BODY),
        "content_type": "application/json",
    }


@pytest.mark.parametrize("algorithm", NAMES)
def test_pyjwt_reads_what_we_sign(algorithm: str) -> None:
    document = jwk.generate("Ed25519" if algorithm == "EdDSA" else algorithm)
    key = jwk.read_private(document)
    if algorithm == "EdDSA":
        key = jwk.PrivateKey(key.kid, "EdDSA", key.public, key.sign)
    token = request(key, jti="0123456789abcdefghijkl")
    published = their_key(orjson.dumps(key.public.jwk), algorithm)
    read = jwt.decode(token, published, [algorithm], audience=BUS, options={"verify_exp": False})
    assert read["target_uri"] == BASE + TARGET


@pytest.mark.parametrize("algorithm", NAMES)
def test_we_read_what_pyjwt_signs(algorithm: str) -> None:
    document = jwk.generate("Ed25519" if algorithm == "EdDSA" else algorithm)
    member = jwk.read_private(document).public
    token = sign(document, claims(), {"alg": algorithm, "kid": member.kid, "typ": "gsb-req+jwt"})
    signed = jws.verify_request(token, lambda issuer, kid: member, BUS, NOW)
    assert (signed.issuer, signed.key_id, signed.jti) == ("payroll", member.kid, claims()["jti"])


WEAK: list[tuple[str, Callable[[dict[str, Any]], dict[str, Any]], dict[str, Any]]] = [
    ("exp years ahead", lambda said: said | {"exp": IAT + 86_400 * 365}, {}),
    ("no exp", lambda said: {name: value for name, value in said.items() if name != "exp"}, {}),
    ("an old iat", lambda said: said | {"iat": IAT - 86_400}, {}),
    ("aud is a list", lambda said: said | {"aud": [BUS, "another"]}, {}),
    ("any typ", lambda said: said, {"typ": "JWT"}),
    ("an embedded key", lambda said: said, {"jwk": {"kty": "oct", "k": "AA"}}),
    ("one more header", lambda said: said, {"jku": "https://elsewhere.example/keys"}),
]


@pytest.mark.parametrize(("change", "headers"), [row[1:] for row in WEAK], ids=[row[0] for row in WEAK])
def test_what_pyjwt_accepts_by_itself_is_refused(
    change: Callable[[dict[str, Any]], dict[str, Any]], headers: dict[str, Any]
) -> None:
    document = jwk.generate("ES256")
    member = jwk.read_private(document).public
    said = change(claims() | {"iat": IAT, "exp": IAT + 60})
    token = sign(document, said, {"alg": "ES256", "kid": member.kid, "typ": "gsb-req+jwt"} | headers)
    public = their_key(orjson.dumps(member.jwk), "ES256")
    options: Any = {"verify_exp": False} if "exp" in said and said["exp"] < IAT + 61 else {}
    assert jwt.decode(token, public, ["ES256"], audience=BUS, options=options | {"verify_iat": False})
    with pytest.raises(Problem):
        jws.verify_request(token, lambda issuer, kid: member, BUS, NOW)


def test_padding_that_pyjwt_ignores_is_refused() -> None:
    document = jwk.generate("ES256")
    member = jwk.read_private(document).public
    token = sign(document, claims(), {"alg": "ES256", "kid": member.kid, "typ": "gsb-req+jwt"})
    header, payload, signature = token.split(".")
    jws.verify_request(token, lambda issuer, kid: member, BUS, NOW)
    for bent in (f"{header}.{payload}.{signature}=", f"{header}.{payload}.{signature}==", f"{token}\n", f" {token}"):
        with pytest.raises(Problem):
            jws.verify_request(bent, lambda issuer, kid: member, BUS, NOW)
