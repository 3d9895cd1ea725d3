"""Admission: the cases of promise 2 that a caller sees, and what every refusal leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pytest

from gsb.admit import admit
from gsb.bus import FLOOD_WINDOW
from gsb.catalogue import build
from gsb.errors import (
    BodyInvalid,
    BodyMalformed,
    Busy,
    DigestMismatch,
    GrantMissing,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    Problem,
    PurposeNotGranted,
    RateExceeded,
    Replayed,
    ServiceUnknown,
    StoreUnavailable,
)
from gsb.model import Answer, State
from tests.support.bus import (
    NOTE,
    ONCE,
    PERSON_BODY,
    READ,
    Hands,
    answering,
    bus_of,
    entries,
    puppet,
    puppet_deployment,
)
from tests.support.deployment import PERSON


@pytest.fixture
async def hands(tmp_path: Path) -> AsyncIterator[Hands]:
    async with bus_of(puppet_deployment(tmp_path)) as hands:
        puppet().reset()
        yield hands
        puppet().reset()


async def done(hands: Hands, key: str) -> Answer:
    """A note that was written under this key, as its first caller saw it."""
    puppet().acts = answering(NOTE)
    accepted = await hands.send(ONCE, NOTE, key=key)
    assert accepted.exchange is not None
    await hands.perform(accepted.exchange.id)
    return accepted


async def test_an_accepted_exchange_is_in_the_store_before_its_answer(hands: Hands) -> None:
    answer = await hands.send(ONCE, NOTE, key="k-1")
    assert answer.status == 202
    assert answer.exchange is not None
    assert answer.headers["Location"] == f"{hands.deployment.bus_url}/exchanges/{answer.exchange.id}/reply"
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert [each["kind"] for each in entries(hands)] == ["accepted"]
    assert hands.dispatched == [answer.exchange.id]


async def test_a_caller_who_waits_gets_the_outcome(hands: Hands) -> None:
    puppet().acts = answering(PERSON)
    asked = asyncio.create_task(hands.send(READ, PERSON_BODY, wait=20))
    async with asyncio.timeout(90):
        delivery = await anext(aiter(hands.bus.broker.deliveries(["registry"])))
    await hands.perform(delivery.exchange)
    answer = await asked
    assert answer.status == 200
    assert orjson.loads(answer.body) == {name: PERSON[name] for name in ("id", "name", "salary")}
    assert answer.headers["Preference-Applied"] == "wait=20"


async def test_a_repeat_gets_the_first_outcome_and_acts_no_more(hands: Hands) -> None:
    first = await done(hands, "k-1")
    again = await hands.send(ONCE, NOTE, key="k-1")
    assert again.status == 200
    assert orjson.loads(again.body) == NOTE
    assert again.headers["Idempotent-Replayed"] == "true"
    assert first.exchange is not None
    assert again.exchange is not None
    assert again.exchange.id == first.exchange.id
    assert len(puppet().requests) == 1


async def test_a_repeat_of_an_unfinished_exchange_is_202_on_the_same_one(hands: Hands) -> None:
    first = await hands.send(ONCE, NOTE, key="k-1")
    again = await hands.send(ONCE, NOTE, key="k-1")
    assert again.status == 202
    assert again.headers["Idempotent-Replayed"] == "true"
    assert first.exchange is not None
    assert again.exchange is not None
    assert again.exchange.id == first.exchange.id


@pytest.mark.parametrize(
    "change",
    [
        {"body": {"id": "P-0002", "text": "moved"}},
        {"body": orjson.dumps(NOTE) + b" "},
        {"service": "registry/mark/v1"},
        {"service": "registry/nowhere/v1"},
        {"purpose": "audit"},
        {"sub": "someone"},
        {"case": "C-1"},
    ],
)
async def test_other_content_under_the_same_key_is_refused(hands: Hands, change: dict[str, Any]) -> None:
    await done(hands, "k-1")
    said = {"service": ONCE, "body": NOTE} | change
    with pytest.raises(IdempotencyKeyReused):
        await hands.send(said.pop("service"), said.pop("body"), key="k-1", **said)
    assert len(puppet().requests) == 1


async def test_the_same_key_of_another_agency_is_another_key(tmp_path: Path) -> None:
    deployment = puppet_deployment(tmp_path)
    grant = {"service": ONCE, "purpose": "payroll", "fields": [""]}
    deployment.agreement("a-2", consumer="audit-office", grants=[grant])
    async with bus_of(deployment) as hands:
        first = await hands.send(ONCE, NOTE, key="k-1")
        other = await hands.send(ONCE, NOTE, key="k-1", agency="audit-office")
        assert first.exchange is not None
        assert other.exchange is not None
        assert first.exchange.id != other.exchange.id


async def test_many_at_once_under_one_key_make_one_exchange(hands: Hands) -> None:
    answers = await asyncio.gather(*(hands.send(ONCE, NOTE, key="k-1") for _ in range(50)))
    assert len({answer.exchange.id for answer in answers if answer.exchange}) == 1
    assert [each["kind"] for each in entries(hands)] == ["accepted"]


async def test_many_at_once_with_other_content_under_one_key_hear_so(hands: Hands) -> None:
    async def said(number: int) -> object:
        try:
            return (await hands.send(ONCE, NOTE | {"text": f"text {number}"}, key="k-1")).status
        except Problem as refusal:
            return type(refusal)

    heard = await asyncio.gather(*map(said, range(8)))
    assert sorted(map(str, heard)) == sorted(map(str, [202, *[IdempotencyKeyReused] * 7]))
    assert [each.get("code") for each in entries(hands)] == [None, "idempotency_key_reused"]


async def test_a_jti_is_accepted_once_whatever_became_of_it(hands: Hands) -> None:
    accepted = hands.call(ONCE, NOTE, key="k-1")
    await admit(hands.bus, accepted)
    refused = hands.call(ONCE, {}, key="k-2")
    with pytest.raises(BodyInvalid):
        await admit(hands.bus, refused)
    for call in (accepted, refused):
        with pytest.raises(Replayed):
            await admit(hands.bus, call)
    assert [each.get("code") for each in entries(hands)] == [None, "body_invalid", "replayed"]


@pytest.mark.parametrize(
    ("service", "body", "more", "problem"),
    [
        ("registry/nowhere/v1", NOTE, {"key": "k"}, ServiceUnknown),
        (ONCE, NOTE, {"key": "k", "agency": "audit-office"}, GrantMissing),
        (ONCE, NOTE, {"key": "k", "purpose": "curiosity"}, PurposeNotGranted),
        (ONCE, NOTE, {}, IdempotencyKeyMissing),
        (ONCE, b'{"id": "P-0001", "id": "P-0002"}', {"key": "k"}, BodyMalformed),
        (ONCE, {"id": "nobody"}, {"key": "k"}, BodyInvalid),
    ],
)
async def test_a_refusal_is_proved_and_nothing_is_reserved(
    hands: Hands, service: str, body: Any, more: dict[str, Any], problem: type[Problem]
) -> None:
    with pytest.raises(problem):
        await hands.send(service, body, **more)
    (entry,) = entries(hands)
    assert (entry["kind"], entry["code"]) == ("refused", problem.code)
    assert entry["agency"] == more.get("agency", "payroll")
    assert entry.get("service") == (None if problem is ServiceUnknown else service)
    assert hands.dispatched == []


async def test_a_flood_of_one_refusal_is_counted_after_the_first(hands: Hands) -> None:
    for _ in range(20):
        with pytest.raises(PurposeNotGranted):
            await hands.send(ONCE, NOTE, key="k", purpose="curiosity")
    assert len(entries(hands)) == 1
    hands.clock.now += FLOOD_WINDOW
    await hands.bus.refusals.flush()
    assert [(each["kind"], each.get("count")) for each in entries(hands)] == [("refused", None), ("refusals", 19)]


async def test_a_spent_jti_under_another_defect_is_proved_as_a_replay(hands: Hands) -> None:
    first = hands.call(ONCE, NOTE, key="k-1")
    await admit(hands.bus, first)
    for _ in range(2):
        tampered = hands.call(ONCE, {"id": "P-0002", "text": "moved"}, key="k-1")
        tampered.signature = first.signature
        with pytest.raises(Replayed):
            await admit(hands.bus, tampered)
    assert [each.get("code") for each in entries(hands)] == [None, "replayed"]
    hands.clock.now += FLOOD_WINDOW
    await hands.bus.refusals.flush()
    assert [(each["code"], each["count"]) for each in entries(hands)[2:]] == [("replayed", 1)]


async def test_a_replay_does_not_hide_the_first_refusal_of_another_kind(hands: Hands) -> None:
    first = hands.call(ONCE, NOTE, key="k-1")
    await admit(hands.bus, first)
    for signature in (first.signature, None):
        tampered = hands.call(ONCE, NOTE, key="k-2")
        tampered.signature = signature or tampered.signature
        tampered.body = b"{}"
        with pytest.raises(Replayed if signature else DigestMismatch):
            await admit(hands.bus, tampered)
    assert [each.get("code") for each in entries(hands)] == [None, "replayed", "digest_mismatch"]


async def test_a_flood_ends_when_the_clock_is_set_back(hands: Hands) -> None:
    for hours in (0, -2):
        hands.clock.now += hours * 3_600
        for number in range(2):
            with pytest.raises(PurposeNotGranted):
                await hands.send(ONCE, NOTE, key=f"k-{number}", purpose="curiosity")
    kinds = [("refused", None), ("refusals", 1), ("refused", None)]
    assert [(each["kind"], each.get("count")) for each in entries(hands)] == kinds
    hands.clock.now -= 3_600
    await hands.bus.refusals.flush()
    assert [each.get("count") for each in entries(hands)[3:]] == [1]


async def test_many_refusals_at_once_are_one_entry_and_one_count(hands: Hands) -> None:
    async def refused(number: int) -> None:
        with pytest.raises(PurposeNotGranted):
            await hands.send(ONCE, NOTE, key=f"k-{number}", purpose="curiosity")

    await asyncio.gather(*map(refused, range(8)))
    hands.clock.now += FLOOD_WINDOW
    await asyncio.gather(*map(refused, range(8, 16)))
    await hands.bus.refusals.flush(every=True)
    assert [(each["kind"], each.get("count")) for each in entries(hands)] == [
        ("refused", None),
        ("refusals", 7),
        ("refused", None),
        ("refusals", 7),
    ]


async def test_a_count_is_written_once_however_many_write_counts(hands: Hands) -> None:
    async def refused(service: str, number: int) -> None:
        with pytest.raises(PurposeNotGranted):
            await hands.send(service, NOTE, key=f"k-{number}", purpose="curiosity")

    for number in range(3):
        for service in (ONCE, READ):
            await refused(service, number)
    hands.clock.now += FLOOD_WINDOW
    flushing = [asyncio.create_task(hands.bus.refusals.flush()) for _ in range(2)]
    await asyncio.gather(*flushing, *(refused(READ, number) for number in range(3, 9)))
    await hands.bus.refusals.flush(every=True)
    assert sorted((each["service"], each["kind"], each.get("count")) for each in entries(hands)[2:]) == [
        (ONCE, "refusals", 2),
        (READ, "refusals", 2),
        (READ, "refusals", 5),
        (READ, "refused", None),
    ]


async def test_a_count_that_could_not_be_written_is_kept(hands: Hands) -> None:
    for number in range(3):
        with pytest.raises(PurposeNotGranted):
            await hands.send(ONCE, NOTE, key=f"k-{number}", purpose="curiosity")
    await hands.bus.store.close()
    with pytest.raises(StoreUnavailable):
        await hands.bus.refusals.flush(every=True)
    await hands.bus.store.open()
    await hands.bus.refusals.flush(every=True)
    assert [(each["kind"], each.get("count")) for each in entries(hands)] == [("refused", None), ("refusals", 2)]


async def test_a_budget_is_kept_and_a_repeat_costs_nothing(tmp_path: Path) -> None:
    deployment = puppet_deployment(tmp_path)
    for grant in deployment.files["agreements/a-1.toml"]["grants"]:
        grant["rate"] = {"per_minute": 60, "burst": 2}
    async with bus_of(deployment) as hands:
        await hands.send(ONCE, NOTE, key="k-1")
        await hands.send(ONCE, NOTE, key="k-2")
        with pytest.raises(RateExceeded) as refused:
            await hands.send(ONCE, NOTE, key="k-3")
        assert refused.value.headers["Retry-After"] == "1"
        assert (await hands.send(ONCE, NOTE, key="k-1")).status == 202


async def test_every_answer_that_concerns_a_budget_says_what_is_left_of_it(tmp_path: Path) -> None:
    deployment = puppet_deployment(tmp_path)
    for grant in deployment.files["agreements/a-1.toml"]["grants"]:
        grant["rate"] = {"per_minute": 60, "burst": 3}
    async with bus_of(deployment) as hands:
        policy = '"burst";q=3;w=3'
        first = await hands.send(ONCE, NOTE, key="k-1")
        assert (first.headers["RateLimit-Policy"], first.headers["RateLimit"]) == (policy, '"burst";r=2;t=1')
        with pytest.raises(BodyInvalid) as refused:
            await hands.send(ONCE, {"id": "P-0001"}, key="k-2")
        assert refused.value.headers["RateLimit"] == '"burst";r=1;t=1'
        assert "RateLimit" not in (await hands.send(ONCE, NOTE, key="k-1")).headers  # a repeat uses none
        with pytest.raises(IdempotencyKeyReused) as reused:
            await hands.send(ONCE, NOTE | {"text": "other"}, key="k-1")
        assert "RateLimit" not in reused.value.headers
        await hands.send(ONCE, NOTE, key="k-3")
        with pytest.raises(RateExceeded) as exceeded:
            await hands.send(ONCE, NOTE, key="k-4")
        assert exceeded.value.headers == {
            "Retry-After": "1",
            "RateLimit-Policy": policy,
            "RateLimit": '"burst";r=0;t=1',
        }
        assert exceeded.value.extra["violated-policies"] == ["burst"]


async def test_one_agencys_calls_in_flight_are_bounded_and_their_refusals_cost_no_commit(tmp_path: Path) -> None:
    deployment = puppet_deployment(tmp_path)
    deployment.gsb["limits"]["in_flight_agency"] = 1
    async with bus_of(deployment) as hands:
        waiting = asyncio.create_task(hands.send(ONCE, NOTE, key="k-1", wait=30))
        while not hands.dispatched:  # noqa: ASYNC110 - the broker has no reason to tell a test of it
            await asyncio.sleep(0)
        call = hands.call(ONCE, NOTE, key="k-2")
        for _ in range(3):  # the jti was not spent
            with pytest.raises(Busy):
                await admit(hands.bus, call)
        puppet().acts = answering(NOTE)
        await hands.perform(hands.dispatched[0])
        assert (await waiting).status == 200
        assert (await admit(hands.bus, call)).status == 202
        await hands.bus.refusals.flush(every=True)
        refusals = [(each["kind"], each.get("count")) for each in entries(hands) if "refus" in str(each["kind"])]
        assert refusals == [("refused", None), ("refusals", 2)]


async def test_an_outcome_is_handed_out_only_while_the_agreement_is_in_force(hands: Hands) -> None:
    first = await done(hands, "k-1")
    hands.deployment.files["agreements/a-1.toml"]["valid_until"] = date(2026, 9, 1)
    hands.bus.catalogue = build(hands.deployment.write())
    again = await hands.send(ONCE, NOTE, key="k-1")
    problem = orjson.loads(again.body)
    assert (again.status, problem["code"]) == (403, "agreement_ended")
    assert first.exchange is not None
    assert problem["exchange"] == first.exchange.id
    assert (problem["state"], problem["effect"]) == ("done", "done")
    assert b"moved" not in again.body
    assert again.exchange is not None
    assert again.exchange.state is State.DONE
    assert entries(hands)[-1]["code"] == "agreement_ended"


async def test_only_what_is_granted_now_leaves_of_what_was_granted_then(hands: Hands) -> None:
    puppet().acts = answering(PERSON)
    accepted = await hands.send(READ, PERSON_BODY, key="k-1")
    assert accepted.exchange is not None
    await hands.perform(accepted.exchange.id)
    hands.deployment.files["agreements/a-1.toml"]["grants"][0]["fields"] = ["/id", "/phones"]
    hands.bus.catalogue = build(hands.deployment.write())
    again = await hands.send(READ, PERSON_BODY, key="k-1")
    assert orjson.loads(again.body) == {"id": "P-0001"}


async def test_no_personal_value_stands_in_any_entry(hands: Hands) -> None:
    canaries = {"sub": "canary-sub-1", "case": "canary-case-1", "key": "canary-key-1", "jti": "canary-jti-0123456789"}
    puppet().acts = answering({"id": "P-0001", "text": "canary-text-1"})
    accepted = await hands.send(ONCE, {"id": "P-0001", "text": "canary-text-1"}, **canaries)
    assert accepted.exchange is not None
    await hands.perform(accepted.exchange.id)
    with pytest.raises(BodyInvalid):
        await hands.send(
            ONCE, {"id": "canary-text-1"}, **(canaries | {"jti": "canary-jti-9876543210", "key": "canary-key-2"})
        )
    said = orjson.dumps(entries(hands))
    assert said.count(b'"kind"') == 3
    assert b"canary" not in said
    assert b"P-0001" not in said
