"""The runtime and its circuit breaker, with an adapter that plays what each test gives it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from gsb import runtime as module
from gsb.breaker import FAILURES
from gsb.sdk import Broken, Refused, Reply, Unavailable
from tests.support.theatre import REQUEST, Hand, answering, played, raising, theatre


async def test_a_system_that_is_down_is_left_alone_and_then_probed(
    hand: Hand, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gsb.runtime")
    await hand.fail(FAILURES)
    assert hand.health is not None
    hand.past.clear()
    with pytest.raises(Unavailable) as raised:
        await hand.call()
    assert (raised.value.sent, raised.value.after) == (False, 1.0)
    assert hand.past == [], "the system was not asked"

    hand.clock.now += 1.0
    hand.plays["check"] = raising(Unavailable(sent=False))
    with pytest.raises(Unavailable) as raised:
        await hand.call()
    assert (raised.value.sent, raised.value.after) == (False, 2.0)
    assert hand.past == ["check"], "the exchange itself was not risked"

    hand.clock.now += 2.0
    hand.plays.clear()
    await hand.call()
    assert hand.past == ["check", "check", "handle"]
    await hand.call()
    assert hand.past[3:] == ["handle"]
    assert hand.health is None
    assert [record.message for record in caplog.records] == ["system is down", "system is back"]
    assert {record.facts["system"] for record in caplog.records} == {"theatre"}


async def test_time_outs_count_and_answers_do_not(tmp_path: Path, stage: Any) -> None:
    async with played(theatre(tmp_path, timeout=0.02), stage) as hand:
        for error in (Refused("closed"), Broken(), ValueError()):
            hand.plays["handle"] = raising(error)
            for _ in range(FAILURES):
                with pytest.raises((Refused, Broken)):
                    await hand.call()
        assert hand.health is None
        hand.plays["handle"] = lambda request: asyncio.Event().wait()
        for _ in range(FAILURES):
            with pytest.raises(Unavailable):
                await hand.call()
        assert hand.health == "it does not answer in time"


async def test_a_find_that_finds_nothing_says_nothing_of_the_system(hand: Hand) -> None:
    """It may have asked nothing: most adapters have none, and those that have one not for each service."""
    for _ in range(FAILURES):
        assert hand.health is None
        await hand.fail(1)
        assert hand.health is not None or await hand.find() is None
    assert hand.health is not None

    hand.clock.now += 1.0
    assert await hand.find() is None
    assert hand.past[-2:] == ["check", "find"]
    assert hand.health is None, "it was the probe, whose check was answered"


async def test_a_find_that_finds_nothing_is_no_sign_after_a_check_that_asks_nobody(
    tmp_path: Path, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(stage, "check")
    async with played(theatre(tmp_path, timeout=5.0), stage) as hand:
        await hand.fail(FAILURES)
        hand.clock.now += 1.0
        assert await hand.find() is None
        assert hand.health is not None
        hand.plays.clear()
        await hand.call()
        assert hand.health is None, "the next probe was let through, and told something"


async def test_a_find_that_finds_something_was_answered(hand: Hand) -> None:
    hand.plays["find"] = answering(Reply({"found": True}))
    for _ in range(FAILURES):
        await hand.fail(1)
        await hand.find()
    assert hand.health is None


async def test_only_one_probe_passes(hand: Hand) -> None:
    await hand.fail(FAILURES)
    hand.clock.now += 1.0
    asked, go = asyncio.Event(), asyncio.Event()

    async def check() -> None:
        asked.set()
        await go.wait()

    hand.plays.clear()
    hand.plays["check"] = check
    probe = asyncio.create_task(hand.call())
    await asked.wait()
    with pytest.raises(Unavailable) as raised:
        await hand.call()
    assert raised.value.sent is False
    go.set()
    assert (await probe).body == REQUEST.body


async def test_a_cancelled_probe_makes_room_for_the_next(hand: Hand) -> None:
    await hand.fail(FAILURES)
    hand.clock.now += 1.0
    asked = asyncio.Event()

    async def check() -> None:
        asked.set()
        await asyncio.Event().wait()

    hand.plays.clear()
    hand.plays["check"] = check
    probe = asyncio.create_task(hand.call())
    await asked.wait()
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    hand.plays.clear()
    await hand.call()
    assert hand.health is None


async def test_a_probe_that_does_not_answer_is_a_failure(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREPARE", 0.05)
    await hand.fail(FAILURES)
    hand.clock.now += 1.0
    hand.plays["check"] = lambda: asyncio.Event().wait()
    with pytest.raises(Unavailable) as raised:
        await hand.call()
    assert (raised.value.sent, raised.value.after) == (False, 2.0)
