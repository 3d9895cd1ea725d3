"""How many entries a second the recorder gives their places and publishes, against a loop that only hashes and appends.

The recorder and the store are those of a node, with nothing else at work. Their entries are committed before; then one
look records them all. Raw is the least that any log does: it hashes each entry, appends it to one file, and makes that
durable as often as the recorder publishes a checkpoint. The two take turns.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

from gsb.bench.evidence.made import Told, bus_in, content
from gsb.bus import Bus
from gsb.evidence.merkle import leaf_hash
from gsb.model import Entry
from gsb.record import Recorder
from gsb.resume import BATCH
from gsb.store.contract import Store

SECRET = bytes(32) + b"e" * 1_100
"""As long as what an entry commits to usually is: a random value, and the request's JWS."""
AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Pace:
    """Entries a second, medians over the pairs."""

    recorder: float
    raw: float


async def pace(root: Path, entries: int, pairs: int, told: Told) -> Pace:
    """Measure in an empty folder, so many entries in each turn. Raises RuntimeError if they were not published."""
    recorded, raws = [], []
    async with bus_in(root) as bus:
        recorder = Recorder(bus)
        await recorder.open()
        await recorder.look()
        for turn in range(pairs):
            contents = [content(index) for index in range(turn * entries, (turn + 1) * entries)]
            await _enter(bus.store, contents)
            if turn % 2:
                raws.append(_raw(root / "raw", contents))
            recorded.append(await _record(bus, recorder, entries))
            if not turn % 2:
                raws.append(_raw(root / "raw", contents))
            told((turn + 1) * entries)
    return Pace(entries / median(recorded), entries / median(raws))


async def _enter(store: Store, contents: Sequence[bytes]) -> None:
    """Commit the entries, in this order."""
    coming = (Entry(each, leaf_hash(each), SECRET) for each in contents)
    while some := list(islice(coming, AT_ONCE)):
        await asyncio.gather(*map(store.note, some))


async def _record(bus: Bus, recorder: Recorder, entries: int) -> float:
    """Seconds until all the entries that wait are published."""
    before = (await bus.store.logs())[-1].published
    start = time.perf_counter()
    await recorder.look()
    taken = time.perf_counter() - start
    if (published := (await bus.store.logs())[-1].published) != before + entries:
        raise RuntimeError(f"of {entries} entries the recorder has published {published - before}")
    return taken


def _raw(path: Path, contents: Sequence[bytes]) -> float:
    coming = iter(contents)
    start = time.perf_counter()
    with path.open("ab") as file:
        while some := list(islice(coming, BATCH)):
            for each in some:
                file.write(leaf_hash(each))
                file.write(each)
            file.flush()
            os.fsync(file.fileno())
    return time.perf_counter() - start
