"""How much of the speed of PostgreSQL and Kafka the bus keeps beyond one machine, and whether more workers do more.

Three bars: asynchronous exchanges a second, against the same rows written by hand (``gsb.bench.cluster.raw``);
the median of a synchronous call, against three commits by hand and there and back over Kafka; and, where there are
cores enough for it, two workers against one. The bus and the bare thing take turns, and medians over the pairs are
compared, so that what else the machine does falls on both.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import asyncpg
from pydantic import ValidationError

from gsb.bench.cluster import latency, raw
from gsb.bench.cluster.flow import Flowed, drain, flow
from gsb.bench.cluster.ground import Ground, Nodes, Servers, ground, servers
from gsb.bench.served import SERVE, on_disk
from gsb.bench.servers.installed import NotInstalled
from gsb.broker.kafka.clients import GONE

LEAST = 0.5
"""Of raw transactions' exchanges a second, what the bus must reach."""
MOST = 3.0
"""Times three commits and a way over Kafka that a synchronous call may take."""
LEAST_OF_TWO = 1.7
"""Times what one worker does that two must do."""
CORES = 4
"""With fewer, two workers would share what one has."""
HALT = 4.0
"""Seconds for which workers may be halted: less than Kafka needs to notice it."""
STEPS = ("-m", "gsb.bench.cluster.steps")
NOT_ITS_OWN = "     0.0       0.0"
"""So ends the line of a step that the node does not take."""
UNREACHABLE = (asyncpg.PostgresError, asyncpg.InterfaceError, *GONE)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. ``exchanges`` is one turn."""

    pairs: int
    exchanges: int
    in_flight: int
    calls: int
    """Synchronous calls of one turn, one after the other."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Pair by pair: the bus and the bare thing."""

    bus: list[float]
    raw: list[float]

    @property
    def ratio(self) -> float:
        return median(ours / theirs for ours, theirs in zip(self.bus, self.raw, strict=True))

    def told(self, title: str, scale: float, unit: str, bar: str) -> str:
        """One row of the table."""
        ours, theirs = (median(each) * scale for each in (self.bus, self.raw))
        return f"{title:28}{ours:>9,.1f}{unit:3}{theirs:>9,.1f}{unit:3}{self.ratio:>8.2f}   {bar}"


async def main(folder: Path | None, dsn: str | None, brokers: str | None, plan: Plan) -> int:
    """Measure and print. 0: good; 1: something is under its bar; 2: it cannot be measured here."""
    if (folder := on_disk(folder or Path(tempfile.gettempdir()))) is None:
        return 2
    try:
        async with servers(dsn, brokers, folder) as at:
            return 0 if await _judged(at, folder, plan) else 1
    except ValidationError as error:
        print(f"--kafka {brokers}: {error.errors()[0]['msg']}", file=sys.stderr)
    except (NotInstalled, RuntimeError, *UNREACHABLE) as error:
        # Of what a server or a node said last, the last line tells why it ended.
        said = str(error).strip().splitlines() or [repr(error)]
        print(f"it cannot be measured here: {said[-1]}", file=sys.stderr)
    return 2


async def _judged(at: Servers, folder: Path, plan: Plan) -> bool:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    print(f"{cores} cores; {plan.exchanges} writes of 2 KB each way a turn, {plan.in_flight} in flight", flush=True)
    async with ground(at, folder, 1) as made:
        rate, grouped, took, flowed = await _against_raw(made, plan)
    print(f"{'':28}{'bus':>10}{'by hand':>13}{'ratio':>9}")
    print(rate.told("asynchronous exchanges", 1, "/s", f"at least {LEAST}"))
    print(grouped.told("the same, by hand in groups", 1, "/s", "not judged"))
    print(took.told("one synchronous, p50", 1000, "ms", f"at most {MOST:g}"))
    print(
        f"accepted {median(each.accepted for each in flowed):,.0f}/s; {flowed[-1].sessions} connections each",
        flush=True,
    )
    async with ground(at, folder, 1) as made:
        await _steps(made, plan)
    good = rate.ratio >= LEAST and took.ratio <= MOST
    return await _two_workers(at, folder, plan, cores) and good


async def _against_raw(made: Ground, plan: Plan) -> tuple[Compared, Compared, Compared, list[Flowed]]:
    """A gateway, a worker, a recorder; their first turn, which fills caches and gives the rows, does not count. Calls
    one after the other come first: what the server tidies up after thousands at once would stand in their way."""
    rates, times, flowed = Compared([], []), Compared([], []), list[Flowed]()
    grouped = Compared(rates.bus, [])
    async with AsyncExitStack() as stack:
        await _start(made, stack, SERVE, workers=1)
        way = await stack.enter_async_context(latency.way(made))
        db = await made.connect()
        stack.push_async_callback(db.close)
        await latency.synchronous(made, plan.calls)
        await way.there_and_back(plan.calls)
        known = (await raw.read(db))[: plan.calls]
        for turn in range(plan.pairs):
            times.bus.append(await latency.synchronous(made, plan.calls))
            await raw.make(made, schema := f"{made.name}_one_{turn}")
            times.raw.append(await latency.commits(made, schema, known) + await way.there_and_back(plan.calls))
        await flow(made, db, plan.exchanges, plan.in_flight)
        known = (await raw.read(db))[: plan.exchanges]
        for turn in range(plan.pairs):
            flowed.append(await flow(made, db, plan.exchanges, plan.in_flight))
            rates.bus.append(flowed[-1].rate)
            await raw.make(made, schema := f"{made.name}_{turn}")
            rates.raw.append(await raw.write(made, schema, known, plan.in_flight, 1))
            await raw.make(made, schema := f"{made.name}_grouped_{turn}")
            sessions = flowed[-1].sessions
            grouped.raw.append(await raw.write(made, schema, known, sessions, max(1, plan.in_flight // sessions)))
    return rates, grouped, times, flowed


async def _start(made: Ground, stack: AsyncExitStack, module: tuple[str, ...], workers: int) -> Sequence[Path]:
    """The nodes; where each writes what it prints."""
    nodes = Nodes(made, stack, module)
    started = [await nodes.start("recorder"), await nodes.start("gateway", made.place.url)]
    started += [await nodes.start("worker") for _ in range(workers)]
    return [node.said for node in started[1:]]


async def _steps(made: Ground, plan: Plan) -> None:
    """Print what each step costs, in nodes with stop-watches."""
    async with AsyncExitStack() as stack:
        db = await made.connect()
        stack.push_async_callback(db.close)
        async with AsyncExitStack() as running:
            said = await _start(made, running, STEPS, workers=1)
            await flow(made, db, plan.exchanges, plan.in_flight)
        for role, path in zip(("gateway", "worker"), said, strict=True):
            print(f"\nthe {role}, slowed by being watched")
            lines = path.read_text("utf-8").splitlines()
            print("\n".join(line for line in lines if not line.endswith(NOT_ITS_OWN)))


async def _two_workers(at: Servers, folder: Path, plan: Plan, cores: int) -> bool:
    """Whether two workers do so much more than one, where that can be told."""
    if cores < CORES:
        print(f"\ntwo workers against one: not judged, since that takes {CORES} cores")
        return True
    async with ground(at, folder, 1) as made:
        pairs = [(await _drained(made, plan, 2), await _drained(made, plan, 1)) for _ in range(plan.pairs)]
    compared = Compared([two for two, _ in pairs], [one for _, one in pairs])
    print(f"\n{'':26}{'two':>10}{'one':>13}{'ratio':>9}")
    print(compared.told("what workers do", 1, "/s", f"at least {LEAST_OF_TWO}"))
    return compared.ratio >= LEAST_OF_TWO


async def _drained(made: Ground, plan: Plan, workers: int) -> float:
    """Exchanges a second that so many workers carry out, which all wait when they begin."""
    async with AsyncExitStack() as stack:
        db = await made.connect()
        stack.push_async_callback(db.close)
        nodes = Nodes(made, stack, SERVE)
        await nodes.start("recorder")
        await nodes.start("gateway", made.place.url)
        halted = [await nodes.start("worker") for _ in range(workers)]
        first = await flow(made, db, plan.exchanges, plan.in_flight)
        return await drain(made, db, halted, min(plan.exchanges, int(first.accepted * HALT)), plan.in_flight)
