"""One trace across HTTP, Kafka, an adapter and the reply: real nodes over real servers, a real core system, and a
collector that reads what they send by OpenTelemetry's own description of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest

from tests.support.bus import NOTE, PERSON_BODY, READ, REPEATABLE
from tests.support.cluster import Member, cluster
from tests.support.collector import WITHIN, Collector, Sent, collecting
from tests.support.core import Core, beside, core_system

pytestmark = pytest.mark.slow
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01"
NOT_SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
DOOR = "POST /services/{service}"
SPANS = {
    DOOR: ("server", SPAN),
    "accept": ("internal", DOOR),
    "dispatch": ("producer", DOOR),
    "wait": ("internal", DOOR),
    "reply": ("internal", DOOR),
    "perform": ("consumer", "dispatch"),
    "adapter": ("internal", "perform"),
    "request": ("client", "adapter"),
    "finish": ("internal", "perform"),
}
"""Every span of a call: what it is, and below which it hangs."""


@pytest.fixture
async def core() -> AsyncIterator[Core]:
    async with core_system() as found:
        yield found


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as found:
        yield found


@pytest.fixture
async def nodes(tmp_path: Path, dsn: str, kafka: str, core: Core, collector: Collector) -> AsyncIterator[list[Member]]:
    deployment = beside(tmp_path, core)
    deployment.gsb["tracing"] = {"endpoint": collector.url, "ratio": 0.0}
    async with cluster(tmp_path, dsn, ["gateway", "worker", "recorder"], brokers=kafka, deployment=deployment) as found:
        yield found


def within(traceparent: str) -> aiohttp.ClientSession:
    """For a client whose calls come within this trace."""
    return aiohttp.ClientSession(headers={"traceparent": traceparent})


async def test_one_trace_from_the_caller_through_kafka_to_the_core_system_and_back(
    nodes: list[Member], core: Core, collector: Collector
) -> None:
    gateway, worker, _ = nodes
    async with within(NOT_SAMPLED) as session, gateway.client(session=session) as client:
        await client.call(READ, PERSON_BODY, purpose="payroll")
    async with gateway.client() as client:
        await client.call(READ, PERSON_BODY, purpose="payroll")
    async with within(SAMPLED) as session, gateway.client(session=session) as client:
        result = await client.call(READ, PERSON_BODY, purpose="payroll")
    spans = await collector.until(lambda spans: len(spans) >= len(SPANS))
    by_name = {each.name: each for each in spans}
    assert len(spans) == len(by_name) == len(SPANS)
    assert {each.trace for each in spans} == {TRACE}
    assert {each.name: (each.kind, above(each, spans)) for each in spans} == SPANS
    here, there = by_name["accept"].node, by_name["perform"].node
    assert here != there
    assert {each.name for each in spans if each.node == there} == {"perform", "adapter", "request", "finish"}
    given, own, asked = (each.headers["traceparent"] for each in core.asked)
    assert asked == f"00-{TRACE}-{by_name['request'].id}-01"
    assert given[:36] == NOT_SAMPLED[:36]  # those that are not sampled are handed on, and were not sent before this one
    assert int(given[-2:], 16) & 1 == int(own[-2:], 16) & 1 == 0
    assert by_name["perform"].facts["gsb.exchange"] == by_name[DOOR].facts["gsb.exchange"]
    assert by_name["perform"].facts["gsb.exchange"] == result.exchange
    assert by_name["request"].facts == {"http.response.status_code": 200}
    line = (await ended(worker, 3))[-1]
    assert line["trace"] == f"00-{TRACE}-{by_name['perform'].id}-01"


async def ended(worker: Member, count: int) -> list[dict[str, object]]:
    """The lines of so many exchanges: they come another way than the spans."""
    async with asyncio.timeout(WITHIN):
        while True:
            lines = [json.loads(each) for each in worker.log if "exchange ended" in each]
            if len(lines) >= count:
                return lines
            await asyncio.sleep(0.05)


def above(span: Sent, spans: Sequence[Sent]) -> str:
    """The name of the span below which it hangs, or the id of one that is not the bus's."""
    return next((each.name for each in spans if each.id == span.parent), span.parent)


async def test_what_fails_is_told_in_the_trace_and_each_try_is_a_span(
    nodes: list[Member], core: Core, collector: Collector
) -> None:
    tries = iter([503, 200])

    def answers(asked: object) -> tuple[int, object]:
        status = next(tries)
        return status, NOTE if status == 200 else {}

    core.answers = answers
    gateway = nodes[0]
    async with within(SAMPLED) as session, gateway.client(session=session) as client:
        await client.call(REPEATABLE, NOTE, purpose="payroll", idempotency_key="k-1", timeout=60)
    wanted = Counter(server=1, consumer=2)
    spans = await collector.until(lambda spans: wanted <= Counter(each.kind for each in spans))
    performed = sorted((each for each in spans if each.name == "perform"), key=lambda each: each.took)
    assert [each.facts["gsb.attempt"] for each in performed] == [1, 2]
    assert [each.facts["gsb.state"] for each in performed] == ["waiting", "done"]
    assert performed[0].facts["gsb.code"] == "system_unavailable"
    requests = sorted((each for each in spans if each.name == "request"), key=lambda each: each.took)
    assert [(each.facts["http.response.status_code"], each.failed) for each in requests] == [(503, True), (200, False)]
    assert {each.trace for each in spans} == {TRACE}
    # What the sweeper dispatched says no trace, so the second try hangs below the call itself.
    door = {each.id for each in spans if each.kind == "server"}
    assert performed[1].parent in door


async def test_nodes_work_and_end_while_the_collector_is_gone(nodes: list[Member], collector: Collector) -> None:
    collector.status = 503
    gateway, worker, recorder = nodes
    async with within(SAMPLED) as session, gateway.client(session=session) as client:
        for _ in range(3):
            assert (await client.call(READ, PERSON_BODY, purpose="payroll")).status == 200
    async with asyncio.timeout(WITHIN), collector.came:
        await collector.came.wait_for(lambda: len(collector.bodies) >= 2)
    for node in (gateway, worker, recorder):
        await node.stop()
    told = [json.loads(each) for each in worker.log if "gsb.otel" in each]
    assert [each["message"].partition(";")[0] for each in told] == [
        f"the collector of traces at {collector.url} takes none"
    ]
    assert not any("opentelemetry" in each or "urllib3" in each for each in [*gateway.log, *worker.log])
