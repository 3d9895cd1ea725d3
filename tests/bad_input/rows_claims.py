"""The claims of a request, row by row as the wire profile's table has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.bad_input.case import Case, Way
from tests.bad_input.draft import GONE, Draft, Spoil, claims, put, text_of, twice
from tests.bad_input.stage import ACT, READING, WRITE, Stage

EVERY = (WRITE, READING, ACT)
"""Each rule on tokens holds for a call with a body, one without, and an operator's."""
NO_TEXT: tuple[Any, ...] = (None, True, 7, 1.5, [], ["canary"], {"canary": "canary"})
NO_INTEGER: tuple[Any, ...] = (None, True, False, "1790000000", 1790000000.0, 1.5, [], [1790000000], {})


@dataclass(frozen=True)
class Row:
    """One claim or member: the codes for leaving it out, for each wrong type, and for wrong values.

    ``missing`` None: it may be left out. ``values`` are (what, changes, code, the calls for which it is so).
    A second member of the same name is always ``signature_malformed``.
    """

    name: str
    missing: str | None
    types: tuple[Any, ...]
    values: tuple[tuple[str, dict[str, Any], str | None, tuple[str, ...]], ...]
    on: tuple[str, ...] = EVERY
    """The calls in which it stands."""
    unknown_on: tuple[str, ...] = ()
    """The calls in which it must not stand, and then ``stray`` is the code."""
    stray: str | None = None


def value(what: str, code: str | None, on: tuple[str, ...] = EVERY, **changes: Any) -> Any:
    return (what, changes, code, on)


def at(offset: float) -> Callable[[int], float]:
    return lambda now: now + offset


BAD_NAMES = ("", " payroll", "pay roll", "a" * 129, "päyroll", "\u0000", "canary\n")
BAD_JTIS = (
    "",
    "a" * 15,
    "a" * 65,
    "canary jti with spaces",
    "a" * 15 + "/",
    "a" * 15 + "é",
    "a" * 16 + "\n",
    "a" * 15 + "=",
)
BAD_DIGESTS = (
    "",
    "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    "sha-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    "sha-256=:47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=:",
    "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU:",
    "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=:",
    "sha-512=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
    "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:, sha-512=:AA==:",
)
EMPTY_DIGEST = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
OTHER_DIGEST = "sha-256=:9Hm6S9XaGrI+04paRuFYyemWId48PF3B7q6+CXkU6Xs=:"
BAD_PRINTABLES = ("", "a" * 129, "canary\n", "\u0007canary", "\u200b", "\u2028canary", "\ud800")


def _bad(name: str, values: tuple[str, ...]) -> tuple[Any, ...]:
    # A lone surrogate is no UTF-8, so that it is the whole token which is malformed.
    return tuple(
        (f"#{number}", {name: each}, "signature_malformed" if "\ud800" in each else "claim_invalid", EVERY)
        for number, each in enumerate(values)
    )


CLAIMS = (
    Row(
        "iss",
        "claim_missing",
        NO_TEXT,
        (
            *_bad("iss", BAD_NAMES),
            value("nobody", "key_unknown", iss="canary-agency"),
            value("another agency", "key_unknown", iss="hrmis-agency"),
            value("another case", "key_unknown", iss="Payroll"),
        ),
    ),
    Row(
        "aud",
        "claim_missing",
        NO_TEXT,
        (
            *_bad("aud", BAD_NAMES),
            value("another bus", "audience_mismatch", aud="canary.example"),
            value("another case", "audience_mismatch", aud="BUS.TEST"),
            value("an array of it", "claim_invalid", aud=["bus.test"]),
        ),
    ),
    Row(
        "iat",
        "claim_missing",
        NO_INTEGER,
        (
            value("negative", "claim_invalid", iat=-1),
            value("zero", "token_lifetime", iat=0),
            value("beyond 2^53", "signature_malformed", iat=2**53 + 1),
            value("equal to exp", "token_lifetime", iat=at(60)),
            value("after exp", "token_lifetime", iat=at(61)),
            value("61 s before exp", "token_lifetime", iat=at(-1)),
            value("11 s ahead", "token_not_yet_valid", iat=at(11), exp=at(60)),
            value("10 s ahead", None, iat=at(10), exp=at(60)),
            value("71 s ago", "token_expired", iat=at(-71), exp=at(-11)),
            value("70 s ago", None, iat=at(-70), exp=at(-10)),
        ),
    ),
    Row(
        "exp",
        "claim_missing",
        NO_INTEGER,
        (
            value("negative", "claim_invalid", exp=-1),
            value("zero", "token_lifetime", exp=0),
            value("beyond 2^53", "signature_malformed", exp=2**53 + 1),
            value("61 s after iat", "token_lifetime", exp=at(61)),
            value("a year ahead", "token_lifetime", exp=at(31_536_000)),
            value("1 s after iat", None, exp=at(1)),
            value("11 s ago", "token_expired", iat=at(-12), exp=at(-11)),
            value("10 s ago", None, iat=at(-12), exp=at(-10)),
        ),
    ),
    Row("jti", "claim_missing", NO_TEXT, _bad("jti", BAD_JTIS)),
    Row(
        "method",
        "claim_missing",
        NO_TEXT,
        (
            *_bad("method", ("", "post", "Get", "P" * 17, "GET ", "M-SEARCH", "\u0000")),
            value("another", "method_mismatch", method="PUT"),
            value("that of a probe", "method_mismatch", method="HEAD"),
        ),
    ),
    Row(
        "target_uri",
        "claim_missing",
        NO_TEXT,
        (
            *_bad("target_uri", ("", "http://127.0.0.1/ services", "http://127.0.0.1/é", "\n")),
            value("another path", "target_mismatch", target_uri="http://bus.test/canary"),
            value("no base URL", "target_mismatch", target_uri="/services/registry/note/v1"),
            value("no URL", "target_mismatch", target_uri="canary"),
        ),
    ),
    Row(
        "content_digest",
        "claim_missing",
        NO_TEXT,
        (
            *_bad("content_digest", BAD_DIGESTS),
            value("of another body", "digest_mismatch", content_digest=OTHER_DIGEST),
            value("of an empty body", "digest_mismatch", (WRITE,), content_digest=EMPTY_DIGEST),
        ),
    ),
    Row(
        "content_type",
        "content_type_mismatch",
        NO_TEXT,
        (
            *_bad("content_type", ("", "a" * 256, "application/json\n", "application/jsön")),
            value("another type", "content_type_mismatch", content_type="text/plain"),
            value("another case", "content_type_mismatch", content_type="Application/json"),
            value("with a parameter", "content_type_mismatch", content_type="application/json; charset=utf-8"),
        ),
        on=(WRITE,),
        unknown_on=(READING, ACT),
        stray="content_type_mismatch",
    ),
    Row(
        "idempotency_key",
        "idempotency_key_mismatch",
        NO_TEXT,
        (
            *_bad("idempotency_key", ("", "a" * 129, "canary key", "canary\n", "é")),
            value("another", "idempotency_key_mismatch", idempotency_key="canary-other"),
            value("with the quotes", "idempotency_key_mismatch", idempotency_key='"canary"'),
        ),
        on=(WRITE,),
        unknown_on=(READING, ACT),
        stray="idempotency_key_mismatch",
    ),
    Row(
        "purpose",
        "claim_missing",
        NO_TEXT,
        (
            *_bad("purpose", ("", "Payroll", "pay roll", "-payroll", "payroll-", "1payroll", "a" * 65, "päy")),
            value("not granted", "purpose_not_granted", (WRITE,), purpose="curiosity"),
            value("of an agreement that has ended", "agreement_not_in_force", (WRITE,), purpose="ended"),
            value("of a suspended agreement", "agreement_not_in_force", (WRITE,), purpose="suspended"),
            value("where none is asked", None, (READING, ACT), purpose="payroll"),
        ),
        on=(WRITE,),
    ),
    Row(
        "sub",
        None,
        NO_TEXT,
        (
            *_bad("sub", BAD_PRINTABLES),
            value("missing where required", "sub_required", (WRITE,), sub=GONE, purpose="for-somebody"),
            value("128 characters", None, sub="é" * 128),
        ),
    ),
    Row(
        "case",
        None,
        NO_TEXT,
        (
            *_bad("case", BAD_PRINTABLES),
            value("missing where required", "case_required", (WRITE,), case=GONE, purpose="on-a-case"),
            value("128 characters", None, case="é" * 128),
        ),
    ),
)


def claim_cases() -> Iterator[Case]:
    for row in CLAIMS:
        yield from cases_of(row)
    yield from stray_cases()
    yield from replay_cases()


def cases_of(row: Row) -> Iterator[Case]:
    name = row.name
    for kind in row.on:
        known = True if name == "purpose" else None  # it is only known to be needed once the service is
        member = {"claim": name} if row.missing == "claim_missing" else {}
        way: Way = "missing" if row.missing else "right"
        yield Case(name, way, "left out", claims(**{name: GONE}), row.missing, kind, signed=known, members=member)
        yield Case(name, "duplicated", "the same twice", twice(name), "signature_malformed", kind)
    for kind in row.unknown_on:
        yield Case(name, "value", "where it must not stand", claims(**{name: "application/json"}), row.stray, kind)
    for kind in EVERY:
        for wrong in row.types:
            what = text_of(wrong).decode()
            yield Case(name, "type", what, claims(**{name: wrong}), "claim_invalid", kind, members={"claim": name})
    for what, changes, code, kinds in row.values:
        for kind in kinds:
            if kind in row.on or code == "claim_invalid" or code is None:
                yield _value_case(name, what, claims(**changes), code, kind)


def _value_case(name: str, what: str, spoil: Spoil, code: str | None, kind: str) -> Case:
    members: dict[str, Any] = {"claim": name} if code == "claim_invalid" else {}
    if code in ("token_expired", "token_not_yet_valid", "token_lifetime"):
        members = {"now": ...}
    if code in ("agreement_not_in_force", "sub_required", "case_required"):
        members = {"agreement": ...}
    return Case(name, "value" if code else "right", what, spoil, code, kind, members=members)


def stray_cases() -> Iterator[Case]:
    for kind in EVERY:
        for name in ("nbf", "ISS", "acr", ""):
            stray, told = claims(**{name: "canary"}), {"claim": name}
            yield Case("other claims", "value", name or "no name", stray, "claim_invalid", kind, members=told)
        none = put(claims_text=lambda text: b"{}")
        yield Case("other claims", "missing", "all", none, "claim_missing", kind, members={"claim": "iss"})


async def _send_once(stage: Stage, draft: Draft) -> None:
    await stage.send(draft)


def replay_cases() -> Iterator[Case]:
    yield Case("jti", "value", "used before", put(), "replayed", WRITE, before=_send_once)
    yield Case("jti", "value", "used before by a reading call", put(), "replayed", READING, before=_send_once)
    yield Case("jti", "value", "used before by an operator", put(), "replayed", ACT, before=_send_once)
    yield Case(
        "jti", "value", "of a call that was refused", claims(purpose="curiosity"), "replayed", WRITE, before=_send_once
    )
