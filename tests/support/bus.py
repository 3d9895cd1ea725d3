"""A bus in the test's own process, on a real store, whose clock and worker are the test's hands.

    async with bus_of(standard(tmp_path)) as hands:
        exchange = await hands.accept("registry/note/v1", {...})
        await hands.perform(exchange)

Nothing runs by itself: no worker, no sweeper, no socket. Time stands still until ``hands.clock.now`` is moved.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson

from gsb import jws
from gsb.admit import admit
from gsb.broker.local import LocalBroker
from gsb.bus import Bus
from gsb.catalogue import build
from gsb.model import Answer, Call, Exchange, Reply, Request
from gsb.perform import perform
from gsb.runtime import Runtime
from gsb.store.seal import read_key
from gsb.store.sqlite import SqliteStore
from gsb.sweep import sweep
from tests.support.deployment import BUS, CONSUMER, PERSON, Deployment, standard

NOW = 1_790_000_000.0
_numbers = itertools.count(1)


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Hands:
    bus: Bus
    clock: Clock
    deployment: Deployment
    dispatched: list[str] = field(default_factory=list)

    def call(
        self,
        service: str,
        body: Any,
        *,
        agency: str = CONSUMER,
        key: str | None = None,
        purpose: str | None = "payroll",
        wait: float | None = 0,
        **claims: Any,
    ) -> Call:
        """A signed POST to a service, as the edge would hand it on; ``claims`` go to the signature alone."""
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        target = f"/services/{service}"
        said: dict[str, Any] = {
            "issuer": agency,
            "audience": BUS,
            "method": "POST",
            "target_uri": self.deployment.bus_url + target,
            "body": data,
            "content_type": "application/json",
            "idempotency_key": key,
            "purpose": purpose,
            "now": self.clock.now,
        } | claims
        token = jws.sign_request(self.deployment.key(agency), **said)
        return Call("POST", target, data, self.clock.now, token, "application/json", key, wait)

    async def send(self, service: str, body: Any, **more: Any) -> Answer:
        return await admit(self.bus, self.call(service, body, **more))

    async def accept(self, service: str, body: Any, **more: Any) -> str:
        """The id of an exchange that was accepted and is not performed yet."""
        answer = await self.send(service, body, **({"key": f"key-{next(_numbers)}"} | more))
        assert answer.status == 202, answer.body
        assert answer.exchange is not None
        return answer.exchange.id

    async def perform(self, exchange: str) -> Exchange:
        """Perform it once and say how it stands then."""
        await perform(self.bus, exchange, "registry", (await self.state(exchange)).agency)
        return await self.state(exchange)

    async def state(self, exchange: str) -> Exchange:
        known = await self.bus.store.exchange(exchange)
        assert known is not None
        return known

    async def sweep(self) -> list[str]:
        """One sweep; the ids that it dispatched."""
        self.dispatched.clear()
        await sweep(self.bus)
        return list(self.dispatched)


class RecordingBroker(LocalBroker):
    """The real broker, which also tells the test what was dispatched."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self._seen = seen

    async def dispatch(self, system: str, exchange: str, agency: str) -> None:
        self._seen.append(exchange)
        await super().dispatch(system, exchange, agency)


@asynccontextmanager
async def bus_of(deployment: Deployment) -> AsyncIterator[Hands]:
    folder = deployment.write()
    catalogue = build(folder)
    clock = Clock()
    store = SqliteStore(folder / "store.db", read_key(folder / "store.key"), clock=clock)
    seen: list[str] = []
    bus = Bus(catalogue, store, RecordingBroker(seen), Runtime(clock), clock=clock)
    await store.open()
    await bus.runtime.open(catalogue)
    try:
        yield Hands(bus, clock, deployment, seen)
    finally:
        await bus.runtime.close()
        await store.close()


def entries(hands: Hands) -> list[dict[str, Any]]:
    """Every entry of the store, in the order of commit."""
    with sqlite3.connect(f"file:{hands.deployment.folder / 'store.db'}?mode=ro", uri=True) as database:
        found = [orjson.loads(row[0]) for row in database.execute("SELECT content FROM entry ORDER BY row")]
    database.close()
    return found


# --- a deployment whose core system does what the test says

PERSON_BODY = {"id": "P-0001"}
NOTE = {"id": "P-0001", "text": "moved"}
READ, REPEATABLE, ONCE = "registry/person/v1", "registry/mark/v1", "registry/note/v1"
BODIES: dict[str, dict[str, Any]] = {READ: PERSON_BODY, REPEATABLE: NOTE, ONCE: NOTE}
REPLIES: dict[str, dict[str, Any]] = {READ: PERSON, REPEATABLE: NOTE, ONCE: NOTE}


def puppet_deployment(root: Path, timeout: float = 20.0) -> Deployment:
    """Its core system has so many seconds for each call; few where it is to use them up."""
    deployment = standard(root)
    deployment.files["systems/registry.toml"] |= {"adapter": "puppet", "timeout": timeout}
    deployment.gsb["adapters"]["allow"] = ["puppet"]
    for service in BODIES:
        deployment.files[f"services/{service}.toml"]["settings"] = {}
    return deployment


def puppet() -> Any:
    """The class of the adapter ``puppet``, whose ``acts`` and ``finds`` the test sets."""
    return import_module("gsb_adapter_puppet").Puppet


def raising(error: Exception) -> Callable[[Request], Awaitable[Reply]]:
    async def act(request: Request) -> Reply:
        raise error

    return act


def answering(body: Any, note: str | None = None) -> Callable[[Request], Awaitable[Reply]]:
    async def act(request: Request) -> Reply:
        return Reply(body, note)

    return act


async def hanging(request: Request) -> Reply:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")
