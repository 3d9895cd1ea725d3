"""Wire profile 1: signed requests and signed replies, made and judged. Pure: no clock, no registry, no I/O.

A compact JWS (RFC 7515) whose claims hold the digest of the body (RFC 9530) and the target of the call. Everything is
parsed strictly and within 8 KiB before any cryptography, and each way of being wrong has its own problem.
It does not know agencies, the states of their keys, or which ``jti`` was seen: callers bring the look-up of keys,
and spend the jti afterwards. A crash in here is a defect of this module: every token is verified or refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gsb import compact
from gsb.compact import REPLY_RULES, REQUEST_RULES
from gsb.errors import (
    AlgorithmRefused,
    AudienceMismatch,
    ContentTypeMismatch,
    DigestMismatch,
    IdempotencyKeyMismatch,
    MethodMismatch,
    Problem,
    SignatureInvalid,
    TargetMismatch,
    TokenExpired,
    TokenLifetime,
    TokenNotYetValid,
)
from gsb.jwk import PrivateKey, PublicKey, to_base64url
from gsb.model import Call, Signed

REQUEST_TYPE = "gsb-req+jwt"
REPLY_TYPE = "gsb-res+jwt"
LIFETIME = 60
"""Most seconds from a request's ``iat`` to its ``exp``."""
LEEWAY = 10
"""Seconds by which clocks may differ. A jti must be remembered until ``exp`` plus this."""
REPLY_SKEW = 120
"""Seconds by which a reply's ``iat`` may differ from the caller's clock. What keeps an old reply from being taken
for a new one is ``req_hash``; this only finds clocks that are plainly wrong."""

FindKey = Callable[[str, str], PublicKey]
"""(issuer, kid) to the key in force. Raises KeyUnknown, KeyNotActive or KeyRevoked."""


class ReplyRefused(Exception):
    """A reply that proves nothing: neither that the call worked nor that it failed. ``reason`` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ReplyFacts:
    """What a reply says. ``entry`` is the base64url leaf hash; the last four speak of an exchange or are None."""

    status: int
    body: bytes = field(repr=False)
    content_type: str | None
    exchange: str | None
    state: str | None
    effect: str | None
    entry: str | None


@dataclass(frozen=True, slots=True)
class ReplyClaims:
    """What a verified reply says, as its issuer signed it; ``issued_at`` in seconds since the epoch."""

    issuer: str
    audience: str
    issued_at: int
    jti: str
    request_jti: str
    request_hash: str
    status: int
    content_digest: str
    content_type: str | None
    exchange: str | None
    state: str | None
    effect: str | None
    entry: str | None


# --- digests ------------------------------------------------------------------------------------------------


def content_digest(body: bytes) -> str:
    """RFC 9530, section 2: ``sha-256=:...:`` of the body, also of an empty one."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode('ascii')}:"


def request_hash(jws: str) -> str:
    """base64url SHA-256 of a request's JWS, byte for byte: what its reply names as ``req_hash``."""
    return to_base64url(hashlib.sha256(jws.encode("ascii")).digest())


# --- requests -----------------------------------------------------------------------------------------------


def sign_request(
    key: PrivateKey,
    *,
    issuer: str,
    audience: str,
    method: str,
    target_uri: str,
    body: bytes,
    content_type: str | None,
    idempotency_key: str | None = None,
    purpose: str | None = None,
    sub: str | None = None,
    case: str | None = None,
    now: float,
    lifetime: int = LIFETIME,
    jti: str | None = None,
) -> str:
    """The value of GSB-Signature for a call, valid once, from ``now`` (epoch) for ``lifetime`` seconds.

    Without ``jti`` it gets one of 128 random bits. Raises ValueError for what no bus would accept.
    """
    issued_at = int(now)
    claims = {
        "iss": issuer,
        "aud": audience,
        "iat": issued_at,
        "exp": issued_at + lifetime,
        "jti": secrets.token_urlsafe(16) if jti is None else jti,
        "method": method,
        "target_uri": target_uri,
        "content_digest": content_digest(body),
        "content_type": content_type if body else None,
        "idempotency_key": idempotency_key,
        "purpose": purpose,
        "sub": sub,
        "case": case,
    }
    if not 1 <= lifetime <= LIFETIME:
        raise ValueError(f"a request is valid for 1 to {LIFETIME} seconds")
    return _sign_checked(key, claims)


def _sign_checked(key: PrivateKey, claims: Mapping[str, object]) -> str:
    try:
        compact.check_claims({name: value for name, value in claims.items() if value is not None}, REQUEST_RULES)
    except Problem as error:
        raise ValueError(str(error)) from None
    token = compact.sign(key, REQUEST_TYPE, claims)
    if len(token) > compact.HEADER_LIMIT:
        raise ValueError(f"the signature has {len(token)} bytes, more than {compact.HEADER_LIMIT}")
    return token


def verify_request(token: str | None, find_key: FindKey, audience: str, now: float) -> Signed:
    """Who signed, and what: form, claims, key, signature, audience, time, in this order.

    Raises the problem of the first that fails, or whatever ``find_key`` raises. What was signed is not yet compared
    with the call (``bind``), and its jti is not yet known to be new.
    """
    parsed = compact.parse(token, REQUEST_TYPE)
    claims = parsed.claims
    compact.check_claims(claims, REQUEST_RULES)
    key = find_key(claims["iss"], parsed.kid)
    if parsed.algorithm not in key.algorithms:
        raise AlgorithmRefused("The JOSE header's alg is not the key's own.")
    if not key.verify(parsed.algorithm, parsed.message, parsed.signature):
        raise SignatureInvalid
    if claims["aud"] != audience:
        raise AudienceMismatch
    _check_time(claims["iat"], claims["exp"], now)
    return Signed(
        issuer=claims["iss"],
        key_id=parsed.kid,
        jti=claims["jti"],
        issued_at=claims["iat"],
        expires_at=claims["exp"],
        method=claims["method"],
        target_uri=claims["target_uri"],
        content_digest=claims["content_digest"],
        content_type=claims.get("content_type"),
        idempotency_key=claims.get("idempotency_key"),
        purpose=claims.get("purpose"),
        sub=claims.get("sub"),
        case=claims.get("case"),
        jws=parsed.jws,
        request_hash=request_hash(parsed.jws),
    )


def _check_time(issued_at: int, expires_at: int, now: float) -> None:
    clock = {"now": int(now)}
    if not 1 <= expires_at - issued_at <= LIFETIME:
        raise TokenLifetime(extra=clock)
    if issued_at > now + LEEWAY:
        raise TokenNotYetValid(extra=clock)
    # As a token lives at most 60 s, this also refuses every iat before now - 70 s.
    if now > expires_at + LEEWAY:
        raise TokenExpired(extra=clock)


def bind(signed: Signed, call: Call, base_urls: Sequence[str]) -> None:
    """Whether the call is the one that was signed. Raises the problem of the first thing that differs."""
    if signed.method != call.method:
        raise MethodMismatch
    if not any(signed.target_uri == base_url + call.target for base_url in base_urls):
        raise TargetMismatch
    if not hmac.compare_digest(signed.content_digest, content_digest(call.body)):
        raise DigestMismatch
    if signed.content_type != (call.content_type if call.body else None):
        raise ContentTypeMismatch
    if signed.idempotency_key != call.idempotency_key:
        raise IdempotencyKeyMismatch


# --- replies ------------------------------------------------------------------------------------------------


def sign_reply(
    key: PrivateKey,
    *,
    issuer: str,
    audience: str,
    request_jti: str,
    request_hash: str,
    facts: ReplyFacts,
    now: float,
    jti: str | None = None,
) -> str:
    """The value of GSB-Signature for a reply to the request with this jti and hash. Its own is random unless given."""
    claims = {
        "iss": issuer,
        "aud": audience,
        "iat": int(now),
        "jti": secrets.token_urlsafe(16) if jti is None else jti,
        "req_jti": request_jti,
        "req_hash": request_hash,
        "status": facts.status,
        "content_digest": content_digest(facts.body),
        "content_type": facts.content_type if facts.body else None,
        "exchange": facts.exchange,
        "state": facts.state,
        "effect": facts.effect,
        "entry": facts.entry,
    }
    return compact.sign(key, REPLY_TYPE, claims)


def verify_reply(
    token: str | None,
    keys: Mapping[str, PublicKey],
    *,
    bus: str,
    caller: str,
    request_jws: str,
    status: int,
    body: bytes,
    content_type: str | None,
    now: float,
) -> ReplyClaims:
    """What the bus says in answer to this very request; ``keys`` are its public keys by kid.

    Raises ``ReplyRefused`` unless everything fits what was sent and what came back, and what it says of an exchange
    is consistent.
    """
    claims = _authentic(token, keys)
    request = compact.json_object(request_jws.split(".")[1], "request")
    expected: dict[str, object] = {
        "iss": bus,
        "aud": caller,
        "req_jti": request["jti"],
        "req_hash": request_hash(request_jws),
        "status": status,
        "content_digest": content_digest(body),
        "content_type": content_type if body else None,
    }
    for name, value in expected.items():
        if claims.get(name) != value:
            raise ReplyRefused(f"The claim {name} is not that of this call and its answer.")
    if abs(claims["iat"] - now) > REPLY_SKEW:
        raise ReplyRefused("The claim iat is too far from this clock.")
    _check_exchange(claims)
    return _reply_claims(claims)


def _authentic(token: str | None, keys: Mapping[str, PublicKey]) -> dict[str, Any]:
    """The claims of a reply that the bus signed, to whomever."""
    try:
        parsed = compact.parse(token, REPLY_TYPE)
        compact.check_claims(parsed.claims, REPLY_RULES)
    except Problem as error:
        raise ReplyRefused(str(error)) from None
    key = keys.get(parsed.kid)
    if key is None:
        raise ReplyRefused("No key of the bus has the reply's kid.")
    if not key.verify(parsed.algorithm, parsed.message, parsed.signature):
        raise ReplyRefused("The signature does not verify with the bus's key.")
    return parsed.claims


def _check_exchange(claims: Mapping[str, Any]) -> None:
    state = compact.STATES.get(claims.get("state", ""))
    if ("exchange" in claims) != (state is not None):
        raise ReplyRefused("The claims exchange and state do not stand together.")
    if ("effect" in claims) != (state is not None and state.final):
        raise ReplyRefused("The claim effect does not stand with a final state.")
    if "entry" in claims and state is None:
        raise ReplyRefused("The claim entry stands without an exchange.")


def _reply_claims(claims: Mapping[str, Any]) -> ReplyClaims:
    return ReplyClaims(
        issuer=claims["iss"],
        audience=claims["aud"],
        issued_at=claims["iat"],
        jti=claims["jti"],
        request_jti=claims["req_jti"],
        request_hash=claims["req_hash"],
        status=claims["status"],
        content_digest=claims["content_digest"],
        content_type=claims.get("content_type"),
        exchange=claims.get("exchange"),
        state=claims.get("state"),
        effect=claims.get("effect"),
        entry=claims.get("entry"),
    )
