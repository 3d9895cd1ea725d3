"""Reload under way: exchanges that run or wait when the catalogue changes, systems that stay, and a node under load."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gsb.catalogue import build
from gsb.client import BusProblem, Result
from gsb.load import ConfigInvalid
from gsb.model import Reply, Request
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ, puppet, puppet_deployment
from tests.support.deployment import closed, standard
from tests.support.node import InProcess, RunningNode, node_in_process, running_node
from tests.support.reloading import Ear, Lines, acts
from tests.support.theatre import Hand, empty_stage, played, raising, theatre

WITHIN = 60.0
"""Seconds for whatever must happen, on a machine that is busy with other things."""

# --- exchanges that run or wait


class Door:
    """Holds every call of the core system until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()

    async def act(self, request: Request) -> Reply:
        self.reached.set()
        await self.opened.wait()
        return Reply(request.body)


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[tuple[InProcess, Door]]:
    """A node with one place at its registry, whose first call is held at the door."""
    deployment = puppet_deployment(tmp_path)
    deployment.files["systems/registry.toml"] |= {"timeout": WITHIN, "concurrency": 1}
    door = Door()
    async with node_in_process(tmp_path, deployment) as node:
        puppet().acts = door.act
        yield node, door
        door.opened.set()
    puppet().reset()


async def reload(node: InProcess) -> bool:
    node.deployment.write()
    return await node.node.reloader.reload("signal")


async def note(node: InProcess, **options: Any) -> Result:
    async with node.client() as client:
        return await client.call(ONCE, NOTE, purpose="payroll", **options)


async def test_a_running_call_ends_on_the_adapter_that_began_it_and_leaves_others_their_places(
    held: tuple[InProcess, Door],
) -> None:
    node, door = held
    first = asyncio.create_task(note(node))
    await door.reached.wait()
    door.reached.clear()
    before = node.node.bus.runtime._lines["registry"]
    node.deployment.files["systems/registry.toml"]["concurrency"] = 2
    assert await reload(node)
    assert node.node.bus.runtime._lines["registry"] is not before
    second = asyncio.create_task(note(node))
    await asyncio.wait_for(door.reached.wait(), WITHIN)
    door.opened.set()
    for result in (await first, await second):
        assert (result.status, result.requests) == (200, 1)


def suspend(node: InProcess) -> None:
    node.deployment.files["agreements/a-1.toml"]["suspended"] = True


def revoke(node: InProcess) -> None:
    node.deployment.files["agencies/payroll.toml"]["keys"][0]["state"] = "revoked"


@pytest.mark.parametrize("withdraw", [suspend, revoke])
async def test_what_is_accepted_but_not_begun_loses_its_authority(held: tuple[InProcess, Door], withdraw: Any) -> None:
    node, door = held
    await note(node, respond_async=True)
    await door.reached.wait()
    waiting = await note(node, respond_async=True)
    assert (waiting.status, waiting.state) == (202, "accepted")
    withdraw(node)
    assert await reload(node)
    bus = node.node.bus
    with bus.waiters.waiting(waiting.exchange or "") as woken:
        door.opened.set()
        await asyncio.wait_for(woken.wait(), WITHIN)
    ended = await bus.store.exchange(waiting.exchange or "")
    assert ended is not None
    assert ended.outcome is not None
    assert (ended.state, ended.outcome.effect, ended.outcome.code) == ("failed", "none", "authority_withdrawn")
    assert len(puppet().requests) == 1


async def test_a_suspended_agreement_hands_out_nothing_any_more(tmp_path: Path) -> None:
    async with node_in_process(tmp_path) as node, node.client() as client:
        done = await client.call(ONCE, NOTE, purpose="payroll")
        assert (await client.reply(done.exchange or "")).body == NOTE
        suspend(node)
        assert await reload(node)
        with pytest.raises(BusProblem) as raised:
            await client.reply(done.exchange or "")
    assert (raised.value.status, raised.value.code) == (403, "agreement_ended")


# --- systems


async def change(hand: Hand, root: Path, **system: Any) -> None:
    """What a reload does with the theatre described so."""
    hand.runtime.swap(await hand.runtime.prepare(build(theatre(root, **system).write())))


async def test_a_system_that_stays_as_it_was_keeps_its_breaker(tmp_path: Path) -> None:
    stage = empty_stage()
    deployment = theatre(tmp_path)
    async with played(deployment, stage) as hand:
        await hand.fail(5)
        down = hand.health
        assert down is not None
        deployment.files["systems/theatre.toml"]["title"] = "Another title"
        deployment.system("cinema", adapter="stage")
        hand.runtime.swap(await hand.runtime.prepare(build(deployment.write())))
        assert hand.runtime.health() == {"theatre": down, "cinema": None}
        assert (stage.past.count("open"), stage.past.count("close")) == (2, 0)
    assert stage.past.count("close") == 2


@pytest.mark.parametrize(
    "different",
    [{"timeout": 7.0}, {"concurrency": 3}, {"settings": {"word": "curtain"}}, {"service": {}}, {"secret": "new"}],
    ids=lambda different: next(iter(different)),
)
async def test_a_system_that_differs_is_opened_before_the_old_one_closes(
    tmp_path: Path, different: dict[str, Any]
) -> None:
    stage = empty_stage()
    deployment = theatre(tmp_path, settings={"secret": "word.txt"})
    secret = deployment.folder / "word.txt"
    secret.write_text("old")
    table = deployment.files["systems/theatre.toml"]
    async with played(deployment, stage) as hand:
        await hand.fail(5)
        if "service" in different:
            deployment.service("theatre/pause/v1")
        elif "secret" in different:
            secret.write_text(different["secret"])
        else:
            table |= different
        hand.runtime.swap(await hand.runtime.prepare(build(deployment.write())))
        assert hand.health is None
        stage.plays.clear()
        assert (await hand.call()).body == {"act": 1}
    assert [name for name in stage.past if name != "handle"] == ["open", "open", "close", "close"]


async def test_an_old_adapter_closes_only_after_its_last_call(tmp_path: Path) -> None:
    stage, door, closed_ = empty_stage(), Door(), asyncio.Event()

    async def act(request: Request) -> Reply:
        reply = await door.act(request)
        stage.past.append("ended")
        return reply

    async def close() -> None:
        closed_.set()

    async with played(theatre(tmp_path, timeout=20.0), stage) as hand:
        stage.plays |= {"handle": act, "close": close}
        calls = [asyncio.create_task(hand.call()) for _ in range(3)]
        await door.reached.wait()
        await change(hand, tmp_path / "other", timeout=19.0)
        door.opened.set()
        for call in calls:
            assert (await call).body == {"act": 1}
        await asyncio.wait_for(closed_.wait(), WITHIN)
        assert stage.past[-4:] == ["ended", "ended", "ended", "close"]


async def test_an_old_adapter_whose_calls_never_end_is_closed_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gsb.runtime.PREPARE", 0.01)
    monkeypatch.setattr("gsb.runtime.FAREWELL", 0.01)
    stage, stubborn, free = empty_stage(), asyncio.Event(), asyncio.Event()

    async def play(request: Request) -> None:
        stubborn.set()
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue  # what no adapter may do

    async with played(theatre(tmp_path, timeout=0.05), stage) as hand:
        stage.plays["handle"] = play
        call = asyncio.create_task(hand.call())
        await stubborn.wait()
        await change(hand, tmp_path / "other", timeout=19.0)
        async with asyncio.timeout(WITHIN):
            await asyncio.gather(*hand.runtime._leaving)
        assert stage.past.count("close") == 1
        free.set()
        await call


async def test_what_cannot_open_is_closed_and_the_old_one_stays(tmp_path: Path) -> None:
    stage = empty_stage()
    async with played(theatre(tmp_path), stage) as hand:
        stage.plays["open"] = raising(RuntimeError("no such play"))
        with pytest.raises(ConfigInvalid, match="no such play"):
            await change(hand, tmp_path / "other", timeout=19.0)
        assert stage.past == ["open", "open", "close"]
        assert (await hand.call()).body == {"act": 1}


# --- under load

CALLERS = 6
RELOADS = 20
ENDED = '"exchange ended"'
SCHEMA = closed({"id": {"type": "string"}}, {"id": "x"})


async def keep_calling(node: RunningNode, over: asyncio.Event, results: list[Result]) -> None:
    """Each call may wait long for its answer, so that one is enough although the machine stood still."""
    async with node.client() as client:
        while not over.is_set():
            results.append(await client.call(READ, PERSON_BODY, purpose="payroll", wait=50))
            results.append(await client.call(ONCE, NOTE, purpose="payroll", wait=50))


def prepare(node: RunningNode, number: int) -> None:
    """Another valid deployment each time, with one service more and other settings of the system that is called."""
    deployment, name = node.deployment, f"archive-{number}"
    deployment.files["systems/registry.toml"] |= {"timeout": 10 + number, "agency": "hrmis-agency"}
    deployment.system(name)
    deployment.service(f"{name}/file/v1", request=SCHEMA, reply=SCHEMA)
    deployment.agreement(f"a-{name}", grants=[{"service": f"{name}/file/v1", "purpose": "payroll", "fields": [""]}])


async def test_no_call_fails_through_any_reload(tmp_path: Path) -> None:
    ear, over, results = Ear(), asyncio.Event(), list[Result]()
    async with running_node(tmp_path, standard(tmp_path)) as node:
        node.log = Lines(node.log, ear.tell)
        callers = [asyncio.create_task(keep_calling(node, over, results)) for _ in range(CALLERS)]
        for number, valid in zip(range(1, RELOADS + 1), itertools.cycle([True, False])):
            if valid:
                prepare(node, number)
            else:
                node.deployment.files["systems/registry.toml"]["agency"] = "nobody"
            node.deployment.write()
            node.process.send_signal(signal.SIGHUP)
            await ear.hear('"reloaded"' if valid else '"reload refused', (number + 1) // 2)
            if valid:
                async with node.client() as client:
                    done = await client.call(f"archive-{number}/file/v1", {"id": "x"}, purpose="payroll")
                    results.append(done)
            assert not any(caller.done() for caller in callers), "a call failed"
            await ear.hear(ENDED, ear.count(ENDED) + CALLERS)
        over.set()
        await asyncio.gather(*callers)
    assert {(result.status, result.requests) for result in results} == {(200, 1)}
    assert_chained(acts(node.deployment.folder), node)


def assert_chained(found: list[dict[str, Any]], node: RunningNode) -> None:
    """Each change begins where the last one ended, and a refusal changes nothing."""
    assert [act["act"] for act in found] == ["reload", "reload_refused"] * (RELOADS // 2)
    changes = found[::2]
    for change_, refused, following in zip(changes, found[1::2], [*changes[1:], None], strict=True):
        assert change_["old"] != change_["new"] == refused["old"]
        assert following is None or following["old"] == change_["new"]
    node.deployment.files["systems/registry.toml"]["agency"] = "hrmis-agency"
    assert changes[-1]["new"] == build(node.deployment.write()).digest
