"""Whether the bus needs more memory the longer it runs: a node's resident memory after a tenth of many exchanges, and
after all of them.

The node as ``gsb serve`` runs it, under load, reads and writes in turn. The first tenth fills everything that is
bounded: pools, caches, the jtis that are still remembered. What comes on top after that grows with the number of
exchanges, and so has no end. A crash leaves the benchmark's folder behind, with the store of all the exchanges.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from gsb.bench.load import Target, load
from gsb.bench.place import READ, WRITE, Place
from gsb.bench.served import Server, on_disk, servers

MOST = 30.0
"""MiB by which the memory may grow after the first tenth."""
MIB = 1024 * 1024
IN_FLIGHT = 64
LEG = 5.0
"""Seconds of load at most on the same connections; the next leg has new ones and calls the other service."""


@dataclass(frozen=True, slots=True)
class Look:
    """Exchanges so far, and the bytes that are then resident."""

    exchanges: int
    resident: int

    def __str__(self) -> str:
        return f"after {self.exchanges:>9,} exchanges{self.resident / MIB:>9.1f} MiB"


async def main(folder: Path | None, exchanges: int) -> int:
    """Measure and print. 0: good; 1: it grows by more than 30 MiB; 2: no disk, or a system without /proc."""
    if (place := on_disk(folder)) is None or not tells_memory():
        return 2
    async with servers(place) as ours:
        first, last = await grow(await ours.node(), ours.place, exchanges)
    grown = (last.resident - first.resident) / MIB
    print(f"{IN_FLIGHT} calls in flight, 2 KB each way, reads and writes in turn")
    print(f"{first}\n{last}")
    print(f"{'grown by':>25}{grown:>9.1f} MiB, at most {MOST:g}")
    return 0 if grown <= MOST else 1


def tells_memory() -> bool:
    """Whether a process's memory can be looked at here; says so if not."""
    if Path("/proc/self/status").exists():
        return True
    print("the resident memory of a process is read from /proc, which is not there", file=sys.stderr)
    return False


async def grow(node: Server, place: Place, exchanges: int) -> tuple[Look, Look]:
    """The looks at a tenth and at the end; each tenth is told to standard error when it is there."""
    looks: list[Look] = []
    services, done = cycle((READ, WRITE)), 0
    while len(looks) < 10:
        left = exchanges * (len(looks) + 1) // 10 - done
        counted = await load(Target(place, node.url, next(services)), in_flight=IN_FLIGHT, seconds=LEG, most=left)
        done += counted.answers
        if counted.answers == left:
            looks.append(Look(done, node.resident()))
            print(f"{looks[-1]}{counted.rate:>9,.0f}/s", file=sys.stderr)
    return looks[0], looks[-1]
