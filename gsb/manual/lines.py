"""The line of the log that there is of each exchange, as a table made from its JSON Schema."""

from __future__ import annotations

from importlib.resources import files

import orjson

from gsb.manual.markdown import code, table

SCHEMA = "exchange-line.schema.json"
"""Lies in the package ``gsb``, for whoever reads logs by machine; the tests hold lines of real nodes to it."""


def line_table() -> str:
    schema = orjson.loads((files("gsb") / SCHEMA).read_bytes())
    return table(
        ("member", "what it says"), ((code(name), each["description"]) for name, each in schema["properties"].items())
    )
