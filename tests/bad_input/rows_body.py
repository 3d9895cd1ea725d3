"""Bodies: strict JSON, sizes, and what the service's schema says of each member. Every place at once, never a value."""

from __future__ import annotations

from collections.abc import Iterator
from types import EllipsisType
from typing import Any

from tests.bad_input.case import Case, Way
from tests.bad_input.draft import Draft, Spoil, all_of, body, claims, header, put, text_of
from tests.bad_input.stage import ACT, BODY, FORM, FORM_BODY, LISTING, READ, READING, RESOLVE, SHOW, SUBJECT, WRITE

LIMIT = 524_288
RIGHT = text_of(FORM_BODY)
CANARY = "canary" * 5
"""A value that fits nowhere: it is too long for every text of the form."""


def form(**changes: Any) -> dict[str, Any]:
    return FORM_BODY | changes


def without(name: str) -> dict[str, Any]:
    return {each: value for each, value in FORM_BODY.items() if each != name}


def doubled(old: bytes, new: bytes) -> bytes:
    """The right form with these bytes once more in another form."""
    assert RIGHT.count(old) >= 1, old
    return RIGHT.replace(old, new, 1)


# --- not strict JSON ----------------------------------------------------------------------------------------

WHOLE = ("",)
MALFORMED: tuple[tuple[str, Way, bytes, tuple[str, ...] | EllipsisType], ...] = (
    ("nothing", "missing", b"", WHOLE),
    ("a space", "missing", b" ", WHOLE),
    ("a byte order mark", "value", b"\xef\xbb\xbf" + RIGHT, WHOLE),
    ("UTF-16", "value", RIGHT.decode().encode("utf-16"), WHOLE),
    ("Latin-1", "value", text_of(form(id="canaryé")).decode().encode("latin-1"), WHOLE),
    ("an overlong form", "value", doubled(b"canary-1", b"canary-\xc0\xb1"), WHOLE),
    ("a surrogate in UTF-8", "value", doubled(b"canary-1", b"canary\xed\xa0\x80"), WHOLE),
    ("a lone surrogate", "value", doubled(b"canary-1", b"canary\\ud800"), WHOLE),
    ("a cut off text", "value", RIGHT[:-5], WHOLE),
    ("one brace too few", "value", RIGHT[:-1], WHOLE),
    ("one brace too many", "value", RIGHT + b"}", WHOLE),
    ("something behind", "value", RIGHT + b" canary", WHOLE),
    ("two documents", "value", RIGHT + b"\n" + RIGHT, WHOLE),
    ("a NUL behind", "value", RIGHT + b"\0", WHOLE),
    ("a comma behind the last member", "value", RIGHT[:-1] + b",}", WHOLE),
    ("a comment", "value", RIGHT + b"// canary", WHOLE),
    ("single quotes", "value", RIGHT.replace(b'"', b"'"), WHOLE),
    ("a name without quotes", "value", doubled(b'"count"', b"count"), WHOLE),
    ("a control character", "value", doubled(b"canary-1", b"canary\t1"), WHOLE),
    ("a bad escape", "value", doubled(b"canary-1", b"canary\\x41"), WHOLE),
    ("NaN", "value", doubled(b":3", b":NaN"), WHOLE),
    ("Infinity", "value", doubled(b":3", b":Infinity"), WHOLE),
    ("-Infinity", "value", doubled(b":3", b":-Infinity"), WHOLE),
    ("a leading zero", "value", doubled(b":3", b":03"), WHOLE),
    ("a plus sign", "value", doubled(b":3", b":+3"), WHOLE),
    ("hexadecimal", "value", doubled(b":3", b":0x3"), WHOLE),
    ("True", "value", doubled(b":3", b":True"), WHOLE),
    ("a form", "type", b"id=canary&count=3", WHOLE),
    ("XML", "type", b"<canary/>", WHOLE),
    ("2^53 + 1", "value", doubled(b":3", b":9007199254740993"), ("/count",)),
    ("-2^53 - 1", "value", doubled(b":3", b":-9007199254740993"), ("/count",)),
    ("2^64", "value", doubled(b":3", b":18446744073709551616"), ("/count",)),
    ("400 digits", "value", doubled(b":3", b":" + b"7" * 400), WHOLE),
    ("2^53 + 1 deep inside", "value", doubled(b'"canary-1"', b"[[9007199254740993]]"), ("/items/0/code/0/0",)),
    ("a member", "duplicated", doubled(b'"count":3', b'"count":3,"count":3'), ("/count",)),
    ("a member with another value", "duplicated", doubled(b'"count":3', b'"count":3,"id":"canary"'), ("/id",)),
    ("a member thrice", "duplicated", doubled(b'"count":3', b'"count":3,"count":3,"count":3'), ("/count", "/count")),
    ("a member by escapes", "duplicated", doubled(b'"count":3', b'"count":3,"c\\u006funt":3'), ("/count",)),
    ("a member with a space behind", "duplicated", doubled(b'"count":3', b'"count":3,"count" :3'), ("/count",)),
    ("a member in an item", "duplicated", doubled(b'"canary-2"', b'"canary-2","code":"x"'), ("/items/1/code",)),
    ("a name with ~ and /", "duplicated", doubled(b'"count":3', b'"a~/b":1,"a~/b":1,"count":3'), ("/a~0~1b",)),
    (
        "several at once",
        "value",
        doubled(b'"count":3', b'"count":9007199254740993,"id":"canary"').replace(b'"canary-2"', b'"canary-2","code":1'),
        ("/count", "/id", "/items/1/code"),
    ),
    ("65 levels", "value", b"[" * 65 + b"]" * 65, ("/0" * 64,)),
    ("65 levels inside", "value", doubled(b":3", b":" + b"[" * 64 + b"]" * 64), ("/count" + "/0" * 63,)),
    ("10,000 levels", "value", b"[" * 10_000 + b"]" * 10_000, ...),
    ("100,000 levels that never close", "value", b"[" * 100_000, WHOLE),
)


def malformed_cases() -> Iterator[Case]:
    for what, way, data, places in MALFORMED:
        for kind in (FORM, RESOLVE):
            yield Case("strict JSON", way, what, body(data), "body_malformed", kind, pointers=places)


# --- what the schema says -----------------------------------------------------------------------------------

MEMBERS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "id": ((None, True, 7, 1.5, [], {}, [SUBJECT]), ("", "canary", SUBJECT + "0", "p-7777", " " + SUBJECT)),
    "count": ((None, True, "3", 1.5, [], {}), (-1, -9007199254740992)),
    "amount": ((None, True, 12.5, "12.50 canary", []), ()),
    "items": ((None, True, 7, "canary", {}), ([{"code": CANARY}],)),
}
"""Members of the form: values of a wrong type, and wrong values of the right one. The place is the member itself."""
PLACES = {("items", 0): ("/items/0/code",)}
"""Where the wrong value is deeper than the member."""
MONEY: tuple[tuple[Way, str, Any, tuple[str, ...]], ...] = (
    ("type", "a number", {"amount": 12.5, "currency": "XOF"}, ("/amount/amount",)),
    ("type", "an integer", {"amount": 12, "currency": "XOF"}, ("/amount/amount",)),
    ("value", "no decimal", {"amount": "12,50 canary", "currency": "XOF"}, ("/amount/amount",)),
    ("value", "an exponent", {"amount": "1e3", "currency": "XOF"}, ("/amount/amount",)),
    ("missing", "no currency", {"amount": "12.50"}, ("/amount/currency",)),
    ("missing", "nothing", {}, ("/amount/amount", "/amount/currency")),
    ("value", "one member too many", {"amount": "1", "currency": "XOF", "scale": "canary"}, ("/amount/scale",)),
)


def invalid(way: Way, what: str, data: Any, *pointers: str, row: str = "schema", kind: str = FORM) -> Case:
    return Case(row, way, what, body(data), "body_invalid", kind, pointers=pointers)


def schema_cases() -> Iterator[Case]:
    for name, (types, values) in MEMBERS.items():
        yield invalid("missing", "left out", without(name), f"/{name}", row=name)
        for wrong in types:
            yield invalid("type", text_of(wrong).decode(), form(**{name: wrong}), f"/{name}", row=name)
        for number, wrong in enumerate(values):
            places = PLACES.get((name, number), (f"/{name}",))
            yield invalid("value", f"#{number}", form(**{name: wrong}), *places, row=name)
    for wrong in (None, True, 7, "canary", [], [FORM_BODY]):
        yield invalid("type", f"the whole {text_of(wrong).decode()[:9]}", wrong, "")
    yield invalid("missing", "everything", {}, *(f"/{name}" for name in FORM_BODY))
    yield invalid("value", "a member that is not known", form(more="canary"), "/more")
    yield invalid("value", "two of them", form(more="canary", **{"a~/b": 1}), "/more", "/a~0~1b")
    yield invalid("value", "one that is not known inside", form(items=[{"code": "x", "more": 1}]), "/items/0/more")
    yield invalid("value", "too many items", form(items=[{"code": "x"}] * 6), "/items")
    yield invalid("value", "__proto__", form(__proto__={"canary": 1}), "/__proto__")
    several = form(
        id="canary", count="canary", amount={"amount": 1, "scale": "canary"}, items=[{}, {"code": 7}, 7], more=1
    )
    yield invalid(
        "value", "everything at once", several,
        "/id", "/count", "/amount/amount", "/amount/currency", "/amount/scale", "/items/0/code", "/items/1/code",
        "/items/2", "/more",
    )  # fmt: skip
    yield invalid("value", "the id of a read", {"id": "canary"}, "/id", kind=READ)
    for way, what, wrong, pointers in MONEY:
        yield invalid(way, what, form(amount=wrong), *pointers, row="money")


# --- sizes, and what goes with a body -----------------------------------------------------------------------


def filled(size: int) -> bytes:
    """The right form, filled with spaces to this size."""
    return RIGHT + b" " * (size - len(RIGHT))


def chunked(draft: Draft) -> None:
    """Sent without saying how long it is."""
    draft.headers |= {"Content-Length": [], "Transfer-Encoding": [b"chunked"]}
    sent = draft.body

    def message(data: bytes) -> bytes:
        head = data.partition(b"\r\n\r\n")[0]
        pieces = (sent[start : start + 65_536] for start in range(0, len(sent), 65_536))
        return head + b"\r\n\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"

    draft.message = message


def size_cases() -> Iterator[Case]:
    large = body(filled(LIMIT + 1))
    for kind in (FORM, RESOLVE):
        yield Case("size", "value", "512 KiB and one byte", large, "body_too_large", kind, signed=False)
        yield Case("size", "value", "and in chunks", all_of(large, chunked), "body_too_large", kind, signed=False)
    said = header("Content-Length", b"10485760000")
    yield Case("size", "value", "10 GB that never come", said, "body_too_large", FORM, signed=False)
    yield Case("size", "right", "512 KiB", body(filled(LIMIT)), None, FORM)
    yield Case("size", "right", "512 KiB in chunks", all_of(body(filled(LIMIT)), chunked), None, FORM)
    yield Case("size", "right", "64 levels are read", body(b"[" * 64 + b"]" * 64), "body_invalid", FORM, pointers=("",))


def binding_cases() -> Iterator[Case]:
    """What was signed and what is sent."""

    def tampered(old: bytes, new: bytes) -> Spoil:
        return put(message=lambda message: message.replace(old, new))

    for what, old, new in (
        ("another subject", b"P-7777", b"P-7778"),
        ("another case of a letter", b"canary text", b"Canary text"),
        ("another order", b'{"id":"P-7777","text":"canary text"}', b'{"text":"canary text","id":"P-7777"}'),
    ):
        yield Case("digest", "value", what, tampered(old, new), "digest_mismatch", WRITE)
    # Declared shorter than it is, the rest is the beginning of another message, and no reader may guess.
    for what, length in (("cut short", b"Content-Length: 35"), ("nothing left", b"Content-Length: 0")):
        spoil = tampered(b"Content-Length: 36", length)
        yield Case("digest", "missing", what, spoil, "bad_request", WRITE)
    yield Case("digest", "missing", "no body", put(message=_bodiless), "digest_mismatch", WRITE)
    typed = header("Content-Type", b"application/json; charset=utf-8")
    yield Case(
        "type", "value", "another parameter", all_of(typed, claims(content_type="application/json")),
        "content_type_mismatch", WRITE,
    )  # fmt: skip


def _bodiless(message: bytes) -> bytes:
    head = message.partition(b"\r\n\r\n")[0]
    return head.replace(b"Content-Length: 36", b"Content-Length: 0") + b"\r\n\r\n"


BULLETS = {
    "Type": "Content-Type",
    "Strict JSON": "strict JSON",
    "Size": "size",
    "No content coding": "Content-Encoding",
    "Money": "money",
    "Once": "Content-Type",
}
"""The rules of the page's list on bodies, and the row that holds each."""


def bodiless_cases() -> Iterator[Case]:
    for kind in (READING, LISTING, ACT, SHOW, BODY):
        with_body = all_of(body(b"{}"), header("Content-Type", b"application/json"))
        yield Case("type", "value", "a body where none is taken", with_body, "bad_request", kind)
        yield Case("type", "right", "a type without a body", header("Content-Type", b"text/plain"), None, kind)


def body_cases() -> Iterator[Case]:
    for cases in (malformed_cases, schema_cases, size_cases, binding_cases, bodiless_cases):
        yield from cases()
