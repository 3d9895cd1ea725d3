"""What the tests of stores share: a clock that is told when to move, exchanges, and how to bring one into a state."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from gsb.evidence.entry import make_entry
from gsb.model import Decision, Effect, Entry, Outcome, Record, State, new_id
from gsb.store.contract import DAY, Ages, Attempt, Begun, NewExchange, Query, Store
from gsb.store.postgres import PostgresStore

LEASE = 30.0
AGES = Ages(bodies=10 * DAY, keys=30 * DAY, exchanges=90 * DAY)


class Clock:
    """A clock that moves when it is told to: time passes, or, with ``now``, the clock is set and no time passes."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.passed = 0.0

    def __call__(self) -> float:
        return self.now

    def steady(self) -> float:
        return self.passed

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.passed += seconds


class Maker(Protocol):
    """Makes stores on one place, with the ages that are ``AGES``."""

    clock: Clock

    async def open(self) -> Store: ...

    async def crash(self, store: Store) -> Store:
        """End the store without finishing anything, as far as it can be done in a process, and open another."""

    async def close(self) -> None:
        """Close what is open."""


class PostgresMaker:
    """Stores on one schema of a server, with ``key`` as their key. After a crash the old one's connections stay open,
    as those of a node that is cut off: PostgreSQL does not mind that another begins."""

    def __init__(self, dsn: str, key: bytes) -> None:
        self.clock, self.dsn, self.key = Clock(), dsn, key
        self.schema = f"test_{os.urandom(8).hex()}"
        self._opened: list[PostgresStore] = []

    def time(self, of_the_database: float) -> float:
        return self.clock()

    def make(self, **more: Any) -> PostgresStore:
        """A statement has a minute: a server gives those up in which the machine stood still for too long."""
        given = {"statement": 60.0, **more}
        store = PostgresStore(
            self.dsn, self.key, schema=self.schema, ages=AGES, clock=self.time, steady=self.clock.steady, **given
        )
        self._opened.append(store)
        return store

    async def open(self) -> PostgresStore:
        store = self.make()
        await store.open()
        return store

    async def crash(self, store: Store) -> Store:
        return await self.open()

    async def close(self) -> None:
        while self._opened:
            await self._opened.pop().close()

    async def rows(self, sql: str, *values: object) -> list[Any]:
        """What a statement finds, asked beside the store."""
        db = await asyncpg.connect(self.dsn, server_settings={"search_path": self.schema})
        try:
            return list(await db.fetch(sql, *values))
        finally:
            await db.close()

    async def drop(self) -> None:
        """Leave nothing on the server."""
        await self.close()
        await self.rows(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")


def entry(kind: str = "test", **facts: str) -> Entry:
    return make_entry(kind, 1_800_000_000, facts, {"evidence": "canary-evidence"})


def new(effect: Effect = Effect.ONCE, **changes: object) -> NewExchange:
    id_ = new_id()
    decision = Decision("agreement-7", "digest", "payroll", ("/name", "/items/*/amount"))
    record = Record(b'{"id":"canary-body"}', "key-1", decision, "canary-sub", "canary-case", "00-aa-bb-01")
    made = NewExchange(
        id=id_,
        agency="payroll",
        service="hrmis/employee/v1",
        effect=effect,
        expires_in=300,
        jti=f"jti-{id_}",
        jti_lives=140,
        key=f"key-{id_}",
        fingerprint=b"f" * 32,
        record=record,
        entry=entry("accepted", exchange=id_),
    )
    return made._replace(**changes)  # type: ignore[arg-type]


DONE = Outcome(State.DONE, "done", 200, None, b'{"ok":true}', "application/json", ("/name",), "digest")


async def accepted(store: Store, effect: Effect = Effect.ONCE, **changes: object) -> NewExchange:
    made = new(effect, **changes)
    assert await store.accept(made) is None
    return made


async def begun(store: Store, exchange: str, lease: float = LEASE) -> Begun:
    got = await store.begin(exchange, lease)
    assert got is not None
    return got


async def unknown(store: Store, effect: Effect = Effect.ONCE) -> tuple[NewExchange, Attempt]:
    made = await accepted(store, effect)
    attempt = (await begun(store, made.id)).attempt
    assert await store.hold(attempt, State.UNKNOWN, "timed_out", entry())
    return made, attempt


async def ids(store: Store, query: Query | None = None) -> list[str]:
    """The ids on the first page of what a query finds."""
    return [one.id for one in (await store.search(query or Query())).exchanges]


async def done(store: Store, effect: Effect = Effect.ONCE, outcome: Outcome = DONE, **changes: object) -> NewExchange:
    """An exchange that was accepted, begun and finished."""
    made = await accepted(store, effect, **changes)
    assert await store.finish((await begun(store, made.id)).attempt, outcome, entry("outcome"))
    return made


async def state_of(store: Store, exchange: str) -> State:
    found = await store.exchange(exchange)
    assert found is not None
    return found.state


def files(folder: Path) -> bytes:
    """Every byte of every file in a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file())
