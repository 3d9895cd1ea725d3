"""Turns: at once to who is calm, one at a time to who floods beside them, in rounds, and never lost or kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb.config import Limits
from gsb.errors import Busy
from gsb.fair import AGES, THERE, Gate


class Stage:
    """A gate with a clock of the test's, and who got turns in which order."""

    def __init__(self, *, turns: int = 4, calm: int = 2, in_flight: int = 100) -> None:
        self.now = 1_000.0
        self.limits = Limits(turns=turns, calm=calm, in_flight_agency=in_flight)
        self.gate = Gate(lambda: self.limits, lambda: self.now)
        self.order: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.ends: list[tuple[str, asyncio.Event]] = []

    async def come(self, agency: str, count: int = 1) -> None:
        """So many of the agency want a turn; returns when each has one or waits."""
        for _ in range(count):
            self.tasks.append(asyncio.create_task(self._work(agency)))
        await rest()

    async def _work(self, agency: str) -> None:
        end = asyncio.Event()
        async with self.gate.turn(agency):
            self.order.append(agency)
            self.ends.append((agency, end))
            await end.wait()

    async def end(self, agency: str) -> None:
        """End the oldest turn of the agency."""
        pair = next(pair for pair in self.ends if pair[0] == agency)
        self.ends.remove(pair)
        pair[1].set()
        await rest()

    def working(self, agency: str) -> int:
        return len([name for name, _ in self.ends if name == agency])


async def rest() -> None:
    """Let everything go on that can."""
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def stage(**limits: int) -> AsyncIterator[Stage]:
    made = Stage(**limits)
    yield made
    for task in made.tasks:
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_an_agency_alone_has_every_turn() -> None:
    async with stage(turns=4, calm=2) as one:
        await one.come("a", 6)
        assert one.working("a") == 4
        await one.end("a")
        assert one.working("a") == 4


async def test_while_a_calm_one_is_there_who_floods_has_one_turn_at_a_time() -> None:
    async with stage(turns=8, calm=2) as one:
        await one.come("b")
        await one.end("b")
        await one.come("a", 12)
        assert one.working("a") == 2  # until it was seen to flood
        await one.end("a")
        assert one.working("a") == 1
        await one.end("a")
        assert one.working("a") == 1
        # Once no calm one has been there for a while, all turns are the agency's again.
        one.now += THERE
        await one.end("a")
        assert one.working("a") == 8


async def test_who_floods_waits_while_calm_ones_work_but_not_for_ever() -> None:
    async with stage(turns=4, calm=2) as one:
        await one.come("b", 2)
        await one.come("a", 8)
        for _ in range(2):
            await one.end("a")
        assert (one.working("a"), one.working("b")) == (1, 2)
        await one.end("a")
        assert one.working("a") == 0
        await one.end("b")
        assert one.working("a") == 0
        one.now += AGES
        await one.come("b")
        await one.end("b")
        assert (one.working("a"), one.working("b")) == (1, 1)
        await one.end("b")
        await one.end("a")
        assert one.working("a") == 1


async def test_a_calm_one_has_its_turns_at_once_whoever_floods() -> None:
    async with stage(turns=4, calm=2) as one:
        await one.come("a", 50)
        await one.come("b", 2)
        assert one.working("b") == 0  # every turn was taken already
        await one.end("a")
        await one.end("a")
        assert (one.working("a"), one.working("b")) == (2, 2)


async def test_those_who_flood_together_have_turns_in_rounds() -> None:
    async with stage(turns=1, calm=1) as one:
        for agency in ("a", "b", "c"):
            await one.come(agency, 4)
        one.now += THERE
        for _ in range(9):
            await one.end(one.order[-1])
        assert all(len(set(one.order[at : at + 3])) == 3 for at in range(1, 8))


async def test_a_caller_who_goes_away_leaves_no_gap_and_takes_no_turn_along() -> None:
    async with stage(turns=1, calm=1) as one:
        await one.come("a", 3)
        await one.come("b")
        one.tasks[1].cancel()  # waits
        await rest()
        one.ends.pop()[1].set()
        one.tasks[2].cancel()  # is given the turn, or still waits: both in the same moment
        await rest()
        assert one.order == ["a", "b"]
        await one.end("b")
        await one.come("a")
        assert one.order == ["a", "b", "a"]


async def test_a_turn_is_given_back_when_its_work_fails() -> None:
    gate = Gate(lambda: Limits(turns=1), lambda: 0.0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with gate.turn("a"):
                raise ZeroDivisionError


async def test_calls_beyond_an_agencys_own_limit_are_refused_and_nobody_elses() -> None:
    gate = Gate(lambda: Limits(in_flight_agency=2))
    with gate.call("a"), gate.call("a"):
        with pytest.raises(Busy), gate.call("a"):
            raise AssertionError("it was let in")
        with gate.call("b"):
            pass
    with gate.call("a"), gate.call("a"):
        pass


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["come", "end", "give up", "wait"])), max_size=60),
)
def test_turns_are_never_exceeded_and_never_idle_while_somebody_may_have_one(
    turns: int, calm: int, acts: list[tuple[str, str]]
) -> None:
    async def play() -> None:
        async with stage(turns=turns, calm=calm) as one:
            for agency, act in acts:
                if act == "come":
                    await one.come(agency)
                elif act == "end" and one.working(agency):
                    await one.end(agency)
                elif act == "give up" and one.tasks:
                    task = one.tasks[len(one.tasks) // 2]
                    task.cancel()
                    await rest()
                else:
                    one.now += THERE / 3
                assert one.gate.working <= turns
            # Whatever happened, in the end everybody who still waits is served.
            for _ in range(2 * len(one.tasks) + 1):
                for _, end in one.ends:
                    end.set()
                one.ends.clear()
                await rest()
            assert all(task.done() for task in one.tasks)
            assert one.gate.working == 0

    asyncio.run(play())
