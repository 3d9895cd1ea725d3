"""What nodes share, in memory, held to the contract; and with a clock that the tests set."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gsb.shares.contract import Draw, Shares
from gsb.shares.local import LocalShares
from tests.shares_contract import SharesContract


class TestLocalShares(SharesContract):
    @pytest.fixture
    async def nodes(self) -> Sequence[Shares]:
        one = LocalShares()
        await one.open()
        return [one] * 3


async def test_a_clock_that_is_set_back_makes_nobody_wait_for_it() -> None:
    now = 1_800_000_000.0
    shares = LocalShares(lambda: now)
    asked = {"budget": Draw(2, 60.0, 60.0)}
    assert (await shares.draw(asked))["budget"].exchanges == 2
    assert (await shares.draw(asked))["budget"].exchanges == 0
    now -= 3_600
    assert (await shares.draw(asked))["budget"].exchanges == 2
    assert (await shares.draw(asked))["budget"].exchanges == 0


async def test_every_exchange_comes_at_its_time_to_the_thousandth_of_an_interval() -> None:
    now = 1_800_000_000.0
    shares = LocalShares(lambda: now)
    asked = {"budget": Draw(1, 1 / 7, 0.0)}
    for number in range(1, 50):
        assert (await shares.draw(asked))["budget"].exchanges == 1
        now = 1_800_000_000 + (number - 0.002) / 7
        assert (await shares.draw(asked))["budget"].exchanges == 0
        now = 1_800_000_000 + number / 7


async def test_a_draw_that_came_a_little_early_is_not_forgotten() -> None:
    now = 1_800_000_000.0
    shares = LocalShares(lambda: now)
    asked = {"budget": Draw(5, 60.0, 120.0)}
    assert (await shares.draw(asked))["budget"].exchanges == 3
    now += 60 - 0.03
    assert (await shares.draw(asked))["budget"].exchanges == 1
    assert (await shares.draw(asked))["budget"].exchanges == 0
