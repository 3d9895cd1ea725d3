"""Many waits of one length: each ends at its own time, with one timer, and what ended before is left alone."""

from __future__ import annotations

import asyncio

import pytest

from gsb.deadlines import Deadlines
from tests.support.hours import in_a_moment

SOON = 0.02
NEVER = 3_600.0
EXACT = 2.0**-6
"""Of which a computer adds up fractions without an error."""


async def forever() -> None:
    await asyncio.Event().wait()


async def work_within(deadlines: Deadlines) -> None:
    with deadlines.begin():
        await forever()


async def over(deadlines: Deadlines) -> None:
    """Returns when a wait that begins now is over, and so every one that began before."""
    rung = asyncio.Event()
    deadlines.call(rung.set)
    await rung.wait()


async def test_what_takes_too_long_is_cancelled_and_told_so() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    limit = Deadlines(SOON).begin()
    after = loop.time()
    with pytest.raises(TimeoutError), limit:
        await forever()
    assert limit.expired
    assert before + SOON <= limit.at <= after + SOON
    assert loop.time() >= limit.at
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_what_ends_in_time_is_left_alone() -> None:
    deadlines = Deadlines(SOON)
    limit = deadlines.begin()
    with limit:
        pass
    await over(deadlines)
    assert not limit.expired


def test_each_ends_at_its_own_time_whoever_ended_before() -> None:
    """In a time that is the test's own: in that of a busy machine the short ones are over before they ended, too."""
    took: dict[int, float] = {}

    async def one(deadlines: Deadlines, number: int) -> None:
        await asyncio.sleep(number * EXACT / 4)
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(TimeoutError):
            await work_within(deadlines)
        took[number] = loop.time() - began

    async def short(deadlines: Deadlines) -> None:
        for _ in range(20):
            with deadlines.begin():
                await asyncio.sleep(EXACT / 8)

    async def work() -> None:
        deadlines = Deadlines(EXACT)
        await asyncio.gather(*(one(deadlines, number) for number in range(8)), short(deadlines))

    in_a_moment(work())
    assert list(took.items()) == [(number, EXACT) for number in range(8)]


async def test_being_cancelled_by_somebody_else_is_no_time_out() -> None:
    work = asyncio.create_task(work_within(Deadlines(NEVER)))
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_being_cancelled_when_the_time_is_over_too_stays_a_cancellation() -> None:
    deadlines = Deadlines(SOON)
    both = asyncio.Event()

    async def stubborn() -> None:
        with deadlines.begin():
            try:
                await forever()
            finally:
                both.set()
                await asyncio.sleep(0)

    work = asyncio.create_task(stubborn())
    await both.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_an_error_of_the_work_itself_comes_through_even_when_the_time_is_over() -> None:
    async def fails() -> None:
        with Deadlines(SOON).begin():
            try:
                await forever()
            except asyncio.CancelledError:
                raise ValueError("itself") from None

    with pytest.raises(ValueError, match="itself"):
        await fails()


async def test_what_was_cancelled_is_not_done() -> None:
    deadlines, done = Deadlines(SOON), list[str]()
    acts = [lambda name=name: done.append(name) for name in ("first", "second", "third")]
    dues = [deadlines.call(act) for act in acts]
    dues[0].cancel()
    await over(deadlines)
    assert done == ["second", "third"]


async def test_a_hundred_thousand_that_end_in_time_leave_nothing_behind() -> None:
    deadlines = Deadlines(NEVER)
    for _ in range(100_000):
        with deadlines.begin():
            pass
    assert not deadlines._waits
