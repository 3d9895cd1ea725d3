"""JSON Schemas of services, compiled once: every failure of a body at once, no value in any text.

The dialect is JSON Schema 2020-12 without what would make a schema depend on anything but itself or cost more than
linear time: references only to places in the same document and never in a circle, patterns only without look-around
and back-references, formats asserted and known. It does no I/O and reads no files. A crash here is a bug: an unfit
schema is told by ``SchemaError`` at start, an unfit body by ``faults``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any

import jsonschema_rs
from jsonschema_rs import ValidationError, ValidationErrorKind

from gsb.errors import Fault

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MOST_FAULTS = 1_000
"""Failures that are listed; a small body can hold so many that the answer would be many times its size."""
MOST_VALUES = 20_000
"""Values in a body of which all failures are looked for. Each failure costs far more time and memory than the value in
which it is, so a larger body is told the first: it might fail at every value, and the bus stands still meanwhile."""

_MAPS = ("properties", "patternProperties", "dependentSchemas", "$defs")
_LISTS = ("prefixItems", "allOf", "anyOf", "oneOf")
_ITEMS = ("prefixItems", "items", "unevaluatedItems", "contains")
_FREE = ("patternProperties", "additionalProperties", "unevaluatedProperties")
_SINGLES = (
    *("items", "contains", "not", "if", "then", "else", "propertyNames"),
    *("additionalProperties", "unevaluatedProperties", "unevaluatedItems", "contentSchema"),
)
_SAME = ("allOf", "anyOf", "oneOf", "then", "else", "dependentSchemas")
_POINTER = re.compile(r"(/([^~/]|~[01])*)+")
_FOREIGN = ("$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "definitions", "dependencies")


class SchemaError(ValueError):
    """A schema that the bus does not take; the text says where and why."""


def escape(token: str) -> str:
    """A member name as one token of a JSON Pointer (RFC 6901, section 3)."""
    return token.replace("~", "~0").replace("/", "~1")


def pointer_of(path: list[str | int]) -> str:
    """The JSON Pointer of a path; empty for the whole."""
    return "".join(f"/{escape(str(token))}" for token in path)


class Schema:
    """One compiled schema. Immutable; safe to use from any thread."""

    document: Mapping[str, Any]
    examples: list[Any]
    personal: frozenset[str]
    """Pointers of the members marked ``x-personal``; ``*`` stands for every item or freely named member."""
    subject: str | None
    """Pointer of the member marked ``x-subject``: whom the data are about."""

    def __init__(self, document: Mapping[str, Any], places: Mapping[str, Any], name: str) -> None:
        self.name = name
        self.document = document
        self.examples = list(document.get("examples", []))
        self._validator = _validator(document, name)
        self._places = places
        members = _Members(places, name)
        self.personal = frozenset(members.personal)
        self.subject = members.subject
        self._fields = frozenset(members.fields)
        self._free = frozenset(members.free)

    @classmethod
    def compile(cls, document: Any, name: str) -> Schema:
        """The schema in a parsed document. ``name`` is for texts only. Raises SchemaError."""
        if not isinstance(document, dict):
            raise SchemaError(f"{name}: a schema is a JSON object")
        places = dict(subschemas(document))
        for place, schema in places.items():
            _refuse_foreign(places, place, schema, name)
        return cls(document, places, name)

    def faults(self, value: Any) -> list[Fault]:
        """Everything that is wrong with a value, in the order of the schema; empty when it fits.

        A missing or unknown member is pointed at by its own name. After ``MOST_FAULTS`` the list ends with one that
        says so; of more than ``MOST_VALUES`` values it holds the first failure and one that says so.
        """
        if self._validator.is_valid(value):
            return []
        if _larger(value, MOST_VALUES):
            more = Fault("", f"has more than {MOST_VALUES} values, so only its first failure is listed")
            return [*islice(self._first(value), MOST_FAULTS), more]
        every = (fault for error in self._validator.iter_errors(value) for fault in _faults(error))
        found = list(islice(every, MOST_FAULTS + 1))
        if len(found) > MOST_FAULTS:
            found[MOST_FAULTS:] = [Fault("", f"has more than {MOST_FAULTS} failures; the others are not listed")]
        return found

    def _first(self, value: Any) -> Iterator[Fault]:
        try:
            self._validator.validate(value)
        except ValidationError as error:
            yield from _faults(error)

    def has_field(self, pointer: str) -> bool:
        """Whether a granted field is one that a value may have: ``""``, or a pointer with ``*`` for every item."""
        if pointer == "" or pointer in self._fields:
            return True
        while _POINTER.fullmatch(pointer):
            pointer, _, last = pointer.rpartition("/")
            if pointer in self._free:
                return last != "*"
        return False

    @property
    def fields(self) -> frozenset[str]:
        """The pointers of every declared member, with ``*`` for every item of an array."""
        return self._fields

    def open_places(self) -> list[str]:
        """Places of the schema (JSON Pointers) that take members or items which it does not describe."""
        return sorted(set(_open(self._places, self.document, "")))


def _validator(document: Mapping[str, Any], name: str) -> jsonschema_rs.Draft202012Validator:
    try:
        return jsonschema_rs.Draft202012Validator(
            dict(document),
            validate_formats=True,
            ignore_unknown_formats=False,
            mask="the value",
            pattern_options=jsonschema_rs.RegexOptions(),
            offline=True,
        )
    except ValidationError as error:
        where = pointer_of(error.instance_path) or "the whole"
        text = error.message
        if text.endswith('is not a "regex"'):
            text = "is no regular expression of linear time (no look-around, no back-references)"
        raise SchemaError(f"{name}: {where}: {text}") from None


# --- reading a schema


def subschemas(schema: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every schema inside a schema, with its place; never a value of ``enum``, ``const`` or ``examples``."""
    yield place, schema
    if not isinstance(schema, dict):
        return
    for word in _MAPS:
        for name, each in _mapping(schema, word).items():
            yield from subschemas(each, f"{place}/{word}/{escape(name)}")
    for word in _LISTS:
        for index, each in enumerate(_list(schema, word)):
            yield from subschemas(each, f"{place}/{word}/{index}")
    for word in _SINGLES:
        if word in schema:
            yield from subschemas(schema[word], f"{place}/{word}")


def _mapping(schema: Mapping[str, Any], word: str) -> Mapping[str, Any]:
    value = schema.get(word)
    return value if isinstance(value, dict) else {}


def _list(schema: Mapping[str, Any], word: str) -> list[Any]:
    value = schema.get(word)
    return value if isinstance(value, list) else []


def _refuse_foreign(places: Mapping[str, Any], place: str, schema: Any, name: str) -> None:
    """Whatever makes the meaning of a schema depend on more than its own text."""
    if not isinstance(schema, dict):
        return
    where = f"{name}: {place or 'the whole'}"
    if schema.get("$schema", DIALECT) != DIALECT:
        raise SchemaError(f"{where}: $schema must be {DIALECT}")
    if place and "$id" in schema:
        raise SchemaError(f"{where}: $id may stand only at the top")
    for word in _FOREIGN:
        if word in schema:
            raise SchemaError(f"{where}: {word} is not taken; use $defs and $ref")
    reference = schema.get("$ref")
    if reference is not None:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise SchemaError(f"{where}: $ref may only name a place in the same document, such as #/$defs/money")
        if reference[1:] not in places:
            raise SchemaError(f"{where}: $ref names {reference}, where there is no schema")


class _Members:
    """What the members of a fitting value are called, wherever the schema describes them."""

    def __init__(self, places: Mapping[str, Any], name: str) -> None:
        self._places = places
        self._name = name
        self.fields: set[str] = set()
        self.free: set[str] = set()
        self.personal: set[str] = set()
        self.subject: str | None = None
        self._visit(places[""], "", ())

    def _visit(self, schema: Any, pointer: str, references: tuple[str, ...]) -> None:
        if not isinstance(schema, dict):
            return
        self._mark(schema, pointer)
        for word in _SAME:
            for _, each in _in_place(schema, word):
                self._visit(each, pointer, references)
        if "$ref" in schema:
            reference = schema["$ref"]
            if reference in references or reference == "#":
                raise SchemaError(f"{self._name}: $ref {reference} goes in a circle")
            self._visit(self._places[reference[1:]], pointer, (*references, reference))
        for name, each in _mapping(schema, "properties").items():
            child = f"{pointer}/{escape(name)}"
            self.fields.add(child)
            self._visit(each, child, references)
        self._visit_unnamed(schema, pointer, references)

    def _visit_unnamed(self, schema: Mapping[str, Any], pointer: str, references: tuple[str, ...]) -> None:
        child = f"{pointer}/*"
        for each in _children(schema, _ITEMS):
            self.fields.add(child)
            self._visit(each, child, references)
        for each in _children(schema, _FREE):
            self.free.add(pointer)
            self._visit(each, child, references)

    def _mark(self, schema: Mapping[str, Any], pointer: str) -> None:
        for word in ("x-personal", "x-subject"):
            if not isinstance(schema.get(word, False), bool):
                raise SchemaError(f"{self._name}: {pointer or 'the whole'}: {word} is true or false")
        if schema.get("x-personal"):
            self.personal.add(pointer)
        if schema.get("x-subject"):
            if self.subject not in (None, pointer):
                raise SchemaError(f"{self._name}: x-subject stands at both {self.subject} and {pointer}")
            self.subject = pointer


def _in_place(schema: Mapping[str, Any], word: str) -> Iterator[tuple[str, Any]]:
    """The schemas under a word that describe the same value as their parent, with their places below it."""
    value = schema.get(word)
    if isinstance(value, list):
        yield from ((f"/{word}/{index}", each) for index, each in enumerate(value))
    elif word == "dependentSchemas":
        yield from ((f"/{word}/{escape(name)}", each) for name, each in _mapping(schema, word).items())
    elif isinstance(value, dict):
        yield f"/{word}", value


def _children(schema: Mapping[str, Any], words: tuple[str, ...]) -> Iterator[Any]:
    """The schemas under these words, as far as they are more than true or false."""
    for word in words:
        value = schema.get(word)
        if word == "patternProperties":
            yield from _mapping(schema, word).values()
        elif isinstance(value, list):
            yield from value
        elif isinstance(value, dict):
            yield value


# --- does it describe all that it takes


def _open(places: Mapping[str, Any], schema: Any, place: str) -> Iterator[str]:
    """Places at or below this one that take undescribed members or items."""
    if not isinstance(schema, dict):
        if schema is not False:
            yield place
        return
    if not all(_closed(places, schema, kind) for kind in ("object", "array")):
        yield place
    for below, each in _described(places, schema, place):
        yield from _open(places, each, below)


def _described(places: Mapping[str, Any], schema: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The schemas of the members and items that a schema describes, itself or through those in its place."""
    if not isinstance(schema, dict):
        return
    for word in ("properties", "patternProperties"):
        for name, each in _mapping(schema, word).items():
            yield f"{place}/{word}/{escape(name)}", each
    for index, each in enumerate(_list(schema, "prefixItems")):
        yield f"{place}/prefixItems/{index}", each
    for word in ("items", "additionalProperties", "unevaluatedProperties", "unevaluatedItems"):
        # What is plainly true is told of the schema that says so.
        if schema.get(word, True) is not True:
            yield f"{place}/{word}", schema[word]
    for word in _SAME:
        for below, each in _in_place(schema, word):
            yield from _described(places, each, place + below)
    if "$ref" in schema:
        yield from _described(places, places[schema["$ref"][1:]], schema["$ref"][1:])


_CLOSERS = {
    "object": ("additionalProperties", "unevaluatedProperties"),
    "array": ("items", "unevaluatedItems"),
}


def _closed(places: Mapping[str, Any], schema: Any, kind: str) -> bool:
    """Whether a schema takes no object (or array) with members (or items) that nothing describes."""
    if not isinstance(schema, dict):
        return schema is False
    if not _takes(schema, kind) or any(schema.get(word, True) is not True for word in _CLOSERS[kind]):
        return True
    if "$ref" in schema and _closed(places, places[schema["$ref"][1:]], kind):
        return True
    if any(_closed(places, each, kind) for each in _list(schema, "allOf")):
        return True
    return any(
        bool(branches) and all(_closed(places, each, kind) for each in branches)
        for branches in (_list(schema, "anyOf"), _list(schema, "oneOf"))
    )


def _takes(schema: Mapping[str, Any], kind: str) -> bool:
    if "const" in schema or "enum" in schema:
        return False
    types = schema.get("type", kind)
    return kind in types if isinstance(types, list) else bool(types == kind)


# --- telling what is wrong with a value


def _larger(value: Any, most: int) -> bool:
    """Whether there are more than so many values in a value; those beyond are not looked at."""
    level = [value]
    while level:
        most -= len(level)
        if most < 0:
            return True
        inside = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = list(islice(chain.from_iterable(inside), most + 1))
    return False


def _faults(error: ValidationError) -> Iterator[Fault]:
    """One failure in words of our own where the checker's would hide the place or tell a caller's text."""
    where = pointer_of(error.instance_path)
    match error.kind:
        case ValidationErrorKind.Required(property=name):
            yield Fault(f"{where}/{escape(name)}", "is missing")
        case ValidationErrorKind.AdditionalProperties(unexpected=names):
            yield from (Fault(f"{where}/{escape(name)}", "is not known") for name in names)
        case ValidationErrorKind.UnevaluatedProperties(unexpected=names):
            yield from (Fault(f"{where}/{escape(name)}", "is not known") for name in names)
        case ValidationErrorKind.FalseSchema():
            yield Fault(where, "is not allowed")
        case ValidationErrorKind.PropertyNames():
            yield Fault(where, "has a member whose name is not allowed")
        case _:
            yield Fault(where, error.message)
