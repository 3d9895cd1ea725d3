"""The strict compact JWS: parse and sign it, and which claims there are in what form.

Everything is parsed strictly and within 8 KiB before any cryptography (RFC 7515, section 7.1, without everything that
it leaves to choice). It verifies nothing: what it returns is only well formed. A crash in here is a defect of
this module: every token is parsed or refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from gsb import strictjson
from gsb.errors import (
    AlgorithmRefused,
    BodyMalformed,
    ClaimInvalid,
    ClaimMissing,
    SignatureHeaderRefused,
    SignatureMalformed,
    SignatureMissing,
    SignatureTooLarge,
    SignatureTypeRefused,
)
from gsb.jwk import ALGORITHMS, PrivateKey, from_base64url, to_base64url
from gsb.model import State

HEADER_LIMIT = 8192
"""Bytes of the header GSB-Signature."""
STATES = {state.value: state for state in State}

Check = Callable[[object], bool]


class Rules(NamedTuple):
    """The claims of one kind of token: the form of each, and which must be there, in the order of their naming."""

    forms: Mapping[str, Check]
    required: frozenset[str]


def _text(pattern: str) -> Check:
    match = re.compile(pattern, re.ASCII).fullmatch
    return lambda value: isinstance(value, str) and match(value) is not None


def _printable(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 128 and value.isprintable()


def _seconds(value: object) -> bool:
    return type(value) is int and value >= 0  # a bool is an int, but not here


def _status(value: object) -> bool:
    return type(value) is int and 100 <= value <= 599


_NAME = _text(r"[!-~]{1,128}")
_JTI = _text(r"[A-Za-z0-9._~-]{16,64}")
_HASH = _text(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
_DIGEST = _text(r"sha-256=:[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=:")
_CONTENT_TYPE = _text(r"[ -~]{1,255}")

REQUEST_RULES = Rules(
    {
        "iss": _NAME,
        "aud": _NAME,
        "iat": _seconds,
        "exp": _seconds,
        # That it was drawn at random, 120 bits or more, is the signer's duty; only its length can be seen.
        "jti": _JTI,
        "method": _text(r"[A-Z]{1,16}"),
        "target_uri": _text(r"[!-~]{1,8192}"),
        "content_digest": _DIGEST,
        "content_type": _CONTENT_TYPE,
        "idempotency_key": _text(r"[!-~]{1,128}"),
        "purpose": _text(r"(?!.{65})[a-z][a-z0-9]*(-[a-z0-9]+)*"),
        "sub": _printable,
        "case": _printable,
    },
    frozenset({"iss", "aud", "iat", "exp", "jti", "method", "target_uri", "content_digest"}),
)

REPLY_RULES = Rules(
    {
        "iss": _NAME,
        "aud": _NAME,
        "iat": _seconds,
        "jti": _JTI,
        "req_jti": _JTI,
        "req_hash": _HASH,
        "status": _status,
        "content_digest": _DIGEST,
        "content_type": _CONTENT_TYPE,
        "exchange": _text(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
        "state": lambda value: isinstance(value, str) and value in STATES,
        "effect": lambda value: value in ("none", "done"),
        "entry": _HASH,
    },
    frozenset({"iss", "aud", "iat", "jti", "req_jti", "req_hash", "status", "content_digest"}),
)


def check_claims(claims: Mapping[str, Any], rules: Rules) -> None:
    """Whether exactly known claims are there, each in its form. Raises ClaimMissing or ClaimInvalid."""
    if not rules.required <= claims.keys():
        name = next(name for name in rules.forms if name in rules.required and name not in claims)
        raise ClaimMissing(f"The claim {name} is missing.", extra={"claim": name})
    for name, value in claims.items():
        check = rules.forms.get(name)
        if check is None:
            raise ClaimInvalid("The token holds a claim that is not known.", extra={"claim": name[:64]})
        if not check(value):
            raise ClaimInvalid(f"The claim {name} has the wrong type or form.", extra={"claim": name})


class Token(NamedTuple):
    """A token as it was parsed; nothing of it is verified yet."""

    algorithm: str
    kid: str
    claims: dict[str, Any]
    message: bytes
    """What the signature is over."""
    signature: bytes
    jws: str


def parse(token: str | None, kind: str) -> Token:
    """What stands in a token whose ``typ`` is ``kind``: presence, size, strict form, header. Raises Problems."""
    if not token:
        raise SignatureMissing
    if len(token) > HEADER_LIMIT:
        raise SignatureTooLarge
    parts = token.split(".")
    if len(parts) != 3:
        raise SignatureMalformed("A compact JWS has three parts, and its payload is not detached.")
    algorithm, kid = _header(parts[0], kind)
    claims, signature = json_object(parts[1], "claims"), _decoded(parts[2], "signature")
    return Token(algorithm, kid, claims, token[: -len(parts[2]) - 1].encode("ascii"), signature, token)


@lru_cache(maxsize=1024)
def _header(segment: str, kind: str) -> tuple[str, str]:
    """The algorithm and kid of a JOSE header. Remembered, since each key's signatures all begin with the same one."""
    header = json_object(segment, "header")
    if header.keys() != {"alg", "kid", "typ"} or not all(isinstance(value, str) for value in header.values()):
        raise SignatureHeaderRefused
    if header["typ"] != kind:
        raise SignatureTypeRefused(f"The JOSE header's typ is not {kind}.")
    if header["alg"] not in ALGORITHMS:
        raise AlgorithmRefused(f"The JOSE header's alg is not one of {', '.join(ALGORITHMS)}.")
    return header["alg"], header["kid"]


def json_object(segment: str, what: str) -> dict[str, Any]:
    """One part of a token, as the JSON object that it must be. Raises SignatureMalformed."""
    try:
        value = strictjson.loads(_decoded(segment, what))
    except BodyMalformed as error:
        raise SignatureMalformed(f"The token's {what} is not strict JSON: {error.faults[0].detail}.") from None
    if not isinstance(value, dict):
        raise SignatureMalformed(f"The token's {what} is not a JSON object.")
    return value


def _decoded(segment: str, what: str) -> bytes:
    try:
        return from_base64url(segment)
    except ValueError:
        raise SignatureMalformed(f"The token's {what} is not base64url without padding.") from None


@lru_cache(maxsize=64)
def _prefix(algorithm: str, kid: str, kind: str) -> str:
    return to_base64url(orjson.dumps({"alg": algorithm, "kid": kid, "typ": kind})) + "."


def sign(key: PrivateKey, kind: str, claims: Mapping[str, object]) -> str:
    """A compact JWS of this ``typ`` over the claims that are not None."""
    present = {name: value for name, value in claims.items() if value is not None}
    message = _prefix(key.algorithm, key.kid, kind) + to_base64url(orjson.dumps(present))
    return f"{message}.{to_base64url(key.sign(message.encode('ascii')))}"
