"""A recorder in the test's hands: a real store and real files, no worker, no socket, and time that stands still.

    async with recording(tmp_path) as hands:
        await hands.enter(3)
        await hands.recorder.look()
        assert hands.log() == [...]

As a program it is a recorder to be killed and given errors by ``tests/test_record_faults.py``:

    python -m tests.support.recording DIR COUNT...

It opens the deployment in DIR and waits for a line on its standard input; then it enters so many entries and looks,
for each COUNT, and prints the leaves of the entries that are committed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsb.broker.local import LocalBroker
from gsb.bus import Bus
from gsb.catalogue import Catalogue, build
from gsb.errors import StoreUnavailable
from gsb.evidence.checkpoint import Verifier
from gsb.evidence.entry import make_entry
from gsb.foundation import store_of
from gsb.model import Entry
from gsb.record import Recorder
from gsb.resume import Ground, begin_anew
from gsb.runtime import Runtime
from gsb.store.contract import Store
from tests.support.auditor import contents_of, said
from tests.support.deployment import Deployment, standard

NOW = 1_790_000_000.0
YEAR = "2026"
"""In which that is."""


class Clock:
    """Moves when it is told to; ``passed`` only grows."""

    def __init__(self) -> None:
        self.now = NOW
        self.passed = 0.0

    def __call__(self) -> float:
        return self.now

    def steady(self) -> float:
        return self.passed

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.passed += seconds


@dataclass
class Hands:
    deployment: Deployment
    bus: Bus
    clock: Clock
    recorder: Recorder

    @property
    def store(self) -> Store:
        return self.bus.store

    @property
    def origin(self) -> str:
        return self.bus.catalogue.gsb.log_origin

    def folder(self, name: str = YEAR) -> Path:
        """Of a log's files."""
        return self.deployment.log_folder / name

    def verifier(self, name: str = YEAR) -> Verifier:
        return Ground.of(self.bus.catalogue, self.store).signer(f"{self.origin}/{name}").verifier

    def contents(self, name: str = YEAR) -> list[bytes]:
        """The entries of a log, from its files, verified."""
        return contents_of(self.folder(name), self.verifier(name))

    def log(self, name: str = YEAR) -> list[tuple[str, Any]]:
        """Kind and number of each."""
        return [(each["kind"], each.get("number")) for each in said(self.contents(name))]

    def wait_for_ever(self) -> None:
        """Whoever waits for a witness from now on does not come back while the test runs."""
        asked = self.recorder._witnesses
        asked._table = asked._table.model_copy(update={"cosign_wait": 3_600.0})

    async def enter(self, *numbers: int) -> list[Entry]:
        """Commit an entry for each number."""
        entries = [numbered(number, self.clock.now) for number in numbers]
        await asyncio.gather(*(self.store.note(entry) for entry in entries))
        return entries

    async def record(self, *numbers: int) -> None:
        """Enter them, and look once."""
        await self.enter(*numbers)
        await self.recorder.look()

    async def begin_anew(self, reason: str = "the backup of Sunday") -> str:
        return await begin_anew(Ground.of(self.bus.catalogue, self.store), self.clock.now, reason)


def numbered(number: int, at: float) -> Entry:
    return make_entry("test", at, {"number": number}, {"evidence": "canary"})


def bus_on(catalogue: Catalogue, clock: Clock, store: Store) -> Bus:
    return Bus(catalogue, store, LocalBroker(), Runtime(clock), clock=clock)


@asynccontextmanager
async def recording(
    root: Path,
    deployment: Deployment | None = None,
    clock: Clock | None = None,
    *,
    wrap: Callable[[Store], Store] = lambda store: store,
    opened: bool = True,
) -> AsyncIterator[Hands]:
    """A recorder that was opened, unless it is to be ``opened`` by the test; ``wrap`` gives another store."""
    deployment, clock = deployment or standard(root), clock or Clock()
    catalogue = build(deployment.write())
    store = store_of(catalogue, Runtime().metrics)
    await store.open()
    try:
        bus = bus_on(catalogue, clock, wrap(store))
        hands = Hands(deployment, bus, clock, Recorder(bus, clock.steady))
        if opened:
            await hands.recorder.open()
        yield hands
    finally:
        await store.close()


async def _record(folder: Path, counts: list[int]) -> None:
    # One thread, so that the n-th call of the system is the same one in each run.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    catalogue, clock = build(folder), Clock()
    bus = bus_on(catalogue, clock, store_of(catalogue, Runtime().metrics))
    _tell("ready")
    sys.stdin.readline()
    await bus.store.open()
    try:
        await _enter_and_look(bus, clock, counts)
    finally:
        await bus.store.close()


async def _enter_and_look(bus: Bus, clock: Clock, counts: list[int]) -> None:
    recorder = Recorder(bus)
    await recorder.open()
    for count in counts:
        committed = []
        for number in range(count):
            entry = numbered(number, clock.now)
            with suppress(StoreUnavailable):
                await bus.store.note(entry)
                committed.append(entry.leaf.hex())
        _tell("\n".join(committed))
        await recorder.look()


def _tell(line: str) -> None:
    with suppress(OSError):  # nobody was told, then
        os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    asyncio.run(_record(Path(sys.argv[1]), [int(count) for count in sys.argv[2:]]))
