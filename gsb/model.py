"""The few things that travel through the bus: calls, decisions, exchanges, outcomes, entries.

Frozen values without behaviour beyond their own shape; no I/O. Times are seconds since the epoch (UTC, float)
unless a name says otherwise; ids of exchanges are UUIDv7 in their text form (RFC 9562, section 5.7).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

JSON_TYPE = "application/json"
PROBLEM_TYPE = "application/problem+json"


class Effect(StrEnum):
    """What performing a service once more would do."""

    NONE = "none"
    REPEATABLE = "repeatable"
    ONCE = "once"


class State(StrEnum):
    """Where an exchange stands. The last four are final and never changed again."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    WAITING = "waiting"
    HELD = "held"
    UNKNOWN = "unknown"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    EXPIRED = "expired"

    @property
    def final(self) -> bool:
        return self in FINAL


FINAL = frozenset({State.DONE, State.REFUSED, State.FAILED, State.EXPIRED})

Took = Literal["none", "done"]
"""The effect that a final outcome states: nothing took effect, or it did."""


def new_id(now: float | None = None) -> str:
    """A fresh UUIDv7: 48 bits of milliseconds, then 74 random bits."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (random >> 64 & 0xFFF) << 64
    value |= 0b10 << 62 | random & (1 << 62) - 1
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC with milliseconds."""
    whole, fraction = divmod(round(seconds * 1_000_000), 1_000_000)
    return f"{_to_the_second(whole)}.{fraction // 1000:03}Z"


@lru_cache(maxsize=16)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


@dataclass(frozen=True, slots=True)
class Signed:
    """A request's signature, verified: who says so, and what exactly was signed."""

    issuer: str
    key_id: str
    jti: str
    issued_at: int
    expires_at: int
    method: str
    target_uri: str
    content_digest: str
    content_type: str | None
    idempotency_key: str | None
    purpose: str | None
    sub: str | None
    case: str | None
    jws: str
    request_hash: str
    """base64url SHA-256 of the JWS, byte for byte: the reply's ``req_hash``."""


@dataclass(slots=True)
class Call:
    """One HTTP call as it came in; ``signed`` is filled in by the second step of its admission."""

    method: str
    target: str
    """Raw path and query, byte for byte."""
    body: bytes
    received_at: float
    signature: str | None = None
    content_type: str | None = None
    idempotency_key: str | None = None
    wait: float | None = None
    """Seconds of ``Prefer: wait=``; 0 for ``respond-async``; None when the caller has no preference."""
    traceparent: str | None = None
    signed: Signed | None = None
    spent: bool = False
    """Whether its jti was spent: a refusal after that must not spend it again."""
    if_none_match: str | None = None
    """Which representations of a file the caller has (RFC 9110, section 13.1.2), unread."""
    accept_encoding: str | None = None
    """Which codings of an unsigned answer the caller takes (RFC 9110, section 12.5.3), unread."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Why a request was allowed, as stored with the exchange."""

    agreement: str
    agreement_digest: str
    purpose: str
    fields: tuple[str, ...]
    """Granted reply fields: JSON Pointers in which ``*`` stands for every item of an array."""


@dataclass(frozen=True, slots=True)
class Record:
    """A request as it was accepted, which is all that performing needs; lies encrypted in the store."""

    body: bytes
    key_id: str
    decision: Decision
    sub: str | None = None
    case: str | None = None
    traceparent: str | None = None
    value: Any = field(default=None, compare=False, repr=False)
    """The body as it was read when it was admitted, as long as it is at hand; None when it must be read again."""


@dataclass(frozen=True, slots=True)
class Request:
    """What an adapter is asked to do. It names no key, agreement or token: an adapter needs none of them."""

    exchange: str
    """The same at every try of one exchange: what a core system may use to recognise a repeat."""
    agency: str
    service: str
    body: Any = field(repr=False)
    """The request body, parsed; it fits the service's request schema."""
    purpose: str
    sub: str | None = field(repr=False)
    case: str | None = field(repr=False)
    deadline: float
    """When the bus stops waiting, in seconds of the event loop's clock."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a core system answered, in the form of the service's reply schema."""

    body: Any = field(repr=False)
    note: str | None = None
    """Something to prove later, such as the version of the rules that were applied; goes to the evidence."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The final answer of an exchange. ``body`` is already cut to the granted fields."""

    state: State
    effect: Took
    status: int
    """The HTTP status that the caller gets."""
    code: str | None = None
    """The problem's code when ``state`` is not done."""
    body: bytes = b""
    content_type: str | None = JSON_TYPE
    fields: tuple[str, ...] = ()
    """Granted fields that were released; names only."""
    agreement_digest: str = ""
    """Digest of the agreement by which ``body`` was cut."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One leaf of the evidence log, finished by whoever made it."""

    content: bytes
    """Canonical JSON (RFC 8785), at most 65,535 bytes, without any personal value."""
    leaf: bytes
    """SHA-256(0x00 || content), RFC 6962 section 2.1."""
    secret: bytes
    """The 32 random bytes that key the commitment, followed by the evidence; erasable."""


class Exchange(NamedTuple):
    """One signed request and its one outcome, as the store knows it."""

    id: str
    agency: str
    service: str
    effect: Effect
    state: State
    purpose: str
    agreement: str
    accepted_at: float
    expires_at: float
    attempt: int
    reason: str | None
    """Why it is waiting, held or unknown: a code, never a text of the core system."""
    due_at: float | None
    began_at: float | None
    outcome: Outcome | None
    entries: tuple[Entry, ...] = ()
    """Its entries so far, oldest first, without their secrets."""
    gone: bool = False
    """Whether its request and the body of its outcome have reached their age and are not kept any more."""
    unreadable: bool = False
    """Whether its outcome has a body that lies in the store but cannot be read."""

    @property
    def system(self) -> str:
        return self.service.partition("/")[0]


class Answer(NamedTuple):
    """What the edge says to a call, before it is signed."""

    status: int
    body: bytes = b""
    content_type: str | None = JSON_TYPE
    """None when there is no body."""
    headers: Mapping[str, str] = MappingProxyType({})
    exchange: Exchange | None = None
    """The exchange of which it speaks; None when it speaks of this call alone."""
