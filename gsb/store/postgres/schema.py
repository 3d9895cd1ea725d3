"""How an exchange becomes a row of the PostgreSQL store, and the statements that read and write it.

It knows the columns, not the rules; the tables are in ``gsb.store.postgres.layout``. Pure; a crash means nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
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
