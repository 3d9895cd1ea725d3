"""Headers, as the wire profile's tables and lists have them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bad_input.case import Case
from tests.bad_input.draft import Draft, Spoil, header, put
from tests.bad_input.stage import (
    ACT,
    NOWHERE,
    READ,
    READING,
    REPLY,
    RESOLVE,
    WRITE,
)


def replaced(old: bytes, new: bytes) -> Spoil:
    """These bytes of the finished message, once, by others."""

    def change(message: bytes) -> bytes:
        assert old in message, "nothing would be spoilt"
        return message.replace(old, new, 1)

    return put(message=change)


def inserted(line: bytes) -> Spoil:
    """A further header line, as it is."""
    return replaced(b"\r\nHost:", b"\r\n" + line + b"\r\nHost:")


# --- headers --------------------------------------------------------------------------------------------------

JSON = b"application/json"
SIGNATURE, KEY, TYPE, PREFER = "GSB-Signature", "Idempotency-Key", "Content-Type", "Prefer"
CODING, ACCEPT_CODING = "Content-Encoding", "Accept-Encoding"
EVERY = (WRITE, READING, ACT)


def signature_cases() -> Iterator[Case]:
    for kind in EVERY:
        yield Case(SIGNATURE, "missing", "left out", header(SIGNATURE), "signature_missing", kind)
        yield Case(SIGNATURE, "missing", "empty", header(SIGNATURE, b""), "signature_missing", kind)
        yield Case(
            SIGNATURE, "type", "a bearer token", header(SIGNATURE, b"Bearer canary"), "signature_malformed", kind
        )
        yield Case(SIGNATURE, "type", "bytes", header(SIGNATURE, b"\xff\xfe\x80"), "signature_malformed", kind)
        yield Case(SIGNATURE, "duplicated", "twice", header(SIGNATURE, b"canary", b"canary"), "header_repeated", kind)
        twice = put(message=_signature_twice)
        yield Case(SIGNATURE, "duplicated", "the right one twice", twice, "header_repeated", kind)


def _signature_twice(message: bytes) -> bytes:
    line = next(line for line in message.split(b"\r\n") if line.startswith(b"GSB-Signature"))
    return message.replace(line, line + b"\r\n" + line.replace(b"GSB-Signature", b"gsb-signature"), 1)


def type_cases() -> Iterator[Case]:
    refused = "media_type_refused"
    for kind in (WRITE, READ, NOWHERE, RESOLVE):
        yield Case(TYPE, "missing", "left out", header(TYPE), refused, kind)
        yield Case(TYPE, "missing", "empty", header(TYPE, b""), refused, kind)
        yield Case(TYPE, "type", "no media type", header(TYPE, b"canary"), refused, kind)
        for wrong in (
            b"text/plain", b"application/problem+json", b"application/x-www-form-urlencoded", b"text/json",
            b"multipart/form-data; boundary=x", b"application/json, text/plain", b"application/json5", b"*/*",
        ):  # fmt: skip
            yield Case(TYPE, "value", wrong.decode(), header(TYPE, wrong), refused, kind)
        yield Case(TYPE, "duplicated", "twice", header(TYPE, JSON, JSON), "bad_request", kind)
    for right in (b"application/json; charset=utf-8", b"application/json;charset=UTF-8", b"Application/JSON"):
        yield Case(TYPE, "right", right.decode(), header(TYPE, right), None, WRITE)


def prefer_cases() -> Iterator[Case]:
    for wrong in (b"", b"canary", b"wait", b"wait=", b"wait=-1", b"wait=1.5", b"wait=9999999", b"wait=\xff", b";;,,="):
        spoil = header(PREFER, wrong)
        yield Case(PREFER, "value", wrong.decode("latin-1") or "empty", spoil, None, WRITE)
    yield Case(PREFER, "missing", "left out", header(PREFER), None, WRITE)
    for kind in (*EVERY, REPLY):
        both = header(PREFER, b"respond-async", b"wait=1")
        yield Case(PREFER, "duplicated", "twice", both, "header_repeated", kind)


def coding_cases() -> Iterator[Case]:
    refused = "content_coding_refused"
    for kind in EVERY:
        for wrong in (b"gzip", b"br", b"identity, gzip", b"canary"):
            yield Case(CODING, "value", wrong.decode(), header(CODING, wrong), refused, kind)
        both = header(CODING, b"identity", b"gzip")
        yield Case(CODING, "duplicated", "a second one", both, refused, kind)
        yield Case(CODING, "right", "identity", header(CODING, b"identity"), None, kind)
        asked = header(ACCEPT_CODING, b"gzip, br, zstd")
        yield Case(ACCEPT_CODING, "value", "codings that nobody applies", asked, None, kind)


HEADERS = {
    SIGNATURE: signature_cases,
    TYPE: type_cases,
    PREFER: prefer_cases,
    CODING: coding_cases,
    ACCEPT_CODING: coding_cases,
}
"""The headers of requests that the page names, and their cases; those of the key stand with its rules."""
REPLY_HEADERS = {
    "Allow", "Cache-Control", "Idempotent-Replayed", "Location", "Preference-Applied", "RateLimit-Policy",
    "Retry-After", "WWW-Authenticate",
}  # fmt: skip
"""The others that it names: the bus sends them."""

BAD_KEYS = (
    b"", b'""', b'"', b'"canary', b'canary"', b'"can ary"', b"can ary", b'"can\\"ary"', b"can\\ary", b'"c", "d"',
    b'"canary";a=1', b"a" * 129, b'"' + b"a" * 129 + b'"', b'"\xc3\xa9"', b"\xff", b"\tx\ty",
)  # fmt: skip


def key_cases() -> Iterator[Case]:
    for kind in (WRITE, READ, ACT):
        for number, wrong in enumerate(BAD_KEYS):
            yield Case(KEY, "value", f"#{number}", header(KEY, wrong), "idempotency_key_malformed", kind)
        yield Case(KEY, "duplicated", "twice", header(KEY, b'"a"', b'"a"'), "header_repeated", kind)
        other = header(KEY, b'"canary-other"')
        yield Case(KEY, "type", "another", other, "idempotency_key_mismatch", kind)
    yield Case(KEY, "right", "the bare form", _bare, None, WRITE)
    yield Case(KEY, "right", "128 characters", put(key="k" * 128), None, WRITE)


def _bare(draft: Draft) -> None:
    assert draft.key is not None
    draft.headers[KEY] = [draft.key.encode()]


# --- what is not HTTP ---------------------------------------------------------------------------------------


def raw_cases() -> Iterator[Case]:
    """No row of the page but all of them: bytes that no two readers of HTTP would understand alike."""
    for what, spoil in (
        ("no HTTP", put(message=lambda _: b"canary\r\n\r\n")),
        ("a TLS hello", put(message=lambda _: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")),
        ("HTTP/9.9", replaced(b"HTTP/1.1", b"HTTP/9.9")),
        ("no version", replaced(b" HTTP/1.1", b"")),
        ("a line without a colon", inserted(b"canary")),
        ("a space in a header's name", inserted(b"can ary: 1")),
        ("a space before the colon", inserted(b"canary : 1")),
        ("a folded line", inserted(b"X: 1\r\n canary")),
        ("a NUL in a header", inserted(b"X: can\x00ary")),
        ("a bare carriage return", inserted(b"X: can\rary")),
        ("a line of 40 kB", inserted(b"X: " + b"a" * 40_000)),
        ("a length that is no number", replaced(b"Content-Length: ", b"Content-Length: canary")),
        ("a negative length", replaced(b"Content-Length: ", b"Content-Length: -")),
        ("a signed length", replaced(b"Content-Length: ", b"Content-Length: +")),
        ("two lengths", inserted(b"Content-Length: 3")),
        ("length and chunks", inserted(b"Transfer-Encoding: chunked")),
        ("a transfer coding", replaced(b"Content-Length: ", b"Transfer-Encoding: gzip\r\nX: ")),
        ("chunks that are none", replaced(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nX: ")),
        ("a space in the target", put(target="/services/can ary", claims={"target_uri": "x"})),
        ("two hosts", inserted(b"Host: canary")),
    ):
        yield Case("HTTP", "value", what, spoil, "bad_request", WRITE)
    yield Case("HTTP", "value", "a lower-case method", put(method="post"), "bad_request", WRITE)
    yield Case("HTTP", "right", "a stray traceparent", inserted(b"traceparent: canary"), None, WRITE)


def http_cases() -> Iterator[Case]:
    for cases in (signature_cases, type_cases, prefer_cases, coding_cases, key_cases):
        yield from cases()
    yield from raw_cases()
