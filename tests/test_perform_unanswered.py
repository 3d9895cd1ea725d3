"""An outcome whose commit was not answered: written once, told once, and nobody waits for it longer than needed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gsb import perform
from gsb.errors import StoreUnavailable
from gsb.sdk import Unavailable
from gsb.store.contract import Begun
from tests.support.bus import NOTE, ONCE, Hands, answering, bus_of, entries, puppet, puppet_deployment, raising


@pytest.fixture
async def hands(tmp_path: Path) -> AsyncIterator[Hands]:
    async with bus_of(puppet_deployment(tmp_path)) as hands:
        puppet().reset()
        yield hands
        puppet().reset()


SENT = raising(Unavailable("cut off", sent=True))


@pytest.mark.parametrize(("act", "kind", "verb"), [(answering(NOTE), "outcome", "finish"), (SENT, "unknown", "hold")])
async def test_what_was_committed_without_an_answer_is_told_once_and_wakes_who_waits(
    hands: Hands, monkeypatch: pytest.MonkeyPatch, act: Any, kind: str, verb: str
) -> None:
    exchange = await hands.accept(ONCE, NOTE)
    commit = getattr(hands.bus.store, verb)
    lost = iter([True])
    woken: list[str] = []

    async def unanswered(*args: Any) -> bool:
        taken: bool = await commit(*args)
        if next(lost, False):
            raise StoreUnavailable
        return taken

    async def wake(found: str) -> None:
        woken.append(found)

    monkeypatch.setattr(hands.bus.store, verb, unanswered)
    monkeypatch.setattr(hands.bus.broker, "wake", wake)
    puppet().acts = act
    await hands.perform(exchange)
    assert [each["kind"] for each in entries(hands)] == ["accepted", kind]
    assert woken == [exchange]


async def test_a_trouble_of_the_store_does_not_leave_what_was_to_begin_to_the_sweeper(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = await hands.accept(ONCE, NOTE)
    begin = hands.bus.store.begin
    troubled = iter([True, True])

    async def away_at_first(*args: Any) -> Begun | None:
        if next(troubled, False):
            raise StoreUnavailable
        return await begin(*args)

    monkeypatch.setattr(hands.bus.store, "begin", away_at_first)
    monkeypatch.setattr(perform, "BEGIN_RETRIES", (0.0, 0.0, None))
    puppet().acts = answering(NOTE)
    await hands.perform(exchange)
    assert [each["kind"] for each in entries(hands)] == ["accepted", "outcome"]
