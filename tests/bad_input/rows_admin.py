"""Operators' acts: each parameter, and who may do what. Right parameters meet ``state_conflict`` or an empty list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.bad_input.case import Case, Step, Way
from tests.bad_input.draft import GONE, Draft, Spoil, body, put, text_of
from tests.bad_input.rows_paths import query
from tests.bad_input.stage import (
    ACT,
    BODY,
    CLOSE,
    ERASE,
    EVIDENCE,
    NOBODYS,
    REPLAY,
    RESOLVE,
    REVOKE,
    RULINGS,
    SHOW,
    Stage,
)

NO_TEXT: tuple[Any, ...] = (None, True, 7, 1.5, [], ["done"], {})
NO_NUMBER: tuple[Any, ...] = (None, True, "60", "canary", [], [60], {})
BAD_REASONS = ("", "abc", "   ", "  a  ", "canary" * 84)
BAD_TIMES = (
    *("", "canary", "0", "1e9", "nan", "inf", "2026-01-01", "2026-01-01T00:00:00", "2026-01-01 00:00:00Z"),
    *("2026-02-30T00:00:00Z", "2026-01-01T24:00:01Z", "2026-01-01T00:00:00+25:00", "2026-01-01T00:00:00Zcanary"),
)
TIMES = (
    "2026-01-01T00:00:00Z",
    "2026-01-01t00:00:00.123456789z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
)
RIGHT_OF = {
    SHOW: None,
    ACT: None,
    BODY: None,
    EVIDENCE: None,
    ERASE: None,
    REVOKE: None,
    RESOLVE: "state_conflict",
    CLOSE: "state_conflict",
    REPLAY: "state_conflict",
}
"""What right parameters meet on the stage's exchange, which is final."""


@dataclass(frozen=True)
class Row:
    """One parameter: the code for leaving it out (None: it may be), wrong types, wrong values with their code."""

    name: str
    missing: str | None
    types: tuple[Any, ...]
    values: tuple[Any, ...]
    code: str = "act_invalid"
    place: str = ""
    right: tuple[Any, ...] = ()
    place_missing: str | None = None
    """Where it is told that it was left out, when it is not told there."""


QUERY: dict[str, tuple[Row, ...]] = {
    ACT: (
        Row("reason", "reason_missing", (), BAD_REASONS, "reason_missing", right=("abcd", "ä" * 500)),
        Row("agency", None, (), (), right=("canary", "")),
        Row("service", None, (), (), right=("canary", "", "registry/note/v1")),
        Row("state", None, (), ("", "canary", "DONE", "done,held"), place="/state/0", right=("done",)),
        Row("code", None, (), (), right=("canary", "")),
        Row("since", None, (), BAD_TIMES, right=TIMES),
        Row("until", None, (), BAD_TIMES, right=TIMES),
        Row("business_key", None, (), (), right=("canary", "", "\u00e4" * 100)),
        Row("cursor", None, (), ("", "canary", NOBODYS, "A" * 32, "A" * 31 + "=", "\u00e4" * 32)),
        Row("limit", None, (), ("", "canary", "0", "-1", "501", "1.5", "9" * 30), right=("1", "500")),
    ),
    **{
        kind: (Row("reason", "reason_missing", (), BAD_REASONS, "reason_missing", right=("abcd",)),)
        for kind in (SHOW, BODY, EVIDENCE)
    },
}
"""Parameters in the query; everything there is text, so that no type is wrong."""
ENDING = (
    Row("reason", "reason_missing", NO_TEXT, BAD_REASONS, "reason_missing", right=("abcd",)),
    Row("state", "act_invalid", NO_TEXT, ("", "canary", "expired", "refused", "running", "DONE")),
    Row("effect", "act_invalid", NO_TEXT, ("", "canary", "repeatable", "DONE")),
)
RULED: dict[str, tuple[Row, ...]] = {
    RESOLVE: ENDING,
    CLOSE: ENDING,
    REPLAY: (
        Row("reason", "reason_missing", NO_TEXT, BAD_REASONS, "reason_missing", right=("abcd",)),
        Row("expires_in", None, NO_NUMBER, (0, -1, 2_592_001, -0.5), right=(1, 0.5, 2_592_000)),
    ),
    ERASE: (
        Row("reason", "reason_missing", NO_TEXT, BAD_REASONS, "reason_missing", right=("abcd",)),
        Row("legal_basis", "act_invalid", NO_TEXT, ("", "abc", "canary\n", "a" * 201), right=("abcd", "a" * 200)),
        Row("exchanges", "act_invalid", (True, 7, 1.5, "canary", {}), ([], [NOBODYS] * 501), place_missing=""),
        # Neither stands in the right body: there is a subject, with its salt, in the place of exchanges, or none.
        Row("subject", None, (True, 7, 1.5, [], {}), ("", "canary" * 167)),
        Row("salt", None, (True, 7, 1.5, [], {}), ("", "canary", "A" * 65, "A" * 21 + "=")),
    ),
    REVOKE: (
        Row("reason", "reason_missing", NO_TEXT, BAD_REASONS, "reason_missing", right=("abcd",)),
        Row("key", "act_invalid", NO_TEXT, ("", "canary", "A" * 43, "A" * 101)),
    ),
}
"""Parameters in the body."""


def asked(kind: str, *pairs: tuple[str, str]) -> Spoil:
    """The act with this query, truly signed."""
    return query("&".join(f"{name}={quote(value, safe='')}" for name, value in pairs))


def query_cases(kind: str, row: Row) -> Iterator[Case]:
    name = row.name
    others = () if name == "reason" else (("reason", "a canary reason"),)
    way: Way = "missing" if row.missing else "right"
    yield _refused(kind, row, way, "left out", asked(kind, *others), row.missing, False)
    for number, wrong in enumerate(row.values):
        yield _refused(kind, row, "value", f"#{number}", asked(kind, *others, (name, wrong)), row.code, True)
    for number, right in enumerate(row.right):
        yield Case(name, "right", f"#{number}", asked(kind, *others, (name, right)), None, kind)
    if name == "state":
        yield Case(name, "right", "two", asked(kind, *others, (name, "done"), (name, "held")), None, kind)
        return
    twice = asked(kind, *others, (name, "10"), (name, "10"))
    yield Case(name, "duplicated", "twice", twice, "act_invalid", kind, pointers=("",))


def _refused(kind: str, row: Row, way: Way, what: str, spoil: Spoil, code: str | None, placed: bool) -> Case:
    place = row.place or f"/{row.name}"
    if way == "missing" and row.place_missing is not None:
        place = row.place_missing
    pointers = (place,) if code == "act_invalid" and (placed or way == "missing") else None
    return Case(row.name, way, what, spoil, code or RIGHT_OF[kind], kind, pointers=pointers, **_stands(kind, code))


def _stands(kind: str, code: str | None) -> dict[str, Any]:
    conflict = code is None and RIGHT_OF[kind] == "state_conflict"
    return {"members": {"exchange": ..., "state": "done"}} if conflict else {}


def body_cases(kind: str, row: Row) -> Iterator[Case]:
    name, right = row.name, RULINGS[kind]
    less = {each: value for each, value in right.items() if each != name}
    yield _refused(kind, row, "missing" if row.missing else "right", "left out", body(less), row.missing, False)
    for wrong in row.types:
        what = text_of(wrong).decode()
        spoil = body(right | {name: wrong})
        yield Case(name, "type", what, spoil, "act_invalid", kind, pointers=(f"/{name}",))
    for number, wrong in enumerate(row.values):
        yield _refused(kind, row, "value", f"#{number}", body(right | {name: wrong}), row.code, True)
    for number, good in enumerate(row.right):
        yield _refused(kind, row, "right", f"#{number}", body(right | {name: good}), None, False)
    both = {name: "canary", **right}
    twice = b"{" + text_of(name) + b":" + text_of(both[name]) + b"," + text_of(both)[1:]
    yield Case(name, "duplicated", "twice", body(twice), "body_malformed", kind, pointers=(f"/{name}",))


def admin_cases() -> Iterator[Case]:
    for kind, rows in QUERY.items():
        for row in rows:
            yield from query_cases(kind, row)
        more = asked(kind, ("reason", "a canary reason"), ("more", "canary"))
        yield Case("other parameters", "value", "not known", more, "act_invalid", kind, pointers=("/more",))
    for kind, rows in RULED.items():
        for row in rows:
            yield from body_cases(kind, row)
        yield from _whole_cases(kind)
    yield from _who_cases()


def _whole_cases(kind: str) -> Iterator[Case]:
    """The body of an act as a whole."""
    right = RULINGS[kind]
    for wrong in (None, True, 7, "canary", [], [right]):
        what = f"the whole {text_of(wrong).decode()[:9]}"
        yield Case("other parameters", "type", what, body(wrong), "act_invalid", kind, pointers=("",))
    odd = body(right | {"a~/b": "canary"})
    yield Case("other parameters", "value", "not known", odd, "act_invalid", kind, pointers=("/a~0~1b",))


def _who_cases() -> Iterator[Case]:
    for kind in (ACT, SHOW, BODY, EVIDENCE, RESOLVE, CLOSE, REPLAY, ERASE, REVOKE):
        yield Case("who", "value", "an agency", put(), "operator_required", kind, before=_as("payroll"))
    for kind in (RESOLVE, CLOSE, REPLAY, REVOKE):
        operator = {"role": "operator"}
        yield Case("who", "value", "an observer", put(), "role_missing", kind, members=operator, before=_as("otto"))
    for kind, needed in ((ACT, "observer"), (SHOW, "observer"), (RESOLVE, "operator"), (REVOKE, "operator")):
        inspector = _as("ines")
        yield Case(
            "who", "value", "an inspector", put(), "role_missing", kind, members={"role": needed}, before=inspector
        )
    for kind, needed in ((BODY, "inspector"), (EVIDENCE, "inspector"), (ERASE, "eraser")):
        operator = {"role": needed}
        yield Case("who", "value", "an operator", put(), "role_missing", kind, members=operator, before=_as("olive"))
    for kind in (SHOW, BODY, EVIDENCE, RESOLVE, CLOSE, REPLAY):
        yield Case("which", "value", "of nobody", _another, "exchange_unknown", kind)
    yield from _whom_cases()
    for kind in (RESOLVE, CLOSE):
        ending = body(RULINGS[kind] | {"effect": "none"})
        yield Case("effect", "value", "a write without one", ending, "act_invalid", kind, pointers=("/effect",))
    at_the_api = {"target_uri": "http://bus.test/admin/exchanges?reason=a+canary+reason"}
    yield Case("target_uri", "value", "the API's", put(claims=at_the_api), "target_mismatch", ACT)
    yield Case("purpose", "missing", "acts have none", put(said={"purpose": GONE}), None, ACT)


def _whom_cases() -> Iterator[Case]:
    """Erasing takes exchanges, or a subject with a salt; and the log must not name the subject."""
    law = {"reason": "a canary reason", "legal_basis": "section 17"}
    salted = {"subject": "canary person", "salt": "A" * 22}
    for what, wrong in (
        ("nothing", law),
        ("both", law | salted | {"exchanges": [NOBODYS]}),
        ("no salt", law | {"subject": "canary person"}),
        ("a salt alone", law | {"exchanges": [NOBODYS], "salt": "A" * 22}),
        ("a basis that names it", law | salted | {"legal_basis": "wish of the Canary Person"}),
    ):
        yield Case("whom", "value", what, body(wrong), "act_invalid", ERASE, pointers=("",))
    odd = body(law | {"exchanges": [NOBODYS, "canary"]})
    yield Case("whom", "value", "no id", odd, "act_invalid", ERASE, pointers=("/exchanges/1",))
    yield Case("whom", "right", "a subject", body(law | salted), None, ERASE)


def _another(draft: Draft) -> None:
    draft.target = f"/admin/exchanges/{NOBODYS}{draft.target[draft.target.index('exchanges/') + 46 :]}"


def _as(owner: str) -> Step:
    async def step(stage: Stage, draft: Draft) -> None:
        draft.issuer, draft.signer = owner, stage.deployment.key(owner)

    return step
