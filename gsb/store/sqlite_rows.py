"""The tables of the SQLite store, how a connection is opened, and how many rows go in by one statement.

What is written in arrival order is cheap and what has a random key touches a page of its own, so everything has an
integer row in arrival order, and only idempotency keys are looked up by a hash. Sealed bytes lie in a table of their
own: a row whose body lay in it would be rewritten whole at each change. It knows the layout, not the rules. A crash
leaves what SQLite's journal makes of it: whole transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import fields
from functools import cache
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

from gsb.model import Effect, State
from gsb.store.standing import Row

VERSION = 1
"""Of the layout, in ``user_version``."""
APPLICATION = 0x67736201
"""In ``application_id``: marks the file as a store of the bus."""
PAGE = 16_384

SCHEMA = """
CREATE TABLE keycheck(row INTEGER PRIMARY KEY, sealed BLOB NOT NULL);
CREATE TABLE spent(row INTEGER PRIMARY KEY, hash BLOB NOT NULL, expires REAL NOT NULL);
CREATE TABLE sealed(row INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE entry(
    row INTEGER PRIMARY KEY, leaf BLOB NOT NULL, content BLOB NOT NULL, secret INTEGER, exchange INTEGER
);
CREATE INDEX entry_exchange ON entry(exchange) WHERE exchange IS NOT NULL;
CREATE TABLE reservation(hash BLOB PRIMARY KEY, exchange INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE exchange(
    row INTEGER PRIMARY KEY, id TEXT NOT NULL, agency TEXT NOT NULL, service TEXT NOT NULL, effect TEXT NOT NULL,
    purpose TEXT NOT NULL, agreement TEXT NOT NULL, fingerprint BLOB NOT NULL, accepted_at REAL NOT NULL,
    request INTEGER, key BLOB, state TEXT NOT NULL, expires_at REAL NOT NULL, due_at REAL, attempt INTEGER NOT NULL,
    maybe_sent INTEGER NOT NULL, nudges INTEGER NOT NULL, lease_until REAL, began_at REAL, reason TEXT,
    finished_at REAL, reply INTEGER, status INTEGER, took TEXT, code TEXT, content_type TEXT, fields BLOB,
    agreement_digest TEXT
);
CREATE UNIQUE INDEX exchange_id ON exchange(id);
CREATE INDEX exchange_accepted ON exchange(accepted_at);
CREATE INDEX exchange_agency ON exchange(agency, accepted_at);
CREATE INDEX exchange_service ON exchange(service, accepted_at);
CREATE INDEX exchange_state ON exchange(state, accepted_at) WHERE state NOT IN ('accepted', 'running', 'done');
CREATE INDEX exchange_code ON exchange(code, accepted_at) WHERE code IS NOT NULL;
CREATE INDEX exchange_due ON exchange(due_at) WHERE due_at IS NOT NULL;
CREATE INDEX exchange_kept ON exchange(finished_at) WHERE key IS NOT NULL AND finished_at IS NOT NULL;
"""

COLUMNS = tuple(field.name for field in fields(Row))
MOVING = COLUMNS[COLUMNS.index("key") :]
"""What may change after an exchange was accepted."""
SELECT = " ".join(["SELECT", ", ".join("exchange." + name for name in COLUMNS), "FROM exchange "])
TABLES = {"spent": 3, "sealed": 2, "entry": 5, "exchange": len(COLUMNS), "reservation": 2}
"""The tables that batches write, with the number of their columns, in the order of writing."""

_MOST = 64
"""Rows in one statement at most; smaller powers of two make up the rest, so that few statements are prepared."""


def connect(path: Path, *, writes: bool) -> sqlite3.Connection:
    """A connection in autocommit mode that any thread may use, one at a time. Raises sqlite3.Error."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    for pragma in ("synchronous=FULL", "wal_autocheckpoint=0", "secure_delete=ON", "temp_store=MEMORY"):
        db.execute(f"PRAGMA {pragma}")
    if not writes:
        db.execute("PRAGMA query_only=ON")
    return db


def create(db: sqlite3.Connection, keycheck: bytes) -> None:
    """Lay out an empty database in one transaction."""
    db.execute(f"PRAGMA page_size={PAGE}")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.split(";"):
        db.execute(statement)
    db.execute("INSERT INTO keycheck VALUES(1, ?)", (keycheck,))
    db.execute(f"PRAGMA application_id={APPLICATION}")
    db.execute(f"PRAGMA user_version={VERSION}")
    db.execute("COMMIT")


def blank(db: sqlite3.Connection) -> bool:
    """Whether nothing was ever laid out in the database."""
    return db.execute("SELECT 1 FROM sqlite_schema").fetchone() is None


def pragma(db: sqlite3.Connection, name: str) -> int:
    """The value of an integer pragma."""
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def row_of(values: Sequence[Any]) -> Row:
    """The row of an exchange from the values of its columns."""
    row = Row(*values)
    row.effect, row.state, row.maybe_sent = Effect(row.effect), State(row.state), bool(row.maybe_sent)
    return row


# SQLite binds plain strings and integers at once, but has to ask around about enumerations and booleans.
_PLAIN = {"effect": "effect.value", "state": "state.value", "maybe_sent": "maybe_sent.real"}
whole = attrgetter(*(_PLAIN.get(name, name) for name in COLUMNS))
"""The values of every column of a row."""
moving = attrgetter(*(_PLAIN.get(name, name) for name in (*MOVING, "row")))
"""The values of the columns that may change, and then the row's number."""


def _portions(count: int) -> Iterable[int]:
    size = _MOST
    while count:
        while size > count:
            size //= 2
        yield size
        count -= size


def _run(db: sqlite3.Connection, statement: Callable[[int], str], rows: Sequence[Sequence[Any]]) -> None:
    """Each statement gives up and retakes the interpreter's lock, so many rows go in by few of them."""
    start = 0
    for size in _portions(len(rows)):
        db.execute(statement(size), tuple(chain.from_iterable(rows[start : start + size])))
        start += size


def _marks(width: int, times: int) -> str:
    return ",".join(["(" + ",".join("?" * width) + ")"] * times)


@cache
def _inserting(table: str) -> Callable[[int], str]:
    # A reservation may replace one that has run out; no other table is given a key that is not new.
    verb = "INSERT OR REPLACE INTO" if table == "reservation" else "INSERT INTO"
    return cache(lambda size: " ".join([verb, table, "VALUES", _marks(TABLES[table], size)]))


@cache
def _updating(size: int) -> str:
    changes = ", ".join(f"{name} = new.column{at}" for at, name in enumerate(MOVING, 1))
    values = _marks(len(MOVING) + 1, size)
    return " ".join(
        ["UPDATE exchange SET", changes, "FROM (VALUES", values, f") AS new WHERE row = new.column{len(MOVING) + 1}"]
    )


def insert(db: sqlite3.Connection, table: str, rows: Sequence[Sequence[Any]]) -> None:
    """Write new rows of a table."""
    _run(db, _inserting(table), rows)


def insert_exchanges(db: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Write new exchanges."""
    _run(db, _inserting("exchange"), [whole(row) for row in rows])


def update_exchanges(db: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Write what has moved of exchanges that are there."""
    _run(db, _updating, [moving(row) for row in rows])


def exchanges(db: sqlite3.Connection, ids: Collection[str]) -> list[Row]:
    """Those of these exchanges that are known."""
    return [row for some in _pieces(ids) for row in map(row_of, db.execute(*_among("WHERE id IN", some)))]


def reserved(db: sqlite3.Connection, hashes: Collection[bytes]) -> dict[bytes, Row]:
    """The exchanges to which these keys belong, by the hash of the key."""
    where = "JOIN reservation ON reservation.exchange = exchange.row WHERE reservation.hash IN"
    found = [row for some in _pieces(hashes) for row in map(row_of, db.execute(*_among(where, some)))]
    return {row.key: row for row in found if row.key is not None}


def _pieces(values: Collection[Any]) -> Iterable[list[Any]]:
    start, every = 0, list(values)
    for size in _portions(len(every)):
        yield every[start : start + size]
        start += size


def _among(where: str, values: list[Any]) -> tuple[str, list[Any]]:
    return SELECT + where + _marks(len(values), 1), values


def purge(db: sqlite3.Connection, spent_before: float, finished_before: float, tokens: int, keys: int) -> bool:
    """Delete some of what has run out, in one transaction if there is any. True: there may be more."""
    oldest = "SELECT row FROM (SELECT row, expires FROM spent ORDER BY row LIMIT ?) WHERE expires <= ?"
    spent = db.execute(oldest, (tokens, spent_before)).fetchall()
    kept = "SELECT key, row FROM exchange WHERE key IS NOT NULL AND finished_at <= ? ORDER BY finished_at LIMIT ?"
    ended = db.execute(kept, (finished_before, keys)).fetchall()
    if not spent and not ended:
        return False
    db.execute("BEGIN IMMEDIATE")
    db.executemany("DELETE FROM spent WHERE row = ?", spent)
    db.executemany("DELETE FROM reservation WHERE hash = ? AND exchange = ?", ended)
    db.executemany("UPDATE exchange SET key = NULL WHERE row = ?", [(row,) for _, row in ended])
    db.execute("COMMIT")
    return len(spent) == tokens or len(ended) == keys
