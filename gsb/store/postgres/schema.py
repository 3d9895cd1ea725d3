"""How an exchange becomes a row of the PostgreSQL store, and the statements that read and write it.

It knows the columns, not the rules; the tables are in ``gsb.store.postgres.layout``. Pure; a crash means nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import Any

from gsb.model import Effect, State
from gsb.store.standing import Row

COLUMNS = tuple(field.name for field in fields(Row))
_NAMED = ("number", *COLUMNS[1:])
"""The columns of an exchange. ``row`` is a word of SQL's own."""
_MOVING = _NAMED[_NAMED.index("key") :]
"""What may change after an exchange was accepted, unless it is erased."""
EXCHANGE = ", ".join("exchange." + name for name in _NAMED)
"""What to select for ``row_of``."""
SELECT = " ".join(["SELECT", EXCHANGE, "FROM exchange "])
_TYPES = {
    name: kind
    for kind, names in (
        ("bigint", "number request reply"),
        ("integer", "attempt nudges status"),
        ("boolean", "maybe_sent"),
        ("bytea", "fingerprint business subject key fields"),
        ("double precision", "accepted_at expires_at due_at lease_until began_at finished_at"),
    )
    for name in names.split()
}


def _lists(names: Sequence[str]) -> str:
    return ", ".join(f"{{}}::{_TYPES.get(name, 'text')}[]" for name in names)


INSERT = " ".join(["INSERT INTO exchange SELECT * FROM unnest(", _lists(_NAMED), ")"])
"""Adds rows, given as a list for each column; each ``{}`` is to become a parameter."""
_CHANGEABLE = ("number", *_MOVING)
UPDATE = " ".join(
    [
        *("UPDATE exchange SET", ", ".join(f"{name} = moved.{name}" for name in _MOVING)),
        *("FROM unnest(", _lists(_CHANGEABLE), ") AS moved(", ", ".join(_CHANGEABLE), ")"),
        "WHERE exchange.number = moved.number",
    ]
)
"""Changes rows, given likewise."""

NOW = "extract(epoch FROM clock_timestamp())::double precision"
"""What a statement selects to tell the database's time, in seconds since the epoch: one clock for all nodes."""

_ENTERED = """
given AS MATERIALIZED (
    SELECT nextval(pg_get_serial_sequence('entry', 'number')) AS number, each.* FROM (
        SELECT * FROM unnest({}::bytea[], {}::bytea[], {}::bigint[], {}::bytea[])
        WITH ORDINALITY AS listed(leaf, content, exchange, secret, at) WHERE true {condition} ORDER BY at
    ) AS each
), entered AS (INSERT INTO entry OVERRIDING SYSTEM VALUE SELECT number, leaf, content, exchange FROM given),
    hidden AS (INSERT INTO secret SELECT number, secret FROM given),
    waiting AS (INSERT INTO pending SELECT number FROM given)
"""
"""Adds entries that have no place yet, in their order."""
ENTER = " ".join(["WITH", _ENTERED.format("$1", "$2", "$3", "$4", condition=""), "SELECT number FROM given"])
"""Answers their numbers."""
_PARTS = {
    "kept": "kept AS (INSERT INTO sealed SELECT * FROM unnest({}::bigint[], {}::bytea[]) WHERE true {condition})",
    "made": " ".join(["made AS (", INSERT, ")"]),
    "changed": " ".join(["changed AS (", UPDATE, "{condition})"]),
    "entered": _ENTERED,
}
"""What a transaction writes. None of them looks at what another one writes."""


_UNCHANGED = " ".join(
    [
        "unchanged AS MATERIALIZED (SELECT number FROM exchange",
        "JOIN unnest({}::bigint[], {}::xid[]) AS seen(at, version) ON number = at AND exchange.xmin = version",
        "ORDER BY number FOR UPDATE OF exchange),",
        *("allowed AS MATERIALIZED (SELECT count(*) = {}::integer AND", NOW),
        "< {}::double precision AS so FROM unchanged)",
    ]
)
"""Locks those of the rows that are as they were when they were read: a row has another version after each change."""
_ALLOWED = "AND (SELECT so FROM allowed)"


@cache
def writing(parts: tuple[str, ...]) -> str:
    """One statement for these parts: a statement costs a way to the server and back, however much it writes."""
    return _numbered("WITH", ", ".join(_PARTS[part] for part in parts), "SELECT")


@cache
def writing_if_unchanged(parts: tuple[str, ...]) -> str:
    """The same, of which nothing is written unless all rows are unchanged; its last parameter says whether its commit
    waits for the disk. Answers whether it was written."""
    written = ", ".join([_UNCHANGED, *(_PARTS[part] for part in parts)])
    so = "SELECT so, set_config('synchronous_commit', {}, true) FROM allowed"
    return _numbered("WITH", written, so, condition=_ALLOWED)


def _numbered(*template: str, condition: str = "") -> str:
    text = " ".join(template)
    return text.format(*(f"${at}" for at in range(1, text.count("{}") + 1)), condition=condition)


_CLEAR, _HASHED = b"c", b"h"

whole = attrgetter(*COLUMNS)
moving = attrgetter("row", *COLUMNS[COLUMNS.index("key") :])
"""The number of a row, then the values of the columns that may change."""


def business_bytes(business: str | bytes | None) -> bytes | None:
    """A business key as it lies in its column: told apart by the first byte, clear or hashed."""
    if isinstance(business, str):
        return _CLEAR + business.encode()
    return None if business is None else _HASHED + business


def values_of(row: Row) -> list[Any]:
    """The values of every column of a row."""
    values = list(whole(row))
    values[COLUMNS.index("business")] = business_bytes(row.business)
    return values


def row_of(found: Sequence[Any]) -> Row:
    """The row of an exchange from the values of ``EXCHANGE``."""
    row = Row(*tuple(found)[: len(COLUMNS)])
    row.effect, row.state = Effect(row.effect), State(row.state)
    if isinstance(row.business, bytes):
        row.business = row.business[1:].decode() if row.business[:1] == _CLEAR else row.business[1:]
    return row
