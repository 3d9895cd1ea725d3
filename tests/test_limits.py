"""Budgets: a burst after a pause, then a steady rate, counted exactly; and an honest Retry-After."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb.config import Rate
from gsb.errors import RateExceeded
from gsb.limits import Budgets
from gsb.policy import Grant

NOW = 1_700_000_000.0


def grant(per_minute: int, burst: int) -> Grant:
    return Grant(
        agreement="a-1",
        agreement_digest="d",
        consumer="payroll",
        provider="tax-agency",
        service="tax/income-tax/v1",
        purpose="pay",
        fields=("",),
        rate=Rate(per_minute=per_minute, burst=burst),
        sub=False,
        case=False,
        valid_from=0.0,
        valid_until=1e12,
        suspended=False,
    )


def takes(budgets: Budgets, one: Grant, now: float) -> bool:
    try:
        budgets.take(one, now)
    except RateExceeded:
        return False
    return True


def test_a_burst_then_one_each_interval() -> None:
    budgets, one = Budgets(), grant(per_minute=30, burst=5)
    assert [takes(budgets, one, NOW) for _ in range(7)] == [True] * 5 + [False] * 2
    assert not takes(budgets, one, NOW + 1.999)
    assert takes(budgets, one, NOW + 2)
    assert not takes(budgets, one, NOW + 3.999)
    assert takes(budgets, one, NOW + 4)


def test_a_pause_gives_back_the_burst_and_no_more() -> None:
    budgets, one = Budgets(), grant(per_minute=60, burst=3)
    for _ in range(3):
        budgets.take(one, NOW)
    assert [takes(budgets, one, NOW + 3_600) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("per_minute", "after", "seconds"),
    [(1, 0.0, "60"), (1, 0.5, "60"), (1, 1.0, "59"), (1, 59.5, "1"), (600, 0.0, "1"), (7, 0.0, "9")],
)
def test_retry_after_is_whole_seconds_rounded_up(per_minute: int, after: float, seconds: str) -> None:
    budgets, one = Budgets(), grant(per_minute, burst=1)
    budgets.take(one, NOW)
    with pytest.raises(RateExceeded) as refused:
        budgets.take(one, NOW + after)
    assert refused.value.headers == {"Retry-After": seconds}
    # Whoever waits that long is served.
    budgets.take(one, NOW + after + int(seconds))


def test_refusals_cost_nothing() -> None:
    budgets, one = Budgets(), grant(per_minute=60, burst=1)
    budgets.take(one, NOW)
    assert not any(takes(budgets, one, NOW + step / 100) for step in range(99))
    assert takes(budgets, one, NOW + 1)


def test_each_grant_has_a_budget_of_its_own() -> None:
    budgets, one = Budgets(), grant(per_minute=1, burst=1)
    budgets.take(one, NOW)
    for other in (
        replace(one, consumer="audit-office"),
        replace(one, service="tax/income-tax/v2"),
        replace(one, purpose="audit"),
        replace(one, agreement="a-2"),
    ):
        budgets.take(other, NOW)
        assert not takes(budgets, other, NOW)


def test_a_grant_without_a_rate_is_not_counted() -> None:
    budgets, one = Budgets(), replace(grant(1, 1), rate=None)
    for _ in range(1_000):
        budgets.take(one, NOW)


def test_a_changed_rate_counts_at_once() -> None:
    budgets = Budgets()
    budgets.take(grant(per_minute=1, burst=1), NOW)
    assert takes(budgets, grant(per_minute=60, burst=1), NOW)


def test_a_clock_that_is_set_back_stops_nobody() -> None:
    budgets, one = Budgets(), grant(per_minute=60, burst=2)
    budgets.take(one, NOW)
    assert takes(budgets, one, NOW - 3_600)
    assert takes(budgets, one, NOW - 3_600)
    assert not takes(budgets, one, NOW - 3_600)


@settings(deadline=None)
@given(
    st.integers(1, 1_000),
    st.integers(1, 20),
    st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=60),
)
def test_no_stretch_of_time_has_more_than_burst_and_rate(per_minute: int, burst: int, gaps: list[float]) -> None:
    budgets, one = Budgets(), grant(per_minute, burst)
    now, taken = NOW, []
    for gap in gaps:
        now += gap
        if takes(budgets, one, now):
            taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            allowed = burst + (taken[last] - taken[first]) * per_minute / 60
            assert last - first + 1 <= allowed + 1e-4
