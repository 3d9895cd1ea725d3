"""A projected schema takes every cut value, names nothing that was not granted, and stands alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gsb.policy import cut
from gsb.projection import granted, whole
from gsb.schema import Schema

EXAMPLES = 300
FILES = sorted((Path(__file__).parents[1] / "schemas").rglob("reply.json"))

# --- generated: any schema, any value that fits it, any fields

NAMES = ("a", "b")
DEPTH = 3
TYPES = st.sampled_from(["object", "array", "string", "integer", ["object", "null"], ["array", "object", "string"]])


def values(depth: int) -> st.SearchStrategy[Any]:
    """Objects, arrays and a few scalars, so that many of them fit many of the schemas."""
    scalars = st.sampled_from([None, 0, "x"])
    if depth == 0:
        return scalars
    inner = values(depth - 1)
    members = st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, inner))
    return members | members | st.lists(inner, max_size=2) | scalars


def _words(depth: int) -> dict[str, st.SearchStrategy[Any]]:
    inner = schemas(depth - 1)
    several = st.lists(inner, min_size=1, max_size=2)
    by_name = st.dictionaries(st.sampled_from(NAMES), inner, max_size=2)
    return {
        "type": TYPES,
        "enum": st.lists(values(1), min_size=1, max_size=3),
        "const": values(1),
        "properties": by_name,
        "patternProperties": st.dictionaries(st.just("^[bc]$"), inner, max_size=1),
        "additionalProperties": inner,
        "required": st.just(["a"]),
        "maxProperties": st.integers(0, 2),
        "minProperties": st.integers(0, 2),
        "propertyNames": st.just({"maxLength": 1}),
        "dependentRequired": st.just({"a": ["b"]}),
        "dependentSchemas": by_name,
        "items": inner,
        "prefixItems": several,
        "minItems": st.integers(0, 2),
        "maxItems": st.integers(0, 2),
        "uniqueItems": st.just(True),
        "contains": inner,
        "allOf": several,
        "anyOf": several,
        "oneOf": several,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "unevaluatedProperties": st.just(False),
        "unevaluatedItems": st.just(False),
    } | ({"$ref": st.sampled_from(["#/$defs/first", "#/$defs/second"])} if depth == DEPTH else {})


def schemas(depth: int) -> st.SearchStrategy[Any]:
    leaves = st.sampled_from([True, {}, {"type": "string"}, {"type": "object"}, {"type": ["object", "string"]}])
    if depth <= 0:
        return leaves
    words = _words(depth)
    some = st.sets(st.sampled_from(sorted(words)), max_size=3)
    described = some.flatmap(lambda chosen: st.fixed_dictionaries({word: words[word] for word in sorted(chosen)}))
    properties, items = words["properties"], words["items"]
    objects = st.fixed_dictionaries({"properties": properties}, optional={"required": words["required"]})
    arrays = st.fixed_dictionaries({"items": items}, optional={w: words[w] for w in ("minItems", "prefixItems")})
    return objects | described | arrays | leaves | st.just(False)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """The whole is an object or an array more often than not: those are what a cut is about."""
    document = draw(schemas(DEPTH).filter(lambda schema: isinstance(schema, dict)))
    return {**document, "$defs": {name: draw(schemas(1)) for name in ("first", "second")}}


POINTERS = st.lists(st.sampled_from([*NAMES, "*"]), min_size=1, max_size=3).map(
    lambda names: "".join(f"/{name}" for name in names)
)


@given(documents(), st.lists(values(DEPTH), min_size=10, max_size=10), st.lists(POINTERS, min_size=1, max_size=4))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_whatever_fits_a_schema_fits_its_projection_once_it_is_cut(
    document: dict[str, Any], several: list[Any], fields: list[str]
) -> None:
    schema = Schema.compile(document, "any")
    fitting = [value for value in several if not schema.faults(value)]
    assume(fitting)
    projected = Schema.compile(granted(schema, fields), "projected")
    same = Schema.compile(whole(schema), "whole")
    for value in several:
        assert bool(same.faults(value)) == bool(schema.faults(value))
    for value in fitting:
        kept = cut(value, fields)
        assert projected.faults(kept) == [], (kept, granted(schema, fields))


# --- the schemas that the project ships


def shipped(path: Path) -> Schema:
    return Schema.compile(json.loads(path.read_text("utf-8")), path.parts[-4])


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-4:-1]))
def test_every_single_field_of_a_shipped_schema_gives_a_projection_that_takes_its_cut_examples(path: Path) -> None:
    schema = shipped(path)
    assert schema.fields
    for field in schema.fields:
        projected = Schema.compile(granted(schema, [field]), field)
        assert projected.has_field(field)
        for other in schema.fields:
            related = other.startswith(field + "/") or field.startswith(other + "/") or other == field
            assert projected.has_field(other) == related, (field, other)
        for example in schema.examples:
            assert projected.faults(cut(example, [field])) == []


PEOPLE = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "People",
    "type": "object",
    "required": ["people", "next", "note"],
    "additionalProperties": False,
    "$defs": {"money": {"type": "object", "properties": {"amount": {"type": "string"}}, "required": ["amount"]}},
    "properties": {
        "people": {
            "type": "array",
            "minItems": 1,
            "maxItems": 9,
            "items": {
                "type": "object",
                "required": ["id", "salary", "secret"],
                "properties": {
                    "id": {"type": "string", "x-personal": True},
                    "salary": {"$ref": "#/$defs/money", "description": "What the person earns."},
                    "secret": {"type": "string"},
                },
            },
        },
        "next": {"type": ["object", "null"], "properties": {"after": {"type": "string"}}},
        "note": {"type": "string"},
    },
    "examples": [{"people": [{"id": "1", "salary": {"amount": "1"}, "secret": "s"}], "next": None, "note": "n"}],
}


def test_a_projection_is_as_strict_as_the_schema_where_it_can_be() -> None:
    schema = Schema.compile(PEOPLE, "people")
    assert granted(schema, ["/people/*/id", "/people/*/salary", "/next/after"]) == {
        "title": "People",
        "type": "object",
        "required": ["people"],
        "additionalProperties": False,
        "properties": {
            "people": {
                "type": "array",
                "minItems": 1,
                "maxItems": 9,
                "items": {
                    "type": "object",
                    "required": ["id", "salary"],
                    "additionalProperties": False,
                    "properties": {
                        "id": {"type": "string", "x-personal": True},
                        "salary": {
                            "type": "object",
                            "description": "What the person earns.",
                            "properties": {"amount": {"type": "string"}},
                            "required": ["amount"],
                        },
                    },
                },
            },
            "next": {
                "type": "object",
                "properties": {"after": {"type": "string"}},
                "additionalProperties": False,
            },
        },
    }


def test_what_leaves_nothing_is_null() -> None:
    schema = Schema.compile({"type": "array", "items": {"type": "string"}}, "list")
    assert cut(["x"], ["/a"]) is None
    assert granted(schema, ["/a"]) == {"type": "null"}


def test_what_may_leave_nothing_may_be_null() -> None:
    schema = Schema.compile({"type": ["object", "string"], "properties": {"a": {"type": "string"}}}, "either")
    projected = Schema.compile(granted(schema, ["/a"]), "projected")
    assert [bool(projected.faults(value)) for value in (None, {"a": "x"}, "x")] == [False, False, True]


def test_either_side_of_a_condition_may_describe_what_is_left() -> None:
    document = {
        "type": "object",
        "properties": {"kind": {"type": "string"}, "rate": {}},
        "if": {"properties": {"kind": {"const": "fixed"}}, "required": ["kind"]},
        "then": {"properties": {"rate": {"type": "string"}}, "required": ["rate"]},
        "else": {"properties": {"rate": {"type": "null"}}},
    }
    schema = Schema.compile(document, "conditional")
    projected = Schema.compile(granted(schema, ["/rate"]), "projected")
    verdicts = [not projected.faults(value) for value in ({"rate": "5"}, {"rate": None}, {"rate": 5}, {"kind": "x"})]
    assert verdicts == [True, True, False, False]
