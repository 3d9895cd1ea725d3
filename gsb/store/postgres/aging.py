"""Deleting what has reached its age from the PostgreSQL store, and when a jti may come again.

Deleting goes in small pieces, beside other nodes that do the same: what another has locked is passed over. Nobody waits
for the disk: what a crash of the server brings back is deleted again. Deleted rows leave the table's files when
PostgreSQL vacuums them, which it does by itself. Of bodies only what refers to them is deleted here: they leave with
their portion (``gsb.store.postgres.layout.portions``), little more than a day after their age.

jtis lie in the database in buckets by the second at which they run out, and are forgotten by the bucket. As on SQLite
(``gsb.store.spent``) a bucket goes only when the clock has passed it and a steady one says that nothing came into it
for longer than any signature is good. A steady clock belongs to a process, so each process counts from when it put
something there itself, or first saw what another had put there; what it does not know is taken to be spent. Before
anything of a bucket is deleted it is written down as forgotten, and what would run out in such a bucket is refused.
A crash leaves whole pieces; the next process counts anew, and deletes later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import asyncpg

from gsb.store.contract import Ages
from gsb.store.spent import BUCKET, GONE, KEPT

TOKENS = 5_000
"""jtis deleted in one transaction at most."""
PIECE = 50
"""Exchanges of which something is deleted in one transaction at most."""
_KEYS = """
WITH old AS (SELECT number, key FROM exchange WHERE finished_at <= $1 AND key IS NOT NULL
        ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED),
    freed AS (DELETE FROM reservation USING old WHERE hash = old.key AND exchange = old.number)
UPDATE exchange SET key = NULL FROM old WHERE exchange.number = old.number
"""
_BODIES = """
WITH old AS (SELECT number, request, reply FROM exchange WHERE finished_at <= $1 AND request IS NOT NULL
        ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED),
    gone AS (DELETE FROM sealed_rest USING old WHERE sealed_rest.number IN (old.request, old.reply))
UPDATE exchange SET request = NULL, reply = NULL FROM old WHERE exchange.number = old.number
"""
"""What lies in a portion leaves with it."""
_EXCHANGES = """
WITH old AS (SELECT number FROM exchange WHERE finished_at <= $1 AND key IS NULL AND request IS NULL
        ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED),
    bared AS (DELETE FROM secret USING entry, old WHERE entry.exchange = old.number AND secret.entry = entry.number)
DELETE FROM exchange USING old WHERE exchange.number = old.number
"""
"""With the secrets of its entries, which nobody could find any more to erase them."""
_BUCKETS = """
WITH RECURSIVE step AS (
    SELECT min(bucket) AS bucket FROM spent
    UNION ALL SELECT (SELECT min(bucket) FROM spent WHERE spent.bucket > step.bucket) FROM step WHERE bucket IS NOT NULL
)
SELECT bucket, (SELECT max(number) FROM spent WHERE spent.bucket = step.bucket) FROM step WHERE bucket < $1
"""
"""The buckets before one and the newest jti of each, each found by one step along the index, however many there are."""
_DELETE = """
DELETE FROM spent WHERE hash IN (
    SELECT hash FROM spent WHERE bucket = $1 AND number <= $2 LIMIT $3 FOR UPDATE SKIP LOCKED
)
"""


def bucket_of(expires: float) -> int:
    """Where lies what runs out then."""
    return int(expires) // BUCKET


def around(buckets: Iterable[int]) -> set[int]:
    """The buckets and their neighbours: a signature runs out a moment earlier or later each time it is looked at."""
    return {near for bucket in buckets for near in (bucket - 1, bucket, bucket + 1)}


class _Seen(NamedTuple):
    newest: int
    """The number of the newest jti that is known to lie there."""
    until: float
    """Until when what is known to lie there is kept, by the steady clock."""


class Jtis:
    """What one process knows. ``steady`` gives seconds that only grow."""

    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._seen: dict[int, _Seen] = {}

    def see(self, bucket: int, number: int) -> None:
        """This jti lies there, by now."""
        seen = self._seen.get(bucket)
        self._seen[bucket] = _Seen(max(number, 0 if seen is None else seen.newest), self._steady() + KEPT)

    def over(self, bucket: int, number: int, now: float) -> bool:
        """Whether this jti of the bucket has run out for certain."""
        seen = self._seen.get(bucket)
        known = seen is not None and number <= seen.newest and seen.until <= self._steady()
        return known and (bucket + 1) * BUCKET <= now

    async def forget(self, db: asyncpg.Connection, now: float) -> bool:
        """Delete some of what is over; answers whether there is more. Call it inside a transaction."""
        found = {bucket: newest for bucket, newest in await db.fetch(_BUCKETS, bucket_of(now)) if newest is not None}
        for bucket in [bucket for bucket in self._seen if bucket < bucket_of(now) and bucket not in found]:
            if self._seen[bucket].until <= self._steady():
                del self._seen[bucket]
        for bucket, newest in found.items():
            if bucket not in self._seen or self._seen[bucket].newest < newest:
                self.see(bucket, newest)
        return await self._delete(db, [bucket for bucket, newest in found.items() if self.over(bucket, newest, now)])

    async def _delete(self, db: asyncpg.Connection, over: list[int]) -> bool:
        left = TOKENS
        for bucket in over:
            await db.execute("INSERT INTO forgotten VALUES ($1) ON CONFLICT DO NOTHING", bucket)
            left -= int((await db.execute(_DELETE, bucket, self._seen[bucket].newest, left)).split()[-1])
            if left <= 0:
                return True
        if over:
            await db.execute("DELETE FROM forgotten WHERE bucket < $1", max(over) - GONE)
        return False


async def purge(db: asyncpg.Connection, jtis: Jtis, ages: Ages, now: float) -> bool:
    """Delete some of what has run out, in one transaction; answers whether there may be more."""
    async with db.transaction():
        await db.execute("SET LOCAL synchronous_commit = off")
        more = await jtis.forget(db, now)
        # What still has a key or bodies waits for them to be deleted before it.
        for statement, age in ((_KEYS, ages.keys), (_BODIES, ages.bodies), (_EXCHANGES, ages.exchanges)):
            deleted = int((await db.execute(statement, now - age, PIECE)).split()[-1])
            more = more or deleted == PIECE
    return more
