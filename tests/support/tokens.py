"""Requests signed by a known member with known keys, and every way to spoil them and sign them again."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gsb import jws
from gsb.errors import KeyUnknown, Problem
from gsb.jwk import ALGORITHMS, PrivateKey, PublicKey, from_base64url, generate, read_private, to_base64url
from gsb.model import Signed

NOW = 1_790_000_000.5
IAT = int(NOW)
BUS = "bus.example"
BASE = "https://bus.example"
TARGET = "/services/tax/income-tax/v1"
BODY = b'{"income":{"amount":"1234.50","currency":"XOF"}}'
KEYS = {algorithm: read_private(generate(algorithm)) for algorithm in ALGORITHMS}
KEY = KEYS["ES256"]
MEMBERS = {key.kid: key.public for key in KEYS.values()}


def find_key(issuer: str, kid: str) -> PublicKey:
    if issuer != "payroll" or kid not in MEMBERS:
        raise KeyUnknown
    return MEMBERS[kid]


def never(issuer: str, kid: str) -> PublicKey:
    raise AssertionError("a token of this form must be refused before any key is looked up")


def request(key: PrivateKey = KEY, **changes: Any) -> str:
    said: dict[str, Any] = {
        "issuer": "payroll",
        "audience": BUS,
        "method": "POST",
        "target_uri": BASE + TARGET,
        "body": BODY,
        "content_type": "application/json",
        "idempotency_key": "8e03978e-40d5",
        "purpose": "payroll",
        "sub": "Aïcha Ouédraogo",
        "case": "2026/17",
        "now": NOW,
    }
    return jws.sign_request(key, **(said | changes))


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, claims, _ = token.split(".")
    return orjson.loads(from_base64url(header)), orjson.loads(from_base64url(claims))


def sign_raw(header: bytes, claims: bytes, key: PrivateKey = KEY) -> str:
    """Whatever bytes as header and claims, truly signed."""
    message = f"{to_base64url(header)}.{to_base64url(claims)}"
    return f"{message}.{to_base64url(key.sign(message.encode()))}"


def resign(
    *,
    header: dict[str, Any] | None = None,
    without: str | None = None,
    token: str | None = None,
    key: PrivateKey = KEY,
    **claims: Any,
) -> str:
    """A good token with its header's members or its claims changed, truly signed again."""
    old_header, old_claims = parts_of(token or request(key))
    changed = {name: value for name, value in (old_claims | claims).items() if name != without}
    return sign_raw(orjson.dumps(old_header | (header or {})), orjson.dumps(changed), key)


def verify(token: str | None, find: jws.FindKey = find_key, now: float = NOW) -> Signed:
    return jws.verify_request(token, find, BUS, now)


def refusal(token: str | None, find: jws.FindKey = find_key, now: float = NOW) -> Problem:
    """The problem with which a request is refused; accepting it fails the test."""
    with pytest.raises(Problem) as caught:
        verify(token, find, now)
    return caught.value


def code(token: str | None, find: jws.FindKey = find_key, now: float = NOW) -> str:
    return refusal(token, find, now).code
