"""The rows that a run of the bus wrote, written once more by hand: the same tables, sizes and durable commits.

For each exchange there are three transactions, as in the bus: it is accepted, it is begun, it ends. Exchanges have
transactions of their own, on as many connections as there are exchanges under way; or a careful hand groups them: on as
many connections as the bus had, each writes its share of what is under way in one transaction, with one statement for
each table. Nothing is looked up, decided, sealed or answered. What the recorder does with the entries is done beside
it, a thousand at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import asyncpg

from gsb.bench.cluster.ground import Ground
from gsb.store.postgres.layout.tables import LAYOUT
from gsb.store.postgres.schema import COLUMNS, SELECT, moving, row_of, values_of
from gsb.store.standing import Row

INSERTS = {
    "spent": "INSERT INTO spent SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[])",
    "reservation": "INSERT INTO reservation SELECT * FROM unnest($1::bytea[], $2::bigint[])",
    "sealed": "INSERT INTO sealed SELECT * FROM unnest($1::bigint[], $2::bytea[])",
    "entry": """
INSERT INTO entry OVERRIDING SYSTEM VALUE SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bigint[])
""",
    "secret": "INSERT INTO secret SELECT * FROM unnest($1::bigint[], $2::bytea[])",
    "pending": "INSERT INTO pending SELECT * FROM unnest($1::bigint[])",
}
_MADE = " ".join(["INSERT INTO exchange VALUES (", ", ".join(f"${at}" for at in range(1, len(COLUMNS) + 1)), ")"])
_MOVING = COLUMNS[COLUMNS.index("key") :]
_MOVED = " ".join(
    ["UPDATE exchange SET", ", ".join(f"{name} = ${at}" for at, name in enumerate(_MOVING, 2)), "WHERE number = $1"]
)
SEQUENCED = 1_000
"""Entries that get their places in one transaction."""
_NEXT = "SELECT entry FROM pending ORDER BY entry LIMIT $1"
_TAKE = "DELETE FROM pending WHERE entry = ANY($1::bigint[])"
_PLACE = (
    "INSERT INTO placed SELECT 1, $2 + place, entry FROM unnest($1::bigint[]) WITH ORDINALITY AS given(entry, place)"
)
_ENTRIES = """
SELECT exchange, number, leaf, content, bytes FROM entry JOIN secret ON secret.entry = number
WHERE exchange IS NOT NULL ORDER BY number
"""
Values = tuple[Any, ...]


@dataclass(slots=True)
class Exchange:
    """The rows of one: by table those of its acceptance and of its end, and itself after each of the three."""

    accepted: dict[str, Values]
    ended: dict[str, Values]
    states: tuple[Values, Values, Values]


async def read(db: asyncpg.Connection) -> list[Exchange]:
    """The exchanges of a run of the bus that have ended, in the order in which they were accepted."""
    sealed = dict(await db.fetch("SELECT number, bytes FROM sealed"))
    spent = [tuple(each) for each in await db.fetch("SELECT hash, number, bucket FROM spent ORDER BY number")]
    entries: dict[int, list[Values]] = {}
    for exchange, number, leaf, content, secret in await db.fetch(_ENTRIES):
        entries.setdefault(exchange, []).append((number, leaf, content, secret))
    found = [row_of(each) for each in await db.fetch(SELECT + "ORDER BY number")]
    return [_exchange(row, jti, sealed, entries[row.row]) for row, jti in zip(found, spent, strict=False)]


def _exchange(row: Row, jti: Values, sealed: dict[int, bytes], entries: Sequence[Values]) -> Exchange:
    first, last = entries[0], entries[-1]
    accepted = {"spent": jti, "reservation": (row.key, row.row), "sealed": (row.request, sealed[row.request or 0])}
    ended = {"sealed": (row.reply, sealed[row.reply or 0])}
    done = moving(row)
    new = [
        *values_of(row)[: COLUMNS.index("key")],
        row.key,
        "accepted",
        row.expires_at,
        row.accepted_at + 2,
        0,
        False,
        0,
    ]
    new += [None] * (len(COLUMNS) - len(new))
    begun = [row.row, row.key, "running", row.expires_at, row.expires_at, 1, False, 0, row.expires_at, row.accepted_at]
    begun += [None] * (len(done) - len(begun))
    return Exchange(
        accepted | _logged(first, row.row), ended | _logged(last, row.row), (tuple(new), tuple(begun), done)
    )


def _logged(entry: Values, exchange: int) -> dict[str, Values]:
    number, leaf, content, secret = entry
    return {"entry": (number, leaf, content, exchange), "secret": (number, secret), "pending": (number,)}


async def make(made: Ground, schema: str) -> None:
    """Empty tables, as the bus has them."""
    db = await made.connect(schema)
    await db.execute(f'CREATE SCHEMA "{schema}"')
    await db.execute(LAYOUT)
    await db.close()


async def write(made: Ground, schema: str, exchanges: Sequence[Exchange], connections: int, share: int) -> float:
    """Exchanges a second, until the last has ended and its entries have their places; ``share`` in a transaction."""
    sessions = [await made.connect(schema) for _ in range(connections)]
    recorder = await made.connect(schema)
    work = iter(exchanges)
    began = time.perf_counter()
    ended = asyncio.Event()
    recording = asyncio.create_task(_record(recorder, ended))
    await asyncio.gather(*(_hand(db, work, share) for db in sessions))
    ended.set()
    await recording
    taken = time.perf_counter() - began
    for db in (*sessions, recorder):
        await db.close()
    return len(exchanges) / taken


async def _hand(db: asyncpg.Connection, work: Iterator[Exchange], share: int) -> None:
    """One connection: a share of exchanges after the other."""
    while group := list(islice(work, share)):
        await accept(db, group)
        await begin(db, group)
        await end(db, group)


async def accept(db: asyncpg.Connection, group: Sequence[Exchange]) -> None:
    async with db.transaction():
        await _insert(db, [each.accepted for each in group])
        await db.executemany(_MADE, [each.states[0] for each in group])


async def begin(db: asyncpg.Connection, group: Sequence[Exchange]) -> None:
    async with db.transaction():
        await db.executemany(_MOVED, [each.states[1] for each in group])


async def end(db: asyncpg.Connection, group: Sequence[Exchange]) -> None:
    async with db.transaction():
        await _insert(db, [each.ended for each in group])
        await db.executemany(_MOVED, [each.states[2] for each in group])


async def _insert(db: asyncpg.Connection, rows: Sequence[dict[str, Values]]) -> None:
    for table in rows[0]:
        await db.execute(INSERTS[table], *map(list, zip(*(row[table] for row in rows), strict=True)))


async def _record(db: asyncpg.Connection, ended: asyncio.Event) -> None:
    """Give entries their places until there are no more."""
    size = 0
    while True:
        last = ended.is_set()
        found = [number for (number,) in await db.fetch(_NEXT, SEQUENCED)]
        if found:
            async with db.transaction():
                await db.execute(_TAKE, found)
                await db.execute(_PLACE, found, size)
            size += len(found)
        elif last:
            return
        else:
            await asyncio.sleep(0.05)
