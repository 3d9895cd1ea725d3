"""The tables of the SQLite store, how a connection is opened, and how many rows go in by one statement.

What is written in arrival order is cheap and what has a random key touches a page of its own, so everything has an
integer row in arrival order, and only idempotency keys, business keys and subjects are looked up by a hash. Sealed
bytes lie in tables of their own: a row whose body lay in it would be rewritten whole at each change. Bodies lie apart
from the secrets of entries, which are kept longer: so deleting frees whole pages, which are used again. Entries are
numbered from 1 without gaps in the order of their commits, so a log is a range of rows and an entry's index follows
from its row. It knows the layout, not the rules. A crash leaves what SQLite's journal makes of it: whole transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import fields
from functools import cache
from itertools import accumulate, chain, takewhile
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from gsb.model import Effect, State
from gsb.store.contract import Ages
from gsb.store.standing import Row

VERSION = 3
"""Of the layout, in ``user_version``."""
APPLICATION = 0x67736201
"""In ``application_id``: marks the file as a store of the bus."""
PAGE = 16_384

WITHHELD = "CREATE TABLE IF NOT EXISTS withheld(at REAL NOT NULL)"
"""Has a row while writes are withheld."""
REVOKED = "CREATE TABLE IF NOT EXISTS revoked(kid TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID"
"""The keys that operators have revoked."""
LATER = (WITHHELD, REVOKED)
"""Stores that were made before there were such tables are given them."""

_TABLES = """
CREATE TABLE keycheck(row INTEGER PRIMARY KEY, sealed BLOB NOT NULL);
CREATE TABLE spent(row INTEGER PRIMARY KEY, hash BLOB NOT NULL, expires REAL NOT NULL);
CREATE TABLE sealed(row INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE secret(row INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
CREATE TABLE entry(row INTEGER PRIMARY KEY, leaf BLOB NOT NULL, content BLOB NOT NULL, exchange INTEGER);
CREATE INDEX entry_exchange ON entry(exchange) WHERE exchange IS NOT NULL;
CREATE TABLE log(
    number INTEGER PRIMARY KEY, origin TEXT NOT NULL UNIQUE, first_row INTEGER NOT NULL, end_row INTEGER,
    size INTEGER NOT NULL, checkpoint BLOB NOT NULL, published INTEGER NOT NULL, published_note BLOB NOT NULL,
    published_at REAL
);
CREATE TABLE reservation(hash BLOB PRIMARY KEY, exchange INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE exchange(
    row INTEGER PRIMARY KEY, id TEXT NOT NULL, agency TEXT NOT NULL, service TEXT NOT NULL, effect TEXT NOT NULL,
    purpose TEXT NOT NULL, agreement TEXT NOT NULL, fingerprint BLOB NOT NULL, accepted_at REAL NOT NULL,
    business BLOB, subject BLOB, request INTEGER, key BLOB, state TEXT NOT NULL, expires_at REAL NOT NULL,
    due_at REAL, attempt INTEGER NOT NULL, maybe_sent INTEGER NOT NULL, nudges INTEGER NOT NULL, lease_until REAL,
    began_at REAL, reason TEXT, finished_at REAL, reply INTEGER, status INTEGER, took TEXT, code TEXT,
    content_type TEXT, fields BLOB, agreement_digest TEXT
);
CREATE UNIQUE INDEX exchange_id ON exchange(id);
CREATE INDEX exchange_accepted ON exchange(accepted_at);
CREATE INDEX exchange_parties ON exchange(service, agency, accepted_at);
CREATE INDEX exchange_state ON exchange(state, accepted_at, row, agency, service, code)
    WHERE state NOT IN ('accepted', 'running', 'done');
CREATE INDEX exchange_code ON exchange(code, accepted_at, row, agency, service, state) WHERE code IS NOT NULL;
CREATE INDEX exchange_business ON exchange(business, accepted_at) WHERE business IS NOT NULL;
CREATE INDEX exchange_subject ON exchange(subject, accepted_at) WHERE subject IS NOT NULL;
CREATE INDEX exchange_due ON exchange(due_at, state, accepted_at, agency, service) WHERE due_at IS NOT NULL;
CREATE INDEX exchange_keys ON exchange(finished_at) WHERE finished_at IS NOT NULL AND key IS NOT NULL;
CREATE INDEX exchange_bodies ON exchange(finished_at) WHERE finished_at IS NOT NULL AND request IS NOT NULL;
CREATE INDEX exchange_bare ON exchange(finished_at) WHERE finished_at IS NOT NULL AND key IS NULL AND request IS NULL;
"""

SCHEMA = _TABLES + ";".join(LATER)

COLUMNS = tuple(field.name for field in fields(Row))
MOVING = COLUMNS[COLUMNS.index("key") :]
"""What may change after an exchange was accepted."""
SELECT = " ".join(["SELECT", ", ".join("exchange." + name for name in COLUMNS), "FROM exchange "])
TABLES = {"spent": 3, "sealed": 2, "secret": 2, "entry": 4, "exchange": len(COLUMNS), "reservation": 2}
"""The tables that batches write, with the number of their columns, in the order of writing."""

_MOST = 32
"""Rows in one statement at most. There is one statement for each table and number of rows, since to run a second one
costs more than to prepare each of them once; together they take a few megabytes."""


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
    while count:
        yield (size := min(count, _MOST))
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
    return cache(lambda size: " ".join(["INSERT INTO", table, "VALUES", _marks(TABLES[table], size)]))


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


def release(db: sqlite3.Connection, hashes: Sequence[bytes]) -> None:
    """Give up reservations."""
    if hashes:
        db.executemany("DELETE FROM reservation WHERE hash = ?", [(hashed,) for hashed in hashes])


def update_exchanges(db: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Write what has moved of exchanges that are there."""
    _run(db, _updating, [moving(row) for row in rows])


def exchanges(db: sqlite3.Connection, ids: Collection[str]) -> list[Row]:
    """Those of these exchanges that are known."""
    return _found(db, "WHERE id IN", ids)


def numbered(db: sqlite3.Connection, numbers: Collection[int]) -> dict[int, Row]:
    """Those of these rows of exchanges that are there, by their numbers."""
    return {row.row: row for row in _found(db, "WHERE row IN", numbers)}


def reserved(db: sqlite3.Connection, hashes: Collection[bytes]) -> dict[bytes, Row]:
    """The exchanges to which these keys belong, by the hash of the key."""
    where = "JOIN reservation ON reservation.exchange = exchange.row WHERE reservation.hash IN"
    return {row.key: row for row in _found(db, where, hashes) if row.key is not None}


def _found(db: sqlite3.Connection, where: str, values: Collection[Any]) -> list[Row]:
    start, every, found = 0, list(values), []
    for size in _portions(len(every)):
        among = db.execute(SELECT + where + _marks(size, 1), every[start : start + size])
        found += [row_of(row) for row in among]
        start += size
    return found


# --- deleting what has reached its age

TOKENS, PIECE = 250, 12
BODY_BYTES = 256 * 1024
"""What is deleted at once at most: so many jtis, and of so many exchanges the keys, the bodies and the rest. A piece
takes a millisecond or two, since each key and each exchange lies on pages of its own. A larger body goes alone."""


class Piece(NamedTuple):
    """What one call of ``purge`` has done."""

    more: bool
    """Whether there may be more to delete."""
    written: int
    """About how many bytes of pages went into the journal."""


def purge(db: sqlite3.Connection, now: float, ages: Ages, spent_before: float) -> Piece:
    """Delete some of what has run out, in one transaction if there is any; jtis that did so before ``spent_before``."""
    oldest = "SELECT row FROM (SELECT row, expires FROM spent ORDER BY row LIMIT ?) WHERE expires < ?"
    spent = db.execute(oldest, (TOKENS, spent_before)).fetchall()
    keys = _ended(db, "key, row", "exchange_keys WHERE key IS NOT NULL", now - ages.keys)
    dressed = _ended(db, _BODIES, "exchange_bodies WHERE request IS NOT NULL", now - ages.bodies)
    bodies, size = _some_bodies(dressed)
    # What still has a key or bodies waits for them to be deleted before it.
    bare = "exchange_bare WHERE key IS NULL AND request IS NULL"
    exchanges = _ended(db, "row", bare, now - ages.exchanges)
    if not (spent or keys or bodies or exchanges):
        return Piece(more=False, written=0)
    db.execute("BEGIN IMMEDIATE")
    db.executemany("DELETE FROM spent WHERE row = ?", spent)
    db.executemany("DELETE FROM reservation WHERE hash = ? AND exchange = ?", keys)
    db.executemany("UPDATE exchange SET key = NULL WHERE row = ?", [(row,) for _, row in keys])
    db.executemany("DELETE FROM sealed WHERE row IN (?, ?)", [both for _, _, *both in bodies])
    db.executemany("UPDATE exchange SET request = NULL, reply = NULL WHERE row = ?", [(row,) for row, *_ in bodies])
    # Nobody could find them any more to erase them.
    db.executemany("DELETE FROM secret WHERE row IN (SELECT row FROM entry WHERE exchange = ?)", exchanges)
    db.executemany("DELETE FROM exchange WHERE row = ?", exchanges)
    db.execute("COMMIT")
    full = len(spent) == TOKENS or PIECE in (len(keys), len(dressed), len(exchanges))
    more = full or len(bodies) < len(dressed)
    return Piece(more, size + (len(keys) + 2 * len(exchanges) + 24) * PAGE)


_BODIES = (
    "row, (SELECT coalesce(sum(length(bytes)), 0) FROM sealed WHERE sealed.row IN (request, reply)), request, reply"
)


def _ended(db: sqlite3.Connection, columns: str, index: str, before: float) -> list[tuple[Any, ...]]:
    """Of exchanges that have ended, those that did so first."""
    chosen = ["SELECT", columns, "FROM exchange INDEXED BY", index, "AND finished_at <= ?"]
    return db.execute(" ".join([*chosen, "ORDER BY finished_at LIMIT ?"]), (before, PIECE)).fetchall()


def _some_bodies(found: list[tuple[Any, ...]]) -> tuple[list[tuple[Any, ...]], int]:
    """As many as are not too large together, but one at least; and how large they are."""
    sizes = list(takewhile(lambda size: size <= BODY_BYTES, accumulate(row[1] for row in found)))
    some = found[: max(1, len(sizes))]
    return some, sum(row[1] for row in some)
