"""The numbers of a node: the table, the labels that stay bounded whatever is sent, and what each event counts."""

from __future__ import annotations

import asyncio
import random
import string
import time
import timeit
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gsb.client import BusProblem, OutcomePending
from gsb.errors import TABLE as PROBLEMS
from gsb.metrics import CLASSES, TABLE, Metrics, metrics_table
from gsb.model import FINAL, State
from gsb.sdk import Broken, Refused, Reply, Request, Unavailable
from gsb.sweep import sweep
from tests.support.bus import (
    NOTE,
    ONCE,
    PERSON_BODY,
    READ,
    REPEATABLE,
    answering,
    bus_of,
    puppet,
    puppet_deployment,
    raising,
)
from tests.support.deployment import PERSON
from tests.support.node import InProcess, node_in_process
from tests.support.theatre import empty_stage, played, theatre

Samples = dict[str, dict[frozenset[tuple[str, str]], float]]
LONG_AGO = 86_400.0
WITHIN = 90.0


def samples_of(text: bytes) -> Samples:
    """By name and labels, as the official parser reads them."""
    found: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            labels = frozenset(sample.labels.items())
            assert labels not in series, "a series stands twice"
            series[labels] = sample.value
    return found


def series(samples: Samples) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return {(name, labels) for name, found in samples.items() for labels in found}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name][frozenset(labels.items())]


def text_of(metrics: Metrics) -> bytes:
    return metrics.text({"registry": "closed"}, {State.WAITING: 2})


def small() -> Metrics:
    metrics = Metrics()
    metrics.known("d1", services=[READ], systems=["registry"], agencies=["payroll"])
    metrics.serve("api", ["POST /services/{service}"], lambda: 3)
    metrics.call(lambda: {"registry": 8})
    metrics.publish(lambda: {"payroll": 5.0})
    metrics.end(lambda: {"bus": 2_000_000_000.0})
    return metrics


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[InProcess]:
    async with node_in_process(tmp_path, puppet_deployment(tmp_path)) as node:
        puppet().reset()
        puppet().acts = answering(PERSON)
        yield node
        puppet().reset()


async def scraped(node: InProcess) -> bytes:
    async with aiohttp.ClientSession() as session, session.get(f"{node.operations_url}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return await answer.read()


async def numbers(node: InProcess) -> Samples:
    return samples_of(await scraped(node))


async def raw(node: InProcess, data: bytes) -> bytes:
    """Bytes to the API's port as they are, and what comes back before it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.deployment.port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), WITHIN)
    finally:
        writer.close()
        await writer.wait_closed()


# --- the table


def test_what_is_told_is_what_the_table_says() -> None:
    families = {family.name: family for family in text_string_to_metric_families(text_of(small()).decode())}
    ours = {name: family for name, family in families.items() if not name.startswith("process_")}
    assert set(ours) == {metric.name.removesuffix("_total") for metric in TABLE}
    for metric in TABLE:
        family = ours[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation, bool(family.samples)) == (metric.kind, metric.help, True)
        assert all(set(sample.labels) - {"le"} == set(metric.labels) for sample in family.samples)


def test_the_memory_of_the_process_is_told() -> None:
    assert value(samples_of(text_of(small())), "process_resident_memory_bytes") > 1_000_000


def test_the_manuals_table_has_a_row_for_each_metric() -> None:
    rows = metrics_table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == [metric.name for metric in TABLE]
    assert {row.count("|") for row in rows} == {5}


def test_every_status_of_a_problem_has_its_class() -> None:
    assert {f"{problem.status // 100}xx" for problem in PROBLEMS.values()} <= set(CLASSES)


def test_two_nodes_in_one_process_count_apart() -> None:
    one, other = small(), small()
    one.service(READ).accepted.inc()
    told = [value(samples_of(text_of(each)), "gsb_exchanges_accepted_total", service=READ) for each in (one, other)]
    assert told == [1, 0]


def test_another_catalogue_keeps_the_counts_and_replaces_the_digest() -> None:
    metrics = small()
    metrics.service(READ).accepted.inc()
    metrics.known("d2", services=[READ, ONCE], systems=["tax"], agencies=["payroll"])
    metrics.service(ONCE).accepted.inc()
    found = samples_of(text_of(metrics))
    assert found["gsb_catalogue_info"] == {frozenset({("digest", "d2")}): 1}
    assert found["gsb_system_info"] == {frozenset({("system", "tax")}): 1}
    assert [value(found, "gsb_exchanges_accepted_total", service=each) for each in (READ, ONCE)] == [1, 1]


def test_a_clock_that_was_stepped_back_shortens_no_sum() -> None:
    metrics = small()
    metrics.service(READ).ended(State.DONE, -3600.0)
    assert value(samples_of(text_of(metrics)), "gsb_exchange_seconds_sum", service=READ) == 0


# --- bounded, and cheap


def test_ten_thousand_strange_names_leave_the_series_as_they_are() -> None:
    metrics = small()
    before = series(samples_of(text_of(metrics)))
    chance = random.Random(7)
    for _ in range(10_000):
        name = "canary-" + "".join(chance.choices(string.printable, k=12))
        state = chance.choice(sorted(FINAL))
        metrics.answered(name, chance.choice([200, 404, 503]), name, name)
        metrics.service(name).accepted.inc()
        metrics.service(name).ended(state, chance.random())
        metrics.system(name).called("answered", chance.random())
    text = text_of(metrics)
    found = samples_of(text)
    assert series(found) == before
    assert b"canary" not in text
    assert value(found, "gsb_exchanges_accepted_total", service="other") == 10_000
    assert value(found, "gsb_problems_total", code="other") == 10_000


async def test_strange_calls_on_sockets_leave_the_series_as_they_are(node: InProcess) -> None:
    before = series(await numbers(node))
    chance = random.Random(8)
    for _ in range(2_000):
        path = "canary" + "".join(chance.choices(string.ascii_letters + "/%?=", k=20))
        method = chance.choice(["GET", "PUT", "CANARY"])
        head = f"{method} /{chance.choice(['', 'services/', 'problems/'])}{path} HTTP/1.1\r\nHost: canary\r\n"
        head += f"GSB-Signature: canary.{path}.canary\r\nIdempotency-Key: canary\r\nConnection: close\r\n\r\n"
        assert (await raw(node, head.encode())).startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    text = await scraped(node)
    found = samples_of(text)
    assert series(found) == before
    assert b"canary" not in text.lower()
    assert sum(found["gsb_problems_total"].values()) == 2_000


def test_counting_an_exchange_costs_less_than_ten_microseconds() -> None:
    metrics = small()

    def exchange() -> None:
        metrics.answered("POST /services/{service}", 200, None, "payroll")
        meter = metrics.service(READ)
        meter.accepted.inc()
        meter.performing.inc()
        metrics.system("registry").called("answered", 0.007)
        meter.performing.dec()
        meter.ended(State.DONE, 0.012)

    # Of this thread's own processor: how long others have it is nothing that is judged here.
    assert min(timeit.repeat(exchange, timer=time.thread_time, number=2_000, repeat=15)) / 2_000 < 10e-6


# --- what is counted when


async def test_an_exchange_is_counted_at_each_of_its_steps(node: InProcess) -> None:
    async with node.client() as client:
        for _ in range(3):
            await client.call(READ, PERSON_BODY, purpose="payroll")
    found = await numbers(node)
    assert value(found, "gsb_exchanges_accepted_total", service=READ) == 3
    assert value(found, "gsb_exchanges_ended_total", service=READ, state="done") == 3
    assert value(found, "gsb_exchange_seconds_count", service=READ) == 3
    assert 0 < value(found, "gsb_exchange_seconds_sum", service=READ) < LONG_AGO
    assert value(found, "gsb_adapter_calls_total", system="registry", result="answered") == 3
    assert value(found, "gsb_adapter_call_seconds_count", system="registry") == 3
    assert value(found, "gsb_calls_total", route="POST /services/{service}", status="2xx") == 3
    assert value(found, "gsb_agency_calls_total", agency="payroll", status="2xx") == 3
    assert value(found, "gsb_exchanges_performing", service=READ) == 0
    assert value(found, "gsb_breaker_state", system="registry", state="closed") == 1
    registry = node.node.bus.catalogue.systems["registry"]
    assert value(found, "gsb_system_places", system="registry") == registry.concurrency
    assert value(found, "gsb_store_commit_calls_sum") >= 6
    assert value(found, "gsb_store_commit_seconds_count") >= 6
    assert sum(found["gsb_problems_total"].values()) == 0
    assert sum(found["gsb_exchanges_ended_total"].values()) == 3


async def test_what_is_in_flight_is_told_while_it_is(node: InProcess) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Reply:
        began.set()
        await go_on.wait()
        return Reply(PERSON)

    puppet().acts = slow
    async with node.client() as client:
        call = asyncio.create_task(client.call(READ, PERSON_BODY, purpose="payroll"))
        try:
            await asyncio.wait_for(began.wait(), WITHIN)
            found = await numbers(node)
        finally:
            go_on.set()
        await call
    assert value(found, "gsb_exchanges_performing", service=READ) == 1
    assert value(found, "gsb_calls_in_flight", port="api") == 1
    assert value(found, "gsb_calls_in_flight", port="operations") == 1


async def test_a_refusal_is_counted_by_its_code(node: InProcess) -> None:
    async with node.client() as client:
        with pytest.raises(BusProblem):
            await client.call(READ, {"id": "canary"}, purpose="payroll")
        with pytest.raises(BusProblem):
            await client.call(READ, PERSON_BODY, purpose="canary")
    found = await numbers(node)
    assert value(found, "gsb_problems_total", code="body_invalid") == 1
    assert value(found, "gsb_problems_total", code="purpose_not_granted") == 1
    assert value(found, "gsb_agency_calls_total", agency="payroll", status="4xx") == 2
    assert value(found, "gsb_exchanges_accepted_total", service=READ) == 0


async def test_an_exchange_that_ends_as_a_problem_is_counted_by_its_code_too(node: InProcess) -> None:
    puppet().acts = answering({"nonsense": 1})
    async with node.client() as client:
        with pytest.raises(BusProblem) as failed:
            await client.call(READ, PERSON_BODY, purpose="payroll")
    assert failed.value.code == "reply_invalid"
    found = await numbers(node)
    assert value(found, "gsb_problems_total", code="reply_invalid") == 1
    assert value(found, "gsb_exchanges_ended_total", service=READ, state="failed") == 1


async def test_what_is_no_http_is_counted(node: InProcess) -> None:
    assert b"bad_request" in await raw(node, b"\x00canary\r\n\r\n")
    found = await numbers(node)
    assert value(found, "gsb_problems_total", code="bad_request") == 1
    assert value(found, "gsb_calls_total", route="other", status="4xx") == 1


async def test_what_stands_still_is_counted_and_told(tmp_path: Path) -> None:
    async with bus_of(puppet_deployment(tmp_path)) as hands:
        metrics = hands.bus.metrics

        async def found() -> Samples:
            return samples_of(metrics.text(hands.bus.runtime.breakers(), await hands.bus.store.standing()))

        puppet().acts = raising(Unavailable(sent=True))
        await hands.perform(await hands.accept(ONCE, NOTE))
        puppet().acts = raising(Broken("canary"))
        await hands.perform(await hands.accept(REPEATABLE, NOTE))
        puppet().acts = raising(Unavailable(sent=False))
        await hands.perform(await hands.accept(READ, PERSON_BODY))
        puppet().reset()
        seen = await found()
        assert {dict(labels)["state"]: each for labels, each in seen["gsb_exchanges_standing"].items()} == {
            "unknown": 1,
            "held": 1,
            "waiting": 1,
        }
        assert value(seen, "gsb_exchanges_stalled_total", service=ONCE, state="unknown") == 1
        assert value(seen, "gsb_exchanges_stalled_total", service=REPEATABLE, state="held") == 1
        assert sum(seen["gsb_exchanges_ended_total"].values()) == 0
        assert value(seen, "gsb_adapter_calls_total", system="registry", result="unavailable") == 2
        assert value(seen, "gsb_adapter_calls_total", system="registry", result="broken") == 1


async def test_what_an_operator_ends_has_ended(node: InProcess) -> None:
    puppet().acts = raising(Broken("nonsense"))
    async with node.client() as client, node.operator() as operator:
        with pytest.raises(OutcomePending) as pending:
            await client.call(READ, PERSON_BODY, purpose="payroll")
        act = {"reason": "the register is gone", "state": "failed", "effect": "none"}
        await operator.admin("POST", f"/admin/exchanges/{pending.value.exchange}/close", act)
    found = await numbers(node)
    assert value(found, "gsb_exchanges_ended_total", service=READ, state="failed") == 1
    assert value(found, "gsb_exchange_seconds_count", service=READ) == 1


async def test_the_sweeper_tells_what_it_found_and_what_lapsed(tmp_path: Path) -> None:
    async with bus_of(puppet_deployment(tmp_path)) as hands:
        exchange = await hands.accept(ONCE, NOTE)
        await hands.bus.store.begin(exchange, 10.0)
        await hands.accept(READ, PERSON_BODY)
        hands.clock.now += LONG_AGO
        assert await sweep(hands.bus) == 2
        found = samples_of(text_of(hands.bus.metrics))
    assert value(found, "gsb_sweeper_found_total") == 2
    assert value(found, "gsb_exchanges_stalled_total", service=ONCE, state="unknown") == 1


async def test_breakers_and_refusals_of_a_system_are_told(tmp_path: Path) -> None:
    async with played(theatre(tmp_path), empty_stage()) as hand:
        metrics = hand.runtime.metrics
        metrics.known("d", services=[], systems=["theatre"], agencies=[])

        def states() -> dict[str, float]:
            found = samples_of(metrics.text(hand.runtime.breakers(), {}))["gsb_breaker_state"]
            return {dict(labels)["state"]: each for labels, each in found.items()}

        assert states() == {"closed": 1, "open": 0, "half_open": 0}
        await hand.fail(5)
        assert states() == {"closed": 0, "open": 1, "half_open": 0}
        with pytest.raises(Unavailable):
            await hand.call()  # not let through, and so no call
        hand.clock.now += 60.0
        assert states() == {"closed": 0, "open": 0, "half_open": 1}
        hand.plays["handle"] = raising(Refused("canary"))
        with pytest.raises(Broken):  # a code that the adapter's manifest does not declare
            await hand.call()
        assert states() == {"closed": 1, "open": 0, "half_open": 0}
        text = metrics.text(hand.runtime.breakers(), {})
        assert b"canary" not in text
        found = samples_of(text)
        assert value(found, "gsb_adapter_calls_total", system="theatre", result="unavailable") == 5
        assert value(found, "gsb_adapter_calls_total", system="theatre", result="broken") == 1
        assert value(found, "gsb_adapter_call_seconds_count", system="theatre") == 6


async def test_a_store_that_fails_takes_only_its_own_numbers_away(node: InProcess) -> None:
    await node.node.bus.store.close()
    (node.deployment.folder / "store.db").rename(node.deployment.folder / "gone.db")
    (node.deployment.folder / "store.db").mkdir()
    found = await numbers(node)
    assert "gsb_exchanges_standing" not in found
    assert value(found, "gsb_breaker_state", system="registry", state="closed") == 1


# --- personal data


async def test_nothing_of_a_call_or_a_reply_is_told(node: InProcess) -> None:
    async def leaking(request: Request) -> Reply:
        return Reply({**PERSON, "name": "Canary Ada"}, note="canary note")

    async with node.client() as client:
        puppet().acts = leaking
        more: dict[str, Any] = {"sub": "canary-sub", "case": "canary-case"}
        await client.call(READ, PERSON_BODY, purpose="payroll", **more)
        puppet().acts = raising(Refused("canary", "canary words of the system"))
        with pytest.raises(OutcomePending):  # an undeclared refusal: the system is broken
            await client.call(ONCE, {**NOTE, "text": "canary"}, purpose="payroll", idempotency_key="canary-key", **more)
    text = await scraped(node)
    assert b"canary" not in text.lower()
    for personal in (PERSON_BODY["id"], "Ada", NOTE["text"]):
        assert str(personal).encode() not in text
    assert value(samples_of(text), "gsb_exchanges_accepted_total", service=ONCE) == 1
