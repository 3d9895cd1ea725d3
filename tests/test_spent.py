"""The memory of spent jtis: nothing is forgotten too early, whatever the clock does, and it does not grow."""

from __future__ import annotations

import pytest

from gsb.store.spent import BUCKET, GONE, KEPT, Spent
from tests.support.stores import Clock

LIFE = 80.0
HOURS = 7_200.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spent(clock: Clock) -> Spent:
    return Spent(clock.steady)


def spend(spent: Spent, clock: Clock, name: bytes = b"jti") -> float:
    """When it runs out."""
    expires = clock.now + LIFE
    spent.add(name, expires)
    return expires


def test_it_is_held_for_its_life_and_forgotten_soon_after(spent: Spent, clock: Clock) -> None:
    expires = spend(spent, clock)
    clock.pass_(LIFE - 1)
    spent.forget(clock.now)
    assert spent.holds(b"jti", clock.now)
    assert not spent.holds(b"another", clock.now)
    clock.pass_(1 + BUCKET + KEPT - LIFE)
    assert not spent.holds(b"jti", clock.now)
    assert spent.forget(clock.now) == clock.now
    assert spent.gone(expires)


def test_nothing_that_is_held_runs_out_before_what_forget_says(spent: Spent, clock: Clock) -> None:
    expires = [spend(spent, clock, b"%d" % number) for number in range(3)]
    clock.pass_(LIFE + 5)
    assert clock.now - 2 * BUCKET < spent.forget(clock.now) <= min(expires)


@pytest.mark.parametrize("ahead", [10.0, KEPT - 1])
def test_a_clock_that_was_set_ahead_and_back_makes_nothing_forgotten(spent: Spent, clock: Clock, ahead: float) -> None:
    expires = spend(spent, clock)
    clock.now += HOURS
    clock.pass_(ahead)
    spent.forget(clock.now)
    clock.now -= HOURS
    assert spent.holds(b"jti", clock.now)
    assert not spent.gone(expires)


def test_a_clock_that_was_set_back_keeps_everything_until_it_is_there_again(spent: Spent, clock: Clock) -> None:
    spend(spent, clock)
    clock.now -= HOURS
    clock.pass_(HOURS)
    spent.forget(clock.now)
    assert spent.holds(b"jti", clock.now)


def test_after_a_clock_was_set_back_only_the_times_of_what_was_forgotten_are_untellable(
    spent: Spent, clock: Clock
) -> None:
    expires = spend(spent, clock)
    clock.pass_(HOURS)
    spent.forget(clock.now)
    clock.now -= HOURS
    assert spent.gone(expires)
    # The same signature, looked at a moment earlier or later.
    assert spent.gone(expires - 1)
    assert spent.gone(expires + 1)
    assert not spent.gone(expires + 3 * BUCKET)
    assert not spent.gone(expires - 3 * BUCKET)


def test_with_a_steady_clock_no_call_is_ever_untellable(spent: Spent, clock: Clock) -> None:
    for number in range(400):
        assert not spent.gone(spend(spent, clock, b"%d" % number))
        clock.pass_(1.7)
        spent.forget(clock.now)


def test_it_does_not_grow(spent: Spent, clock: Clock) -> None:
    for number in range(GONE + 100):
        spend(spent, clock, b"%d" % number)
        clock.pass_(BUCKET)
        spent.forget(clock.now)
    assert len(spent._buckets) < 10
    assert len(spent._gone) == GONE
