"""Schemas: what is refused at compile time, what is told of a body, and which places a schema names."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gsb.errors import Fault
from gsb.schema import MOST_FAULTS, MOST_VALUES, Schema, SchemaError
from tests.support.deployment import closed

SECRET = "S3CRET-VALUE"


def told(schema: dict[str, Any], value: Any) -> set[tuple[str, str]]:
    return {(fault.pointer, fault.detail) for fault in Schema.compile(schema, "test").faults(value)}


def test_all_failures_are_told_at_once_with_their_places() -> None:
    schema = closed(
        {
            "id": {"type": "string", "pattern": "^P-[0-9]+$"},
            "born": {"type": "string", "format": "date"},
            "pay": closed({"amount": {"type": "string"}, "currency": {"type": "string"}}),
            "phones": {"type": "array", "items": {"type": "string"}},
            "a/b~c": {"type": "integer"},
        }
    )
    value = {
        "id": SECRET,
        "born": SECRET,
        "pay": {"amount": 1, "tip": SECRET},
        "phones": ["1", 2, "3", {"number": SECRET}],
        "a/b~c": SECRET,
        "nick": SECRET,
    }
    faults = told(schema, value)
    assert {pointer for pointer, _ in faults} == {
        "/id",
        "/born",
        "/pay/amount",
        "/pay/tip",
        "/pay/currency",
        "/phones/1",
        "/phones/3",
        "/a~1b~0c",
        "/nick",
    }
    assert ("/pay/currency", "is missing") in faults
    assert ("/nick", "is not known") in faults
    assert ("/pay/tip", "is not known") in faults


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, SECRET),
        ({"type": "string", "maxLength": 3}, SECRET),
        ({"type": "string", "pattern": "^x$"}, SECRET),
        ({"type": "string", "format": "uuid"}, SECRET),
        ({"enum": ["a", "b"]}, SECRET),
        ({"const": "a"}, SECRET),
        ({"not": {"type": "string"}}, SECRET),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, SECRET),
        ({"oneOf": [{"type": "string"}, {"minLength": 1}]}, SECRET),
        ({"type": "array", "uniqueItems": True}, [SECRET, SECRET]),
        ({"type": "array", "contains": {"type": "integer"}}, [SECRET]),
        ({"type": "object", "propertyNames": {"maxLength": 3}}, {SECRET: 1}),
        ({"type": "object", "maxProperties": 0}, {"a": SECRET}),
    ],
)
def test_no_value_stands_in_a_failure(schema: dict[str, Any], value: Any) -> None:
    faults = Schema.compile(schema, "test").faults(value)
    assert faults
    assert SECRET not in "".join(fault.pointer + fault.detail for fault in faults)


def test_a_fitting_value_has_no_failures() -> None:
    assert Schema.compile(closed({"n": {"type": "integer"}}), "test").faults({"n": 2**53}) == []


def test_the_list_of_failures_is_bounded_and_says_so() -> None:
    schema = Schema.compile({"type": "array", "items": {"type": "string"}}, "test")
    faults = schema.faults([0] * (MOST_VALUES - 1))
    assert len(faults) == MOST_FAULTS + 1
    assert faults[0].pointer == "/0"
    assert faults[-1] == Fault("", f"has more than {MOST_FAULTS} failures; the others are not listed")
    exactly = schema.faults([0] * MOST_FAULTS)
    assert len(exactly) == MOST_FAULTS
    assert all(fault.pointer for fault in exactly)


@pytest.mark.parametrize("value", [[0] * MOST_VALUES, [[0] * 2] * (MOST_VALUES // 2), [{"a": 0}] * (MOST_VALUES // 2)])
def test_a_large_body_is_told_its_first_failure(value: list[Any]) -> None:
    schema = Schema.compile({"type": "array", "items": {"type": "string"}}, "test")
    first, more = schema.faults(value)
    assert first.pointer == "/0"
    assert more == Fault("", f"has more than {MOST_VALUES} values, so only its first failure is listed")
    assert schema.faults(["1"] * MOST_VALUES * 2) == []


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"properties": {"a": {}}, "unevaluatedProperties": False}, ("/x", "is not known")),
        ({"properties": {"x": False}}, ("/x", "is not allowed")),
        ({"dependentRequired": {"x": ["y"]}}, ("/y", "is missing")),
        ({"propertyNames": {"maxLength": 0}}, ("", "has a member whose name is not allowed")),
    ],
)
def test_failures_of_members_are_told_in_the_same_words(schema: dict[str, Any], fault: tuple[str, str]) -> None:
    assert told(schema, {"x": 1}) == {fault}


@pytest.mark.parametrize(
    ("word", "good", "bad"),
    [
        ("date", "2024-02-29", "2023-02-29"),
        ("date-time", "2024-02-29T10:00:00Z", "2024-02-29 10:00"),
        ("uuid", "8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e"),
        ("email", "a@b.example", "a"),
    ],
)
def test_formats_are_asserted(word: str, good: str, bad: str) -> None:
    schema = Schema.compile({"type": "string", "format": word}, "test")
    assert schema.faults(good) == []
    assert len(schema.faults(bad)) == 1


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ([], "a schema is a JSON object"),
        (True, "a schema is a JSON object"),
        ({"type": "strin"}, "/type"),
        ({"properties": {"a": {"minLength": -1}}}, "/properties/a/minLength"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "$schema must be"),
        ({"$ref": "https://example.org/person.json"}, "same document"),
        ({"$ref": "file:///etc/passwd"}, "same document"),
        ({"$ref": "other.json"}, "same document"),
        ({"$ref": "#named"}, "same document"),
        ({"$ref": "#/$defs/nobody"}, "where there is no schema"),
        ({"$ref": "#/examples/0", "examples": [{}]}, "where there is no schema"),
        ({"items": {"$id": "https://example.org/x", "type": "string"}}, "only at the top"),
        ({"$defs": {"a": {"$anchor": "a"}}}, "$anchor is not taken"),
        ({"$dynamicRef": "#a"}, "$dynamicRef is not taken"),
        ({"definitions": {}}, "definitions is not taken"),
        ({"pattern": "(a)\\1"}, "linear time"),
        ({"properties": {"a": {"pattern": "(?=a)b"}}}, "linear time"),
        ({"properties": {"a": {"pattern": "(?<!a)b"}}}, "linear time"),
        ({"patternProperties": {"(?!x)": {}}}, "linear time"),
        ({"type": "string", "format": "passport"}, "passport"),
        ({"$ref": "#"}, "circle"),
        ({"properties": {"child": {"$ref": "#"}}}, "circle"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, "circle"),
        ({"properties": {"a": {"x-personal": "yes"}}}, "x-personal is true or false"),
        ({"properties": {"a": {"x-subject": True}, "b": {"x-subject": True}}}, "x-subject stands at both /a and /b"),
    ],
)
def test_unfit_schemas_are_refused_with_their_reason(schema: Any, text: str) -> None:
    with pytest.raises(SchemaError) as refused:
        Schema.compile(schema, "tax/income/v1/request")
    assert str(refused.value).startswith("tax/income/v1/request")
    assert text in str(refused.value)


def test_words_in_examples_and_constants_are_data() -> None:
    example = {"$ref": "https://example.org", "$anchor": "a", "pattern": "(?=a)"}
    schema = Schema.compile({"type": "object", "examples": [example], "const": example}, "test")
    assert schema.faults(example) == []
    assert schema.examples == [example]


def test_patterns_take_linear_time() -> None:
    schema = Schema.compile({"type": "string", "pattern": "^(a+)+$"}, "test")
    began = time.perf_counter()
    assert len(schema.faults("a" * 50_000 + "b")) == 1
    # A backtracking engine would need longer than the universe has; a busy machine may stand still for half a minute.
    assert time.perf_counter() - began < 60.0


MARKED = {
    "$defs": {
        "person": {
            "type": "object",
            "properties": {
                "id": {"type": "string", "x-subject": True, "x-personal": True},
                "name": {"type": "string", "x-personal": True},
            },
        }
    },
    "type": "object",
    "properties": {
        "year": {"type": "integer"},
        "people": {"type": "array", "items": {"$ref": "#/$defs/person"}},
        "tags": {"type": "object", "additionalProperties": {"type": "string", "x-personal": True}},
        "either": {"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {"x-personal": True}}}]},
        "a/b": {"type": "string"},
        "by-year": {
            "patternProperties": {"^[0-9]{4}$": {"type": "object", "properties": {"pay": {"x-personal": True}}}}
        },
        "pair": {"prefixItems": [{"x-personal": True}, {}]},
    },
}


def test_personal_members_and_the_subject_are_found_through_references_and_arrays() -> None:
    schema = Schema.compile(MARKED, "test")
    assert schema.personal == {
        "/people/*/id",
        "/people/*/name",
        "/tags/*",
        "/either/b",
        "/by-year/*/pay",
        "/pair/*",
    }
    assert schema.subject == "/people/*/id"
    assert Schema.compile({"type": "object"}, "test").subject is None


@pytest.mark.parametrize(
    "field", ["", "/year", "/people", "/people/*", "/people/*/name", "/tags/x", "/either/b", "/a~1b"]
)
def test_declared_fields_exist(field: str) -> None:
    assert Schema.compile(MARKED, "test").has_field(field)


@pytest.mark.parametrize(
    "field", ["/", "year", "/yea", "/year/x", "/people/0", "/people/name", "/tags/*", "/a/b", "/tags/~2", "/either/c"]
)
def test_other_fields_do_not(field: str) -> None:
    assert not Schema.compile(MARKED, "test").has_field(field)


OPEN: list[tuple[Any, list[str]]] = [
    ({"type": "object"}, [""]),
    ({"type": "object", "additionalProperties": False}, []),
    ({"type": "object", "unevaluatedProperties": False}, []),
    ({"type": "object", "additionalProperties": True}, [""]),
    ({"type": "object", "additionalProperties": {"type": "string"}}, []),
    ({"type": "object", "additionalProperties": {"type": "object"}}, ["/additionalProperties"]),
    ({"type": "string"}, []),
    ({"type": ["string", "null"]}, []),
    ({"type": ["string", "object"]}, [""]),
    ({"enum": ["a"]}, []),
    ({}, [""]),
    ({"type": "array"}, [""]),
    ({"type": "array", "items": {"type": "string"}}, []),
    ({"type": "array", "items": {}}, ["/items"]),
    ({"type": "array", "prefixItems": [{"type": "string"}, True], "items": False}, ["/prefixItems/1"]),
    (closed({"a": {"type": "object"}}), ["/properties/a"]),
    (closed({"a": True}), ["/properties/a"]),
    (closed({"a": False}), []),
    ({"allOf": [closed({"a": {"type": "string"}})]}, []),
    ({"type": "object", "anyOf": [closed({}), {"type": "object"}]}, [""]),
    ({"type": "object", "oneOf": [closed({}), closed({"a": {"type": "string"}})]}, []),
    ({"$ref": "#/$defs/a", "$defs": {"a": closed({"b": {"type": "object"}})}}, ["/$defs/a/properties/b"]),
    ({"type": "object", "patternProperties": {"^x": {}}, "additionalProperties": False}, ["/patternProperties/^x"]),
    ({**closed({}), "dependentSchemas": {"a": {"properties": {"b": {}}}}}, ["/dependentSchemas/a/properties/b"]),
    ({**closed({}), "if": {"properties": {"b": {}}}, "then": {"properties": {"c": {}}}}, ["/then/properties/c"]),
    ({**closed({}), "allOf": [True]}, []),
    ({"$defs": {"unused": {"type": "object"}}, "type": "string"}, []),
    (
        {"unevaluatedProperties": False, "type": "object", "allOf": [{"properties": {"a": {}}}]},
        ["/allOf/0/properties/a"],
    ),
]


@pytest.mark.parametrize(("schema", "places"), OPEN)
def test_open_places_are_those_that_take_what_nothing_describes(schema: Any, places: list[str]) -> None:
    assert Schema.compile(schema, "test").open_places() == places
