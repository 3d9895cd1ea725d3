"""Which entry has which place in which log of the PostgreSQL store, where each log stands, and what moves it.

Nodes commit beside each other, so an entry may appear after one with a higher number has got its place: each place is
written down, and what has none yet is ``pending``. What appears late gets a later place and is never passed over.
Entries of one exchange keep their order, since each of its transactions waits for the one before. Functions run on the
connection they are given; those that change anything, inside a transaction. A crash leaves whole transactions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import asyncpg

from gsb.model import FINAL, Entry, State
from gsb.store.asks import SealedEntry
from gsb.store.logs import Backlog, Entered, Erased, LogMoved, LogState, Unsequenced, happened_at
from gsb.store.postgres.schema import ENTER

_LOGS = """
SELECT origin, size, checkpoint, published, published_note, published_at, complete OR last_entry IS NOT NULL
FROM log ORDER BY number
"""
_NEXT = """
SELECT entry FROM pending WHERE entry <> $1 AND ($2::bigint IS NULL OR entry <= $2) ORDER BY entry LIMIT $3
"""
_CONTENTS = "SELECT content, leaf FROM entry WHERE number = ANY($1::bigint[]) ORDER BY array_position($1, number)"
_GROW = """
UPDATE log SET size = size + $3, checkpoint = $4, complete = coalesce(last_entry = $5, false)
WHERE origin = $1 AND size = $2 AND NOT complete RETURNING number
"""
_PLACE = """
INSERT INTO placed SELECT $1, $2 + place - 1, entry FROM unnest($3::bigint[]) WITH ORDINALITY AS given(entry, place)
"""
_PLACED = """
SELECT content FROM placed JOIN entry ON entry.number = placed.entry JOIN log ON log.number = placed.log
WHERE origin = $1 AND at >= $2 AND at < $3 ORDER BY at
"""
_ENTERED = """
SELECT content, leaf, origin, at FROM entry LEFT JOIN placed ON placed.entry = entry.number
LEFT JOIN log ON log.number = placed.log WHERE exchange = $1 ORDER BY entry.number
"""
_SECRETS = """
SELECT leaf, bytes FROM entry LEFT JOIN secret ON secret.entry = entry.number
WHERE exchange = $1 ORDER BY entry.number
"""
_PUBLISH = """
UPDATE log SET published = $2, published_note = $3, published_at = $4
WHERE origin = $1 AND published <= $2 AND size >= $2 RETURNING number
"""


async def enter(db: asyncpg.Connection, entry: SealedEntry, exchange: int | None = None) -> int:
    """Add one entry; answers its number."""
    return int(await db.fetchval(ENTER, [entry.leaf], [entry.content], [exchange], [entry.secret]))


# --- reading


async def logs(db: asyncpg.Connection) -> list[LogState]:
    """Every log, oldest first."""
    return [LogState(*found) for found in await db.fetch(_LOGS)]


async def _next(db: asyncpg.Connection, limit: int) -> tuple[str, int, list[int]] | None:
    """The oldest log that is not complete and can go on, its size, and the numbers of the entries that are next."""
    for origin, size, first, last in await db.fetch(
        "SELECT origin, size, first_entry, last_entry FROM log WHERE NOT complete ORDER BY number"
    ):
        # What was entered before the first log began has lower numbers than its beginning, and comes after it.
        head = [first] if size == 0 else []
        rest = await db.fetch(_NEXT, first, last, limit - len(head))
        if found := [*head, *(number for (number,) in rest)]:
            return origin, size, found
    return None


async def unsequenced(db: asyncpg.Connection, limit: int) -> Unsequenced | None:
    """At most ``limit`` entries that are next; their numbers are the token."""
    async with db.transaction(isolation="repeatable_read", readonly=True):
        if (following := await _next(db, limit)) is None:
            return None
        origin, size, numbers = following
        found = await db.fetch(_CONTENTS, numbers)
    return Unsequenced(origin, size, [content for content, _ in found], [leaf for _, leaf in found], tuple(numbers))


async def entries(db: asyncpg.Connection, origin: str, start: int, limit: int) -> list[bytes]:
    """Contents of sequenced entries."""
    if start < 0:
        return []
    return [content for (content,) in await db.fetch(_PLACED, origin, start, start + limit)]


async def backlog(db: asyncpg.Connection) -> Backlog:
    """What is committed and not yet published, and when the first of it happened."""
    async with db.transaction(isolation="repeatable_read", readonly=True):
        waiting = await db.fetchval(
            "SELECT (SELECT count(*) FROM pending) + (SELECT coalesce(sum(size - published), 0)::bigint FROM log)"
        )
        if not waiting:
            return Backlog(0, None)
        content = await _oldest(db)
    return Backlog(waiting, happened_at(content))


async def _oldest(db: asyncpg.Connection) -> bytes:
    """The content of the entry that is next to be published; there must be one."""
    behind = await db.fetchrow("SELECT origin, published FROM log WHERE published < size ORDER BY number LIMIT 1")
    if behind is not None:
        return (await entries(db, behind[0], behind[1], 1))[0]
    following = await _next(db, 1)
    numbers = following[2] if following else [await db.fetchval("SELECT min(entry) FROM pending")]
    return bytes((await db.fetchrow(_CONTENTS, numbers))[0])


async def entered(db: asyncpg.Connection, exchange: int) -> list[Entered]:
    """The entries of an exchange with their places, oldest first."""
    found = await db.fetch(_ENTERED, exchange)
    return [Entered(Entry(content, leaf, b""), origin, at) for content, leaf, origin, at in found]


async def secrets(db: asyncpg.Connection, exchange: int) -> list[tuple[bytes, bytes | None]]:
    """The leaf of each entry of an exchange and its sealed secret, unless that was erased."""
    return [(leaf, sealed) for leaf, sealed in await db.fetch(_SECRETS, exchange)]


# --- moving; each raises LogMoved when the log does not stand where the caller thought


async def begin_log(
    db: asyncpg.Connection, origin: str, begun: SealedEntry, after: str | None, ended: SealedEntry | None
) -> None:
    """Begin a log, and close the open one."""
    await db.execute("LOCK TABLE log IN EXCLUSIVE MODE")
    known = await db.fetch("SELECT number, origin FROM log ORDER BY number")
    last, newest = known[-1] if known else (0, None)
    if after != newest or origin in [each for _, each in known]:
        raise LogMoved
    if last and ended is None:
        # Its files are further than the store: nothing of it is to be written again.
        await db.execute("UPDATE log SET complete = true, published = size WHERE number = $1", last)
    elif ended is not None:
        await db.execute("UPDATE log SET last_entry = $2 WHERE number = $1", last, await enter(db, ended))
    first = await enter(db, begun)
    await db.execute("INSERT INTO log(number, origin, first_entry) VALUES ($1, $2, $3)", last + 1, origin, first)


async def sequence(db: asyncpg.Connection, given: Unsequenced, checkpoint: bytes) -> None:
    """Give exactly these entries their places, and keep the checkpoint."""
    numbers = cast("tuple[int, ...]", given.token)
    number = await db.fetchval(_GROW, given.origin, given.size, len(numbers), checkpoint, numbers[-1])
    if number is None:
        raise LogMoved
    taken = await db.execute("DELETE FROM pending WHERE entry = ANY($1::bigint[])", numbers)
    if taken != f"DELETE {len(numbers)}":
        raise LogMoved
    await db.execute(_PLACE, number, given.size, numbers)


async def publish(db: asyncpg.Connection, origin: str, size: int, note: bytes, now: float) -> None:
    """Write down up to where the files of a log are written."""
    if await db.fetchval(_PUBLISH, origin, size, note, now) is None:
        raise LogMoved


# --- withholding writes


async def withhold(db: asyncpg.Connection, entry: SealedEntry, now: float) -> None:
    """Note it until ``admit_writes``."""
    await db.execute("DELETE FROM withheld")
    await db.execute("INSERT INTO withheld VALUES ($1)", now)
    await enter(db, entry)


async def admit_writes(db: asyncpg.Connection, entry: SealedEntry) -> bool:
    """Whether there was anything to end."""
    if await db.execute("DELETE FROM withheld") == "DELETE 0":
        return False
    await enter(db, entry)
    return True


async def withheld(db: asyncpg.Connection) -> bool:
    return bool(await db.fetchval("SELECT EXISTS (SELECT FROM withheld)"))


# --- revoking keys


async def revoke(db: asyncpg.Connection, kid: str, entry: SealedEntry, now: float) -> None:
    """Note it for ever."""
    await db.execute("INSERT INTO revoked VALUES ($1, $2) ON CONFLICT DO NOTHING", kid, now)
    await enter(db, entry)


async def revoked(db: asyncpg.Connection) -> frozenset[str]:
    return frozenset(kid for (kid,) in await db.fetch("SELECT kid FROM revoked"))


# --- erasing


async def erase(db: asyncpg.Connection, given: Mapping[str, SealedEntry]) -> Erased:
    """Delete what final exchanges hold of people; each is given with the entry that says so.

    Entries, states and reservations stay. The deleted rows are sealed, and leave the files when PostgreSQL vacuums.
    """
    found = await db.fetch(
        "SELECT id, number, state FROM exchange WHERE id = ANY($1::text[]) ORDER BY number FOR UPDATE", list(given)
    )
    known = {id_: (number, State(state)) for id_, number, state in found}
    erased, unfinished, unknown = [], [], []
    for id_, entry in given.items():
        number, state = known.get(id_, (0, None))
        if state is None:
            unknown.append(id_)
        elif state not in FINAL:
            unfinished.append(id_)
        else:
            erased.append(id_)
            await _erase(db, number, entry)
    return Erased(tuple(erased), tuple(unfinished), tuple(unknown))


async def _erase(db: asyncpg.Connection, exchange: int, entry: SealedEntry) -> None:
    if (await secrets(db, exchange))[0][1] is None:
        return  # before: then only the entry that says so has a secret, which proves who erased and why
    for statement in (
        "DELETE FROM sealed USING exchange WHERE exchange.number = $1 AND sealed.number IN (request, reply)",
        "DELETE FROM secret USING entry WHERE entry.exchange = $1 AND secret.entry = entry.number",
        "UPDATE exchange SET request = NULL, reply = NULL, business = NULL, subject = NULL WHERE number = $1",
    ):
        await db.execute(statement, exchange)
    await enter(db, entry, exchange)
