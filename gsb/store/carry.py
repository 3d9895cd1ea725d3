"""Carries a SQLite store that nobody has open into a PostgreSQL schema that does not exist yet: all of it, or nothing.

Everything goes in one transaction, so a crash leaves the target as it was, and nothing has to be told apart that was
carried half. Every number stays what it was, so exchanges, entries and places in the logs belong together as before.
Sealed records are carried as they lie, or sealed anew for another key; hashes stay those of the old key, since what was
hashed is not known. What was erased is not carried. In the end both sides are counted, and the root of every log is
computed from what has arrived.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import asyncpg

from gsb.evidence.checkpoint import Checkpoint, NoteWrong, parse_note
from gsb.evidence.merkle import Tree, leaf_hash
from gsb.store.contract import StoreUnfit
from gsb.store.postgres import log as places
from gsb.store.postgres import schema
from gsb.store.postgres.aging import bucket_of
from gsb.store.postgres.layout import migrations
from gsb.store.seal import RECORD, REPLY, SECRET, Seal, Unreadable
from gsb.store.sqlite import log as ranges
from gsb.store.sqlite import rows

PIECE = 1_000
"""Rows that are in memory at once."""
TOLD = 50 * PIECE
"""Rows after which something is told."""
Tell = Callable[[str, int], None]
"""Is told of what, and how many are carried by now."""
_WHOLE = "substr(bytes, 1, 1) <> x'00'"
"""Of sealed bytes on SQLite: not erased."""
_COUNTS = {
    "exchanges": ("exchange", "exchange"),
    "requests and bodies": (f"sealed WHERE {_WHOLE}", "sealed"),
    "keys": ("reservation", "reservation"),
    "jtis": ("(SELECT DISTINCT hash FROM spent)", "spent"),
    "entries": ("entry", "entry"),
    "secrets of entries": (f"secret WHERE {_WHOLE}", "secret"),
    "logs": ("log", "log"),
}
"""What is counted, and where it lies on SQLite and on PostgreSQL."""
_SEALED = """
SELECT sealed.row, bytes, sealed.row = request, id FROM exchange JOIN sealed ON sealed.row IN (request, reply)
"""
_PLACE = "INSERT INTO placed SELECT $1, at, $2 + at FROM generate_series(0::bigint, $3::bigint - 1) AS at"
_PENDING = "INSERT INTO pending SELECT number FROM entry WHERE NOT EXISTS (SELECT FROM placed WHERE entry = number)"
_NUMBERS = """
SELECT setval('numbers', greatest(1, (SELECT max(number) FROM exchange), (SELECT max(number) FROM sealed),
    (SELECT max(exchange) FROM entry))),
    setval(pg_get_serial_sequence('entry', 'number'), greatest(1, (SELECT max(number) FROM entry)))
"""


class Root(NamedTuple):
    """A log that has arrived: its entries make the root that its checkpoint signs."""

    origin: str
    size: int
    root: bytes


class Carried(NamedTuple):
    """What has arrived, and is all that there was."""

    counts: Mapping[str, int]
    states: Mapping[str, int]
    """Exchanges by state."""
    logs: Sequence[Root]
    damaged: int
    """Records that did not open, and were carried as they lie."""


async def carry(
    source: sqlite3.Connection, old: Seal, db: asyncpg.Connection, name: str, new: Seal, tell: Tell
) -> Carried:
    """Make the schema ``name`` and put everything into it, inside the transaction in which ``db`` is.

    Raises StoreUnfit when there is anything in the schema, and when what has arrived is not what there was.
    """
    await migrations.alone(db, name)
    if await migrations.tables(db, name):
        raise StoreUnfit(
            f"schema {name}: it is not empty; name another one, or drop it first: DROP SCHEMA {name} CASCADE"
        )
    new.hash_as(old)
    await migrations.create(db, name, new)
    move = _Move(source, old, db, new, tell)
    await move.everything()
    states = await _same(source, db, "state, count(*)", "exchange GROUP BY state", "exchange GROUP BY state")
    counts = {what: await _same(source, db, "count(*)", *where) for what, where in _COUNTS.items()}
    roots = [await _root(db, log) for log in ranges.logs(source) if log.size]
    return Carried({what: found[0][0] for what, found in counts.items()}, dict(states), roots, move.damaged)


class _Move:
    def __init__(self, source: sqlite3.Connection, old: Seal, db: asyncpg.Connection, new: Seal, tell: Tell) -> None:
        self._source, self._db, self._old, self._new, self._tell = source, db, old, new, tell
        self.damaged = 0

    async def everything(self) -> None:
        reading = self._source.execute
        exchanges = (schema.values_of(rows.row_of(row)) for row in reading(rows.SELECT))
        await self._copy("exchange", exchanges)
        await self._copy("sealed", self._sealed())
        await self._copy("reservation", reading("SELECT hash, exchange FROM reservation"))
        spent = reading("SELECT hash, max(expires) FROM spent GROUP BY hash")
        await self._copy("spent", ((hashed, bucket_of(expires)) for hashed, expires in spent), ("hash", "bucket"))
        await self._copy("entry", reading("SELECT row, leaf, content, exchange FROM entry"))
        secrets = reading(" ".join(["SELECT row, bytes, leaf FROM secret JOIN entry USING (row) WHERE", _WHOLE]))
        await self._copy("secret", ((row, self._anew(sealed, SECRET, leaf)) for row, sealed, leaf in secrets))
        # A store that no node of this version has opened yet may lack them.
        there = {name for (name,) in reading("SELECT name FROM sqlite_schema WHERE name IN ('withheld', 'revoked')")}
        if "withheld" in there:
            await self._copy("withheld", reading("SELECT at FROM withheld"))
        if "revoked" in there:
            await self._copy("revoked", reading("SELECT kid, at FROM revoked"))
        await self._logs()
        await self._db.execute(_NUMBERS)
        # The first calls must not wait until PostgreSQL has looked at so many new rows by itself.
        await self._db.execute("ANALYZE exchange, sealed, reservation, spent, entry, secret, placed, pending")

    async def _copy(self, table: str, records: Iterator[Any], columns: Sequence[str] | None = None) -> None:
        count = 0
        while piece := list(islice(records, PIECE)):
            await self._db.copy_records_to_table(table, records=piece, columns=columns)
            count += len(piece)
            if count % TOLD == 0:
                self._tell(table, count)
        self._tell(table, count)

    def _sealed(self) -> Iterator[tuple[int, bytes]]:
        for row, sealed, is_request, id_ in self._source.execute(_SEALED):
            yield row, self._anew(sealed, RECORD if is_request else REPLY, id_.encode())

    def _anew(self, sealed: bytes, kind: bytes, owner: bytes) -> bytes:
        """Sealed for the new store's key."""
        if self._new.opens(self._old):
            return sealed
        try:
            plain = self._old.open(sealed, kind, owner)
        except Unreadable:
            self.damaged += 1
            return sealed
        return self._new.seal({kind: (plain, owner)})[0]

    async def _logs(self) -> None:
        for log in ranges.logs(self._source):
            last, complete = (None, False) if log.end is None else (log.end - 1, log.next == log.end)
            await self._db.execute(
                "INSERT INTO log VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                log.number,
                log.origin,
                log.first,
                last,
                complete,
                log.size,
                log.checkpoint,
                log.published,
                log.published_note,
                log.published_at,
            )
            await self._db.execute(_PLACE, log.number, log.first, log.size)
            self._tell("log", log.number)
        await self._db.execute(_PENDING)


async def _same(source: sqlite3.Connection, db: asyncpg.Connection, what: str, there: str, here: str) -> list[Any]:
    """What both sides answer. Raises StoreUnfit when that is not the same."""
    expected = sorted(source.execute(" ".join(["SELECT", what, "FROM", there])))
    found = sorted(tuple(each) for each in await db.fetch(" ".join(["SELECT", what, "FROM", here])))
    if found != expected:
        raise StoreUnfit(f"not everything has arrived ({here}): {expected} were to, {found} have")
    return found


async def _root(db: asyncpg.Connection, log: ranges.Log) -> Root:
    """Raises StoreUnfit unless the entries that have arrived make the tree that was signed."""
    tree = Tree()
    while contents := await places.entries(db, log.origin, tree.size, PIECE):
        tree.extend(map(leaf_hash, contents))
    try:
        signed = Checkpoint.parse(parse_note(log.checkpoint).text)
    except NoteWrong as error:
        raise StoreUnfit(f"the checkpoint of the log {log.origin} cannot be read: {error}") from error
    if (signed.size, signed.root) != (tree.size, tree.root()):
        raise StoreUnfit(
            f"the {tree.size} entries of the log {log.origin} do not make the tree that was signed for them"
        )
    return Root(log.origin, tree.size, tree.root())
