"""The circuit breaker, by a clock that the test turns."""

import pytest

from gsb.breaker import FAILURES, LONGEST, Breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


def fail(breaker: Breaker, times: int) -> list[bool]:
    return [breaker.failed(breaker.enter()) for _ in range(times)]


def test_opens_only_after_failures_in_a_row(breaker: Breaker) -> None:
    assert fail(breaker, FAILURES - 1) == [False] * (FAILURES - 1)
    assert not breaker.succeeded(breaker.enter())
    assert fail(breaker, FAILURES) == [False] * (FAILURES - 1) + [True]
    assert breaker.is_open
    assert breaker.wait() == 1.0


def test_lets_one_probe_through_and_closes_when_it_succeeds(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.now += 1.0
    assert breaker.wait() is None
    probe = breaker.enter()
    assert probe.probe
    assert breaker.wait() is not None
    assert breaker.is_open
    assert breaker.succeeded(probe)
    assert breaker.wait() is None
    assert not breaker.is_open
    fail(breaker, FAILURES)
    assert breaker.wait() == 1.0, "the pause starts small again"


def test_each_failed_probe_doubles_the_pause_up_to_the_longest(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    pauses = []
    for _ in range(8):
        clock.now += breaker.wait() or 0.0
        assert not breaker.failed(breaker.enter()), "it was open before"
        pauses.append(breaker.wait())
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, LONGEST, LONGEST, LONGEST]


def test_calls_from_before_it_opened_change_nothing(breaker: Breaker, clock: Clock) -> None:
    late = [breaker.enter() for _ in range(20)]
    fail(breaker, FAILURES)
    assert not any(breaker.failed(passage) for passage in late[:10])
    assert not any(breaker.succeeded(passage) for passage in late[10:])
    assert breaker.wait() == 1.0
    clock.now += 1.0
    probe = breaker.enter()
    assert not breaker.failed(late[0])
    assert breaker.succeeded(probe)


def test_a_cancelled_probe_makes_room_for_another(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, FAILURES)
    clock.now += 1.0
    breaker.cancelled(breaker.enter())
    assert breaker.wait() is None
    assert breaker.enter().probe


def test_cancelled_calls_are_neither_failures_nor_successes(breaker: Breaker) -> None:
    fail(breaker, FAILURES - 1)
    breaker.cancelled(breaker.enter())
    assert fail(breaker, 1) == [True]


def test_trips_at_once(breaker: Breaker) -> None:
    breaker.trip()
    assert breaker.wait() == 1.0
