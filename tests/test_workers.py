"""Workers: places that are kept to, tasks that are used again, and an end that breaks off what still runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from gsb.broker.local import LocalBroker
from gsb.model import State
from gsb.sdk import Reply, Request
from gsb.workers import Workers
from tests.support.bus import PERSON_BODY, READ, Hands, bus_of, puppet, puppet_deployment
from tests.support.deployment import PERSON
from tests.support.node import node_in_process


class Stage:
    """The core system: answers when it is told to, and knows how many it was asked at once."""

    def __init__(self) -> None:
        self.go_on, self.asked = asyncio.Event(), asyncio.Semaphore(0)
        self.now = self.most = 0
        self.tasks: set[asyncio.Task[None] | None] = set()

    async def act(self, request: Request) -> Reply:
        self.tasks.add(asyncio.current_task())
        self.now += 1
        self.most = max(self.most, self.now)
        self.asked.release()
        try:
            await self.go_on.wait()
        finally:
            self.now -= 1
        return Reply(PERSON)


@asynccontextmanager
async def working(tmp_path: Path, concurrency: int) -> AsyncIterator[tuple[Hands, Workers, Stage]]:
    deployment = puppet_deployment(tmp_path)
    deployment.files["systems/registry.toml"] |= {"concurrency": concurrency, "timeout": 30.0}
    async with bus_of(deployment) as hands, asyncio.timeout(90):
        stage, workers = Stage(), Workers(hands.bus)
        puppet().acts = stage.act
        running = asyncio.create_task(workers.run())
        try:
            yield hands, workers, stage
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            puppet().reset()


async def test_no_more_are_performed_at_once_than_the_system_has_places(tmp_path: Path) -> None:
    async with working(tmp_path, 2) as (hands, workers, stage):
        made = [await hands.accept(READ, PERSON_BODY) for _ in range(5)]
        for _ in range(2):
            await stage.asked.acquire()
        assert workers.performing == 2
        stage.go_on.set()
        for _ in range(3):
            await stage.asked.acquire()
        await workers.done()
        assert [(await hands.state(each)).state for each in made] == [State.DONE] * 5
    assert stage.most == 2
    assert len(stage.tasks) == 2  # for five exchanges


async def test_one_that_fails_in_a_way_that_nobody_foresaw_costs_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(tmp_path, 1) as (hands, workers, stage):
        stage.go_on.set()
        begun = asyncio.Event()

        async def unforeseen(exchange: str, lease: float) -> None:
            begun.set()
            raise ZeroDivisionError

        with monkeypatch.context() as patched:
            patched.setattr(hands.bus.store, "begin", unforeseen)
            lost = await hands.accept(READ, PERSON_BODY)
            await begun.wait()
        await workers.done()
        assert "performing failed" in caplog.messages
        made = await hands.accept(READ, PERSON_BODY)
        await stage.asked.acquire()
        await workers.done()
        assert [(await hands.state(each)).state for each in (lost, made)] == [State.ACCEPTED, State.DONE]


async def test_what_could_not_end_in_time_is_left_to_the_store(tmp_path: Path) -> None:
    async with working(tmp_path, 1) as (hands, workers, stage):
        workers.let_go_at = asyncio.get_running_loop().time() + 29
        left = await hands.accept(READ, PERSON_BODY)
        broker = hands.bus.broker
        assert isinstance(broker, LocalBroker)
        for _ in range(1_000):
            if broker._queues["registry"]:
                await asyncio.sleep(0)
        assert not broker._queues["registry"]  # it was delivered
        workers.let_go_at += 60
        made = await hands.accept(READ, PERSON_BODY)
        stage.go_on.set()
        await stage.asked.acquire()
        await workers.done()
        assert [(await hands.state(each)).state for each in (left, made)] == [State.ACCEPTED, State.DONE]


async def test_ending_breaks_off_what_still_runs(tmp_path: Path) -> None:
    async with working(tmp_path, 1) as (hands, _, stage):
        await hands.accept(READ, PERSON_BODY)
        await stage.asked.acquire()
        assert stage.now == 1
    assert stage.now == 0


async def test_a_node_of_which_a_part_has_failed_begins_nothing_any_more(tmp_path: Path) -> None:
    """What it could not go on with may be the store; what was begun is finished all the same."""
    deployment, stage = puppet_deployment(tmp_path), Stage()
    deployment.files["systems/registry.toml"] |= {"concurrency": 1, "timeout": 10.0}
    puppet().acts = stage.act
    try:
        async with node_in_process(tmp_path, deployment) as it, it.client() as client, asyncio.timeout(90):
            for _ in range(2):
                await client.call(READ, PERSON_BODY, purpose="payroll", respond_async=True)
            await stage.asked.acquire()
            it.node.failed.set()
            stopping = asyncio.create_task(it.node.stop())
            await asyncio.sleep(0)
            stage.go_on.set()
            await stopping
        assert len(stage.tasks) == 1
        assert stage.asked.locked(), "only one was begun"
    finally:
        puppet().reset()
