"""Budgets of several gateways: together they keep to the rate, wherever the calls come in, and use it whole.

Hours pass in a moment here, so every count is the same each time; with PostgreSQL and real processes it is
``tests/test_shares_running.py`` that counts.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from gsb.errors import RateExceeded, StoreUnavailable
from gsb.limits import Budgets
from gsb.shares.budgets import AHEAD, KEEP, PART, REST, SharedBudgets
from gsb.shares.contract import Draw, Drawn
from gsb.shares.local import LocalShares
from tests.support.hours import in_a_moment
from tests.test_limits import NOW, grant

ROUND_TRIP = 0.004
STEP = 0.01
"""Seconds between two looks whether calls come."""

Demand = Callable[[int, float], float]
"""Of a gateway and a time: calls a second."""


def clock() -> float:
    return NOW + asyncio.get_running_loop().time()


class Far(LocalShares):
    """As far away as a server, and perhaps out of reach."""

    def __init__(self) -> None:
        super().__init__(clock)
        self.draws = 0
        self.reached = True

    async def draw(self, asked: Mapping[str, Draw]) -> Mapping[str, Drawn]:
        self.draws += 1
        await asyncio.sleep(ROUND_TRIP / 2)
        if not self.reached:
            raise StoreUnavailable
        drawn = await super().draw(asked)
        await asyncio.sleep(ROUND_TRIP / 2)
        return drawn


def gateway(shares: LocalShares) -> SharedBudgets:
    return SharedBudgets(shares, clock, asyncio.get_running_loop().time)


async def used(budgets: Budgets, one: Any) -> bool:
    """Whether a call may use the grant now."""
    try:
        drawn = budgets.take(one, clock())
        if drawn is not None:
            await drawn
    except RateExceeded:
        return False
    return True


async def load(shares: LocalShares, one: Any, demand: Demand, seconds: float, gateways: int = 3) -> list[float]:
    """When calls were let through, of all that came in at these gateways."""
    loop, times = asyncio.get_running_loop(), list[float]()

    async def call(budgets: Budgets) -> None:
        if await used(budgets, one):
            times.append(loop.time())

    async def calls(number: int) -> None:
        budgets, due = gateway(shares), 0.0
        async with asyncio.TaskGroup() as group:
            while loop.time() < seconds:
                due += demand(number, loop.time()) * STEP
                while due >= 1:
                    due -= 1
                    group.create_task(call(budgets))
                await asyncio.sleep(STEP)

    await asyncio.gather(*(calls(number) for number in range(gateways)))
    return sorted(times)


def most_within(times: list[float], seconds: float) -> int:
    """The most in any stretch of time of that length."""
    most, first = 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def evenly(number: int, now: float) -> float:
    return 1.0


def at_one(number: int, now: float) -> float:
    return 3.0 if number == 0 else 0.0


def in_turn(number: int, now: float) -> float:
    """All at one gateway for a second, then at the next."""
    return 3.0 if int(now) % 3 == number else 0.0


def mostly_at_one(number: int, now: float) -> float:
    return (2.7, 0.2, 0.1)[number]


def in_gusts(number: int, now: float) -> float:
    """Everything in one second of four, everywhere."""
    return 4.0 if int(now) % 4 == 0 else 0.0


DEMANDS = [evenly, at_one, in_turn, mostly_at_one, in_gusts]
RATES = [(60, 1, 20), (300, 5, 4), (1_200, 20, 2), (24_000, 800, 2)]
"""Exchanges a minute, the burst, and how many times as many calls come: one that comes a moment too early is refused,
so few calls would not use the whole of a budget without a burst."""


@pytest.mark.parametrize(("per_minute", "burst", "times"), RATES)
@pytest.mark.parametrize("demand", DEMANDS)
def test_together_they_keep_to_the_rate_and_use_it_whole(
    demand: Demand, per_minute: int, burst: int, times: int
) -> None:
    seconds, rate = 24.0, per_minute / 60
    one = grant(per_minute, burst)
    pressed = in_a_moment(load(Far(), one, lambda number, now: times * rate * demand(number, now), seconds))
    assert len(pressed) <= burst + rate * seconds + 1
    for stretch in (1.0, 5.0):
        assert most_within(pressed, stretch) <= burst + rate * (stretch + KEEP) + 1
    # Between gusts the budget is full again and cannot be used: what counts is what a gateway alone would let through.
    alone = in_a_moment(load_one(one, lambda now: times * rate * sum(demand(each, now) for each in range(3)), seconds))
    assert 0.9 * len(alone) <= len(pressed) <= 1.1 * len(alone) + 1


async def load_one(one: Any, demand: Callable[[float], float], seconds: float) -> list[float]:
    """The same calls at one gateway that counts for itself."""
    loop, times, due, budgets = asyncio.get_running_loop(), list[float](), 0.0, Budgets()
    while loop.time() < seconds:
        due += demand(loop.time()) * STEP
        while due >= 1:
            due -= 1
            if await used(budgets, one):
                times.append(loop.time())
        await asyncio.sleep(STEP)
    return times


def test_where_many_calls_come_few_of_them_wait_for_a_draw() -> None:
    shares = Far()
    times = in_a_moment(load(shares, grant(60_000, 2_000), lambda number, now: 300.0, 5.0))
    assert len(times) == pytest.approx(4_500, rel=0.01)
    assert shares.draws < 3 * 5 / AHEAD * 2


def test_a_budget_that_is_used_up_is_asked_for_a_few_times_a_second() -> None:
    shares = Far()
    times = in_a_moment(load(shares, grant(60_000, 1_000), lambda number, now: 1_000.0, 6.0))
    assert len(times) == pytest.approx(7_000, rel=0.02)
    assert shares.draws < 3 * 6 / REST * 2.5


def test_calls_that_come_together_are_drawn_for_together() -> None:
    async def run() -> int:
        shares = Far()
        budgets, one = gateway(shares), grant(60, PART - 1)
        assert sum(await asyncio.gather(*(used(budgets, one) for _ in range(50)))) == PART - 1
        return shares.draws

    assert in_a_moment(run()) <= 2


def test_what_is_known_to_be_used_up_is_refused_without_asking() -> None:
    async def run() -> None:
        shares = Far()
        budgets, one = gateway(shares), grant(60, 1)
        assert await used(budgets, one)
        asked = shares.draws
        for _ in range(100):
            assert not await used(budgets, one)
        assert shares.draws == asked
        with pytest.raises(RateExceeded) as refused:
            budgets.take(one, clock())
        await asyncio.sleep(float(refused.value.headers["Retry-After"]))
        assert await used(budgets, one)

    in_a_moment(run())


def test_a_caller_hears_what_all_gateways_together_have_left() -> None:
    async def run() -> None:
        shares = Far()
        here, there, one = gateway(shares), gateway(shares), grant(60, 10)
        assert here.fields(one, clock())["RateLimit"] == '"burst";r=10;t=1'
        for _ in range(6):
            assert await used(there, one)
        assert await used(here, one)
        assert here.fields(one, clock())["RateLimit"] == '"burst";r=3;t=1'
        assert sum([await used(here, one) for _ in range(5)]) == 3
        with pytest.raises(RateExceeded) as refused:
            here.take(one, clock())
        assert refused.value.headers["Retry-After"] == "1"
        assert refused.value.extra["agreement"] == one.agreement

    in_a_moment(run())


@pytest.mark.parametrize("gateways", [1, 3])
def test_of_a_small_budget_never_two_come_within_its_interval(gateways: int) -> None:
    times = in_a_moment(load(Far(), grant(120, 1), lambda number, now: 100.0, 30.0, gateways))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert min(gaps) >= 0.5 - ROUND_TRIP
    assert len(times) >= 0.9 * 60


def test_a_piece_that_is_not_used_is_given_back() -> None:
    async def run() -> None:
        shares = Far()
        here, there, one = gateway(shares), gateway(shares), grant(1, 100)
        for _ in range(12):
            await asyncio.gather(*(used(here, one) for _ in range(4)))
        left = 100 - 48
        drawn = await shares.draw({name: Draw(0, 60.0, 60.0 * 99) for name in here._budgets})
        assert next(iter(drawn.values())).ahead > 48.5 * 60  # some of it lies here
        await asyncio.sleep(3 * KEEP)
        assert sum([await used(there, one) for _ in range(left + 5)]) == left

    in_a_moment(run())


def test_no_call_is_refused_because_a_piece_was_given_back() -> None:
    async def run() -> None:
        here, one = gateway(Far()), grant(600, 100)
        for _ in range(12):
            await asyncio.gather(*(used(here, one) for _ in range(4)))
        (budget,) = here._budgets.values()
        assert budget.piece > 0
        for _ in range(int(2 * KEEP / ROUND_TRIP)):
            if budget.piece == 0 and here._drawing is None:
                break
            await asyncio.sleep(ROUND_TRIP)
        assert budget.piece == 0
        assert await used(here, one)

    in_a_moment(run())


def test_a_gateway_that_dies_takes_a_piece_with_it_and_no_more() -> None:
    async def run() -> None:
        shares = Far()
        dies, lives, one = gateway(shares), gateway(shares), grant(1, 100)
        for _ in range(10):
            await asyncio.gather(*(used(dies, one) for _ in range(4)))
        del dies
        left = 100 - 40
        assert left - 100 // PART <= sum([await used(lives, one) for _ in range(left + 5)]) <= left

    in_a_moment(run())


def test_without_the_store_calls_hear_so_and_later_all_is_well() -> None:
    async def run() -> None:
        shares = Far()
        budgets, one = gateway(shares), grant(60, 5)
        shares.reached = False
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await used(budgets, one)
        shares.reached = True
        assert sum(await asyncio.gather(*(used(budgets, one) for _ in range(8)))) == 5

    in_a_moment(run())


def test_the_draw_of_a_caller_who_went_away_is_the_next_ones() -> None:
    async def run() -> None:
        shares = Far()
        budgets, one = gateway(shares), grant(1, 1)
        gone = asyncio.create_task(used(budgets, one))
        await asyncio.sleep(ROUND_TRIP / 2)
        gone.cancel()
        await asyncio.sleep(ROUND_TRIP)
        assert budgets.take(one, clock()) is None

    in_a_moment(run())


def test_a_grant_without_a_rate_asks_nobody() -> None:
    async def run() -> None:
        shares = Far()
        budgets = gateway(shares)
        for _ in range(100):
            assert budgets.take(replace(grant(1, 1), rate=None), clock()) is None
        assert shares.draws == 0

    in_a_moment(run())


def test_grants_and_rates_have_budgets_of_their_own() -> None:
    async def run() -> None:
        budgets, one = gateway(Far()), grant(1, 1)
        others = [replace(one, purpose="audit"), replace(one, agreement="a-2"), grant(2, 1), grant(1, 2)]
        assert all([await used(budgets, each) for each in (one, *others)])
        assert not await used(budgets, one)

    in_a_moment(run())
