"""Handing out: what the owner of an exchange hears when its reply cannot be read any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from gsb import handout
from gsb.errors import ReplyUnreadable
from gsb.model import Exchange
from tests.support.bus import NOTE, ONCE, Hands, answering, bus_of, entries, puppet, puppet_deployment
from tests.support.damage import damage


@pytest.fixture
async def hands(tmp_path: Path) -> AsyncIterator[Hands]:
    async with bus_of(puppet_deployment(tmp_path)) as hands:
        puppet().reset()
        yield hands
        puppet().reset()


async def done(hands: Hands) -> Exchange:
    puppet().acts = answering(NOTE)
    return await hands.perform(await hands.accept(ONCE, NOTE, key="k-1"))


async def test_a_damaged_reply_is_said_to_be_so_and_how_the_exchange_ended(hands: Hands) -> None:
    ended = await done(hands)
    damage(hands.deployment.folder / "store.db", "reply", ended.id)
    again = await hands.send(ONCE, NOTE, key="k-1")
    problem = orjson.loads(again.body)
    assert (again.status, problem["code"], problem["origin"]) == (500, "reply_unreadable", "bus")
    assert {name: problem[name] for name in ("exchange", "state", "effect")} == {
        "exchange": ended.id,
        "state": "done",
        "effect": "done",
    }
    assert again.headers["Idempotent-Replayed"] == "true"
    # The signature tells state and effect, so that it ends the exchange for the caller; nothing is done again.
    assert again.exchange is not None
    assert (again.exchange.state, len(puppet().requests)) == ("done", 1)
    assert [each["code"] for each in entries(hands) if each["kind"] == "refused"] == ["reply_unreadable"]


async def test_what_else_is_known_of_it_is_told_as_ever(hands: Hands) -> None:
    ended = await done(hands)
    damage(hands.deployment.folder / "store.db", "reply", ended.id)
    shown = handout.described(hands.bus, await hands.state(ended.id))
    assert (shown["state"], shown["effect"], shown["code"]) == ("done", "done", None)
    assert [each["kind"] for each in shown["timeline"]] == ["accepted", "outcome"]


async def test_a_damaged_request_can_be_told_from_a_store_in_trouble(hands: Hands) -> None:
    ended = await done(hands)
    damage(hands.deployment.folder / "store.db", "request", ended.id)
    with pytest.raises(ReplyUnreadable):
        await hands.bus.store.record(ended.id)
    assert (await hands.send(ONCE, NOTE, key="k-1")).status == 200
