"""``gsb serve`` with a node that was built wrongly on purpose: the tests must notice each.

    python -m tests.cluster.node SABOTAGE DIR [--role ROLE ...]

reservation   nobody remembers keys, so a repeat is a new exchange
lease         ``begin`` grants to everybody, always
retry         what may have acted is tried again instead of being unknown
durability    PostgreSQL is told not to wait for its disk before it acknowledges
order         the recorder believes that entries become visible in the order of their numbers, and passes late ones over
comparison    two recorders are at work, and write their files before the store has compared

With the last two commits take longer, so that entries come late.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

from gsb.cli.main import main
from gsb.duty import Duty
from gsb.evidence.log import CHECKPOINT
from gsb.model import Entry, State
from gsb.record import Recorder
from gsb.store.contract import Attempt, Begun, NewExchange, Reservation
from gsb.store.logs import Unsequenced
from gsb.store.postgres import PostgresStore, batch, log, sessions

COMMIT_TAKES = 0.2
"""Seconds at most."""


def without_reservation() -> None:
    look, accept = PostgresStore.look, PostgresStore.accept

    async def looks(self: PostgresStore, issuer: str, jti: str, key: str | None) -> Reservation | None:
        return await look(self, issuer, jti, None)

    async def accepts(self: PostgresStore, new: NewExchange) -> Reservation | None:
        return await accept(self, new._replace(key=None))

    _replace(PostgresStore, look=looks, accept=accepts)


def without_lease() -> None:
    begin = PostgresStore.begin

    async def begins(self: PostgresStore, exchange: str, lease: float) -> Begun | None:
        begun = await begin(self, exchange, lease)
        if begun is not None and begun.task == "run":
            await self.postpone(begun.attempt, 0.0, "sabotage", sent=False)
        return begun

    _replace(PostgresStore, begin=begins)


def with_retry() -> None:
    hold = PostgresStore.hold

    async def holds(self: PostgresStore, attempt: Attempt, state: Any, reason: str, entry: Entry) -> bool:
        if state is State.UNKNOWN:
            return await self.postpone(attempt, 0.0, reason, sent=False)
        return await hold(self, attempt, state, reason, entry)

    _replace(PostgresStore, hold=holds)


def without_durability() -> None:
    settings = sessions.Sessions._settings

    def careless(self: sessions.Sessions) -> dict[str, Any]:
        made = settings(self)
        made["server_settings"]["synchronous_commit"] = "off"
        return made

    async def refuses(db: object) -> None:
        """Nothing."""

    def nothing_weighs(self: batch.Batch, asks: Sequence[batch.Ask]) -> bool:
        return True

    _replace(batch.Batch, _of_little_weight=nothing_weighs)
    _replace(sessions.Sessions, _settings=careless)
    _replace(sessions, refuse_forgetful=refuses)


def without_order() -> None:
    late = "WHERE entry > (SELECT coalesce(max(entry), 0) FROM placed) AND"
    assert log._NEXT.count("WHERE") == 1
    _replace(log, _NEXT=log._NEXT.replace("WHERE", late))
    with_slow_commits()


def without_comparison() -> None:
    made: list[Recorder] = []
    sequence, init = PostgresStore.sequence, Recorder.__init__

    def inits(self: Recorder, *args: Any, **named: Any) -> None:
        init(self, *args, **named)
        made.append(self)

    async def sequences(self: PostgresStore, given: Unsequenced, checkpoint: bytes) -> None:
        (recorder,) = made
        state = next(state for state in await self.logs() if state.origin == given.origin)
        edge = await recorder._read_edge(state)
        await recorder._write(given.origin, edge.extend(given.contents))
        await recorder._write(given.origin, {CHECKPOINT: checkpoint})
        await sequence(self, given, checkpoint)

    _replace(Recorder, __init__=inits)
    _replace(PostgresStore, sequence=sequences)
    _replace(Duty, fence=lambda self: 1)
    with_slow_commits()


def with_slow_commits() -> None:
    """Entries become visible long after they have got their numbers."""
    write = batch.Batch.write

    async def writes(self: batch.Batch, asks: Sequence[batch.Ask]) -> None:
        await write(self, asks)
        await asyncio.sleep(random.uniform(0.0, COMMIT_TAKES))

    _replace(batch.Batch, write=writes)


def _replace(where: object, **what: object) -> None:
    for name, replacement in what.items():
        assert hasattr(where, name)
        setattr(where, name, replacement)


SABOTAGE: dict[str, Callable[[], None]] = {
    "reservation": without_reservation,
    "lease": without_lease,
    "retry": with_retry,
    "durability": without_durability,
    "order": without_order,
    "comparison": without_comparison,
}

if __name__ == "__main__":
    SABOTAGE[sys.argv.pop(1)]()
    sys.argv.insert(1, "serve")
    main()
