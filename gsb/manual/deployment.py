"""The files of a deployment as a manual: every table and field, with its type, limits and default.

Made from the JSON Schemas of the models in ``gsb.config``, so what stands here is what a node holds files to. What must
hold between fields is said by the docstrings of the fields alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from gsb.config import Gsb
from gsb.forms import ID, SERVICE, Table
from gsb.load import KINDS
from gsb.manual.markdown import code, table, text

Shape = Mapping[str, Any]

HEAD = ("field", "type", "limits", "default", "meaning")
FORMATS = {
    "path": "path",
    "date": "date",
    "date-time": "date and time",
    "uri": "URL",
    "ipv4network": "IPv4 network",
    "ipv6network": "IPv6 network",
}
PATTERNS = {ID: "id", SERVICE: "service id"}
WORDS = {"integer": "integer", "number": "number", "boolean": "boolean", "string": "text", "object": "table"}
ABOUT = re.compile(r"``([^`]+)``:?\s*")
"""The docstring of a file's model begins with the file's path."""


def deployment() -> str:
    """Every file of a deployment, each a section, with the tables in it."""
    models: list[type[Table]] = [Gsb, *KINDS.values()]
    return "\n\n".join("\n\n".join(_file(model)) for model in models)


def _file(model: type[Table]) -> Iterator[str]:
    schema = model.model_json_schema()
    found = ABOUT.match(schema["description"])
    if found is None:
        raise ValueError(f"the docstring of {model.__name__} must begin with the path of its file")
    yield f"### `{found[1]}`"
    about = text(schema["description"][found.end() :])
    if about:
        yield about[0].upper() + about[1:]
    yield from _table(schema, schema.get("$defs", {}), ())


def _table(schema: Shape, models: Shape, place: tuple[str, ...]) -> Iterator[str]:
    """The table of the fields that are values, then each table inside it as a section of its own."""
    fields: Mapping[str, Shape] = schema["properties"]
    required = schema.get("required", ())
    inner = {name: found for name, each in fields.items() if (found := list(_inner(each, models)))}
    rows = [
        (code(name), _type(each, models, (*place, name)), _limits(each), _default(each, name in required), _about(each))
        for name, each in fields.items()
        if name not in inner or "description" in each
    ]
    if rows:
        yield table(HEAD, rows)
    for name, tables in inner.items():
        for model, many in tables:
            kind = f" of the kind {code(_toml(_kind_of(model)))}" if len(tables) > 1 else ""
            yield f"#### {code(_heading((*place, name), many))}{kind}"
            yield text(model["description"]) + ("" if name in required else " The table may be left out.")
            yield from _table(model, models, (*place, name))


def _inner(field: Shape, models: Shape) -> Iterator[tuple[Shape, bool]]:
    """The tables that a field may be, and whether there may be several of each; none for a value."""
    for each in _branches(field):
        many = each.get("type") == "array"
        model = models.get(each.get("items", {}).get("$ref", "").rpartition("/")[2] if many else _name(each))
        if model is not None and "properties" in model:
            yield model, many


def _kind_of(model: Shape) -> str:
    """What stands in ``kind`` of a table that is one of several."""
    return str(model["properties"]["kind"]["const"])


def _heading(place: tuple[str, ...], many: bool) -> str:
    return f"[[{'.'.join(place)}]]" if many else f"[{'.'.join(place)}]"


def _branches(field: Shape) -> list[Shape]:
    """What a field may be, but for nothing."""
    branches = field.get("anyOf") or field.get("oneOf") or [field]
    return [each for each in branches if each.get("type") != "null"]


def _name(field: Shape) -> str:
    return str(field.get("$ref", "")).rpartition("/")[2]


def _about(field: Shape) -> str:
    return text(field["description"])


def _type(field: Shape, models: Shape, place: tuple[str, ...]) -> str:
    return " or ".join(_kind(each, models, place) for each in _branches(field))


def _kind(each: Shape, models: Shape, place: tuple[str, ...]) -> str:
    if _name(each):
        model = models[_name(each)]
        return _kind(model, models, place) if "enum" in model else code(_heading(place, many=False))
    if "enum" in each or "const" in each:
        return " or ".join(code(_toml(value)) for value in each.get("enum", [each.get("const")]))
    if each["type"] == "array":
        items = each["items"]
        many = "properties" in models.get(_name(items), {})
        return code(_heading(place, many=True)) if many else f"list of {_type(items, models, place)}"
    return FORMATS.get(each.get("format", "")) or PATTERNS.get(each.get("pattern", "")) or WORDS[each["type"]]


def _limits(field: Shape) -> str:
    """What a value must keep to, beside its type."""
    said = dict(field)
    for each in _branches(field):
        said |= each
    return ", ".join(filter(None, (_range(said), *_sizes(said))))


def _range(said: Shape) -> str:
    low, high = said.get("minimum"), said.get("maximum")
    if low is not None and high is not None:
        return f"{_toml(low)} to {_toml(high)}"
    bounds = {"more than": said.get("exclusiveMinimum"), "at least": low, "at most": high}
    return ", ".join(f"{word} {_toml(value)}" for word, value in bounds.items() if value is not None)


def _sizes(said: Shape) -> Iterator[str]:
    if said.get("pattern") in PATTERNS:
        return
    if said.get("minLength"):
        yield "not empty"
    if "maxLength" in said:
        yield f"at most {said['maxLength']} characters"
    if said.get("minItems"):
        yield "at least one"
    if "pattern" in said:
        yield code(said["pattern"])


def _default(field: Shape, required: bool) -> str:
    if required:
        return "**required**"
    value = field.get("default")
    return "none" if value is None else "empty" if value in ({}, []) else code(_toml(value))


def _toml(value: Any) -> str:
    """A value as it is written in a file."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:_}" if value >= 10_000 else str(value)
    return orjson.dumps(value).decode()
