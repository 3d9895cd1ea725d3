"""A trouble is told once when it begins and once when it ends, and not with every try."""

from __future__ import annotations

import logging

import pytest

from gsb.trouble import EVERY, Trouble
from tests.support.stores import Clock

LOG = logging.getLogger("gsb.test")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def trouble(clock: Clock) -> Trouble:
    return Trouble(LOG, "it works again", clock.steady)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return found


def test_it_is_told_once_and_its_end_once(trouble: Trouble, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    trouble.is_over()
    assert told(caplog) == []
    assert not trouble.there
    for _ in range(100):
        trouble.is_there("it does not work (full): make room")
        clock.pass_(7.5)
    assert told(caplog) == [("ERROR", "it does not work (full): make room")]
    assert trouble.there
    trouble.is_over()
    assert not trouble.there
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("WARNING", "it works again")
    assert record.__dict__["facts"] == {"seconds": 750.0}
    caplog.clear()
    trouble.is_over()
    assert told(caplog) == []


def test_one_that_comes_and_goes_is_told_once_a_minute(
    trouble: Trouble, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        trouble.is_there("it does not work")
        trouble.is_over()
        clock.pass_(EVERY / 50)
    assert told(caplog) == [("ERROR", "it does not work"), ("WARNING", "it works again")] * 2


def test_one_that_came_soon_again_and_stays_is_told_when_its_minute_is_over(
    trouble: Trouble, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    trouble.is_there("first")
    trouble.is_over()
    told(caplog)
    trouble.is_there("again")
    assert told(caplog) == []
    clock.pass_(EVERY)
    trouble.is_there("still")
    assert told(caplog) == [("ERROR", "still")]
