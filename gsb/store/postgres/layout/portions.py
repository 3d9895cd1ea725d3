"""Portions of what is sealed on PostgreSQL: begun each day, and dropped whole when all that is in them was let go.

A portion is a table with a span of numbers, and the one sequence of numbers leaps into the next span when a day is
over; so a number tells where its bytes lie, and is unique as before. Each table is made a day ahead by whichever node
comes by, and what has a number for which there is none lies in ``sealed_rest``, so that nothing is ever refused for
want of one. Who drops a portion first carries what is still referred to into ``sealed_rest``, in the same transaction.
All of it waits for locks so shortly that calls hardly notice, and is tried again. A crash leaves whole transactions; of
a sequence that has leapt too early only numbers are lost.
"""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

from gsb.store.contract import DAY, Ages
from gsb.store.postgres.layout.tables import BITS

SPAN = DAY
"""Seconds for which what arrives goes into one portion."""
LOOK = 60.0
"""Seconds between two looks."""
_WAIT = "SET LOCAL lock_timeout = '200ms'"
_ALONE = "SELECT pg_try_advisory_xact_lock(hashtext('gsb portions ' || current_schema()))"
_LEAP = "SELECT setval('numbers', greatest($1::bigint, last_value)) FROM numbers"
MARGIN = 3_600.0 + 120.0
"""Seconds for which a portion is kept beyond the age of what was written last in it: for whatever ended within an hour,
and for what had its number and was not committed yet when the next portion began."""
_OVER = """
SELECT min(number) FROM portion WHERE number < (SELECT max(number) FROM portion WHERE began_at <= $1)
"""
"""The oldest portion in which nothing was written since."""
_NEEDED = """
SELECT unnest(ARRAY[request, reply]) FROM exchange
WHERE request < $1 AND state IN ('accepted', 'running', 'waiting', 'held', 'unknown') AND state <> 'done'
UNION ALL SELECT unnest(ARRAY[request, reply]) FROM exchange
WHERE request < $1 AND request IS NOT NULL AND finished_at > accepted_at + 3600
"""
"""Where exchanges that have no outcome, or a late one, have their bodies; along an index of few rows each."""


def start_of(portion: int) -> int:
    """Its first number."""
    return portion << BITS


class Portions:
    """What one process does for them. ``steady`` gives seconds that only grow."""

    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._look_at = steady()

    async def tend(self, db: asyncpg.Connection, ages: Ages, now: float) -> None:
        """Begin and make what is due, drop what is over; it must not be called while there is more to let go of."""
        if self._steady() < self._look_at:
            return
        self._look_at = self._steady() + LOOK
        try:
            await go_on(db, now)
            while await drop_one(db, now - ages.bodies - MARGIN):
                pass
        except asyncpg.LockNotAvailableError:
            return  # somebody is at it for longer; what arrives has its place meanwhile


async def go_on(db: asyncpg.Connection, now: float) -> None:
    """Begin the next portion when the last one has had its time, and let there be one ahead."""
    async with db.transaction():
        await db.execute(_WAIT)
        if not await db.fetchval(_ALONE):
            return
        known = await db.fetch("SELECT number, began_at FROM portion ORDER BY number")
        ahead = [number for number, began_at in known if began_at is None]
        begun = [(number, began_at) for number, began_at in known if began_at is not None]
        following = known[-1][0] + 1
        if begun and begun[-1][1] > now:
            # The clock was set back: it must not be awaited for years.
            await db.execute("UPDATE portion SET began_at = $2 WHERE number = $1", begun[-1][0], now)
        elif not begun or begun[-1][1] + SPAN <= now:
            if not ahead:
                ahead, following = [await _make(db, following)], following + 1
            await db.execute("UPDATE portion SET began_at = $2 WHERE number = $1", ahead[0], now)
            await db.execute(_LEAP, max(start_of(ahead.pop(0)), 1))
        if not ahead:
            await _make(db, following)


async def _make(db: asyncpg.Connection, number: int) -> int:
    """One that is made apart needs no lock that readers would have to wait for."""
    table, start, end = f"sealed_{number}", start_of(number), start_of(number + 1)
    bounds = f"number >= {start} AND number < {end}"
    await db.execute(f"CREATE TABLE {table} (LIKE sealed INCLUDING ALL)")
    # Else PostgreSQL would look for them, and refuse.
    found = " ".join(["WITH found AS (DELETE FROM sealed_rest WHERE", bounds, "RETURNING *)"])
    await db.execute(" ".join([found, "INSERT INTO", table, "SELECT * FROM found"]))
    await db.execute(f"ALTER TABLE sealed ATTACH PARTITION {table} FOR VALUES FROM ({start}) TO ({end})")
    await db.execute("INSERT INTO portion VALUES ($1)", number)
    return number


async def drop_one(db: asyncpg.Connection, before: float) -> bool:
    """Drop the oldest portion that was over before then; whether there was one."""
    if await db.fetchval(_OVER, before) is None:
        return False
    async with db.transaction():
        await db.execute(_WAIT)
        if not await db.fetchval(_ALONE):
            return False
        # Whoever has it has it whole: what is seen now to be referred to is all there will be.
        await db.execute("LOCK TABLE sealed IN ACCESS EXCLUSIVE MODE")
        number = await db.fetchval(_OVER, before)
        if number is None:
            return False
        await db.execute(f"ALTER TABLE sealed DETACH PARTITION sealed_{number}")
        await carry(db, number)
        await drop(db, number)
    return True


async def carry(db: asyncpg.Connection, number: int) -> None:
    """What is still needed of a portion that is none any more goes where all that is in none lies."""
    chosen = " ".join(["SELECT number, bytes FROM", f"sealed_{number}", "WHERE number IN (", _NEEDED, ")"])
    await db.execute(" ".join(["INSERT INTO sealed", chosen]), start_of(number + 1))


async def drop(db: asyncpg.Connection, number: int) -> None:
    await db.execute(f"DROP TABLE sealed_{number}")
    await db.execute("DELETE FROM portion WHERE number = $1", number)
