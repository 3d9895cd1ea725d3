"""Declarative mapping: what is built, what is refused at once, and that amounts are never rounded."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsb.sdk import Broken, Refused, Request, Settings, Shape, decimal_string, scope


@pytest.mark.parametrize(
    ("source", "built"),
    [
        ("a.b", 1),
        ("{x: a.b, y: list[*].n}", {"x": 1, "y": [1, 2]}),
        ({"x": "a.b", "inner": {"n": "list[0].n"}, "fixed": "'text'"}, {"x": 1, "inner": {"n": 1}, "fixed": "text"}),
        ({"gone": "a.nothing", "here": "a.b"}, {"here": 1}),
        ("{gone: a.nothing}", {"gone": None}),
        ({}, {}),
        ("list[1:].n", [2]),
        ("max_by(list, &n).n", 2),
        ("join('-', ['a', to_string(a.b)])", "a-1"),
        ("price", 0.1),
        ("list[?n > `1`] | [0].n", 2),
        ("decimal(price, `2`)", "0.10"),
        ("decimal(nothing, `2`)", None),
        ({"amount": "decimal(text, `2`)"}, {"amount": "12.50"}),
    ],
    ids=str,
)
def test_what_is_built(source: Any, built: Any) -> None:
    data = {"a": {"b": 1}, "list": [{"n": 1}, {"n": 2}], "price": Decimal("0.1"), "text": "12.5"}
    value = Shape(source).of(data)
    assert value == built
    json.dumps(value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("a..b", "Invalid|parse|Parse"),
        ("", "empty|Invalid"),
        ("nonesuch(a)", r"no function nonesuch\(\)"),
        ("a[?nonesuch(b)]", "no function"),
        ("length(a, b)", "takes 1"),
        ("merge()", "takes 1"),
        ("decimal(a)", "takes 2"),
        (7, "JMESPath"),
        ({"a": None}, "JMESPath"),
        ({"a": {"b": "c..d"}}, "Invalid|parse|Parse"),
    ],
    ids=str,
)
def test_what_is_refused_at_once(source: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Shape(source)


@pytest.mark.parametrize("source", ["length(number)", "sum(text)", "decimal(text, `2`)", "decimal(pi, `2`)"])
def test_what_cannot_be_applied_is_broken_and_quotes_nothing(source: str) -> None:
    with pytest.raises(Broken) as raised:
        Shape(source).of({"number": 424242, "text": "424242x", "pi": Decimal("3.14159")})
    assert "4242" not in raised.value.detail
    assert "3.14" not in raised.value.detail


def test_what_cannot_be_asked_is_refused() -> None:
    assert Shape({"n": "number"}).asked({"number": 1}) == {"n": 1}
    with pytest.raises(Refused) as raised:
        Shape({"n": "length(number)"}).asked({"number": 1})
    assert raised.value.code == "invalid"


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        (0.1, 2, "0.10"),
        (1234.5, 2, "1234.50"),
        (630.0, 0, "630"),
        (7, 2, "7.00"),
        ("1e3", 1, "1000.0"),
        (Decimal("-0.00"), 2, "0.00"),
        (-0.5, 1, "-0.5"),
        ("123456789012345678.90", 2, "123456789012345678.90"),
    ],
)
def test_an_amount_as_a_decimal_string(value: Any, places: int, text: str) -> None:
    assert decimal_string(value, places) == text


@pytest.mark.parametrize("value", [True, None, [], "abc", "", "NaN", float("inf"), "1.005", 0.001, "9" * 90], ids=str)
def test_what_is_no_amount_is_broken(value: Any) -> None:
    with pytest.raises(Broken):
        decimal_string(value, 2)


@given(st.integers(min_value=-(10**15), max_value=10**15), st.integers(min_value=0, max_value=4))
def test_amounts_survive(units: int, places: int) -> None:
    exact = Decimal(units).scaleb(-places)
    assert Decimal(decimal_string(exact, places)) == exact
    assert Decimal(decimal_string(str(exact), places + 1)) == exact


def test_settings_hold_mappings() -> None:
    class Example(Settings):
        reply: Shape

    assert Example.model_validate({"reply": {"a": "b"}}).reply.of({"b": 1}) == {"a": 1}
    with pytest.raises(ValueError, match="no function"):
        Example.model_validate({"reply": "nonesuch(a)"})


def test_expressions_see_the_exchange_and_no_more() -> None:
    request = Request("0190", "payroll", "a/b/v1", {"x": 1}, "audit", "clerk", None, 7.0)
    assert scope(request) == {
        "exchange": "0190",
        "agency": "payroll",
        "service": "a/b/v1",
        "purpose": "audit",
        "sub": "clerk",
        "case": None,
        "body": {"x": 1},
    }
