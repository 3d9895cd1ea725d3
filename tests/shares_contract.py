"""What every form of ``gsb.shares.contract.Shares`` must do: several nodes, and time that really passes.

Nothing is judged by how long it took: leases are either far too long to end or end before they are asked for again,
and budgets are counted against the clock that the form itself tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import pytest

from gsb.shares.contract import Draw, Fence, Need, Shares

T = TypeVar("T")

LONG = 600.0
NODES = ("node-a", "node-b", "node-c")
RECORDER = "recorder 2026"


async def eventually(look: Callable[[], Awaitable[T]], within: float = 30.0) -> T:
    """What a look finds, as soon as it finds something, which must be within so many seconds."""
    async with asyncio.timeout(within):
        while True:
            if found := await look():
                return found
            await asyncio.sleep(0.02)


def need(concurrency: int, busy: int = 0, *, hungry: bool = False, seconds: float = LONG) -> dict[str, Need]:
    return {"tax": Need(concurrency, busy, hungry, seconds)}


async def calls(shares: Shares, node: str, needs: dict[str, Need]) -> int:
    return (await shares.slots(node, needs))["tax"].calls


def a_minute(exchanges: int, per_minute: int, burst: int) -> dict[str, Draw]:
    interval = 60 / per_minute
    return {"budget": Draw(exchanges, interval, interval * (burst - 1))}


class SharesContract:
    """``nodes`` are three forms that share the same; a subclass makes them."""

    @pytest.fixture
    async def nodes(self) -> Sequence[Shares]:
        raise NotImplementedError

    async def test_there_is_one_clock(self, nodes: Sequence[Shares]) -> None:
        told = [await node.clock() for node in (*nodes, *nodes)]
        assert told == sorted(told)
        assert told[0] > 1_700_000_000

    # --- leases

    async def test_one_node_holds_a_lease(self, nodes: Sequence[Shares]) -> None:
        fences = await asyncio.gather(
            *(node.lease(RECORDER, name, LONG) for node, name in zip(nodes, NODES, strict=True) for _ in range(5))
        )
        (holder,) = {number // 5 for number, fence in enumerate(fences) if fence is not None}
        assert fences[holder * 5 : holder * 5 + 5] == [Fence(1)] * 5

    async def test_leases_of_other_names_are_others(self, nodes: Sequence[Shares]) -> None:
        assert await nodes[0].lease("recorder 2026", "node-a", LONG) == Fence(1)
        assert await nodes[1].lease("recorder 2027", "node-b", LONG) == Fence(1)

    async def test_a_lease_that_is_released_goes_to_the_next_with_a_higher_fence(self, nodes: Sequence[Shares]) -> None:
        assert await nodes[0].lease(RECORDER, "node-a", LONG) == Fence(1)
        await nodes[1].release(RECORDER, "node-b")  # which does not hold it
        assert await nodes[1].lease(RECORDER, "node-b", LONG) is None
        await nodes[0].release(RECORDER, "node-a")
        assert await nodes[1].lease(RECORDER, "node-b", LONG) == Fence(2)
        assert await nodes[0].lease(RECORDER, "node-a", LONG) is None

    async def test_a_lease_that_nobody_holds_can_be_released(self, nodes: Sequence[Shares]) -> None:
        await nodes[0].release(RECORDER, "node-a")
        assert await nodes[0].lease(RECORDER, "node-a", LONG) == Fence(1)

    async def test_the_lease_of_a_node_that_died_ends_by_itself(self, nodes: Sequence[Shares]) -> None:
        assert await nodes[0].lease(RECORDER, "node-a", 0.2) == Fence(1)
        assert await eventually(lambda: nodes[1].lease(RECORDER, "node-b", LONG)) == Fence(2)

    async def test_a_holder_that_was_paused_cannot_go_on_once_another_took_over(self, nodes: Sequence[Shares]) -> None:
        assert await nodes[0].lease(RECORDER, "node-a", 0.2) == Fence(1)
        await eventually(lambda: nodes[1].lease(RECORDER, "node-b", LONG))
        assert await nodes[0].lease(RECORDER, "node-a", LONG) is None
        await nodes[0].release(RECORDER, "node-a")
        assert await nodes[2].lease(RECORDER, "node-c", LONG) is None

    async def test_a_holder_that_was_late_learns_it_by_another_fence(self, nodes: Sequence[Shares]) -> None:
        assert await nodes[0].lease(RECORDER, "node-a", 0.0) == Fence(1)
        assert await nodes[0].lease(RECORDER, "node-a", LONG) == Fence(2)
        assert await nodes[0].lease(RECORDER, "node-a", LONG) == Fence(2)

    # --- budgets

    async def test_a_burst_is_given_once_whoever_draws(self, nodes: Sequence[Shares]) -> None:
        drawn = await asyncio.gather(*(node.draw(a_minute(2, 1, burst=20)) for node in nodes for _ in range(10)))
        assert sum(each["budget"].exchanges for each in drawn) == 20
        assert max(each["budget"].ahead for each in drawn) == pytest.approx(20 * 60, abs=30)

    async def test_a_draw_gets_what_there_is(self, nodes: Sequence[Shares]) -> None:
        assert [(await node.draw(a_minute(7, 1, burst=10)))["budget"].exchanges for node in nodes] == [7, 3, 0]

    async def test_what_was_not_used_can_be_given_back(self, nodes: Sequence[Shares]) -> None:
        assert (await nodes[0].draw(a_minute(10, 1, burst=10)))["budget"].exchanges == 10
        assert (await nodes[0].draw(a_minute(-4, 1, burst=10)))["budget"].exchanges == -4
        assert (await nodes[1].draw(a_minute(10, 1, burst=10)))["budget"].exchanges == 4

    async def test_giving_back_never_makes_more_than_the_burst(self, nodes: Sequence[Shares]) -> None:
        await nodes[0].draw(a_minute(-4, 1, burst=10))
        assert (await nodes[1].draw(a_minute(50, 1, burst=10)))["budget"].exchanges == 10

    async def test_several_budgets_are_drawn_at_once_and_apart(self, nodes: Sequence[Shares]) -> None:
        asked = {f"budget-{number}": Draw(5, 60.0, 60.0 * number) for number in range(8)}
        backwards = dict(reversed(asked.items()))
        drawn = await asyncio.gather(*(node.draw(asked if at % 2 else backwards) for at in range(10) for node in nodes))
        for number in range(8):
            assert sum(each[f"budget-{number}"].exchanges for each in drawn) == number + 1

    async def test_all_nodes_together_use_a_budget_whole_and_no_more(self, nodes: Sequence[Shares]) -> None:
        """As many as the clock allows, to the last one: each draws until, after two seconds, there is nothing left.

        The burst is a minute's, so that what a machine that stands still does not draw is there when it goes on.
        """
        per_second, burst = 50, 3_000
        asked = a_minute(3, per_second * 60, burst)
        before = await nodes[0].clock()
        first = (await nodes[0].draw(a_minute(burst, per_second * 60, burst)))["budget"].exchanges
        after = await nodes[0].clock()

        async def use(node: Shares) -> tuple[int, float, float]:
            used = 0
            while True:
                from_ = await node.clock()
                drawn = (await node.draw(asked))["budget"].exchanges
                until = await node.clock()
                used += drawn
                if drawn < 3 and from_ > after + 2:
                    return used, from_, until
                await asyncio.sleep(0.005)

        async with asyncio.timeout(60):
            ended = await asyncio.gather(*(use(node) for node in nodes))
        used = first + sum(each for each, _, _ in ended)
        least = burst + (min(from_ for _, from_, _ in ended) - after) * per_second - 1
        most = burst + (max(until for _, _, until in ended) - before) * per_second
        assert least <= used <= most

    # --- slots

    async def test_a_node_that_is_alone_has_every_slot(self, nodes: Sequence[Shares]) -> None:
        had = (await nodes[0].slots("node-a", need(8)))["tax"]
        assert had.calls == 8
        assert 0 < had.seconds <= LONG

    async def test_idle_nodes_each_have_a_part_ready(self, nodes: Sequence[Shares]) -> None:
        for _ in range(2):
            had = [await calls(node, name, need(8)) for node, name in zip(nodes, NODES, strict=True)]
        assert sorted(had) == [2, 3, 3]

    async def test_free_slots_go_to_the_node_that_needs_them(self, nodes: Sequence[Shares]) -> None:
        await self.test_idle_nodes_each_have_a_part_ready(nodes)
        await calls(nodes[1], "node-b", need(8, 3, hungry=True))
        assert await calls(nodes[0], "node-a", need(8)) == 0
        assert await calls(nodes[2], "node-c", need(8, 1)) == 1
        assert await calls(nodes[1], "node-b", need(8, 3, hungry=True)) == 7

    async def test_nodes_that_all_want_more_have_the_same(self, nodes: Sequence[Shares]) -> None:
        assert await calls(nodes[0], "node-a", need(9, 9, hungry=True)) == 9
        assert await calls(nodes[1], "node-b", need(9, hungry=True)) == 0
        assert await calls(nodes[2], "node-c", need(9, hungry=True)) == 0
        # What runs goes on, and what ends is passed on.
        assert await calls(nodes[0], "node-a", need(9, 9, hungry=True)) == 3
        assert await calls(nodes[1], "node-b", need(9, hungry=True)) == 0
        assert await calls(nodes[0], "node-a", need(9, 5, hungry=True)) == 3
        assert await calls(nodes[1], "node-b", need(9, hungry=True)) == 3
        assert await calls(nodes[2], "node-c", need(9, hungry=True)) == 1
        assert await calls(nodes[0], "node-a", need(9, 3, hungry=True)) == 3
        assert await calls(nodes[2], "node-c", need(9, 1, hungry=True)) == 3

    async def test_the_slots_of_a_node_that_died_come_back(self, nodes: Sequence[Shares]) -> None:
        await nodes[0].slots("node-a", need(4, 4, seconds=0.2))
        assert await eventually(lambda: calls(nodes[1], "node-b", need(4, hungry=True))) == 4
        # Whoever wakes up then has none, and what it still does is seen by nobody who could help it.
        assert await calls(nodes[0], "node-a", need(4, 0, hungry=True)) == 0

    async def test_a_node_that_leaves_gives_its_slots_back(self, nodes: Sequence[Shares]) -> None:
        await nodes[0].slots("node-a", need(4, 4))
        assert await calls(nodes[1], "node-b", need(4, hungry=True)) == 0
        await nodes[0].leave("node-a", frozenset({"tax", "unheard-of"}))
        assert await calls(nodes[1], "node-b", need(4, hungry=True)) == 4

    async def test_systems_are_divided_apart(self, nodes: Sequence[Shares]) -> None:
        needs = {name: Need(number, 0, True, LONG) for number, name in enumerate(("customs", "fmis", "tax"), 1)}
        had = await nodes[0].slots("node-a", needs)
        assert {name: slots.calls for name, slots in had.items()} == {"customs": 1, "fmis": 2, "tax": 3}

    async def test_whoever_looks_when_the_sum_is_never_above_what_the_system_bears(
        self, nodes: Sequence[Shares]
    ) -> None:
        """Each node does as it was told, all at once; between any two looks the sum must hold."""
        running, most = dict.fromkeys(NODES, 0), 0

        async def work(node: Shares, name: str, hunger: Sequence[bool]) -> None:
            nonlocal most
            for hungry in hunger:
                limit = await calls(node, name, need(7, running[name], hungry=hungry))
                running[name] = max(limit, running[name] - 2)  # the calls of two slots have ended
                if not hungry:
                    running[name] = min(running[name], 1)
                most = max(most, sum(running.values()))
                await asyncio.sleep(0)

        patterns = [[(turn // every) % 2 == 0 for turn in range(60)] for every in (1, 3, 7)]
        await asyncio.gather(*(work(*each) for each in zip(nodes, NODES, patterns, strict=True)))
        assert most == 7
