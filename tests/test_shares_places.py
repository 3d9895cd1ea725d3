"""Places at core systems: never more calls than a system bears, and free ones where they are wanted.

Hours pass in a moment here, so every count is the same each time; with PostgreSQL and real processes it is
``tests/test_shares_running.py`` that counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest

from gsb.catalogue import SystemInfo
from gsb.errors import StoreUnavailable
from gsb.shares.contract import Need, Shares, Slots
from gsb.shares.division import TURN
from gsb.shares.local import LocalShares
from gsb.shares.places import BEAT, PREPARE, SPARE, Dealer, Places
from tests.support.hours import in_a_moment
from tests.test_limits import NOW

ROUND_TRIP = 0.004
TIMEOUT = 5.0
SECOND = 1.0


def now() -> float:
    return asyncio.get_running_loop().time()


class Way:
    """One node's way to what all share: as long as to a server, and perhaps cut."""

    def __init__(self, shares: LocalShares) -> None:
        self._shares = shares
        self.cut, self.asked = False, asyncio.Event()

    async def slots(self, node: str, needs: Mapping[str, Need]) -> Mapping[str, Slots]:
        self.asked.set()
        await asyncio.sleep(ROUND_TRIP / 2)
        if self.cut:
            raise StoreUnavailable
        had = await self._shares.slots(node, needs)
        await asyncio.sleep(ROUND_TRIP / 2)
        return had

    async def leave(self, node: str, systems: frozenset[str]) -> None:
        if self.cut:
            raise StoreUnavailable
        await self._shares.leave(node, systems)


class Core:
    """A core system, which counts who calls it at once, and for how many seconds it was called in all."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.worked = 0.0

    async def call(self, seconds: float) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.running -= 1
            self.worked += seconds


class Worker:
    """One node, and the calls that it makes."""

    def __init__(self, name: str, shares: LocalShares, concurrency: int, core: Core) -> None:
        self.system = SystemInfo("tax", "Tax", "tax-agency", "puppet", TIMEOUT, concurrency, {}, ())
        self.way, self.core, self.calls = Way(shares), core, 0
        self.changed = 0
        self._dealer = Dealer(cast(Shares, self.way), name, lambda: [self.system], self._change, now)
        self.places = self._dealer.places(self.system)
        self._calling: list[asyncio.Task[None]] = []
        self.start()

    def _change(self) -> None:
        self.changed += 1

    def start(self) -> None:
        self._dealing = asyncio.create_task(self._dealer.run())

    async def stop(self) -> None:
        self._dealing.cancel()
        await asyncio.gather(self._dealing, return_exceptions=True)

    async def die(self) -> None:
        """Without a word, in the middle of everything."""
        self.way.cut = True
        await self.stop()
        await self.calm()

    def want(self, callers: int, seconds: float = 0.1) -> None:
        """Have so many callers, who each call again as soon as they can."""
        self._calling += [asyncio.create_task(self._call(seconds)) for _ in range(callers)]

    async def _call(self, seconds: float) -> None:
        while True:
            if not self.places.take():
                await self.places.wait()
            try:
                self.calls += 1
                await self.core.call(seconds)
            finally:
                self.places.release()

    async def calm(self) -> None:
        """No more callers."""
        calling, self._calling = self._calling, []
        for task in calling:
            task.cancel()
        await asyncio.gather(*calling, return_exceptions=True)


def workers(concurrency: int, number: int = 3) -> tuple[list[Worker], Core]:
    shares, core = LocalShares(lambda: NOW + now()), Core()
    return [Worker(f"node-{each}", shares, concurrency, core) for each in range(number)], core


async def worked(core: Core, seconds: float) -> float:
    """Calls that ran at once on average, for so many seconds from now."""
    before = core.worked
    await asyncio.sleep(seconds)
    return (core.worked - before) / seconds


@pytest.mark.parametrize("concurrency", [3, 8, 40])
@pytest.mark.parametrize("wanting", [(0,), (1, 2), (0, 1, 2)])
def test_the_system_is_used_whole_and_never_more_wherever_the_work_is(
    concurrency: int, wanting: tuple[int, ...]
) -> None:
    async def run() -> None:
        nodes, core = workers(concurrency)
        await asyncio.sleep(SECOND)
        for number in wanting:
            nodes[number].want(concurrency + 5)
        await asyncio.sleep(SECOND)
        assert core.running == concurrency
        assert await worked(core, 20 * SECOND) >= 0.97 * concurrency
        assert core.most == concurrency
        share = concurrency // len(wanting)
        assert all(nodes[number].calls >= 0.9 * share * 20 / 0.1 for number in wanting)

    in_a_moment(run())


@pytest.mark.parametrize("after", [0.001, 0.003], ids=["before it was heard", "before the answer"])
def test_what_begins_while_a_node_gives_its_places_up_is_never_one_too_many(after: float) -> None:
    async def run() -> None:
        (first, second), core = workers(8, 2)
        await asyncio.sleep(SECOND)
        assert first.places.limit == 4
        await second.stop()
        second.want(20)
        await asyncio.sleep(0)
        await second._dealer.look()  # it says that it wants more, and looks again when the first has given up its own
        first.way.asked.clear()
        await first.way.asked.wait()
        await asyncio.sleep(after)
        first.want(4, seconds=1.0)
        await asyncio.sleep(ROUND_TRIP)
        second.start()
        await asyncio.sleep(2 * SECOND)
        assert core.most == 8

    in_a_moment(run())


def test_free_places_go_within_a_second_to_whoever_wants_them() -> None:
    async def run() -> None:
        nodes, core = workers(9)
        for turn in range(12):
            nodes[turn % 3].want(20)
            await asyncio.sleep(SECOND)
            assert core.running == 9
            await nodes[turn % 3].calm()
        assert core.most == 9

    in_a_moment(run())


def test_the_first_call_of_a_node_waits_for_nothing_while_all_are_idle() -> None:
    async def run() -> None:
        nodes, _ = workers(9)
        await asyncio.sleep(2 * SECOND)
        assert [node.places.limit for node in nodes] == [3, 3, 3]
        assert all(node.places.room(2) and not node.places.full() for node in nodes)

    in_a_moment(run())


def test_fewer_places_than_nodes_are_passed_on_in_turns() -> None:
    async def run() -> None:
        nodes, core = workers(1)
        for node in nodes:
            node.want(2, seconds=0.2)
        await asyncio.sleep(2 * SECOND)
        assert await worked(core, 12 * TURN) >= 0.9
        assert core.most == 1
        assert min(node.calls for node in nodes) >= 0.8 * 4 * TURN / 0.2

    in_a_moment(run())


def test_the_places_of_a_node_that_died_come_back_when_no_call_of_its_can_run_any_more() -> None:
    async def run() -> None:
        nodes, core = workers(8, 2)
        nodes[0].want(10)
        nodes[1].want(10)
        await asyncio.sleep(5 * SECOND)
        await nodes[0].die()
        await asyncio.sleep(TIMEOUT)
        assert core.running == 4
        await asyncio.sleep(PREPARE + SPARE + 2 * BEAT)
        assert core.running == 8
        assert core.most == 8

    in_a_moment(run())


def test_a_node_that_is_cut_off_begins_nothing_that_could_run_when_others_have_its_places() -> None:
    async def run() -> None:
        nodes, core = workers(8, 2)
        nodes[0].want(10, seconds=TIMEOUT)
        await asyncio.sleep(5 * SECOND)
        nodes[0].way.cut = True
        nodes[1].want(10, seconds=TIMEOUT)
        await asyncio.sleep(60 * SECOND)
        assert nodes[0].places.limit == 0
        assert not nodes[0].places.room(0)
        assert core.running == core.most == 8
        assert nodes[1].places.limit == 8
        # Once it can ask again, it has its part again.
        nodes[0].way.cut = False
        await asyncio.sleep(2 * TIMEOUT)
        assert [node.places.limit for node in nodes] == [4, 4]
        assert core.most == 8

    in_a_moment(run())


def test_a_node_that_was_stopped_and_goes_on_has_no_places_before_it_asked() -> None:
    async def run() -> None:
        nodes, _ = workers(8, 2)
        await asyncio.sleep(SECOND)
        assert nodes[0].places.limit == 4
        nodes[0].way.cut = True
        await nodes[0].stop()
        await asyncio.sleep(60 * SECOND)
        assert nodes[0].places.full()
        assert nodes[1].places.limit == 8
        nodes[0].way.cut = False
        nodes[0].start()
        assert nodes[0].places.full()
        await asyncio.sleep(SECOND)
        assert [node.places.limit for node in nodes] == [4, 4]

    in_a_moment(run())


def test_a_node_that_leaves_gives_its_places_to_the_others_at_once() -> None:
    async def run() -> None:
        nodes, core = workers(8, 2)
        nodes[0].want(10)
        await asyncio.sleep(SECOND)
        await nodes[0].calm()
        await nodes[0].stop()
        nodes[1].want(10)
        await asyncio.sleep(SECOND)
        assert core.running == 8

    in_a_moment(run())


def test_who_takes_deliveries_hears_when_there_may_be_room() -> None:
    async def run() -> None:
        nodes, _ = workers(4, 2)
        nodes[0].want(4)
        await asyncio.sleep(SECOND)
        assert not nodes[1].places.room(4)
        heard = nodes[1].changed
        await asyncio.sleep(SECOND)
        assert nodes[1].changed > heard

    in_a_moment(run())


def test_whoever_waits_for_a_place_may_go_away() -> None:
    async def run() -> None:
        nodes, core = workers(1, 1)
        await asyncio.sleep(SECOND)
        nodes[0].want(1, seconds=TIMEOUT)
        await asyncio.sleep(SECOND)
        gone = asyncio.create_task(nodes[0].places.wait())
        stays = asyncio.create_task(nodes[0].places.wait())
        await asyncio.sleep(SECOND)
        gone.cancel()
        await nodes[0].calm()
        async with asyncio.timeout(SECOND):
            await stays
        assert gone.cancelled()
        assert core.most == 1

    in_a_moment(run())


def test_a_system_that_bears_more_by_now_is_given_more() -> None:
    async def run() -> None:
        nodes, core = workers(4, 2)
        nodes[0].want(20)
        await asyncio.sleep(SECOND)
        for node in nodes:
            node.system = replace(node.system, concurrency=10)
        await asyncio.sleep(2 * SECOND)
        assert core.running == 10
        for node in nodes:
            node.system = replace(node.system, concurrency=2)
        await asyncio.sleep(2 * SECOND)
        assert core.running == 2

    in_a_moment(run())


async def test_places_of_ones_own_are_as_many_as_the_system_bears() -> None:
    places = Places(2)
    assert [places.room(busy) for busy in range(4)] == [True, True, False, False]
    assert [places.take() for _ in range(3)] == [True, True, False]
    assert places.full()
    places.release()
    assert not places.full()


async def test_who_waited_longest_is_given_the_place_and_who_has_gone_is_passed_over() -> None:
    places, order = Places(1), list[str]()
    assert places.take()

    async def wait(name: str) -> None:
        await places.wait()
        order.append(name)

    tasks = [asyncio.create_task(wait(name)) for name in ("gone", "first", "second", "given and gone")]
    await asyncio.sleep(0)
    tasks[0].cancel()
    places.release()
    assert not places.take()
    await asyncio.wait({tasks[1]})
    assert order == ["first"]
    places.release()
    await asyncio.wait({tasks[2]})
    places.release()  # to the last one, who is cancelled before it can take it
    tasks[3].cancel()
    await asyncio.wait({tasks[3]})
    assert (order, places.take()) == (["first", "second"], True)
