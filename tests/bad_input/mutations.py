"""Random ways to spoil a right call: what nobody thought of when the rows were written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from gsb.compact import REQUEST_RULES
from tests.bad_input.draft import Draft
from tests.bad_input.rows_http import HEADERS, KEY

TEXT = st.text(max_size=30)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
LINE = st.binary(max_size=40).map(lambda data: data.replace(b"\r", b"").replace(b"\n", b""))
"""A header's value of any bytes but those that would end it."""
TOKEN_NAMES = st.sampled_from([*REQUEST_RULES.forms, "nbf"]) | TEXT


Mutation = tuple[str, Any, Any]
"""What is changed, where, and to what."""
ANY: st.SearchStrategy[Mutation] = st.one_of(
    st.tuples(st.just("claim"), TOKEN_NAMES, JSON),
    st.tuples(st.just("jose"), st.sampled_from(["alg", "kid", "typ"]) | TEXT, JSON),
    st.tuples(st.just("header"), st.sampled_from([*HEADERS, KEY]), st.lists(LINE, max_size=2)),
    st.tuples(st.just("body"), st.integers(0, 100), st.binary(max_size=8)),
    st.tuples(st.just("cut"), st.integers(0, 100), st.integers(1, 9)),
    st.tuples(st.just("path"), st.none(), TEXT),
)
"""Signed truly, after it was done, unless it was done to the signature's own header."""
BYTE = st.tuples(st.integers(0, 10_000), st.integers(0, 255))
"""A place in the message, and what stands there instead."""


def spoil(draft: Draft, what: str, where: Any, new: Any) -> None:
    match what:
        case "claim":
            draft.claims[where] = new
        case "jose":
            draft.jose[where] = new
        case "header":
            draft.headers[where] = new
        case "path":
            # One that ends the request line would only test the HTTP parser, as changed bytes do anyway.
            draft.target = "/services/" + "".join(letter for letter in new if letter not in "\r\n")
        case _:
            start = where % (len(draft.body) + 1)
            cut, put = (0, new) if what == "body" else (new, b"")
            draft.body = draft.body[:start] + put + draft.body[start + cut :]


def changed(message: bytes, changes: Sequence[tuple[int, int]]) -> bytes:
    """The message with other bytes, except where it says how long it is: a server would wait for what never comes."""
    at = message.index(b"Content-Length: ")
    kept = set(range(at, message.index(b"\r\n", at)))
    data = bytearray(message)
    for place, byte in changes:
        index = place % len(data)
        if index not in kept and data[index] not in b"\r\n" and byte not in b"\r\n":
            data[index] = byte
    return bytes(data)
