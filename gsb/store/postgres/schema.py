"""The tables of the PostgreSQL store, how they are made and brought up to date, and how an exchange becomes a row.

Everything has a number in about the order of arrival, so that what is written together lies together; only jtis,
idempotency keys, business keys and subjects are found by a hash. Sealed bytes lie in a table of their own, or they
would be written anew whenever their exchange moves. Which entry has which place in which log is written down for each,
since entries of several writers are not committed in the order of their numbers. It knows the layout, not the rules.
A crash leaves what PostgreSQL makes of it: whole transactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any

import asyncpg

from gsb.model import Effect, State
from gsb.store.contract import StoreUnfit
from gsb.store.seal import Seal, Unreadable
from gsb.store.standing import Row

FIRST = """
CREATE TABLE layout(version integer NOT NULL, oldest integer NOT NULL, keycheck bytea NOT NULL);
CREATE SEQUENCE numbers;
CREATE SEQUENCE spendings;
CREATE TABLE spent(
    hash bytea PRIMARY KEY, number bigint NOT NULL DEFAULT nextval('spendings'), bucket bigint NOT NULL
);
CREATE INDEX spent_bucket ON spent(bucket, number);
CREATE TABLE forgotten(bucket bigint PRIMARY KEY);
CREATE TABLE sealed(number bigint PRIMARY KEY, bytes bytea NOT NULL);
CREATE TABLE reservation(hash bytea PRIMARY KEY, exchange bigint NOT NULL);
CREATE TABLE exchange(
    number bigint PRIMARY KEY, id text COLLATE "C" NOT NULL UNIQUE, agency text COLLATE "C" NOT NULL,
    service text COLLATE "C" NOT NULL, effect text COLLATE "C" NOT NULL, purpose text NOT NULL,
    agreement text NOT NULL, fingerprint bytea NOT NULL, accepted_at double precision NOT NULL, business bytea,
    subject bytea, request bigint, key bytea, state text COLLATE "C" NOT NULL, expires_at double precision NOT NULL,
    due_at double precision, attempt integer NOT NULL, maybe_sent boolean NOT NULL, nudges integer NOT NULL,
    lease_until double precision, began_at double precision, reason text, finished_at double precision, reply bigint,
    status integer, took text, code text COLLATE "C", content_type text, fields bytea, agreement_digest text
);
CREATE INDEX exchange_accepted ON exchange(accepted_at, number);
CREATE INDEX exchange_agency ON exchange(agency, accepted_at, number);
CREATE INDEX exchange_parties ON exchange(service, agency, accepted_at, number);
CREATE INDEX exchange_state ON exchange(state, accepted_at, number) WHERE state <> 'done';
CREATE INDEX exchange_code ON exchange(code, accepted_at, number) WHERE code IS NOT NULL;
CREATE INDEX exchange_business ON exchange(business, accepted_at, number) WHERE business IS NOT NULL;
CREATE INDEX exchange_subject ON exchange(subject, accepted_at, number) WHERE subject IS NOT NULL;
CREATE INDEX exchange_due ON exchange(due_at) WHERE due_at IS NOT NULL;
CREATE INDEX exchange_keys ON exchange(finished_at) WHERE finished_at IS NOT NULL AND key IS NOT NULL;
CREATE INDEX exchange_bodies ON exchange(finished_at) WHERE finished_at IS NOT NULL AND request IS NOT NULL;
CREATE INDEX exchange_bare ON exchange(finished_at) WHERE finished_at IS NOT NULL AND key IS NULL AND request IS NULL;
CREATE TABLE entry(
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, leaf bytea NOT NULL,
    content bytea NOT NULL, exchange bigint
);
CREATE INDEX entry_exchange ON entry(exchange, number) WHERE exchange IS NOT NULL;
CREATE TABLE secret(entry bigint PRIMARY KEY, bytes bytea NOT NULL);
CREATE TABLE pending(entry bigint PRIMARY KEY);
CREATE TABLE log(
    number integer PRIMARY KEY, origin text NOT NULL UNIQUE, first_entry bigint NOT NULL, last_entry bigint,
    complete boolean NOT NULL DEFAULT false, size bigint NOT NULL DEFAULT 0, checkpoint bytea NOT NULL DEFAULT '',
    published bigint NOT NULL DEFAULT 0, published_note bytea NOT NULL DEFAULT '', published_at double precision
);
CREATE TABLE placed(log integer NOT NULL, at bigint NOT NULL, entry bigint NOT NULL UNIQUE, PRIMARY KEY (log, at));
ALTER TABLE sealed ALTER bytes SET STORAGE EXTERNAL;
ALTER TABLE secret ALTER bytes SET STORAGE EXTERNAL;
"""

MIGRATIONS = ((FIRST, 1),)
"""The statements that lead from each version to the next, and the oldest version of the program that can still work
on the result: as long as a change only adds, old and new processes run side by side."""
VERSION = len(MIGRATIONS)

COLUMNS = tuple(field.name for field in fields(Row))
_NAMED = ("number", *COLUMNS[1:])
"""The columns of an exchange. ``row`` is a word of SQL's own."""
_MOVING = _NAMED[_NAMED.index("key") :]
"""What may change after an exchange was accepted, unless it is erased."""
EXCHANGE = ", ".join("exchange." + name for name in _NAMED)
"""What to select for ``row_of``."""
SELECT = " ".join(["SELECT", EXCHANGE, "FROM exchange "])
INSERT = " ".join(["INSERT INTO exchange VALUES (", ", ".join(f"${at}" for at in range(1, len(_NAMED) + 1)), ")"])
UPDATE = " ".join(
    ["UPDATE exchange SET", ", ".join(f"{name} = ${at}" for at, name in enumerate(_MOVING, 2)), "WHERE number = $1"]
)

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


async def prepare(db: asyncpg.Connection, schema: str, seal: Seal) -> None:
    """Make the schema a store, or bring it up to date; refuse what is not ours. Raises StoreUnfit and asyncpg's errors.

    Of several processes that start at once one does it and the others wait.
    """
    async with db.transaction():
        await db.execute("SELECT pg_advisory_xact_lock(hashtext($1))", f"gsb store {schema}")
        if not await tables(db, schema):
            await db.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            await _migrate(db, 0)
            oldest = MIGRATIONS[-1][1]
            await db.execute("INSERT INTO layout VALUES ($1, $2, $3)", VERSION, oldest, seal.keycheck())
            return
        version = await _checked(db, schema, seal)
        if version < VERSION:
            await _migrate(db, version)
            await db.execute("UPDATE layout SET version = $1, oldest = $2", VERSION, MIGRATIONS[-1][1])


async def tables(db: asyncpg.Connection, schema: str) -> set[str]:
    """What there is in a schema."""
    found = await db.fetch("SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = $1", schema)
    return {name for (name,) in found}


async def _migrate(db: asyncpg.Connection, version: int) -> None:
    for statements, _ in MIGRATIONS[version:]:
        await db.execute(statements)


async def _checked(db: asyncpg.Connection, schema: str, seal: Seal) -> int:
    """The version of a store that is there."""
    if "layout" not in await tables(db, schema):
        raise StoreUnfit(f"schema {schema}: this is not a store of the bus")
    version, oldest, keycheck = await db.fetchrow("SELECT version, oldest, keycheck FROM layout")
    if oldest > VERSION:
        raise StoreUnfit(f"schema {schema}: the store has version {version}, this program knows {VERSION} at most")
    try:
        seal.recognise(keycheck)
    except Unreadable:
        raise StoreUnfit(f"schema {schema}: the store was sealed with another key") from None
    return int(version)
