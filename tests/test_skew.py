"""A node whose clock is off the store's says so, and is not ready."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import isnan, nan
from pathlib import Path

import pytest

from gsb.bus import Bus
from gsb.catalogue import build
from gsb.errors import StoreUnavailable
from gsb.foundation import broker_of, shares_of, store_of
from gsb.metrics import Metrics
from gsb.roles import ALL
from gsb.runtime import Runtime
from gsb.shares.local import LocalShares
from gsb.skew import measure
from tests.support.cluster import spread
from tests.support.deployment import standard


@asynccontextmanager
async def bus_with(tmp_path: Path, dsn: str, ahead: float) -> AsyncIterator[Bus]:
    """A bus over a real PostgreSQL whose own clock is so many seconds ahead."""
    catalogue = build(spread(standard(tmp_path), dsn, [8080]).write())
    store = store_of(catalogue, Metrics())
    shares = shares_of(store)
    await store.open()
    await shares.open()
    try:
        yield Bus(
            catalogue, store, broker_of(catalogue, ALL), Runtime(), shares=shares, clock=lambda: time.time() + ahead
        )
    finally:
        await shares.close()
        await store.close()


@pytest.mark.parametrize(("ahead", "missing"), [(0.0, []), (3.5, []), (6.5, ["clock"]), (-6.5, ["clock"])])
async def test_a_clock_more_than_five_seconds_off_is_not_ready(
    tmp_path: Path, dsn: str, ahead: float, missing: list[str]
) -> None:
    async with bus_with(tmp_path, dsn, ahead) as bus:
        bus.clock_offset = nan
        for _ in range(100):  # an answer that took long leaves what was known before
            await measure(bus)
            if not isnan(bus.clock_offset):
                break
        assert bus.clock_offset == pytest.approx(ahead, abs=1.4)
        assert await bus.unready() == missing
        told = bus.metrics.text({}, None).decode()
        assert f"gsb_clock_offset_seconds {bus.clock_offset}" in told


class Silent(LocalShares):
    async def clock(self) -> float:
        raise StoreUnavailable


async def test_what_is_not_known_changes_nothing(tmp_path: Path, dsn: str) -> None:
    async with bus_with(tmp_path, dsn, 6.5) as bus:
        await measure(bus)
        before = bus.clock_offset
        slow = iter((0.0, 30.0))
        bus.shares = LocalShares()
        await measure(bus, lambda: next(slow))
        assert bus.clock_offset == before, "an answer that took long does not tell the time"
        bus.shares = Silent()
        await measure(bus)
        assert bus.clock_offset == before
