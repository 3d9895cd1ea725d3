"""Both directions against an implementation of JOSE that somebody else wrote (joserfc)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from joserfc import jws as joserfc_jws
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey

from gsb import jwk, jws
from gsb.jws import ReplyFacts
from tests.support.tokens import BASE, BODY, BUS, IAT, NOW, TARGET, request

KINDS: dict[str, Any] = {"ES256": ECKey, "Ed25519": OKPKey, "EdDSA": OKPKey, "PS256": RSAKey}


@pytest.fixture(autouse=True)
def _old_name_of_ed25519() -> Iterator[None]:
    """joserfc warns that EdDSA is an old name (RFC 9864); here it is an accepted alias."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*EdDSA.*")
        yield


def their_key(algorithm: str, **members: Any) -> Key:
    key: Key = KINDS[algorithm].import_key(members)
    return key


def their_new_key(algorithm: str) -> Key:
    size = {"ES256": "P-256", "Ed25519": "Ed25519", "EdDSA": "Ed25519", "PS256": 2048}[algorithm]
    key: Key = KINDS[algorithm].generate_key(size)
    return key


@pytest.mark.parametrize("algorithm", jwk.ALGORITHMS)
def test_they_read_what_we_sign(algorithm: str) -> None:
    ours = jwk.read_private(jwk.generate(algorithm))
    published = their_key(algorithm, **ours.public.jwk)
    token = request(ours)
    read = joserfc_jws.deserialize_compact(token, published, algorithms=[algorithm])
    assert read.headers() == {"alg": algorithm, "kid": ours.kid, "typ": "gsb-req+jwt"}
    claims = orjson.loads(read.payload)
    assert claims["content_digest"] == jws.content_digest(BODY)
    assert (claims["iat"], claims["exp"]) == (IAT, IAT + 60)


@pytest.mark.parametrize("algorithm", jwk.ALGORITHMS)
def test_we_read_what_they_sign(algorithm: str) -> None:
    theirs = their_new_key(algorithm)
    member = jwk.read_public(orjson.dumps(theirs.as_dict(private=False)))
    claims = {
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
    header = {"alg": algorithm, "kid": theirs.thumbprint(), "typ": "gsb-req+jwt"}
    token = joserfc_jws.serialize_compact(header, orjson.dumps(claims), theirs, algorithms=[algorithm])
    asked: list[tuple[str, str]] = []

    def find_key(issuer: str, kid: str) -> jwk.PublicKey:
        asked.append((issuer, kid))
        return member

    signed = jws.verify_request(token, find_key, BUS, NOW)
    assert asked == [("payroll", member.kid)]
    assert (signed.jti, signed.target_uri) == (claims["jti"], claims["target_uri"])


@pytest.mark.parametrize("algorithm", jwk.ALGORITHMS)
def test_we_sign_with_their_private_keys(algorithm: str) -> None:
    theirs = their_new_key(algorithm)
    ours = jwk.read_private(orjson.dumps(theirs.as_dict(private=True) | {"alg": algorithm}))
    assert ours.kid == theirs.thumbprint()
    assert joserfc_jws.deserialize_compact(request(ours), theirs, algorithms=[algorithm])


@pytest.mark.parametrize("algorithm", jwk.ALGORITHMS)
def test_replies_in_both_directions(algorithm: str) -> None:
    bus = jwk.read_private(jwk.generate(algorithm))
    question, answer = request(), b'{"ok":true}'
    facts = ReplyFacts(200, answer, "application/json", None, None, None, None)
    ours = jws.sign_reply(
        bus,
        issuer=BUS,
        audience="payroll",
        request_jti=orjson.loads(jwk.from_base64url(question.split(".")[1]))["jti"],
        request_hash=jws.request_hash(question),
        facts=facts,
        now=NOW,
    )
    read = joserfc_jws.deserialize_compact(ours, their_key(algorithm, **bus.public.jwk), algorithms=[algorithm])
    assert read.headers()["typ"] == "gsb-res+jwt"
    theirs = their_new_key(algorithm)
    header = {"alg": algorithm, "kid": theirs.thumbprint(), "typ": "gsb-res+jwt"}
    signed = joserfc_jws.serialize_compact(header, read.payload, theirs, algorithms=[algorithm])
    published = jwk.read_public(orjson.dumps(theirs.as_dict(private=False)))
    claims = jws.verify_reply(
        signed,
        {published.kid: published},
        bus=BUS,
        caller="payroll",
        request_jws=question,
        status=200,
        body=answer,
        content_type="application/json",
        now=NOW,
    )
    assert claims.status == 200
