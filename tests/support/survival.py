"""Shows that an adapter survives its real system being slowed, cut off, killed, stopped and started again, at work.

    async with real("kinto", tmp_path) as system:
        asks = [Ask("registry/register-business/v1", {"brn": f"BRN-{number:06}", ...}) for number in range(ENOUGH)]
        told = await survives(tmp_path, system, "registry", asks, count_effects)

It takes the system ``registry`` and its services as ``config/government`` has them, puts a TCP proxy between the
adapter and the real system, and runs a node of its own (``gsb serve``) with one agency that calls the services in the
order of ``asks``. Then, with exchanges in the middle each time: the way is slowed; the connection is cut; the system is
killed with SIGKILL; it is stopped in order. After each of the last three it stays away until the circuit breaker has
opened, comes back at the same place and with the same data, and the breaker must close.

What is asserted, of every exchange that was begun:

- it is not lost: it ends, and as ``done`` or ``refused``, or as an operator says who looked into the system;
- it has one outcome: asking again with the same idempotency key gets the same state, effect and entry of the log;
- it has no double effect: ``count_effects(exchange, body)`` counts in the real system, beside the adapter, how often
  this exchange took effect there (its id is what the adapter hands over as the reference); that is once if it is
  ``done``, and never if it is not. For services without effect leave it out.

An ``unknown`` exchange that took effect must be ended by the adapter's ``find``, if it has one; without one, and where
nothing took effect, an operator of the test looks, as ``count_effects`` does, and says how it ended.

Schemas, settings and time-out are those of the deployment, where ``127.0.0.1:PORT`` (and a bare ``PORT``) of ``make
systems`` becomes the proxy's and ``../../var/systems/`` the folder of ``system``; ``settings`` replaces single ones of
``[settings]``, and in its strings ``{port}`` is the proxy's. It takes ten to thirty seconds, mostly for the system's
starts. A crash of a test leaves nothing: all processes are stopped by whoever started them.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
import tomllib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from config.systems.running import Copy
from gsb.client import BusProblem, Client, Result
from gsb.installed import installed, load_adapter
from gsb.sdk import Adapter
from tests.cluster.proxy import Wire, network
from tests.support.deployment import Deployment
from tests.support.node import RunningNode, running_node

ROOT = Path(__file__).parents[2]
GOVERNMENT = ROOT / "config" / "government"
BATCH = 5
"""Exchanges begun before a fault, so that some are in the middle; as many while it lasts, and again as many after."""
ENOUGH = 2 * BATCH + 3 * 3 * BATCH
"""Requests that ``survives`` takes from ``asks``."""
DELAY = 0.1
"""Seconds by which a slow way delays each piece of a stream."""
WITHIN = 300.0
"""Seconds in which everything that is waited for must come, on a machine that is busy with other things."""
PATIENCE = 900.0
"""Seconds for which a call is followed: what an operator ends, he ends after everything has happened."""
LOOK = 0.1
LOOKS = 30
"""Looks into the system until it is sure that nothing happened there: of a call that was given up on a slow machine the
effect may still come."""
FOUND_WITHIN = 200.0
"""Seconds that ``find`` has: it is asked by gaps of 2, 4, 8 ... seconds, of which one can become as long as everything
that the system was away before."""
PURPOSE = "survival"
OF_THE_BUS = {"agencies", "agreements", "keys", "operators", "services", "systems"}

CountEffects = Callable[[str, Any], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: the service's id and the body."""

    service: str
    body: Any


@dataclass(frozen=True, slots=True)
class Told:
    """What came out: how many exchanges ended in which state, and who ended those that were unknown."""

    states: Counter[str]
    found: int
    resolved: int


@dataclass(slots=True)
class Begun:
    """One exchange, from the first call to its end."""

    key: str
    ask: Ask
    exchange: str = ""
    """Its id, once the bus has accepted it."""
    result: Result | None = None


@dataclass(slots=True)
class Stream:
    """An agency that begins exchanges and follows each to its end."""

    client: Client
    asks: Iterator[Ask]
    begun: list[Begun] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self, count: int) -> list[asyncio.Task[None]]:
        for _ in range(count):
            self.begun.append(Begun(f"survival-{len(self.begun)}", next(self.asks)))
            self.tasks.append(asyncio.create_task(self._follow(self.begun[-1])))
        return self.tasks[-count:]

    async def _follow(self, each: Begun) -> None:
        accepted = await self.call(each, respond_async=True)
        assert accepted.exchange is not None
        each.exchange = accepted.exchange
        each.result = accepted if accepted.final else await _ending(self.client.follow(each.exchange, timeout=PATIENCE))

    async def call(self, each: Begun, **how: Any) -> Result:
        """Begin it, or get what became of it."""
        said: dict[str, Any] = {"purpose": PURPOSE, "idempotency_key": each.key, "timeout": PATIENCE, **how}
        return await _ending(self.client.call(each.ask.service, each.ask.body, **said))

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def _ending(work: Awaitable[Result]) -> Result:
    """An outcome is one even if it is a problem."""
    try:
        return await work
    except BusProblem as problem:
        if not problem.result.final:
            raise
        return problem.result


async def survives(
    folder: Path,
    system: Copy,
    core: str,
    asks: Iterable[Ask],
    count_effects: CountEffects | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    finds: bool | None = None,
) -> Told:
    """See above. ``core`` is a system of ``config/government``; ``asks`` holds at least ``ENOUGH``, each of which the
    system accepts, and for writes each with an effect of its own. ``finds`` says whether the adapter finds what took
    effect in these services; None: if it has a ``find`` at all."""
    with network() as net:
        wire = net.wire((system.host, system.port))
        deployment = behind(folder / "survival", system, core, wire.port, settings or {})
        async with running_node(folder, deployment) as node, node.client(pause=briefly) as client:
            stream = Stream(client, iter(asks))
            try:
                able = has_find(deployment, core) if finds is None else finds
                operator = Operator(node, stream, count_effects, able)
                await through_it_all(stream, operator, system, wire, Breaker(node, core))
                return await judged(stream, operator)
            finally:
                await stream.stop()


async def briefly(seconds: float) -> None:
    """A bus asks whoever waits for an unknown outcome to come again in a minute; the operator here is faster."""
    await asyncio.sleep(min(seconds, 1.0))


def behind(root: Path, system: Copy, core: str, port: int, settings: Mapping[str, Any]) -> Deployment:
    """The core's part of ``config/government``, with the system behind ``port`` and one agency that may call it all."""
    deployment = Deployment(root)
    deployment.gsb["schemas"] = str(ROOT / "schemas")
    laid = f"{system.place.folder.parent}/"

    def read(path: Path) -> dict[str, Any]:
        text = path.read_text("utf-8").replace("../../var/systems/", laid).replace('"../../', f'"{ROOT}/')
        return tomllib.loads(re.sub(rf"\b{system.system.port}\b", str(port), text))

    given = {name: value.format(port=port) if isinstance(value, str) else value for name, value in settings.items()}
    table = read(GOVERNMENT / f"systems/{core}.toml")
    table["settings"] = table.get("settings", {}) | given
    deployment.agency(table["agency"])
    deployment.gsb["adapters"]["allow"] = [table["adapter"]]
    deployment.files[f"systems/{core}.toml"] = table
    services = {path.relative_to(GOVERNMENT).as_posix(): path for path in GOVERNMENT.glob(f"services/{core}/*/*.toml")}
    deployment.files |= {name: read(path) for name, path in services.items()}
    names = [name.removeprefix("services/").removesuffix(".toml") for name in services]
    grants = [{"service": name, "purpose": PURPOSE, "fields": [""]} for name in names]
    deployment.agreement(PURPOSE, provider=table["agency"], grants=grants)
    for path in GOVERNMENT.iterdir():  # what the adapter's own settings name: mappings, WSDL
        if path.is_dir() and path.name not in OF_THE_BUS:
            shutil.copytree(path, deployment.folder / path.name, dirs_exist_ok=True)
    return deployment


def has_find(deployment: Deployment, core: str) -> bool:
    """Whether its adapter can tell if an exchange took effect."""
    kind = load_adapter(deployment.files[f"systems/{core}.toml"]["adapter"], installed()).kind
    return kind.find is not Adapter.find


async def through_it_all(stream: Stream, operator: Operator, system: Copy, wire: Wire, breaker: Breaker) -> None:
    await operator.ended(stream.begin(BATCH))
    wire.slow(DELAY)
    await operator.ended(stream.begin(BATCH))
    for away, back in ((wire.cut, wire.restore), (system.kill, system.start), (system.stop, system.start)):
        wire.slow(DELAY)
        carried = wire.carried
        stream.begin(BATCH)
        await until(partial(_more, wire, carried), "nothing is asked of the system")
        await _done(away)
        # An answer that is still on its way would come between failures, which then are no longer in a row.
        await until(breaker.is_idle, "calls of a system that is away do not end")
        stream.begin(BATCH)
        await until(breaker.is_open, "the breaker does not open")
        await _done(back)
        wire.restore()
        stream.begin(BATCH)
        await until(breaker.is_closed, "the breaker does not close")
    await operator.ended(stream.tasks)


async def judged(stream: Stream, operator: Operator) -> Told:
    """Raises AssertionError for what must not be."""
    states: Counter[str] = Counter()
    for each in stream.begun:
        result, again = each.result, await stream.call(each)
        assert result is not None
        assert _outcome(again) == _outcome(result), f"{each.ask} has two outcomes"
        states[str(result.state)] += 1
        count = await operator.count(each)
        assert count == int(result.effect == "done"), f"{each} took effect {count} times"
    assert set(states) <= {"done", "refused", "failed"}, states
    assert states["failed"] <= operator.resolved, states
    return Told(states, operator.found, operator.resolved)


def _outcome(result: Result) -> tuple[str | None, ...]:
    return result.exchange, result.state, result.effect, result.entry


@dataclass(slots=True)
class Operator:
    """Ends what stays unknown, having looked into the system."""

    node: RunningNode
    stream: Stream
    count_effects: CountEffects | None
    finds: bool
    unknown: set[str] = field(default_factory=set)
    looks: Counter[str] = field(default_factory=Counter)
    """By exchange, how often the system was looked into."""
    resolved: int = 0

    @property
    def found(self) -> int:
        """Exchanges that were unknown, and that the bus ended by itself."""
        return len(self.unknown) - self.resolved

    async def count(self, each: Begun) -> int:
        return 0 if self.count_effects is None else await self.count_effects(each.exchange, each.ask.body)

    async def ended(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Wait until these exchanges have their outcomes, which takes the operator where they are unknown."""
        began = time.monotonic()
        async with self.node.operator() as client:
            while not all(task.done() and task.result() is None for task in tasks):
                assert time.monotonic() - began < WITHIN, "some exchanges do not end"
                assert not await self._standing(client, "held"), "an exchange is held, though its system is well"
                unknown = await self._standing(client, "unknown")
                for each in [each for each in self.stream.begun if each.exchange in unknown]:
                    await self._end(client, each, time.monotonic() - began)
                await asyncio.sleep(LOOK)

    async def _standing(self, client: Client, state: str) -> set[str]:
        query = urlencode({"reason": "what stands still", "state": state, "limit": 500})
        found = (await client.admin("GET", f"/admin/exchanges?{query}", timeout=WITHIN)).body["exchanges"]
        return {each["exchange"] for each in found}

    async def _end(self, client: Client, each: Begun, waited: float) -> None:
        self.unknown.add(each.exchange)
        self.looks[each.exchange] += 1
        happened = await self.count(each) > 0
        if happened and self.finds:
            assert waited < FOUND_WITHIN, f"find does not find {each}, which took effect"
            return
        if not happened and self.looks[each.exchange] < LOOKS:
            return
        end = {"state": "done", "effect": "done"} if happened else {"state": "failed", "effect": "none"}
        path = f"/admin/exchanges/{each.exchange}/resolve"
        try:
            await client.admin("POST", path, {"reason": "looked into the system", **end}, timeout=WITHIN)
        except BusProblem as problem:
            if problem.code != "state_conflict":  # the bus was faster
                raise
            return
        self.resolved += 1


@dataclass(frozen=True, slots=True)
class Breaker:
    """The circuit breaker of a system, as the node's metrics show it."""

    node: RunningNode
    core: str

    async def is_open(self) -> bool:
        """Or half open: it closes only after an answer of the system."""
        return not await self.is_closed()

    async def is_closed(self) -> bool:
        return await self._shown(f'gsb_breaker_state{{state="closed",system="{self.core}"}}') == [1.0]

    async def is_idle(self) -> bool:
        """Whether the node performs nothing now: the core is its only system."""
        return not any(await self._shown("gsb_exchanges_performing{"))

    async def _shown(self, name: str) -> list[float]:
        """The values of the metrics whose names and labels begin so."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.node.operations_url}/metrics") as answer:
            text = await answer.text()
        found = [float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)]
        assert found, f"the node shows no {name}"
        return found


async def _more(wire: Wire, carried: int) -> bool:
    return wire.carried > carried


async def _done(act: Callable[[], Awaitable[None] | None]) -> None:
    if (awaited := act()) is not None:
        await awaited


async def until(holds: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    """Raises AssertionError with ``otherwise`` if it does not come in time."""
    end = time.monotonic() + WITHIN
    while not await holds():
        assert time.monotonic() < end, otherwise
        await asyncio.sleep(LOOK)
