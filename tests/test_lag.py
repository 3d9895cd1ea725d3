"""How far the log is behind, as every node sees it: by the store alone, whoever records and wherever."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsb.lag import Lag
from gsb.store.contract import StoreUnfit
from tests.support.recording import recording


async def test_a_gateway_judges_from_the_store_whatever_it_knows_of_recorders(tmp_path: Path) -> None:
    async with recording(tmp_path) as hands:
        await hands.record(1)
        gateway = Lag(hands.bus, hands.clock.steady)
        await gateway.measure()
        assert not hands.bus.behind
        await hands.enter(2)
        await gateway.measure()
        hands.clock.pass_(31)
        await gateway.measure()
        assert hands.bus.behind, "nobody has published for longer than behind_seconds"
        await hands.recorder.look()
        hands.bus.behind = True
        await gateway.measure()
        assert not hands.bus.behind


async def test_a_clock_that_was_set_forward_is_no_lag(tmp_path: Path) -> None:
    async with recording(tmp_path) as hands:
        await hands.record(1)
        gateway = Lag(hands.bus, hands.clock.steady)
        await gateway.measure()
        await hands.enter(2)
        hands.clock.pass_(1)
        hands.clock.now += 10_000
        await gateway.measure()
        assert not hands.bus.behind
        hands.clock.pass_(30)
        await gateway.measure()
        assert hands.bus.behind


async def test_under_load_there_is_always_something_that_is_not_published_and_that_is_no_lag(tmp_path: Path) -> None:
    async with recording(tmp_path) as hands:
        gateway = Lag(hands.bus, hands.clock.steady)
        for number in range(20):
            await hands.record(2 * number)
            await hands.enter(2 * number + 1)
            hands.clock.pass_(2)
            hands.clock.now += 100  # a clock that runs: nothing could be told by it alone
            await gateway.measure()
            assert not hands.bus.behind, number


async def test_a_store_that_took_the_place_of_a_newer_one_is_not_gone_on_with(tmp_path: Path) -> None:
    """As when a standby that was behind is promoted while nodes run."""
    async with recording(tmp_path / "new") as hands, recording(tmp_path / "old") as older:
        await hands.record(1, 2, 3)
        await older.record(1)
        gateway = Lag(hands.bus, hands.clock.steady)
        await gateway.measure()
        hands.bus.store = older.store
        with pytest.raises(StoreUnfit, match="it had 4 entries in order, 4 of them published, and has"):
            await gateway.measure()
