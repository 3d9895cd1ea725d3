"""The sweeper: whatever is due is dispatched again, and what must not be tried again is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gsb.catalogue import build
from gsb.model import State
from gsb.sdk import Unavailable
from tests.support.bus import (
    BODIES,
    NOTE,
    ONCE,
    PERSON_BODY,
    READ,
    REPEATABLE,
    Hands,
    answering,
    bus_of,
    puppet,
    puppet_deployment,
    raising,
)


@pytest.fixture
async def hands(tmp_path: Path) -> AsyncIterator[Hands]:
    async with bus_of(puppet_deployment(tmp_path)) as hands:
        puppet().reset()
        yield hands
        puppet().reset()


@pytest.mark.parametrize("service", [READ, REPEATABLE, ONCE])
async def test_a_lost_dispatch_is_made_up_for(hands: Hands, service: str) -> None:
    exchange = await hands.accept(service, BODIES[service])
    assert await hands.sweep() == []  # it is on its way already
    hands.clock.now += 30
    assert await hands.sweep() == [exchange]
    assert await hands.sweep() == []  # claiming has moved its time on


async def test_a_retry_is_dispatched_when_its_time_has_come(hands: Hands) -> None:
    exchange = await hands.accept(READ, PERSON_BODY)
    puppet().acts = raising(Unavailable(sent=True))
    after = await hands.perform(exchange)
    assert after.due_at is not None
    hands.clock.now = after.due_at - 0.01
    assert await hands.sweep() == []
    hands.clock.now = after.due_at
    assert await hands.sweep() == [exchange]


async def test_a_dead_worker_of_a_write_leaves_it_unknown_with_an_entry(hands: Hands) -> None:
    exchange = await hands.accept(ONCE, NOTE)
    assert await hands.bus.store.begin(exchange, 5.0) is not None  # and then the worker dies
    hands.clock.now += 6
    await hands.sweep()
    after = await hands.state(exchange)
    assert (after.state, after.reason) == (State.UNKNOWN, "lease_expired")
    assert len(after.entries) == 2


async def test_a_dead_worker_of_a_repeatable_write_costs_only_time(hands: Hands) -> None:
    exchange = await hands.accept(REPEATABLE, NOTE)
    assert await hands.bus.store.begin(exchange, 5.0) is not None
    hands.clock.now += 6
    assert await hands.sweep() == [exchange]
    puppet().acts = answering(NOTE)
    assert (await hands.perform(exchange)).state is State.DONE


async def test_an_exchange_of_a_system_that_left_the_configuration_still_expires(hands: Hands) -> None:
    exchange = await hands.accept(ONCE, NOTE)
    files, folder = hands.deployment.files, hands.deployment.folder
    for path in [path for path in files if path.startswith(("systems/", "services/", "agreements/"))]:
        del files[path]
        (folder / path).unlink()
    hands.bus.catalogue = build(hands.deployment.write())
    hands.clock.now += 30
    await hands.sweep()
    assert (await hands.state(exchange)).state is State.WAITING
    hands.clock.now += 4_000
    await hands.sweep()
    after = await hands.state(exchange)
    assert after.outcome is not None
    assert (after.state, after.outcome.effect) == (State.EXPIRED, "none")
