"""How long a receipt takes, in logs of four sizes, each ten times the one before and its continuation.

It is made as the API makes it once it knows the entry's place: in a thread, from the tiles on disk, and proved before
it is handed out. Which entries are asked for is left to chance. The log has tiles alone: no receipt reads bundles.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from statistics import median, quantiles

from gsb.bench.evidence.made import MadeLog, Told, bus_in, content
from gsb.bus import Bus
from gsb.evidence.checkpoint import Signer
from gsb.evidence.merkle import leaf_hash
from gsb.evidence.verify import verify_receipt
from gsb.model import Entry
from gsb.store.logs import Entered, LogState
from gsb.web.receipts import make_receipt

DECADES = 4


@dataclass(frozen=True, slots=True)
class Point:
    """Seconds for a receipt in a log of this size."""

    size: int
    median: float
    p99: float


async def receipts(root: Path, largest: int, times: int, told: Told) -> list[Point]:
    """The curve, the largest log last, so many receipts in each. Raises LogWrong if one does not prove its entry."""
    curve = []
    async with bus_in(root) as bus:
        origin = bus.catalogue.gsb.log_origin + "/2026"
        signer = Signer(origin, bus.catalogue.log_key)
        made = MadeLog(bus.catalogue.gsb.log.path / "2026", signer, bundles=False)
        for decade in reversed(range(DECADES)):
            size = largest // 10**decade
            made.grow(size, told)
            state = LogState(origin, size, made.note, size, made.note, time.time(), closed=False)
            taken = [await _receipt(bus, state, signer) for _ in range(times)]
            curve.append(Point(size, median(taken), quantiles(taken, n=100, method="inclusive")[98]))
    return curve


async def _receipt(bus: Bus, state: LogState, signer: Signer) -> float:
    index = SystemRandom().randrange(state.size)
    entry = content(index)
    entered = Entered(Entry(entry, leaf_hash(entry), b""), state.origin, index)
    start = time.perf_counter()
    receipt = await asyncio.to_thread(make_receipt, bus, entered, state)
    taken = time.perf_counter() - start
    verify_receipt(receipt, signer.verifier)
    return taken
