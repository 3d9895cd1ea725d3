"""What a flooding agency costs another: the other's p99 with and without the flood, interleaved in one run.

The flood never pauses and is told nothing but to wait; the other calls steadily. A pair is one turn without and one
with the flood, and who begins alternates. What else the machine does spoils a p99 now and then, in one turn of many:
so the medians of the turns' p99 are compared, of which nearly half may be spoilt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from gsb.bench.crowd.flood import flooding
from gsb.bench.crowd.place import QUICK, add_neighbours
from gsb.bench.load import Target, load
from gsb.bench.place import READ, Place
from gsb.bench.served import on_disk, servers

MOST = 1.10
"""The ratio above which one agency pays for another."""
CALLERS = 4
"""Connections of the agency that is measured."""
WARM_UP = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How often and how long is measured. ``seconds`` is one turn."""

    pairs: int
    connections: int
    """Of the flood."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Turn:
    """Seconds of the middle and of the slowest hundredth, and how many calls there were."""

    p50: float
    p99: float
    calls: int


@dataclass(frozen=True, slots=True)
class Compared:
    """One service: the turns of the measured agency, pair by pair, and the flood's answers a second."""

    service: str
    alone: Sequence[Turn]
    disturbed: Sequence[Turn]
    floods: Sequence[float]

    @property
    def ratio(self) -> float:
        return median(turn.p99 for turn in self.disturbed) / median(turn.p99 for turn in self.alone)

    def __str__(self) -> str:
        """One row of the table."""
        before, after = (
            [1e3 * median(getattr(turn, name) for turn in turns) for name in ("p50", "p99")]
            for turns in (self.alone, self.disturbed)
        )
        return (
            f"{self.service:16}{before[0]:>8.1f}{before[1]:>8.1f} ms{after[0]:>10.1f}{after[1]:>8.1f} ms"
            f"{self.ratio:>8.2f}{median(self.floods):>10,.0f}/s"
        )


HEAD = f"{'':16}{'p50':>8}{'p99':>8}   {'p50':>10}{'p99':>8}   {'ratio':>8}{'the flood':>12}"


async def main(folder: Path | None, plan: Plan) -> int:
    """Compare and print. 0: good; 1: a ratio is above 1.10; 2: the folder is not on a disk."""
    if (place := on_disk(folder)) is None:
        return 2
    async with servers(place) as ours:
        add_neighbours(ours.place)
        await ours.node()
        results = [await compare(ours.place, service, READ, plan) for service in (QUICK, READ)]
    calls = round(median(turn.calls for each in results for turn in (*each.alone, *each.disturbed)))
    print(
        f"medians of {plan.pairs} pairs of {plan.seconds:g} s, about {calls} calls in each; p99 alone and while another"
    )
    print(f"agency floods {READ} over {plan.connections} connections")
    print(HEAD)
    for each in results:
        print(each)
    print(f"{'at most, for the system that answers in 20 ms':>61}{MOST:>8.2f}")
    return 0 if results[0].ratio <= MOST else 1


async def compare(place: Place, service: str, flooded: str, plan: Plan, *, same: bool = False) -> Compared:
    """Pairs of turns of calls to ``service``, after one to warm up. ``same``: the flood is the same agency's."""
    target = Target(place, place.url, service)
    alone: list[Turn] = []
    disturbed: list[Turn] = []
    floods: list[float] = []
    await turn(target, WARM_UP)
    for number in range(plan.pairs):
        if number % 2:
            alone.append(await turn(target, plan.seconds))
        async with flooding(place, flooded, plan.connections, plan.seconds, same=same) as flood:
            disturbed.append(await turn(target, plan.seconds))
        floods.append(flood.rate)
        if not number % 2:
            alone.append(await turn(target, plan.seconds))
    return Compared(service, alone, disturbed, floods)


async def turn(target: Target, seconds: float) -> Turn:
    counted = await load(target, in_flight=CALLERS, seconds=seconds)
    times = sorted(counted.times)
    return Turn(times[len(times) // 2], times[len(times) * 99 // 100], len(times))
