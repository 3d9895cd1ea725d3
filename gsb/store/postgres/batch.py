"""One transaction of the PostgreSQL store: what many calls ask is decided one after the other, then written together.

First everything that the calls may touch is locked, always in the same order (exchanges by their numbers, jtis, keys),
so that the batches of several nodes wait for each other and not in a circle; then each call decides on rows in memory
(``gsb.store.asks``); then all of it is written. Inserting is what claims a jti or a key: of two nodes that bring the
same one, the second waits for the first one's commit and finds it taken. Calls that only move exchanges need not lock:
one statement writes everything, or nothing if a row has changed since it was read. A crash before the commit leaves
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import asyncpg

from gsb.errors import Replayed, StoreUnavailable
from gsb.model import Effect
from gsb.store import standing
from gsb.store.asks import SET_BACK, Begin, Jti, Plain, SealedEntry
from gsb.store.contract import Due
from gsb.store.postgres.aging import Jtis, around, bucket_of
from gsb.store.postgres.schema import (
    COLUMNS,
    EXCHANGE,
    NOW,
    SELECT,
    moving,
    row_of,
    values_of,
    writing,
    writing_if_unchanged,
)
from gsb.store.postgres.sessions import Clock
from gsb.store.standing import HORIZON, Row

_TIME_AND_NUMBERS = " ".join(["SELECT", NOW, ", ARRAY(SELECT nextval('numbers') FROM generate_series(1, $1))"])
_BY_ID = " ".join(
    [
        *("SELECT", EXCHANGE, ",", NOW, ", nextval('numbers'), exchange.xmin, {} FROM exchange {}"),
        "WHERE id = ANY($1::text[]) ORDER BY exchange.number",
    ]
)
"""With the time, and a number for the body of its outcome: a lone call waits for as few answers as can be."""
_LOCKED = " FOR UPDATE OF exchange"
_TO_MOVE = _BY_ID.format("NULL", "")
_TO_BEGIN = _BY_ID.format(
    "bytes", "LEFT JOIN sealed ON sealed.number = CASE WHEN id = ANY($2::text[]) THEN request END"
)
"""With what was asked, of those that begin."""
_BY_NUMBER = SELECT + "WHERE number = ANY($1::bigint[])"
_DUE = SELECT + "WHERE due_at <= $1 ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED"
_TOO_LATE = SELECT + "WHERE due_at > $1 LIMIT $2 FOR UPDATE SKIP LOCKED"
_SPEND = """
INSERT INTO spent(hash, bucket) SELECT * FROM unnest($1::bytea[], $2::bigint[]) ON CONFLICT DO NOTHING
RETURNING hash, number
"""
_TAKEN = "SELECT hash, number, bucket FROM spent WHERE hash = ANY($1::bytea[]) ORDER BY hash"
_RESPEND = """
UPDATE spent SET bucket = $3, number = nextval('spendings') WHERE hash = $1 AND number = $2 RETURNING hash, number
"""
_CLAIM = """
WITH claimed AS (
    INSERT INTO reservation SELECT * FROM unnest($1::bytea[], $2::bigint[])
    ON CONFLICT (hash) DO UPDATE SET exchange = reservation.exchange RETURNING hash, exchange
)
SELECT array_agg(hash ORDER BY hash), array_agg(exchange ORDER BY hash),
    ARRAY(SELECT bucket FROM forgotten WHERE bucket = ANY($3::bigint[]))
FROM claimed
"""
"""With those of the buckets that are forgotten: whoever forgets one commits that before its jtis can be claimed anew,
so this is asked after they were."""
AT_ONCE = 16 * 1024 * 1024
"""Bytes of bodies that one statement writes."""
FRESH = 5.0
"""Seconds after which what was read is too old to be decided on: whoever was halted meanwhile reads it again."""


class Batch:
    """The rows that one transaction reads and writes. ``kept`` is the age at which a key is free again."""

    def __init__(self, db: asyncpg.Connection, jtis: Jtis, clock: Clock, kept: float) -> None:
        self._db, self._jtis, self._clock, self._kept = db, jtis, clock, kept
        self.now = 0.0
        """The time, from ``load`` on."""
        self.set_back = False
        """Something was refused because the clock was set back."""
        self.due: list[Row] = []
        """What is due and not handed out yet."""
        self.late: list[Row] = []
        """What would be due too late, because the clock was set back."""
        self.requests: dict[str, bytes | None] = {}
        """What was asked, sealed, of each exchange that begins."""
        self._numbers: list[int] = []
        self._known: dict[str, Row] = {}
        self._versions: dict[int, int] = {}
        """Of each row that was read by its exchange's id: the version that it had."""
        self._read_at = 0.0
        """When, by the database's clock."""
        self._granted: dict[bytes, tuple[int, int]] = {}
        """Of each jti that was claimed here: its bucket and its number."""
        self._forgotten: set[int] = set()
        self._returned: list[bytes] = []
        """jtis that were claimed and need not be remembered."""
        self._owners: dict[bytes, Row | None] = {}
        self._claims: dict[bytes, int] = {}
        """The numbers that exchanges are to have because their keys were claimed with them."""
        self._unused: dict[bytes, int] = {}
        """Keys that were claimed here and lead to no exchange: the jti that came with them was refused."""
        self.created: dict[str, Row] = {}
        self.changed: dict[str, Row] = {}
        self._reserved: dict[bytes, Row] = {}
        self._again: dict[bytes, Row] = {}
        self._sealed: list[tuple[int, bytes]] = []
        self.entries: list[tuple[bytes, bytes, int | None, bytes]] = []

    # --- before anything is decided -------------------------------------------------------------------------

    async def load(self, asks: Sequence[Ask]) -> None:
        """Lock and read what the calls will ask for."""
        await self._load_rows(asks, _LOCKED)
        # The body of an outcome; or an exchange and its record.
        numbers = sum(0 if isinstance(ask, BeginAndRead) else 1 if ask.ids() else 2 for ask in asks)
        if (lack := max(numbers - len(self._numbers), 0)) or not self._known:
            now, more = await self._db.fetchrow(_TIME_AND_NUMBERS, lack)
            self.now = self._clock(now)
            self._numbers += reversed(more)
        if jtis := [jti for ask in asks if (jti := ask.spends()) is not None]:
            await self._claim_jtis(jtis)
            near = around(bucket_of(self.now + jti.lives) for jti in jtis if jti.lives > 0)
            await self._claim_keys(self._keys(asks), near)
        if most := sum(ask.limit for ask in asks if isinstance(ask, Overdue)):
            self.due = [self._know(row_of(found)) for found in await self._db.fetch(_DUE, self.now, most)]
            late = await self._db.fetch(_TOO_LATE, self.now + HORIZON, most)
            self.late = [self._know(row_of(found)) for found in late]

    async def read(self, asks: Sequence[Ask]) -> None:
        """Read what calls that ``only_move`` will ask for."""
        await self._load_rows(asks, "")

    async def _load_rows(self, asks: Sequence[Ask], lock: str) -> None:
        ids = list({id_ for ask in asks for id_ in ask.ids()})
        if begin := [ask.id for ask in asks if isinstance(ask, BeginAndRead) and ask.read]:
            rows = await self._db.fetch(_TO_BEGIN + lock, ids, begin)
        else:
            rows = await self._db.fetch(_TO_MOVE + lock, ids) if ids else []
        for found in rows:
            self._read_at, number, version, request = tuple(found)[len(COLUMNS) :]
            row = self._know(row_of(found))
            self.now = self._clock(self._read_at)
            self._numbers.append(number)
            self._versions[row.row] = version
            self.requests[row.id] = request

    def _know(self, row: Row) -> Row:
        return self._known.setdefault(row.id, row)

    async def _claim_jtis(self, jtis: Sequence[Jti]) -> None:
        wanted = {jti.hashed: bucket_of(self.now + jti.lives) for jti in reversed(jtis)}
        hashes = sorted(wanted)
        found = await self._db.fetch(_SPEND, hashes, [wanted[hashed] for hashed in hashes])
        if taken := sorted(wanted.keys() - {hashed for hashed, _ in found}):
            found += await self._take_over(taken, wanted)
        self._granted = {hashed: (wanted[hashed], number) for hashed, number in found}

    async def _take_over(self, taken: Sequence[bytes], wanted: dict[bytes, int]) -> list[Any]:
        """Those of the jtis that have run out for certain, though nobody has deleted them yet."""
        rows = await self._db.fetch(_TAKEN, taken)
        over = [(hashed, number) for hashed, number, bucket in rows if self._jtis.over(bucket, number, self.now)]
        found = [await self._db.fetchrow(_RESPEND, hashed, number, wanted[hashed]) for hashed, number in over]
        return [each for each in found if each is not None]

    def _keys(self, asks: Sequence[Ask]) -> list[bytes]:
        """The keys of those calls whose jti is theirs, oldest first: each leads to an exchange or is taken already."""
        seen: set[bytes] = set()
        keys: list[bytes] = []
        for ask in asks:
            if (jti := ask.spends()) is None or jti.hashed in seen:
                continue
            seen.add(jti.hashed)
            if jti.hashed in self._granted:
                keys += ask.hashes()
        return list(dict.fromkeys(keys))

    async def _claim_keys(self, keys: Sequence[bytes], near: Iterable[int]) -> None:
        claims = {hashed: self._numbers.pop() for hashed in sorted(keys)}
        hashes, numbers, forgotten = await self._db.fetchrow(_CLAIM, [*claims], [*claims.values()], [*near])
        self._forgotten = set(forgotten)
        found = dict(zip(hashes or (), numbers or (), strict=True))
        taken = {hashed: number for hashed, number in found.items() if number != claims[hashed]}
        self._claims = claims
        self._unused = {hashed: number for hashed, number in claims.items() if hashed not in taken}
        if taken:
            owners = [row_of(each) for each in await self._db.fetch(_BY_NUMBER, list(taken.values()))]
            numbered = {row.row: self._known.get(row.id, row) for row in owners}
            self._owners = {hashed: numbered.get(number) for hashed, number in taken.items()}

    # --- deciding: gsb.store.asks.Transaction -----------------------------------------------------------------

    def row(self, exchange: str) -> Row | None:
        return self.created.get(exchange) or self._known.get(exchange)

    def owner(self, key: bytes) -> Row | None:
        if (row := self._reserved.get(key)) is not None:
            return row
        row = self._owners.get(key)
        if row is None or (row.finished_at is not None and row.finished_at + self._kept <= self.now):
            return None
        return row

    def change(self, row: Row) -> None:
        if row.id not in self.created:
            self.changed[row.id] = row

    def spend(self, jti: Jti) -> None:
        if jti.hashed not in self._granted:
            raise Replayed
        if self._is_forgotten(jti):
            self._returned.append(jti.hashed)
            self.set_back = True
            raise StoreUnavailable(SET_BACK)
        bucket, number = self._granted.pop(jti.hashed)
        if jti.lives > 0:
            self._jtis.see(bucket, number)
        else:
            self._returned.append(jti.hashed)

    def _is_forgotten(self, jti: Jti) -> bool:
        return jti.lives > 0 and not self._forgotten.isdisjoint(around([bucket_of(self.now + jti.lives)]))

    def keep(self, sealed: bytes) -> int:
        number = self._numbers.pop()
        self._sealed.append((number, sealed))
        return number

    def enter(self, entry: SealedEntry, exchange: int | None) -> None:
        self.entries.append((entry.leaf, entry.content, exchange, entry.secret))

    def create(self, row: Row) -> None:
        claim = None if row.key is None else self._claims.get(row.key)
        row.row = self._numbers.pop() if claim is None else claim
        self.created[row.id] = row
        if row.key is not None:
            self._reserved[row.key] = row
            self._unused.pop(row.key, None)
            if row.key in self._owners:
                self._again[row.key] = row

    # --- after everything is decided --------------------------------------------------------------------------

    async def write(self, asks: Sequence[Ask]) -> None:
        """Write it all."""
        if self._of_little_weight(asks):
            await self._db.execute("SET LOCAL synchronous_commit = off")
        *ahead, last = portions(self._sealed) if self._sealed else [()]
        for some in ahead:
            await self._put({"kept": some})
        created, changed = self.created.values(), self.changed.values()
        await self._put(
            {
                "kept": last,
                "made": [values_of(row) for row in created],
                "changed": [moving(row) for row in changed],
                "entered": self.entries,
            }
        )
        again = [(key, row.row) for key, row in self._again.items()]
        await self._many("UPDATE reservation SET exchange = $2 WHERE hash = $1", again)
        await self._many("DELETE FROM spent WHERE hash = $1", [(hashed,) for hashed in self._returned])
        await self._many("DELETE FROM reservation WHERE hash = $1 AND exchange = $2", list(self._unused.items()))

    async def write_if_unchanged(self, asks: Sequence[Ask]) -> bool:
        """Write all that calls which ``only_move`` have changed, and commit it: by one statement that writes nothing,
        and False is answered, if one of the rows is not as it was read."""
        if not self.changed:
            return True
        if len(list(portions(self._sealed))) > 1:
            return False
        rows = list(self.changed.values())
        parts = {"kept": self._sealed, "changed": [moving(row) for row in rows], "entered": self.entries}
        some = {part: values for part, values in parts.items() if values}
        numbers = [row.row for row in rows]
        seen = [numbers, [self._versions[number] for number in numbers], len(numbers), self._read_at + FRESH]
        durable = "off" if self._of_little_weight(asks) else "on"
        written, _ = await self._db.fetchrow(
            writing_if_unchanged(tuple(some)), *seen, *_columns(some.values()), durable
        )
        return bool(written)

    def _of_little_weight(self, asks: Sequence[Ask]) -> bool:
        """What only reads have begun need not reach the disk before it is told."""
        reads_only = all(row.effect is Effect.NONE for row in self.changed.values())
        return bool(self.changed) and reads_only and all(isinstance(ask, BeginAndRead) for ask in asks)

    async def _put(self, parts: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        """One statement for all rows of all parts, with a list for each column."""
        if some := {part: rows for part, rows in parts.items() if rows}:
            await self._db.execute(writing(tuple(some)), *_columns(some.values()))

    async def _many(self, statement: str, values: Sequence[Any]) -> None:
        if values:
            await self._db.executemany(statement, values)


def _columns(parts: Iterable[Sequence[Sequence[Any]]]) -> list[list[Any]]:
    return [list(column) for rows in parts for column in zip(*rows, strict=True)]


def portions(sealed: Sequence[tuple[int, bytes]]) -> Iterator[Sequence[tuple[int, bytes]]]:
    """In pieces of which none has many more bytes than ``AT_ONCE``: a server takes a gigabyte in one value at most."""
    begin = size = 0
    for at, (_, data) in enumerate(sealed):
        if size + len(data) > AT_ONCE and at > begin:
            yield sealed[begin:at]
            begin, size = at, 0
        size += len(data)
    if begin < len(sealed):
        yield sealed[begin:]


class Ask(Protocol):
    """What a call asks of a batch. ``decide`` raises a typed error only before it has changed anything."""

    def ids(self) -> Sequence[str]: ...

    def hashes(self) -> Sequence[bytes]: ...

    def spends(self) -> Jti | None: ...

    def decide(self, batch: Batch) -> Any: ...


def only_move(asks: Sequence[Ask]) -> bool:
    """Whether the calls ask for nothing but exchanges that they name."""
    return all(ask.ids() and not ask.hashes() and ask.spends() is None for ask in asks)


@dataclass(slots=True, eq=False)
class BeginAndRead(Plain):
    """Answers what ``Begin`` does and what was asked, if ``read``: whoever had the lease and could not read what to do
    would keep everybody else from doing it."""

    id: str
    lease: float
    read: bool

    def ids(self) -> Sequence[str]:
        return (self.id,)

    def decide(self, batch: Batch) -> Any:
        begun = Begin(self.id, self.lease).decide(batch)
        return None if begun is None else (*begun, batch.requests.get(self.id))


@dataclass(slots=True, eq=False)
class Overdue(Plain):
    """Answers what is due, and moves it on; what another node is moving this moment is left to that one."""

    limit: int

    def decide(self, batch: Batch) -> list[Due]:
        while batch.late:
            row = batch.late.pop()
            standing.pull_back(row, batch.now)
            batch.change(row)
        found: list[Due] = []
        while batch.due and len(found) < self.limit:
            row = batch.due.pop(0)
            if (due := standing.nudge(row, batch.now)) is not None:
                found.append(due)
                batch.change(row)
        return found
