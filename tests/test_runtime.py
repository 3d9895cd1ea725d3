"""The runtime with an installed adapter that plays what each test gives it."""

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from gsb import runtime as module
from gsb.catalogue import ConfigInvalid, build
from gsb.runtime import Runtime
from gsb.sdk import Broken, Refused, Reply, Request, Unavailable
from gsb.telemetry import JsonLines
from tests.support.theatre import REQUEST, SERVICE, Hand, answering, played, raising, theatre

# --- replies and errors


async def test_an_adapter_lives_from_open_to_close(tmp_path: Path, stage: Any) -> None:
    async with played(theatre(tmp_path), stage) as hand:
        assert (await hand.call({"act": 2})).body == {"act": 2}
        assert hand.health is None
    assert stage.past == ["open", "handle", "close"]


async def test_settings_and_secrets_reach_the_adapter(tmp_path: Path, stage: Any) -> None:
    deployment = theatre(tmp_path, settings={"word": "curtain", "secret": "word.txt"})
    (deployment.folder / "word.txt").write_text("sesame\n")
    async with played(deployment, stage):
        context = stage.newest[0].context
    assert (context.system, context.settings.word) == ("theatre", "curtain")
    assert context.settings.secret.read() == "sesame"
    assert "sesame" not in repr(context.settings)
    assert list(context.services) == [SERVICE]


async def test_the_deadline_is_set_when_the_call_starts(hand: Hand) -> None:
    seen, loop = list[float](), asyncio.get_running_loop()

    async def play(request: Request) -> None:
        seen.extend((request.deadline, loop.time() + 5.0))

    hand.plays["handle"] = play
    seen.append(loop.time() + 5.0)
    await hand.call()
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    "error", [Unavailable("a", sent=False, after=3.0), Refused("closed", "b"), Broken("c")], ids=repr
)
async def test_the_three_errors_come_through_unchanged(hand: Hand, error: Exception) -> None:
    for verb in ("handle", "find"):
        hand.plays[verb] = raising(error)
    with pytest.raises(type(error)) as raised:
        await hand.call()
    assert raised.value is error
    with pytest.raises(type(error)) as raised:
        await hand.find()
    assert raised.value is error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (Refused("not_declared", "secret"), "does not declare"),
        (ValueError("secret"), "ValueError"),
        (TimeoutError("secret"), "TimeoutError"),
        (ExceptionGroup("secret", [KeyError("secret")]), "ExceptionGroup"),
    ],
    ids=["undeclared", "value", "own-timeout", "group"],
)
async def test_anything_else_is_broken_and_its_place_is_logged_without_a_value(
    hand: Hand, error: Exception, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    hand.plays["handle"] = raising(error)
    with pytest.raises(Broken, match=says) as raised:
        await hand.call()
    assert "secret" not in raised.value.detail
    (record,) = caplog.records
    line = JsonLines().format(record)
    logged = orjson.loads(line)
    assert (logged["message"], logged["system"]) == ("adapter broke its contract", hand.service.system)
    assert logged["error"] == type(error).__name__
    assert logged["place"]
    assert "secret" not in line


@pytest.mark.parametrize("answer", [{"a": 1}, 7, Reply({1, 2}), Reply({"a": b"b"}), Reply({1: 2})], ids=str)
async def test_a_reply_that_is_none_is_broken(hand: Hand, answer: object) -> None:
    for verb in ("handle", "find"):
        hand.plays[verb] = answering(answer)
    with pytest.raises(Broken):
        await hand.call()
    with pytest.raises(Broken):
        await hand.find()


async def test_find_may_find_nothing_or_a_reply(hand: Hand) -> None:
    assert await hand.find() is None
    hand.plays["find"] = answering(Reply({"found": True}))
    found = await hand.find()
    assert found is not None
    assert found.body == {"found": True}


# --- time and places


async def test_no_answer_in_time_may_have_been_sent(tmp_path: Path, stage: Any) -> None:
    async with played(theatre(tmp_path, timeout=0.1), stage) as hand:
        hand.plays["handle"] = lambda request: asyncio.Event().wait()
        with pytest.raises(Unavailable, match="within") as raised:
            await hand.call()
    assert raised.value.sent is True


async def test_a_cancelled_call_stays_cancelled(hand: Hand) -> None:
    begun = asyncio.Event()

    async def play(request: Request) -> None:
        begun.set()
        await asyncio.Event().wait()

    hand.plays["handle"] = play
    task = asyncio.create_task(hand.call())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del hand.plays["handle"]
    assert (await hand.call()).body == REQUEST.body


async def test_no_more_calls_at_once_than_places(tmp_path: Path, stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREPARE", 60.0)
    now, most, go = 0, 0, asyncio.Event()

    async def play(request: Request) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 3:
            go.set()
        await go.wait()
        now -= 1

    async with played(theatre(tmp_path, concurrency=3), stage) as hand:
        hand.plays["handle"] = play
        await asyncio.gather(*(hand.call() for _ in range(20)))
    assert most == 3


async def test_no_more_threads_at_once_than_places_even_if_calls_are_given_up(tmp_path: Path, stage: Any) -> None:
    go = threading.Event()

    async def play(request: Request) -> Reply:
        await stage.newest[0].context.in_thread(go.wait)
        return Reply({})

    async with played(theatre(tmp_path, concurrency=2, timeout=0.1), stage) as hand:
        hand.plays["handle"] = play
        for _ in range(2):
            with pytest.raises(Unavailable, match="within"):
                await hand.call()
        with pytest.raises(Unavailable, match="thread") as raised:
            await hand.call()
        go.set()
    assert raised.value.sent is False


async def test_an_adapter_that_blocks_the_loop_is_named_while_it_does(
    hand: Hand, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, said = threading.Event(), []

    def warning(message: str, *, extra: Any) -> None:
        said.append((message, extra["facts"]))
        told.set()

    monkeypatch.setattr(module.log, "warning", warning)
    stage.block(told)
    ((message, facts),) = said
    assert (message, facts["adapter"]) == ("adapter blocks the event loop", "stage")
    assert facts["place"].startswith("__init__.py:")


async def test_waiting_for_a_place_costs_none_of_the_adapters_time(
    tmp_path: Path, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PREPARE", 60.0)
    loop, begun, go = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    seen: list[tuple[float, float]] = []

    async def play(request: Request) -> None:
        begun.set()
        await go.wait()
        seen.append((request.deadline, loop.time()))

    async with played(theatre(tmp_path, concurrency=1, timeout=60.0), stage) as hand:
        hand.plays["handle"] = play
        first = asyncio.create_task(hand.call())
        await begun.wait()
        others = [asyncio.create_task(hand.call()) for _ in range(7)]
        await asyncio.sleep(0)  # each has run until it waits for its place
        go.set()
        await asyncio.gather(first, *others)
    assert [deadline >= ended + 60.0 for (_, ended), (deadline, _) in pairwise(seen)] == [True] * 7


async def test_no_place_for_long_sent_nothing(tmp_path: Path, stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREPARE", 0.1)
    begun, go = asyncio.Event(), asyncio.Event()

    async def play(request: Request) -> None:
        begun.set()
        await go.wait()

    async with played(theatre(tmp_path, concurrency=1), stage) as hand:
        hand.plays["handle"] = play
        first = asyncio.create_task(hand.call())
        await begun.wait()
        with pytest.raises(Unavailable) as raised:
            await hand.call()
        go.set()
        await first
        await hand.call()
    assert raised.value.sent is False


# --- starting and stopping


async def test_a_system_that_is_down_at_the_start_does_not_keep_the_bus_from_starting(
    tmp_path: Path, stage: Any
) -> None:
    stage.plays["open"] = raising(Unavailable(sent=False))
    async with played(theatre(tmp_path), stage) as hand:
        assert hand.health == "it could not be reached at the start"
        hand.clock.now += 1.0
        await hand.call()
        assert hand.health is None
    assert stage.past == ["open", "check", "handle", "close"]


async def test_an_adapter_that_hangs_at_the_start_counts_as_down(tmp_path: Path, stage: Any) -> None:
    stage.plays["open"] = lambda: asyncio.Event().wait()
    async with played(theatre(tmp_path, timeout=0.05), stage) as hand:
        assert hand.health is not None


@pytest.mark.parametrize("error", [Broken("no such certificate"), OSError("no such certificate")], ids=repr)
async def test_an_adapter_that_cannot_open_refuses_the_start(tmp_path: Path, stage: Any, error: Exception) -> None:
    stage.plays["open"] = raising(error)
    with pytest.raises(ConfigInvalid, match=r"systems/theatre\.toml.*no such certificate"):
        async with played(theatre(tmp_path), stage):
            pass
    assert stage.past == ["open", "close"]


async def test_an_adapter_that_does_not_close_is_left(
    tmp_path: Path, stage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with played(theatre(tmp_path), stage):
        stage.plays["close"] = raising(ValueError("secret"))
    assert [record.message for record in caplog.records] == ["adapter did not close"]
    assert "secret" not in caplog.text


async def test_an_adapter_that_is_installed_twice_refuses_the_start(
    tmp_path: Path, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = build(theatre(tmp_path).write())
    again = tmp_path / "again" / "other-1.0.dist-info"
    again.mkdir(parents=True)
    (again / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (again / "entry_points.txt").write_text("[gsb.adapters]\nstage = evil:Stage\n")
    monkeypatch.syspath_prepend(again.parent)
    with pytest.raises(ConfigInvalid, match="installed 2 times"):
        await Runtime().open(catalogue)
    assert stage.past == []
