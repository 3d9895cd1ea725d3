"""How much of the floor's speed the bus keeps: synchronous exchanges a second, for a read and for a write.

The node as ``gsb serve`` runs it and the floor (``gsb.bench.floor``) take turns under the same load, and medians over
the pairs are compared, so that what else the machine does falls on both.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from gsb.bench.place import READ, WRITE, Place
from gsb.bench.served import Server, Turn, on_disk, servers

LEAST = 0.8
"""The ratio under which the bus is too slow."""
WARM_UP = 1.0
"""Seconds of a turn that is not counted."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How often and how long is measured. ``seconds`` is one turn of one server."""

    pairs: int
    in_flight: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Compared:
    """One service: the turns of both, pair by pair."""

    service: str
    bus: Sequence[Turn]
    floor: Sequence[Turn]

    @property
    def ratio(self) -> float:
        return median(ours.rate / theirs.rate for ours, theirs in zip(self.bus, self.floor, strict=True))

    def __str__(self) -> str:
        """One row of the table."""

        def both(name: str, scale: float) -> tuple[float, float]:
            ours, theirs = (median(getattr(turn, name) for turn in turns) for turns in (self.bus, self.floor))
            return ours * scale, theirs * scale

        (bus, floor), work, slow = both("rate", 1), both("processor", 1e6), both("p99", 1e3)
        return (
            f"{self.service:16}{bus:>8,.0f}/s{floor:>8,.0f}/s{self.ratio:>8.2f}"
            f"{work[0]:>12,.0f} : {work[1]:>5,.0f} us{slow[0]:>10,.0f} : {slow[1]:>4,.0f} ms"
        )


async def main(folder: Path | None, plan: Plan) -> int:
    """Compare and print. 0: good; 1: a ratio is under 0.8; 2: it cannot be measured here."""
    if (place := on_disk(folder)) is None or not has_a_floor():
        return 2
    async with servers(place) as ours:
        node, floor = await ours.node(), await ours.floor()
        results = [await compare(ours.place, service, node, floor, plan) for service in (READ, WRITE)]
    print(f"{plan.in_flight} calls in flight, 2 KB each way, medians of {plan.pairs} pairs of {plan.seconds:g} s")
    print(f"{'':16}{'bus':>10}{'floor':>10}{'ratio':>8}{'processor for one':>23}{'p99':>20}")
    for each in results:
        print(each)
    print(f"{'at least':>36}{LEAST:>8.2f}")
    return 0 if all(each.ratio >= LEAST for each in results) else 1


async def compare(place: Place, service: str, node: Server, floor: Server, plan: Plan) -> Compared:
    """Turns of both after one of each to warm up; who begins a pair alternates."""
    for server in (node, floor):
        await server.turn(place, service, plan.in_flight, WARM_UP)
    bus: list[Turn] = []
    bare: list[Turn] = []
    for number in range(plan.pairs):
        both = [(node, bus), (floor, bare)]
        for server, turns in both if number % 2 else reversed(both):
            turns.append(await server.turn(place, service, plan.in_flight, plan.seconds))
    return Compared(service, bus, bare)


def has_a_floor() -> bool:
    """Whether the floor can run; says what it lacks."""
    if find_spec("jwt") is None:
        print(
            "the floor signs with PyJWT, which is not installed: install the bus with the extra bench", file=sys.stderr
        )
        return False
    return True


async def floor_alone(folder: Path | None, plan: Plan) -> int:
    """Print what the floor does. 0, or 2 when it cannot be measured here."""
    if (place := on_disk(folder)) is None or not has_a_floor():
        return 2
    async with servers(place) as ours:
        floor = await ours.floor()
        for service in (READ, WRITE):
            await floor.turn(ours.place, service, plan.in_flight, WARM_UP)
            turns = [await floor.turn(ours.place, service, plan.in_flight, plan.seconds) for _ in range(plan.pairs)]
            rate, used = (median(getattr(turn, name) for turn in turns) for name in ("rate", "processor"))
            print(f"{service:16}{rate:>8,.0f}/s{used * 1e6:>8,.0f} us of processor for one")
    return 0


async def profile(folder: Path | None, plan: Plan) -> int:
    """Print where the time of an exchange goes. 0, or 2 when the folder is not on a disk."""
    if (place := on_disk(folder)) is None:
        return 2
    for service in (READ, WRITE):
        async with servers(place) as ours:
            node = await ours.start("steps", ours.place.url, "-m", "gsb.bench.steps", str(ours.place.folder))
            turn = await node.turn(ours.place, service, plan.in_flight, plan.seconds)
            await node.stop()
            print(f"{service}: {turn.rate:,.0f}/s with {plan.in_flight} in flight, itself slowed by being watched")
            print(node.said.read_text("utf-8"))
    return 0
