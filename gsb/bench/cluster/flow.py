"""Asynchronous exchanges through the bus of a cluster: so many are handed in at once, and carried out by workers.

Every call is signed before the clock runs, since whoever signs is not to be measured; it runs from the first call until
nothing is unfinished in the store. Another answer than 202 ends the run.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import asyncpg

from gsb.bench.cluster.ground import Ground
from gsb.bench.load import NOT_WAITED_FOR, Target, load
from gsb.bench.place import WRITE
from gsb.bench.served import Server

LOOK = 0.01
"""Seconds between two looks whether all is done."""
ENDS_WITHIN = 300.0
_UNFINISHED = "SELECT count(*) FROM exchange WHERE state <> 'done'"
_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'gsb/% ' || $1"


@dataclass(frozen=True, slots=True)
class Prepared(Target):
    """Calls that are signed already; the last of them ends the run."""

    calls: list[tuple[str, bytes]] = field(default_factory=list)

    def request(self) -> tuple[str, bytes]:
        return self.calls.pop()


@dataclass(frozen=True, slots=True)
class Flowed:
    """One turn."""

    accepted: float
    """Exchanges a second, until the last was answered with 202."""
    rate: float
    """Exchanges a second, until the last was done."""
    sessions: int
    """Connections to PostgreSQL that the bus had."""


async def flow(made: Ground, db: asyncpg.Connection, exchanges: int, in_flight: int) -> Flowed:
    """Hand them in. Raises AnswerWrong, TimeoutError, OSError."""
    ready = _prepared(made, exchanges)
    began = time.perf_counter()
    await _hand_in(ready, in_flight)
    accepted = time.perf_counter() - began
    await _until_done(db)
    taken = time.perf_counter() - began
    return Flowed(exchanges / accepted, exchanges / taken, await db.fetchval(_SESSIONS, made.name))


async def drain(
    made: Ground, db: asyncpg.Connection, workers: Sequence[Server], exchanges: int, in_flight: int
) -> float:
    """Exchanges a second that these workers carry out: they are halted while they are handed in."""
    ready = _prepared(made, exchanges)
    for worker in workers:
        worker.send(signal.SIGSTOP)
    try:
        await _hand_in(ready, in_flight)
    finally:
        for worker in workers:
            worker.send(signal.SIGCONT)
    began = time.perf_counter()
    await _until_done(db)
    return exchanges / (time.perf_counter() - began)


def _prepared(made: Ground, exchanges: int) -> Prepared:
    target = Target(made.place, made.place.url, WRITE, status=NOT_WAITED_FOR)
    calls = [target.request() for _ in range(exchanges)]
    return Prepared(made.place, target.url, WRITE, status=NOT_WAITED_FOR, calls=calls)


async def _hand_in(ready: Prepared, in_flight: int) -> None:
    # Each connection sends one call more when enough are answered.
    await load(ready, in_flight=in_flight, seconds=ENDS_WITHIN, most=len(ready.calls) - in_flight)


async def _until_done(db: asyncpg.Connection) -> None:
    async with asyncio.timeout(ENDS_WITHIN):
        while True:
            if not await db.fetchval(_UNFINISHED):
                break
            await asyncio.sleep(LOOK)
