"""The watchdog, with code that really blocks the loop of the test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, ModuleType

import pytest

from gsb.watchdog import Blocked, Watchdog

CODE = """
import subprocess
import time


def wait(until):
    until.wait(60)


def reckon(until):
    while not until.is_set():
        sum(range(1000))
"""


@pytest.fixture
def adapter(tmp_path: Path) -> ModuleType:
    module = ModuleType("slow_adapter")
    path = tmp_path / "slow_adapter" / "__init__.py"
    path.parent.mkdir()
    exec(compile(CODE, str(path), "exec"), module.__dict__)
    module.__file__ = str(path)
    return module


async def told_while(block: Callable[[threading.Event], None], folders: dict[Path, str]) -> list[Blocked]:
    """What the watchdog tells of a block that lasts until it has told something, or for a minute."""
    told: list[Blocked] = []
    until = threading.Event()

    def tell(blocked: Blocked) -> None:
        told.append(blocked)
        until.set()

    watchdog = Watchdog(tell, tick=0.005)
    watchdog.adapters = folders
    watchdog.start()
    await asyncio.sleep(0.05)  # the loop turns, which is no reason to tell anything
    assert told == []
    timer = threading.Timer(60.0, until.set)
    timer.start()
    block(until)
    timer.cancel()
    watchdog.stop()
    return told


@pytest.mark.parametrize("how", ["wait", "reckon"])
async def test_it_names_the_adapter_and_its_place_however_it_blocks(adapter: ModuleType, how: str) -> None:
    folder = Path(str(adapter.__file__)).parent
    (blocked,) = await told_while(getattr(adapter, how), {Path("/elsewhere"): "other", folder: "slow"})
    assert blocked.adapter == "slow"
    assert blocked.place.startswith("__init__.py:")
    assert blocked.place.endswith(f":{how}")


async def test_what_is_no_adapters_is_not_laid_at_its_door(adapter: ModuleType) -> None:
    def block(until: threading.Event) -> None:
        time.sleep(0.3)

    assert await told_while(block, {Path(str(adapter.__file__)).parent: "slow"}) == []


class Looking(Watchdog):
    """Says when it has found who blocks: what there is to tell it then tells at once."""

    def __init__(self, tell: Callable[[Blocked], None], every: float) -> None:
        super().__init__(tell, tick=0.005, every=every)
        self.looked = threading.Event()

    def _who(self, frame: FrameType | None) -> Blocked | None:
        blocked = super()._who(frame)
        if blocked is not None:
            # Meanwhile the block goes on, in which it has twenty occasions to tell it again.
            threading.Timer(0.1, self.looked.set).start()
        return blocked


async def counted(told: list[Blocked], least: int) -> int:
    """How many were told, a moment after so many were: the watchdog's thread may have to wait for a processor."""
    async with asyncio.timeout(60):
        while True:
            if len(told) >= least:
                break
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    return len(told)


@pytest.mark.parametrize(("every", "counts"), [(0.0, [1, 2]), (60.0, [1, 1])])
async def test_each_time_is_told_once_and_not_too_often(adapter: ModuleType, every: float, counts: list[int]) -> None:
    told: list[Blocked] = []
    found: list[int] = []
    watchdog = Looking(told.append, every)
    watchdog.adapters = {Path(str(adapter.__file__)).parent: "slow"}
    watchdog.start()
    for count in counts:
        watchdog.looked.clear()
        adapter.wait(watchdog.looked)
        found.append(await counted(told, count))
    watchdog.stop()
    assert found == counts
    assert len(told) == counts[-1]


def test_it_ends_with_its_loop() -> None:
    async def begin() -> Watchdog:
        watchdog = Watchdog(print, tick=0.005)
        watchdog.start()
        return watchdog

    watchdog = asyncio.run(begin())
    thread = watchdog._thread
    assert thread is not None
    thread.join(90)
    assert not thread.is_alive()
    watchdog.stop()
