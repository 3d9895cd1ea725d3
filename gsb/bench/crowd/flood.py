"""A neighbour's load, from a process of its own that gives way to whoever measures.

In the measuring process it would make the clock late for what comes back to the other agency. Run as a module with a
service, a number of connections, seconds and a deployment it says when it begins and, at the end, its answers a second.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from gsb import jwk
from gsb.bench.crowd.place import NEIGHBOUR
from gsb.bench.load import Target, load
from gsb.bench.place import CONSUMER, Place, private_file

POLITE = 19
"""By how much the process is nicer than who measures."""
BEFORE = 0.5
"""Seconds from its begin until what it does to others is measured."""
BEGUN = b"begun\n"


@dataclass(slots=True)
class Flood:
    """``rate`` is known once it is over: answers a second."""

    rate: float = 0.0


@asynccontextmanager
async def flooding(place: Place, service: str, connections: int, seconds: float, *, same: bool) -> AsyncIterator[Flood]:
    """The body runs while the neighbour, or the ``same`` agency, calls the service; for about ``seconds`` it may."""
    agency = CONSUMER if same else NEIGHBOUR
    arguments = (agency, service, str(connections), str(seconds + 2 * BEFORE), str(place.folder), place.url)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gsb.bench.crowd.flood", *arguments, stdout=asyncio.subprocess.PIPE
    )
    flood = Flood()
    try:
        if process.stdout is None or await process.stdout.readline() != BEGUN:
            raise RuntimeError("the flood did not begin")
        await asyncio.sleep(BEFORE)
        yield flood
        flood.rate = float(await process.stdout.read())
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _flood(target: Target, connections: int, seconds: float) -> None:
    sys.stdout.buffer.write(BEGUN)
    sys.stdout.buffer.flush()
    print((await load(target, in_flight=connections, seconds=seconds)).rate)


def main() -> None:
    agency, service, connections, seconds, folder, url = sys.argv[1:]
    os.nice(POLITE)
    bus = jwk.read_private((Path(folder) / "keys/bus.jwk").read_bytes())
    key = jwk.read_private((Path(folder) / private_file(agency)).read_bytes())
    place = Place(Path(folder), Path(folder), url, [url], 0, key, bus.public)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_flood(Target(place, url, service, agency, whatever=True), int(connections), float(seconds)))


if __name__ == "__main__":
    main()
