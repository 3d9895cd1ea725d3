"""The agency whose calls are judged: keeps many in flight, writes down what it was told, and repeats until the end.

It behaves as the wire profile demands of a client: every call has a key of its own, only a signed final state ends it,
and after anything else it is repeated under the same key, across as many deaths of the node as there are.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from gsb.client import BusProblem, Client, OutcomePending, Result
from tests.histories.deployment import PURPOSE, SERVICES

WIDTH = 48
"""Calls in flight that were begun since the node last started. When half of them are unfinished, and half of those are
acknowledged, it may be killed at any moment."""
PATIENCE = 300.0
"""Seconds within which every call must come to its end, restarts included. Of 200 deaths in a row some meet the same
exchange time and again, in one attempt after the other, and each leaves a lease of 28 seconds."""
PAUSE = 0.7
MOVED = ("token_expired", "token_not_yet_valid")
"""What a call is told that was on its way while the clock was set: it is signed anew."""
MOODS = {"fine": 86, "busy": 4, "down": 3, "broken": 3, "refuse": 4}


@dataclass(frozen=True)
class Ended:
    """What the agency was told at the end, signed."""

    state: str
    effect: str
    status: int
    body: Any


@dataclass(eq=False)
class Op:
    """One call of the agency and everything it knows of it: its journal."""

    key: str
    service: str
    body: dict[str, Any]
    life: int
    at_once: bool
    """Asks for 202 instead of waiting for the outcome."""
    exchange: str | None = None
    """Acknowledged: a signed answer named it."""
    ended: Ended | None = None
    failure: str | None = None
    others: set[str] = field(default_factory=set)
    """Further exchanges that the bus named for the same key: there must be none."""

    @property
    def pending(self) -> bool:
        return self.ended is None and self.failure is None

    def told(self, exchange: str | None) -> None:
        if exchange is None:
            return
        if self.exchange is None:
            self.exchange = exchange
        elif exchange != self.exchange:
            self.others.add(exchange)


def ended(result: Result) -> Ended | None:
    """The signed final state in an answer, if there is one."""
    if not result.signed or not result.final:
        return None
    return Ended(str(result.state), str(result.effect), result.status, result.body)


async def ask(client: Client, op: Op, *, at_once: bool) -> Result:
    """One call under the op's key. Problems are answers too; raises the client's other errors."""
    return await answered(
        lambda: client.call(
            f"ledger/{op.service}/v1",
            op.body,
            purpose=PURPOSE,
            idempotency_key=op.key,
            respond_async=at_once,
            timeout=PATIENCE,
        )
    )


async def answered(work: Callable[[], Awaitable[Result]]) -> Result:
    """What the call is told, a problem too."""
    while True:
        try:
            return await work()
        except BusProblem as problem:
            if problem.code not in MOVED:
                return problem.result
        await briefly(PAUSE)


class Load:
    """Begins calls until it is stopped; ``ops`` is its journal."""

    def __init__(self, client: Client, seed: int, width: int = WIDTH) -> None:
        self.ops: list[Op] = []
        self.life = 0
        self.client = client
        self._width = width
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        self._on = False

    def new_life(self) -> None:
        """The node was started again: from now on calls are counted anew, and begun if the load is on."""
        self.life += 1
        self._on = True
        self._fill()

    def stop(self) -> None:
        """Begin no further calls."""
        self._on = False

    @property
    def fresh(self) -> list[Op]:
        """Calls of this life that are in flight: without an end, acknowledged or not."""
        return [op for op in self.ops[-4 * self._width :] if op.life == self.life and op.pending]

    async def full(self) -> None:
        """Wait until so many calls of this life are acknowledged and unfinished that killing is worth it."""
        full = self._width // 2

        def worth_it() -> bool:
            return sum(op.exchange is not None for op in self.fresh) >= full // 2 and len(self.fresh) >= full

        await self.until(worth_it)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until this holds of the calls; it is looked at whenever one was acknowledged or has ended. Raises
        TimeoutError."""
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self._moved.clear()
                await self._moved.wait()

    async def settled(self) -> None:
        """Wait for the end of every call."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        self.stop()
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _fill(self) -> None:
        while self._on and len(self.fresh) < self._width:
            op = self._new()
            self.ops.append(op)
            task = asyncio.create_task(self._pursue(op))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._moved.set()
        if not task.cancelled():
            self._fill()

    def _new(self) -> Op:
        chance = self._random
        key = f"{len(self.ops)}-{chance.getrandbits(32):08x}"
        body = {
            "key": key,
            "delay": chance.randint(200, 1_200),
            "early": chance.random() < 0.5,
            "mood": chance.choices(list(MOODS), list(MOODS.values()))[0],
        }
        return Op(key, chance.choice(list(SERVICES)), body, self.life, chance.random() < 0.6)

    async def _pursue(self, op: Op) -> None:
        """Call, and go on until the end. What cannot be: the bus is reachable and says neither end nor patience."""
        try:
            result = await ask(self.client, op, at_once=op.at_once)
            op.told(result.exchange)
            self._moved.set()
            while (end := ended(result)) is None and result.status == 202 and op.exchange is not None:
                result = await self._follow(op.exchange)
        except OutcomePending as pending:
            op.told(pending.exchange)
            op.failure = str(pending)
        except Exception as error:  # a fault of the client itself must become a finding as well
            op.failure = f"{type(error).__name__}: {error}"
        else:
            op.ended = end
            op.failure = None if end else f"the last word was {result.status} {result.body}"

    async def _follow(self, exchange: str) -> Result:
        return await answered(lambda: self.client.follow(exchange, timeout=PATIENCE))


async def briefly(seconds: float) -> None:
    """The client's pauses, shortened: neither a node that restarts nor an operator is as slow here as in life."""
    await asyncio.sleep(min(seconds, PAUSE))
