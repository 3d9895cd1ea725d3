"""Schemas of what a grant lets through: for schemas what ``policy.cut`` is for values.

Whatever fits a schema fits, once it is cut to some fields, the schema that is projected to them. Constraints that a
cut may break (``not``, ``uniqueItems``, ``minProperties``, ...) are left out, so a projection is at times wider than
what can come, never narrower; it names no member that is not granted. Pure; a crash here is a bug, since a schema
that refers in circles is refused before it gets here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gsb.policy import EVERYTHING, FieldTree, field_tree
from gsb.schema import Schema, escape, subschemas

NULL = {"type": "null"}
KINDS = frozenset({"object", "array", "scalar"})

_OUTSIDE = ("$schema", "$id", "$defs", "$comment")
"""What has no meaning, or another one, when a schema stands inside another document."""
_SAID = ("title", "description", "deprecated", "x-personal", "x-subject")
_MEMBERS = ("properties", "patternProperties", "additionalProperties", "required")


def whole(schema: Schema) -> Any:
    """The schema as it can stand inside another document: references are replaced by what they name, and the examples
    of the whole are left out, since documents have their own place for them."""
    return _Reader(schema.document).whole("")


def granted(schema: Schema, fields: Sequence[str]) -> Any:
    """The schema of the values of ``schema`` once they are cut to ``fields``, in the same form as ``whole``."""
    reader = _Reader(schema.document)
    tree = field_tree(tuple(fields))
    if not reader.stays("", tree):
        return dict(NULL)
    projected = reader.granted("", tree)
    return projected if reader.always("", tree) else {"anyOf": [projected, dict(NULL)]}


class _Reader:
    """Reads one document; a place is the JSON Pointer of a schema in it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._places = dict(subschemas(document))

    def whole(self, place: str) -> Any:
        return self._copied(self._places[place], place)

    def _copied(self, value: Any, place: str) -> Any:
        """A copy of anything in the document; only what stands at a place of a schema is read as one."""
        if isinstance(value, list):
            return [self._copied(each, f"{place}/{index}") for index, each in enumerate(value)]
        if not isinstance(value, dict):
            return value
        is_schema = place in self._places
        left_out = (*_OUTSIDE, *(() if place else ("examples",))) if is_schema else ()
        copy = {
            name: self._copied(each, f"{place}/{escape(name)}") for name, each in value.items() if name not in left_out
        }
        if is_schema and "$ref" in copy:
            return _joined(self.whole(copy.pop("$ref")[1:]), copy)
        return copy

    # --- what a cut leaves of a value

    def stays(self, place: str, tree: FieldTree | None) -> bool:
        """Whether a cut to the tree leaves something of any value."""
        return bool(self._kinds(place) & _keepable(tree))

    def always(self, place: str, tree: FieldTree | None) -> bool:
        """Whether a cut to the tree leaves something of every value."""
        return self._kinds(place) <= _keepable(tree)

    def _kinds(self, place: str) -> frozenset[str]:
        """The kinds of value that a schema takes, and perhaps more."""
        schema = self._places[place]
        if not isinstance(schema, dict):
            return KINDS if schema else frozenset()
        kinds = _stated(schema)
        if "$ref" in schema:
            kinds &= self._kinds(schema["$ref"][1:])
        for branch in _branches(schema, place, "allOf"):
            kinds &= self._kinds(branch)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                kinds &= frozenset().union(*map(self._kinds, _branches(schema, place, word)))
        return kinds

    # --- the projection

    def granted(self, place: str, tree: FieldTree | None) -> Any:
        """The schema of what is left of the values that fit the one at this place; False if nothing ever is."""
        if tree is EVERYTHING:
            return self.whole(place)
        schema = self._places[place]
        if not isinstance(schema, dict) or not self.stays(place, tree):
            return bool(schema) and isinstance(schema, bool)
        kinds = sorted(self._kinds(place) & _keepable(tree))
        said = {word: schema[word] for word in _SAID if word in schema}
        others = self._in_place(place, schema, tree)
        if others and not any(word in schema for word in (*_MEMBERS, "items", "prefixItems")):
            return _joined(others, said)
        projected = {**said, "type": kinds[0] if len(kinds) == 1 else kinds}
        if "object" in kinds:
            projected |= self._object(place, schema, tree)
        if "array" in kinds:
            projected |= self._array(place, schema, tree["*"])
        return _joined(others, projected) if others else projected

    def _object(self, place: str, schema: Mapping[str, Any], tree: FieldTree) -> dict[str, Any]:
        """Nothing but granted members can be left, so the projection takes no others."""
        declared = schema.get("properties", {})
        properties: dict[str, Any] = {}
        required = []
        for name in sorted(tree, key=[*declared, *tree].index):
            child = f"{place}/properties/{escape(name)}" if name in declared else self._unnamed(place, schema)
            if child is None:
                properties[name] = True
            elif self.stays(child, tree[name]):
                properties[name] = self.granted(child, tree[name])
            sure = tree[name] is EVERYTHING or (child is not None and self.always(child, tree[name]))
            if sure and name in schema.get("required", ()):
                required.append(name)
        bounds = {"maxProperties": schema["maxProperties"]} if "maxProperties" in schema else {}
        needed = {"required": required} if required else {}
        return {"properties": properties, **needed, "additionalProperties": False, **bounds}

    def _unnamed(self, place: str, schema: Mapping[str, Any]) -> str | None:
        """The place of the schema for members without a name of their own; None when there is not just one."""
        return (
            f"{place}/additionalProperties"
            if "additionalProperties" in schema and "patternProperties" not in schema
            else None
        )

    def _array(self, place: str, schema: Mapping[str, Any], tree: FieldTree | None) -> dict[str, Any]:
        """Items of which nothing is left are left out, so those behind them move up."""
        bounds = {word: schema[word] for word in ("maxItems", "minItems") if word in schema}
        firsts = _branches(schema, place, "prefixItems")
        rest = [f"{place}/items"] if "items" in schema else []
        if not all(self.always(each, tree) for each in (*firsts, *rest)) or not (rest or tree is EVERYTHING):
            bounds.pop("minItems", None)
            if firsts:
                return bounds
        projected: dict[str, Any] = {"prefixItems": [self.granted(each, tree) for each in firsts]} if firsts else {}
        for each in rest:
            projected["items"] = self.granted(each, tree)
        return projected | bounds

    def _in_place(self, place: str, schema: Mapping[str, Any], tree: FieldTree) -> dict[str, Any]:
        """What the schemas say that describe the same value as this one."""
        every = [self.granted(each, tree) for each in _branches(schema, place, "allOf")]
        if "$ref" in schema:
            every.insert(0, self.granted(schema["$ref"][1:], tree))
        for word in ("anyOf", "oneOf"):
            # What is left of values of two branches may be the same, so one of them no longer excludes the other.
            every += self._one_of(_branches(schema, place, word), tree)
        if "if" in schema:
            sides = [f"{place}/{word}" if word in schema else None for word in ("then", "else")]
            every += self._one_of(sides, tree)
        return every[0] if len(every) == 1 and isinstance(every[0], dict) else {"allOf": every} if every else {}

    def _one_of(self, places: Sequence[str | None], tree: FieldTree) -> list[Any]:
        branches: list[Any] = []
        for place in places:
            branch = True if place is None else self.granted(place, tree)
            if branch is not False and branch not in branches:
                branches.append(branch)
        return branches if len(branches) < 2 else [{"anyOf": branches}]


def _stated(schema: Mapping[str, Any]) -> frozenset[str]:
    """The kinds of value that the words of the schema itself allow."""
    kinds = KINDS
    if "type" in schema:
        types = schema["type"]
        named = [types] if isinstance(types, str) else types
        kinds = frozenset(name if name in KINDS else "scalar" for name in named)
    if "enum" in schema:
        kinds &= frozenset(map(_kind, schema["enum"]))
    if "const" in schema:
        kinds &= {_kind(schema["const"])}
    return kinds


def _kind(value: Any) -> str:
    return "object" if isinstance(value, dict) else "array" if isinstance(value, list) else "scalar"


def _keepable(tree: FieldTree | None) -> frozenset[str]:
    """The kinds of value of which a cut leaves something."""
    if tree is EVERYTHING:
        return KINDS
    return frozenset({"object", "array"} if "*" in tree else {"object"})


def _branches(schema: Mapping[str, Any], place: str, word: str) -> list[str]:
    return [f"{place}/{word}/{index}" for index in range(len(schema.get(word, ())))]


def _joined(first: Any, more: dict[str, Any]) -> Any:
    """One schema that says both; annotations of ``more`` win over those of ``first``."""
    if isinstance(first, dict) and all(word in _SAID for word in more):
        return first | more
    return {**more, "allOf": [first, *more.get("allOf", ())]}
