"""Performing: the table of promise 2, one row for each effect and each thing that a core system may do.

A real store, a real runtime, and an adapter that does what the row says.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from gsb.catalogue import build
from gsb.errors import StoreUnavailable
from gsb.evidence.entry import make_entry
from gsb.model import Entry, Reply, Request, State
from gsb.sdk import Broken, Refused, Unavailable
from gsb.store.contract import Ruling, ended
from gsb.verdict import REPLY_LIMIT
from tests.support.bus import (
    BODIES,
    NOTE,
    ONCE,
    PERSON_BODY,
    READ,
    REPEATABLE,
    REPLIES,
    Hands,
    answering,
    bus_of,
    entries,
    hanging,
    puppet,
    puppet_deployment,
    raising,
)
from tests.support.deployment import PERSON


@pytest.fixture
async def hands(tmp_path: Path) -> AsyncIterator[Hands]:
    async with bus_of(puppet_deployment(tmp_path)) as hands:
        puppet().reset()
        yield hands
        puppet().reset()


NOT_SENT = raising(Unavailable("down", sent=False))
SENT = raising(Unavailable("cut off", sent=True))
BROKEN = raising(Broken("nonsense"))
ESCAPED = raising(KeyError("surprise"))
REFUSED = raising(Refused("not_found", "no P-0001 in the register"))
UNDECLARED = raising(Refused("undeclared"))
GARBAGE = answering({"nonsense": True})


@pytest.mark.parametrize(
    ("service", "act", "state", "reason"),
    [
        (READ, NOT_SENT, State.WAITING, "system_unavailable"),
        (READ, SENT, State.WAITING, "system_unavailable"),
        (READ, hanging, State.WAITING, "system_unavailable"),
        (READ, BROKEN, State.HELD, "system_broken"),
        (READ, ESCAPED, State.HELD, "system_broken"),
        (READ, UNDECLARED, State.HELD, "system_broken"),
        (REPEATABLE, NOT_SENT, State.WAITING, "system_unavailable"),
        (REPEATABLE, SENT, State.WAITING, "system_unavailable"),
        (REPEATABLE, hanging, State.WAITING, "system_unavailable"),
        (REPEATABLE, BROKEN, State.HELD, "system_broken"),
        (REPEATABLE, GARBAGE, State.UNKNOWN, "reply_invalid"),
        (ONCE, NOT_SENT, State.WAITING, "system_unavailable"),
        (ONCE, SENT, State.UNKNOWN, "system_unavailable"),
        (ONCE, hanging, State.UNKNOWN, "system_unavailable"),
        (ONCE, BROKEN, State.UNKNOWN, "system_broken"),
        (ONCE, ESCAPED, State.UNKNOWN, "system_broken"),
        (ONCE, UNDECLARED, State.UNKNOWN, "system_broken"),
        (ONCE, GARBAGE, State.UNKNOWN, "reply_invalid"),
    ],
)
async def test_what_is_not_an_outcome(
    tmp_path: Path, service: str, act: Callable[[Request], Awaitable[Reply]], state: State, reason: str
) -> None:
    async with bus_of(puppet_deployment(tmp_path, 0.2 if act is hanging else 20.0)) as hands:
        puppet().reset()
        exchange = await hands.accept(service, BODIES[service])
        puppet().acts = act
        after = await hands.perform(exchange)
        puppet().reset()
    assert (after.state, after.reason, after.outcome) == (state, reason, None)


@pytest.mark.parametrize(
    ("service", "act", "state", "effect", "code", "status"),
    [
        (READ, "fits", State.DONE, "none", None, 200),
        (REPEATABLE, "fits", State.DONE, "done", None, 200),
        (ONCE, "fits", State.DONE, "done", None, 200),
        (READ, REFUSED, State.REFUSED, "none", "system_refused", 422),
        (REPEATABLE, REFUSED, State.REFUSED, "none", "system_refused", 422),
        (ONCE, REFUSED, State.REFUSED, "none", "system_refused", 422),
        (READ, GARBAGE, State.FAILED, "none", "reply_invalid", 502),
    ],
)
async def test_what_is_an_outcome(
    hands: Hands, service: str, act: Any, state: State, effect: str, code: str | None, status: int
) -> None:
    exchange = await hands.accept(service, BODIES[service])
    puppet().acts = answering(REPLIES[service]) if act == "fits" else act
    after = await hands.perform(exchange)
    assert after.state is state
    assert after.outcome is not None
    assert (after.outcome.effect, after.outcome.code, after.outcome.status) == (effect, code, status)
    assert [orjson.loads(entry.content)["kind"] for entry in after.entries] == ["accepted", "outcome"]


@pytest.mark.parametrize(
    ("service", "state"), [(READ, State.FAILED), (REPEATABLE, State.UNKNOWN), (ONCE, State.UNKNOWN)]
)
async def test_a_reply_larger_than_any_body_does_not_fit(tmp_path: Path, service: str, state: State) -> None:
    deployment = puppet_deployment(tmp_path)
    for each, member in ((READ, "name"), (REPEATABLE, "text"), (ONCE, "text")):
        deployment.schemas[f"{each}/reply.json"]["properties"][member] = {"type": "string"}
    member = "name" if service == READ else "text"
    async with bus_of(deployment) as hands:
        puppet().reset()
        room = REPLY_LIMIT - len(orjson.dumps(REPLIES[service] | {member: ""}))
        puppet().acts = answering(REPLIES[service] | {member: "x" * (room + 1)})
        exchange = await hands.accept(service, BODIES[service])
        after = await hands.perform(exchange)
        assert after.state is state
        assert (after.outcome.code if after.outcome else after.reason) == "reply_invalid"
        puppet().acts = answering(REPLIES[service] | {member: "x" * room})
        fits = await hands.accept(service, BODIES[service])
        assert (await hands.perform(fits)).state is State.DONE
        puppet().reset()


async def test_only_granted_fields_leave_and_their_names_are_proved(hands: Hands) -> None:
    exchange = await hands.accept(READ, PERSON_BODY)
    puppet().acts = answering(PERSON)
    after = await hands.perform(exchange)
    assert after.outcome is not None
    assert orjson.loads(after.outcome.body) == {name: PERSON[name] for name in ("id", "name", "salary")}
    assert orjson.loads(after.entries[-1].content)["fields"] == ["/id", "/name", "/salary"]


async def test_a_systems_own_words_reach_neither_caller_nor_entry(hands: Hands) -> None:
    exchange = await hands.accept(READ, PERSON_BODY)
    puppet().acts = REFUSED
    after = await hands.perform(exchange)
    assert after.outcome is not None
    assert b"not_found" in after.outcome.body
    assert b"P-0001" not in after.outcome.body
    assert all(b"P-0001" not in entry.content for entry in after.entries)


async def test_the_adapter_sees_the_request_and_the_same_exchange_at_every_try(hands: Hands) -> None:
    exchange = await hands.accept(REPEATABLE, NOTE)
    puppet().acts = NOT_SENT
    await hands.perform(exchange)
    hands.clock.now += 60
    puppet().acts = answering(NOTE)
    assert (await hands.perform(exchange)).state is State.DONE
    first, second = puppet().requests
    assert first.body == second.body == NOTE
    assert first.exchange == second.exchange == exchange
    assert second.agency == "payroll"
    assert second.purpose == "payroll"


@pytest.mark.parametrize(("wish", "pause"), [(77.0, 77.0), (3_000.0, 300.0)])
async def test_a_systems_wish_for_when_to_come_back_is_kept_within_bounds(
    hands: Hands, wish: float, pause: float
) -> None:
    exchange = await hands.accept(READ, PERSON_BODY)
    puppet().acts = raising(Unavailable(sent=False, after=wish))
    after = await hands.perform(exchange)
    assert after.due_at == pytest.approx(hands.clock.now + pause)


async def test_pauses_grow_and_end_at_expiry(hands: Hands) -> None:
    exchange = await hands.accept(READ, PERSON_BODY)
    expires = (await hands.state(exchange)).expires_at
    puppet().acts = SENT
    delays = []
    while (after := await hands.perform(exchange)).state is State.WAITING:
        assert after.due_at is not None
        assert after.due_at <= expires
        delays.append(after.due_at - hands.clock.now)
        hands.clock.now = after.due_at
        assert len(delays) < 100
    assert delays[5] > delays[0]
    assert max(delays) <= 300
    assert (after.state, after.outcome and after.outcome.effect) == (State.EXPIRED, "none")
    assert after.outcome is not None
    assert (after.outcome.code, after.outcome.status) == ("exchange_expired", 504)


async def test_a_write_that_expires_before_anything_was_sent_had_no_effect(hands: Hands) -> None:
    exchange = await hands.accept(ONCE, NOTE)
    puppet().acts = NOT_SENT
    await hands.perform(exchange)
    hands.clock.now += 4_000
    after = await hands.perform(exchange)
    assert after.state is State.EXPIRED
    assert after.outcome is not None
    assert after.outcome.effect == "none"
    assert len(puppet().requests) == 1


async def test_a_repeatable_write_that_may_have_been_sent_expires_into_unknown(hands: Hands) -> None:
    exchange = await hands.accept(REPEATABLE, NOTE)
    puppet().acts = SENT
    await hands.perform(exchange)
    hands.clock.now += 4_000
    after = await hands.perform(exchange)
    assert (after.state, after.reason) == (State.UNKNOWN, "exchange_expired")


async def test_an_unknown_exchange_is_only_ever_asked_about(hands: Hands) -> None:
    exchange = await hands.accept(ONCE, NOTE)
    puppet().acts = SENT
    await hands.perform(exchange)
    puppet().acts = answering(NOTE)
    assert (await hands.perform(exchange)).state is State.UNKNOWN
    assert len(puppet().requests) == 1
    puppet().finds = raising(Unavailable(sent=True))
    assert (await hands.perform(exchange)).state is State.UNKNOWN
    puppet().finds = answering({"nonsense": True})
    assert (await hands.perform(exchange)).state is State.UNKNOWN
    puppet().finds = answering(NOTE)
    after = await hands.perform(exchange)
    assert after.state is State.DONE
    assert after.outcome is not None
    assert after.outcome.effect == "done"
    assert len(puppet().requests) == 1


async def test_an_effect_found_after_an_operator_ruled_otherwise_is_proved(hands: Hands) -> None:
    exchange = await hands.accept(ONCE, NOTE)
    puppet().acts = SENT
    await hands.perform(exchange)

    async def overruled(request: Request) -> Reply:
        ruling = Ruling(
            frozenset({State.UNKNOWN}), State.FAILED, ended(State.FAILED, "none", 502, "closed_by_operator")
        )
        assert await hands.bus.store.resolve(exchange, ruling, make_entry("act", hands.clock.now, {}, {}))
        return Reply(NOTE)

    puppet().finds = overruled
    after = await hands.perform(exchange)
    assert (after.state, after.outcome and after.outcome.effect) == (State.FAILED, "none")
    assert [(each["kind"], each.get("effect")) for each in entries(hands)[2:]] == [("act", None), ("late", "done")]


async def test_a_worker_that_went_silent_leaves_unknown_and_its_late_finish_ends_it(hands: Hands) -> None:
    exchange = await hands.accept(ONCE, NOTE)
    seen: list[object] = []

    async def slow(request: Request) -> Reply:
        hands.clock.now += 100  # the lease runs out while the system works
        seen.extend([await hands.sweep(), (await hands.state(exchange)).state])
        return Reply(NOTE)

    puppet().acts = slow
    after = await hands.perform(exchange)
    assert seen == [[], State.UNKNOWN]
    assert after.state is State.DONE
    kinds = [orjson.loads(entry.content)["kind"] for entry in after.entries]
    assert kinds == ["accepted", "unknown", "outcome"]


async def test_a_finish_after_a_final_state_changes_nothing_and_is_proved(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = await hands.accept(REPEATABLE, NOTE)
    note = hands.bus.store.note
    troubled = iter([True])

    async def troubled_once(entry: Entry) -> None:
        if next(troubled, False):
            raise StoreUnavailable
        await note(entry)

    async def overtaken(request: Request) -> Reply:
        hands.clock.now += 100
        puppet().acts = answering({"id": "P-0001", "text": "the second worker's"})
        await hands.perform(exchange)
        monkeypatch.setattr(hands.bus.store, "note", troubled_once)
        return Reply(NOTE)

    puppet().acts = overtaken
    after = await hands.perform(exchange)
    assert after.outcome is not None
    assert orjson.loads(after.outcome.body)["text"] == "the second worker's"
    assert [(each["kind"], each.get("attempt")) for each in entries(hands)] == [
        ("accepted", None),
        ("outcome", 2),
        ("late", 1),
    ]


@pytest.mark.parametrize("service", [READ, REPEATABLE, ONCE])
async def test_an_agreement_that_ended_stops_what_has_not_begun(tmp_path: Path, service: str) -> None:
    deployment = puppet_deployment(tmp_path)
    deployment.files["agreements/a-1.toml"]["valid_until"] = date(2026, 9, 21)
    async with bus_of(deployment) as hands:
        puppet().reset()
        midnight = datetime(2026, 9, 22, tzinfo=UTC).timestamp()
        hands.clock.now = midnight - 1
        exchange = await hands.accept(service, BODIES[service])
        hands.clock.now = midnight
        after = await hands.perform(exchange)
        assert after.outcome is not None
        assert (after.state, after.outcome.code, after.outcome.effect) == (State.FAILED, "authority_withdrawn", "none")
        assert puppet().requests == []


async def test_a_revoked_key_stops_what_has_not_begun_and_leaves_what_was_sent_unknown(hands: Hands) -> None:
    fresh = await hands.accept(ONCE, NOTE)
    tried = await hands.accept(REPEATABLE, NOTE)
    puppet().acts = SENT
    await hands.perform(tried)
    hands.deployment.files["agencies/payroll.toml"]["keys"][0]["state"] = "revoked"
    hands.bus.catalogue = build(hands.deployment.write())
    puppet().reset()
    after = await hands.perform(fresh)
    assert after.outcome is not None
    assert (after.outcome.code, after.outcome.effect) == ("authority_withdrawn", "none")
    assert ((await hands.perform(tried)).state, puppet().requests) == (State.UNKNOWN, [])


@pytest.mark.parametrize("service", [READ, REPEATABLE, ONCE])
async def test_a_record_that_cannot_be_read_is_held_and_never_sent(hands: Hands, service: str) -> None:
    exchange = await hands.accept(service, BODIES[service])
    await hands.bus.store.close()
    with sqlite3.connect(hands.deployment.folder / "store.db") as database:
        database.execute("UPDATE sealed SET bytes = zeroblob(64) WHERE row = (SELECT request FROM exchange)")
    database.close()
    await hands.bus.store.open()
    after = await hands.perform(exchange)
    assert (after.state, after.reason, puppet().requests) == (State.HELD, "record_unreadable", [])


@pytest.mark.parametrize("missing", ["agreement", "key", "service"])
async def test_what_this_nodes_catalogue_does_not_know_waits(hands: Hands, missing: str) -> None:
    exchange = await hands.accept(ONCE, NOTE)
    files = hands.deployment.files
    if missing == "agreement":
        files["agreements/a-2.toml"] = files.pop("agreements/a-1.toml")
        (hands.deployment.folder / "agreements/a-1.toml").unlink()
    elif missing == "key":
        files["agencies/payroll.toml"]["keys"].clear()
    else:
        files["agreements/a-1.toml"]["grants"] = files["agreements/a-1.toml"]["grants"][:1]
        del files[f"services/{ONCE}.toml"]
        (hands.deployment.folder / f"services/{ONCE}.toml").unlink()
    hands.bus.catalogue = build(hands.deployment.write())
    after = await hands.perform(exchange)
    assert (after.state, puppet().requests) == (State.WAITING, [])
    assert after.reason in ("authority_not_known_here", "service_not_known_here")


@pytest.mark.parametrize(("service", "becomes"), [(ONCE, "none"), (READ, "once")])
async def test_a_service_whose_effect_has_changed_is_another_service(hands: Hands, service: str, becomes: str) -> None:
    puppet().acts = raising(Unavailable("it broke off", sent=True))
    exchange = await hands.accept(service, BODIES[service])
    hands.deployment.files[f"services/{service}.toml"]["effect"] = becomes
    hands.bus.catalogue = build(hands.deployment.write())
    after = await hands.perform(exchange)
    assert (after.state, after.reason, puppet().requests) == (State.WAITING, "service_not_known_here", [])


async def test_an_agreement_given_to_another_consumer_serves_its_old_one_no_more(hands: Hands) -> None:
    puppet().acts = answering(NOTE)
    ended, accepted = await hands.accept(ONCE, NOTE, key="k-1"), await hands.accept(ONCE, NOTE)
    await hands.perform(ended)
    hands.deployment.files["agreements/a-1.toml"]["consumer"] = "audit-office"
    hands.bus.catalogue = build(hands.deployment.write())
    after = await hands.perform(accepted)
    assert after.outcome is not None
    assert (after.state, after.outcome.code, after.outcome.effect) == (State.FAILED, "authority_withdrawn", "none")
    again = await hands.send(ONCE, NOTE, key="k-1")
    assert (again.status, orjson.loads(again.body)["code"]) == (403, "agreement_ended")
    assert len(puppet().requests) == 1
