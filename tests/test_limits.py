"""Budgets: a burst after a pause, then a steady rate, counted exactly; and an honest Retry-After."""

from __future__ import annotations

import copy
import re
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
    assert refused.value.headers["Retry-After"] == seconds
    assert refused.value.headers["RateLimit"] == f'"burst";r=0;t={seconds}'
    assert refused.value.extra == {"agreement": "a-1", "violated-policies": ["burst"]}
    # Whoever waits that long is served.
    budgets.take(one, NOW + after + int(seconds))


@pytest.mark.parametrize(
    ("per_minute", "burst", "policy"),
    [(100, 100, "q=100;w=60"), (600, 1, "q=1;w=1"), (7, 2, "q=2;w=18"), (1, 5, "q=5;w=300")],
)
def test_the_policy_is_what_the_grant_bears_without_end(per_minute: int, burst: int, policy: str) -> None:
    budgets, one = Budgets(), grant(per_minute, burst)
    fields = budgets.fields(one, NOW)
    assert fields["RateLimit-Policy"] == f'"burst";{policy}'
    quota, window = (int(part[2:]) for part in policy.split(";"))
    for number in range(20):
        for _ in range(quota):
            budgets.take(one, NOW + number * window)
    assert budgets.fields(one, NOW)["RateLimit-Policy"] == fields["RateLimit-Policy"]


def test_what_is_left_goes_down_by_one_and_comes_back_with_time() -> None:
    budgets, one = Budgets(), grant(per_minute=30, burst=3)
    assert budgets.fields(one, NOW)["RateLimit"] == '"burst";r=3;t=2'
    seen = []
    for _ in range(3):
        budgets.take(one, NOW)
        seen.append(budgets.fields(one, NOW)["RateLimit"])
    assert seen == ['"burst";r=2;t=2', '"burst";r=1;t=2', '"burst";r=0;t=2']
    assert budgets.fields(one, NOW + 1.5)["RateLimit"] == '"burst";r=0;t=1'
    assert budgets.fields(one, NOW + 2)["RateLimit"] == '"burst";r=1;t=2'


def test_a_grant_without_a_rate_says_nothing() -> None:
    assert Budgets().fields(replace(grant(1, 1), rate=None), NOW) == {}


@settings(deadline=None)
@given(
    st.integers(1, 1_000),
    st.integers(1, 20),
    st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=40),
)
def test_the_fields_never_promise_more_than_is_granted(per_minute: int, burst: int, gaps: list[float]) -> None:
    budgets, one = Budgets(), grant(per_minute, burst)
    now = NOW
    for gap in gaps:
        now += gap
        left, window = said(budgets.fields(one, now)["RateLimit"])
        assert 0 <= left <= burst
        # All that is said to be left is granted at once, and no more; and when the time is over there is more.
        trial = copy.deepcopy(budgets)
        assert [takes(trial, one, now) for _ in range(left + 1)] == [True] * left + [False]
        assert takes(trial, one, now + window)
        if not takes(budgets, one, now):
            with pytest.raises(RateExceeded) as refused:
                budgets.take(one, now)
            assert int(refused.value.headers["Retry-After"]) >= said(refused.value.headers["RateLimit"])[1]


@pytest.mark.parametrize(("per_minute", "burst"), [(600, 1), (60, 10), (100, 100)])
def test_at_twice_the_rate_no_more_than_the_quota_is_granted_in_a_window(per_minute: int, burst: int) -> None:
    budgets, one = Budgets(), grant(per_minute, burst)
    quota, window = said(budgets.fields(one, NOW)["RateLimit-Policy"])
    step = 60 / per_minute / 2
    calls = int(20 * max(window, 1) / step)
    granted = [number * step for number in range(calls) if takes(budgets, one, NOW + number * step)]
    bears = window * per_minute / 60  # the quota, but for the rounding of the window
    for begin in range(2 * window, 19 * window, window):  # what the pause before had saved is used up by then
        assert abs(len([at for at in granted if begin <= at < begin + window]) - bears) <= 1
    assert bears >= quota


def said(field: str) -> tuple[int, int]:
    """The two numbers of a field."""
    match = re.fullmatch(r'"burst";[qr]=([0-9]+);[wt]=([0-9]+)', field)
    assert match is not None, field
    return int(match[1]), int(match[2])


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
