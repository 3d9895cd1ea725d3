"""What a slow or dead core system costs another's exchanges: the other's p99 with and without, interleaved in one run.

The same agency calls both, so that nothing but what stands between systems keeps them apart: its own workers, places,
time-out and circuit breaker for each. Callers of the bad system come back as soon as they are answered.
"""

from __future__ import annotations

from pathlib import Path

from gsb.bench.crowd.fairness import HEAD, Plan, compare
from gsb.bench.crowd.place import DEAD, QUICK, SLOW, TAKES, TIMEOUT, WAIT, add_neighbours
from gsb.bench.served import on_disk, servers

MOST = 1.5
"""The ratio above which one system pays for another."""


async def main(folder: Path | None, plan: Plan) -> int:
    """Compare and print. 0: good; 1: a ratio is above 1.5; 2: the folder is not on a disk."""
    if (place := on_disk(folder)) is None:
        return 2
    async with servers(place) as ours:
        add_neighbours(ours.place)
        await ours.node()
        results = {bad: await compare(ours.place, QUICK, bad, plan, same=True) for bad in (SLOW, DEAD)}
    print(
        f"medians of {plan.pairs} pairs of {plan.seconds:g} s; p99 of {QUICK} alone and while {plan.connections} more"
    )
    print(
        f"connections call a system that takes {TAKES[SLOW]:g} s, or never answers within its time-out of {TIMEOUT:g} s"
    )
    print(f"(callers of the dead one are told 202 after {WAIT:g} s)")
    print(HEAD)
    for bad, each in results.items():
        print(f"{each!s} {bad}")
    print(f"{'at most':>61}{MOST:>8.2f}")
    return 0 if all(each.ratio <= MOST for each in results.values()) else 1
