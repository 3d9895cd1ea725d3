"""A real node that dies at a chosen moment, or that was built wrongly on purpose.

    python -m tests.kills.node DIR [--crash accept.after:7] [--sabotage reservation] [--checkpoint BYTES]

The store is wrapped, the node is not changed. ``--crash VERB.MOMENT:N`` sends SIGKILL to this very process at the
N-th call of a verb of the store: ``before`` it, ``during`` its commit, or ``after`` it is durable and before anybody
is told. It waits for SIGUSR1 first, and then until enough exchanges of this process are unfinished.

``--sabotage`` takes a promise away: ``reservation`` (a key belongs to nobody), ``lease`` (``begin`` grants to
everybody, always), ``off`` or ``normal`` (SQLite's ``synchronous`` is that and not FULL). The tests must notice each.

``--checkpoint`` says after how many bytes the store carries its journal over: few, so that deaths meet it (else no life
is long enough), or more than a life writes.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import uvloop

from gsb.catalogue import Catalogue
from gsb.foundation import store_of
from gsb.metrics import Metrics
from gsb.node import Node, run
from gsb.store.contract import Begun, NewExchange, Reservation, Store
from gsb.store.sqlite import rows as sqlite_rows
from gsb.store.sqlite import writer as sqlite_writer
from gsb.telemetry import log_to_stderr

CROWD = 16
"""Exchanges that must be in flight when the node dies."""
GROUP = 8
"""Exchanges that a commit may be ending at the moment of the death: so many more are waited for."""
VERBS = ("accept", "begin", "finish", "postpone", "hold", "resolve", "sequence", "publish")
MOMENTS = ("before", "during", "after")


class Wrapped:
    """A store that does what another one does."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._store, verb)


class Crashing(Wrapped):
    """Ends this process at the chosen call."""

    def __init__(self, store: Store, point: str) -> None:
        super().__init__(store)
        self._point, _, count = point.partition(":")
        self._left = int(count)
        self._open: set[str] = set()
        """Accepted by this process, for good, and unfinished as far as it knows."""
        self._armed = False
        signal.signal(signal.SIGUSR1, self._arm)

    def _arm(self, *_: object) -> None:
        self._armed = True

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._store, verb)
        return self._watched(verb, call) if verb in VERBS else call

    def _watched(self, verb: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def watched(*args: Any, **named: Any) -> Any:
            self._moment(f"{verb}.before")
            work = asyncio.ensure_future(call(*args, **named))
            if self._point == f"{verb}.during":
                await asyncio.sleep(0)  # now the call is with the writer's thread
                self._moment(f"{verb}.during")
            answer = await work
            self._moment(f"{verb}.after")
            self._count(verb, args[0], answer)
            return answer

        return watched

    def _count(self, verb: str, subject: Any, answer: Any) -> None:
        if verb == "accept" and answer is None:
            self._open.add(subject.id)
        elif verb in ("finish", "hold") and answer:
            self._open.discard(subject.exchange)

    def _moment(self, moment: str) -> None:
        if moment != self._point or not self._armed or len(self._open) < CROWD + GROUP:
            return
        self._left -= 1
        if self._left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


class WithoutReservation(Wrapped):
    """Nobody remembers keys, so a repeat is a new exchange."""

    async def look(self, issuer: str, jti: str, key: str | None) -> Reservation | None:
        return await self._store.look(issuer, jti, None)

    async def accept(self, new: NewExchange) -> Reservation | None:
        return await self._store.accept(new._replace(key=None))


class WithoutLease(Wrapped):
    """``begin`` leaves the exchange as it was: whoever asks next begins it too."""

    async def begin(self, exchange: str, lease: float) -> Begun | None:
        begun = await self._store.begin(exchange, lease)
        if begun is not None and begun.task == "run":
            await self._store.postpone(begun.attempt, 0.0, "sabotage", sent=False)
        return begun


SYNCHRONOUS = {"off", "normal"}
SABOTAGE = ("reservation", "lease", *sorted(SYNCHRONOUS))


def _synchronise(how: str) -> None:
    """From now on the store's connections have this ``synchronous``."""
    connect = sqlite_rows.connect

    def careless(path: Path, *, writes: bool) -> sqlite3.Connection:
        db = connect(path, writes=writes)
        db.execute(f"PRAGMA synchronous={how}")
        return db

    sqlite_rows.connect = careless


def make_store(catalogue: Catalogue, crash: str | None, sabotage: str | None) -> Store:
    if sabotage in SYNCHRONOUS:
        _synchronise(sabotage)
    wrapped: Any = store_of(catalogue, Metrics())
    if sabotage == "reservation":
        wrapped = WithoutReservation(wrapped)
    if sabotage == "lease":
        wrapped = WithoutLease(wrapped)
    if crash is not None:
        wrapped = Crashing(wrapped, crash)
    return cast(Store, wrapped)


async def _serve(folder: Path, crash: str | None, sabotage: str | None) -> bool:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    node = Node(folder, make_store=lambda catalogue: make_store(catalogue, crash, sabotage))
    return await run(node, told.wait())


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--crash")
    parser.add_argument("--sabotage", choices=SABOTAGE)
    parser.add_argument("--checkpoint", type=int)
    given = parser.parse_args()
    if given.checkpoint is not None:
        sqlite_writer.CHECKPOINT = given.checkpoint
    log_to_stderr(logging.INFO)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return 0 if runner.run(_serve(given.folder, given.crash, given.sabotage)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
