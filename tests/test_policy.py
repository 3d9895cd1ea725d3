"""Decisions are pure and deny by default; what leaves the bus is never more than what was granted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb.errors import (
    AgreementNotInForce,
    CaseRequired,
    ClaimMissing,
    GrantMissing,
    Problem,
    PurposeNotGranted,
    SubRequired,
)
from gsb.policy import Grant, Policy, cut, released

START, END = 1_000.0, 2_000.0
GRANT = Grant(
    agreement="a-1",
    agreement_digest="d",
    consumer="payroll",
    provider="hrmis-agency",
    service="hrmis/employee/v1",
    purpose="pay",
    fields=("/id",),
    rate=None,
    sub=False,
    case=False,
    valid_from=START,
    valid_until=END,
    suspended=False,
)


def decide(*grants: Grant, **question: Any) -> Grant:
    asked = {
        "agency": "payroll",
        "service": "hrmis/employee/v1",
        "purpose": "pay",
        "sub": None,
        "case": None,
        "now": START,
    }
    return Policy(grants).decide(**(asked | question))


def test_what_is_granted_is_allowed() -> None:
    assert decide(GRANT) is GRANT
    assert decide(GRANT, now=END - 0.001) is GRANT


@pytest.mark.parametrize(
    ("problem", "grant", "question"),
    [
        (ClaimMissing, GRANT, {"purpose": None}),
        (GrantMissing, GRANT, {"agency": "audit-office"}),
        (GrantMissing, GRANT, {"service": "hrmis/employee/v2"}),
        (PurposeNotGranted, GRANT, {"purpose": "statistics"}),
        (AgreementNotInForce, GRANT, {"now": START - 0.001}),
        (AgreementNotInForce, GRANT, {"now": END}),
        (AgreementNotInForce, replace(GRANT, suspended=True), {}),
        (SubRequired, replace(GRANT, sub=True), {}),
        (SubRequired, replace(GRANT, sub=True), {"sub": ""}),
        (CaseRequired, replace(GRANT, case=True), {"sub": "olga"}),
    ],
)
def test_everything_else_is_denied_with_its_reason(
    problem: type[Problem], grant: Grant, question: dict[str, Any]
) -> None:
    with pytest.raises(problem):
        decide(grant, **question)


def test_nothing_is_granted_by_default() -> None:
    with pytest.raises(GrantMissing):
        decide()


def test_a_grant_that_wants_sub_and_case_is_met_by_both() -> None:
    strict = replace(GRANT, sub=True, case=True)
    assert decide(strict, sub="olga", case="2024/17") is strict


def test_a_renewed_agreement_takes_over_where_the_old_one_ends() -> None:
    renewed = replace(GRANT, agreement="a-2", valid_from=END, valid_until=END + 1_000)
    assert decide(GRANT, renewed, now=END - 1) is GRANT
    assert decide(GRANT, renewed, now=END) is renewed


def test_grants_are_found_by_name_whether_in_force_or_not() -> None:
    policy = Policy([replace(GRANT, suspended=True)])
    assert policy.grant("a-1", GRANT.consumer, "hrmis/employee/v1", "pay") == replace(GRANT, suspended=True)
    assert policy.grant("a-1", GRANT.consumer, "hrmis/employee/v1", "statistics") is None
    assert policy.grant("a-2", GRANT.consumer, "hrmis/employee/v1", "pay") is None
    assert policy.grant("a-1", "somebody-else", "hrmis/employee/v1", "pay") is None
    assert policy.knows("a-1")
    assert not policy.knows("a-2")
    assert len(policy.grants_of("payroll")) == 1
    assert policy.grants_of("hrmis-agency") == ()


# --- granted fields

VALUE = {
    "id": "P-1",
    "name": {"first": "Ada", "last": "L"},
    "phones": [{"number": "1", "kind": "home"}, {"number": "2"}, 7],
    "a/b": {"~": 1},
    "*": "star",
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([""], VALUE),
        (["/id", ""], VALUE),
        ([], {}),
        (["/id"], {"id": "P-1"}),
        (["/name/first"], {"name": {"first": "Ada"}}),
        (["/name/first", "/name"], {"name": {"first": "Ada", "last": "L"}}),
        (["/name", "/name/first"], {"name": {"first": "Ada", "last": "L"}}),
        (["/phones/*/number"], {"phones": [{"number": "1"}, {"number": "2"}]}),
        (["/phones/*"], {"phones": VALUE["phones"]}),
        (["/phones/0/number"], {}),
        (["/phones/number"], {}),
        (["/a~1b/~0"], {"a/b": {"~": 1}}),
        (["/*"], {"*": "star"}),
        (["/id/x"], {}),
        (["/unknown"], {}),
    ],
)
def test_cut_keeps_what_is_granted(fields: list[str], expected: Any) -> None:
    assert cut(VALUE, fields) == expected


@pytest.mark.parametrize(
    ("value", "fields", "expected"),
    [
        ([1, 2], ["/*"], [1, 2]),
        ([{"a": 1, "b": 2}], ["/*/a"], [{"a": 1}]),
        ([[1], [2]], ["/*/*"], [[1], [2]]),
        ("text", ["/a"], None),
        (None, [""], None),
        ([1], ["/a"], None),
    ],
)
def test_cut_of_other_replies(value: Any, fields: list[str], expected: Any) -> None:
    assert cut(value, fields) == expected


def test_cut_leaves_its_argument_alone() -> None:
    before = {"a": [{"b": 1, "c": 2}]}
    cut(before, ["/a/*/b"])
    assert before == {"a": [{"b": 1, "c": 2}]}


def test_released_names_the_granted_fields_that_are_there() -> None:
    fields = ["", "/id", "/phones/*/kind", "/phones/*/fax", "/name/middle", "/id/x", "/a~1b"]
    assert released(VALUE, fields) == ("", "/id", "/phones/*/kind", "/a~1b")
    assert released({"phones": []}, ["/phones", "/phones/*"]) == ("/phones",)


# --- properties: leaves are scalars, empty objects and empty arrays are only their frame

NAMES = st.sampled_from(["a", "b", "*", "/", "~", "0", ""])
VALUES = st.recursive(
    st.integers(0, 3) | st.none() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
TOKENS = st.sampled_from(["a", "b", "*", "~1", "~0", "0", ""])
FIELDS = st.lists(st.lists(TOKENS, max_size=3).map(lambda tokens: "".join(f"/{token}" for token in tokens)), max_size=4)

Path = tuple[tuple[str, str], ...]
"""Steps to a leaf: ("name", member) or ("item", "*")."""


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from leaves(each, (*path, ("name", name)))
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each, (*path, ("item", "*")))
    else:
        yield path, value


def covers(field: str, path: Path) -> bool:
    """Whether a leaf at this path lies at or below the field. Written apart from the code under test."""
    tokens = [] if field == "" else field[1:].split("/")
    if len(tokens) > len(path):
        return False
    return all(
        token == "*" if kind == "item" else token.replace("~1", "/").replace("~0", "~") == name
        for token, (kind, name) in zip(tokens, path, strict=False)
    )


def count(value: Any, *grants: list[str]) -> Counter[tuple[Path, str]]:
    """The leaves that every one of these grants covers."""
    return Counter(
        (path, repr(leaf))
        for path, leaf in leaves(value)
        if all(any(covers(field, path) for field in fields) for fields in grants)
    )


def found(value: Any) -> Counter[tuple[Path, str]]:
    # The whole of a reply of which nothing is granted is None, which is no leaf of it.
    return Counter() if value is None else count(value)


@settings(deadline=None)
@given(VALUES, FIELDS)
def test_exactly_the_granted_leaves_leave(value: Any, fields: list[str]) -> None:
    if value is not None:
        assert found(cut(value, fields)) == count(value, fields)


@settings(deadline=None)
@given(VALUES, FIELDS)
def test_cutting_twice_changes_nothing(value: Any, fields: list[str]) -> None:
    once = cut(value, fields)
    assert cut(once, fields) == once


@settings(deadline=None)
@given(VALUES, FIELDS, FIELDS)
def test_granted_then_and_now_is_what_both_grant(value: Any, then: list[str], now: list[str]) -> None:
    if value is not None:
        assert found(cut(cut(value, then), now)) == count(value, then, now)


def test_a_value_of_which_all_is_granted_is_passed_on_as_it_is() -> None:
    value = {"person": "P-1", "lines": [{"code": "a", "amount": 1}, {"code": "b", "amount": 2}], "notes": [{}]}
    assert cut(value, ("/person", "/lines", "/notes")) is value
    assert cut(value, ("/person", "/lines/*/code", "/lines/*/amount", "/notes")) is value
    less = cut(value, ("/person", "/lines/*/code", "/notes"))
    assert less == {"person": "P-1", "lines": [{"code": "a"}, {"code": "b"}], "notes": [{}]}
    assert less["notes"] is value["notes"]
    assert value["lines"][0] == {"code": "a", "amount": 1}
