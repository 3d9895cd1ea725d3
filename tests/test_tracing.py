"""Traces: where spans hang, what they may say, which are sampled; and that nothing suffers when nobody takes them."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from gsb import otel
from gsb.backends import TracingTable
from gsb.client import BusProblem
from gsb.metrics import Metrics
from gsb.otel import LAST, LIMIT, OtelTracer
from gsb.sdk import Refused
from gsb.telemetry import TRACEPARENT, trace
from gsb.tracing import FACTS, NOTHING, Fact, arriving, leaving, says, span, working
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ, answering, puppet, puppet_deployment, raising
from tests.support.certificates import certificate
from tests.support.collector import Collector, Sent, collecting
from tests.support.deployment import PERSON, SITE, Deployment, free_ports, standard
from tests.support.node import InProcess, node_in_process

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, PASSED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits at the end is sent however long that takes on a busy machine, but where nobody takes it."""
    monkeypatch.setattr(otel, "LAST", PATIENCE)
    monkeypatch.setattr(otel, "WITHIN", PATIENCE)


def tracer_to(url: str, ratio: float = 1.0, metrics: Metrics | None = None) -> OtelTracer:
    return OtelTracer(TracingTable(endpoint=url, ratio=ratio), "bus.test", "node-1", metrics or Metrics())


def counted(metrics: Metrics) -> dict[str, float]:
    """How many spans came to what."""
    lines = metrics.text({}, {}).decode().splitlines()
    found = [line for line in lines if line.startswith("gsb_trace_spans_total{")]
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in found}


# --- where nobody traces


def test_without_a_tracer_nothing_is_made_and_the_trace_goes_on() -> None:
    token = trace.set(None)
    assert leaving() is None
    with working(None, "perform", SAMPLED) as work, span("adapter") as inner:
        assert work is inner is NOTHING
        work.says(exchange="e-1")
        says(state="done")
        inner.keep()
        within, out = trace.get(), leaving()
    assert within is not None
    assert out is not None
    assert (within[:36], out[:36]) == (SAMPLED[:36], SAMPLED[:36])
    assert len({SAMPLED, within, out}) == 3
    trace.reset(token)


def test_without_the_extra_nothing_of_it_is_imported_and_whoever_wants_traces_is_told(tmp_path: Path) -> None:
    program = """
import importlib.util, sys
from pathlib import Path
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.startswith("opentelemetry") else real(name, package)
sys.modules.update(dict.fromkeys(("opentelemetry", "requests")))  # an import of it fails
import gsb.cli.main, gsb.node
from gsb.catalogue import ConfigInvalid, build
try:
    build(Path(sys.argv[1]))
except ConfigInvalid as error:
    print(*error.findings, sep="\\n")
print("gsb.otel" in sys.modules)
"""
    deployment = standard(tmp_path)
    deployment.gsb["tracing"] = {"endpoint": "https://collector"}
    path = os.pathsep.join([str(SITE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program, deployment.write()],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "gsb.toml: tracing: install the bus with the extra otel\nFalse\n"


# --- where spans hang, and what they say


async def test_spans_hang_below_one_another_and_say_only_what_they_may() -> None:
    async with collecting() as collector:
        tracer, metrics = tracer_to(collector.url), Metrics()
        with arriving(tracer, "POST /services/{service}", SAMPLED) as call:
            call.keep()
            arrived = trace.get()
            with span("accept"):
                says(exchange="e-1")
            with pytest.raises(ValueError, match="canary"), span("dispatch", "producer"):
                raise ValueError("canary")
            call.says(status=200, code=None, agency="payroll")
        with working(tracer, "perform", arrived) as work, span("request", "client"):
            sent = leaving()
            assert sent == trace.get()
        assert trace.get() is None
        await tracer.close()
        del metrics, work
        spans = {each.name: each for each in collector.spans}
    door = spans["POST /services/{service}"]
    assert {each.trace for each in spans.values()} == {TRACE}
    assert (door.kind, door.parent, door.node) == ("server", SPAN, "node-1")
    assert door.facts == {"http.response.status_code": 200, "gsb.agency": "payroll"}
    assert (spans["accept"].parent, spans["accept"].kind) == (door.id, "internal")
    assert spans["accept"].facts == {"gsb.exchange": "e-1"}
    assert (spans["dispatch"].kind, spans["dispatch"].failed) == ("producer", True)
    assert (spans["perform"].parent, spans["perform"].kind) == (door.id, "consumer")
    assert (spans["request"].parent, spans["request"].kind) == (spans["perform"].id, "client")
    assert sent is not None
    assert sent[36:52] == spans["request"].id
    assert b"canary" not in b"".join(collector.bodies)


async def test_a_span_has_no_place_for_anything_else() -> None:
    async with collecting() as collector:
        tracer = tracer_to(collector.url)
        facts: dict[str, Fact] = {"sub": "canary"}
        with pytest.raises(KeyError), arriving(tracer, "x", SAMPLED) as call:
            call.says(**facts)
        await tracer.close()
    assert set(FACTS) == {"exchange", "service", "agency", "state", "code", "attempt", "status"}
    assert b"canary" not in b"".join(collector.bodies)


async def test_a_message_of_another_trace_is_not_believed() -> None:
    other = "00-" + "7" * 32 + "-00f067aa0ba902b7-01"
    near = f"00-{TRACE}-1111111111111111-01"
    async with collecting() as collector:
        tracer = tracer_to(collector.url)
        for said in (None, near, other, "canary"):
            with working(tracer, "perform", SAMPLED, said):
                pass
        with working(tracer, "perform", None, near):
            pass
        await tracer.close()
        spans = collector.spans
    assert [each.parent for each in spans] == [SPAN, "1" * 16, SPAN, SPAN, ""]
    assert spans[-1].trace != TRACE


async def test_a_call_that_is_not_kept_is_not_sent_whatever_becomes_of_it() -> None:
    async with collecting() as collector:
        tracer = tracer_to(collector.url)
        with arriving(tracer, "x", SAMPLED):
            pass
        with pytest.raises(ConnectionError), arriving(tracer, "y", SAMPLED):
            raise ConnectionError
        await tracer.close()
    assert collector.bodies == []


# --- which are sampled


@pytest.mark.parametrize(
    ("ratio", "parent", "sent"), [(0.0, SAMPLED, 1), (1.0, PASSED, 0), (1.0, None, 1), (0, None, 0)]
)
async def test_who_calls_decides_whether_it_is_sampled_and_else_the_ratio(
    ratio: float, parent: str | None, sent: int
) -> None:
    async with collecting() as collector:
        tracer = tracer_to(collector.url, ratio)
        with arriving(tracer, "x", parent) as call, span("accept") as inner:
            call.keep()
            assert (inner is NOTHING) == (not sent)
            told = trace.get()
            out = leaving()
        await tracer.close()
    assert told is not None
    assert out is not None
    assert TRACEPARENT.fullmatch(out)
    assert int(told[-2:], 16) & 1 == sent
    assert told[:36] == out[:36]
    assert [each.name for each in collector.spans] == ["accept", "x"][: 2 * sent]


async def test_one_in_a_hundred_is_sampled_unless_said_otherwise() -> None:
    assert TracingTable(endpoint="http://127.0.0.1:4318").ratio == 0.01
    tracer = tracer_to("http://127.0.0.1:1", TracingTable(endpoint="http://127.0.0.1:1").ratio)
    sampled = sum(tracer.begin("x", "server", None).sampled for _ in range(20_000))
    await tracer.close()
    assert 100 < sampled < 320  # 200, and seven standard deviations


# --- nobody takes them


async def test_what_nobody_takes_is_dropped_and_counted_and_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otel, "LAST", LAST)
    (port,) = free_ports(1)
    metrics = Metrics()
    tracer = tracer_to(f"http://127.0.0.1:{port}", metrics=metrics)
    for _ in range(LIMIT + 10):
        tracer.begin("x", "server", None).end()
    assert counted(metrics) == {"sent": 0, "failed": 0, "dropped": 10}
    began = asyncio.get_running_loop().time()
    await tracer.close()
    assert asyncio.get_running_loop().time() - began < PATIENCE  # it does not wait for the collector
    told = [each for each in caplog.records if each.name == "gsb.otel"]
    assert len(told) <= 1
    assert [each for each in caplog.records if each.name.startswith(("opentelemetry", "urllib3"))] == []


async def test_a_collector_that_fails_and_is_back_is_told(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    async with collecting() as collector:
        collector.status = 400  # not tried again
        tracer = tracer_to(collector.url, metrics=metrics)
        tracer.begin("x", "server", None).end()
        async with asyncio.timeout(60), collector.came:
            await collector.came.wait_for(lambda: collector.bodies)
        collector.status = 200
        tracer.begin("y", "server", None).end()
        assert [each.name for each in await collector.until(bool)] == ["y"]
        await tracer.close()
    assert counted(metrics) == {"sent": 1, "failed": 1, "dropped": 0}
    assert [each.levelname for each in caplog.records if each.name == "gsb.otel"] == ["ERROR", "WARNING"]
    assert f"the collector of traces at {collector.url} takes none" in caplog.text


async def test_the_environment_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    nowhere = f"http://127.0.0.1:{port}"
    for name in ("http_proxy", "HTTP_PROXY", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.setenv(name, nowhere)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "who=canary")
    async with collecting() as collector:
        tracer = tracer_to(collector.url)
        tracer.begin("x", "server", None).end()
        await tracer.close()
    assert [each.name for each in collector.spans] == ["x"]
    assert b"canary" not in collector.bodies[0]


async def test_a_library_that_is_switched_off_keeps_the_trace_going(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracer = tracer_to("http://127.0.0.1:1")
    with arriving(tracer, "x", SAMPLED):
        told = trace.get()
    await tracer.close()
    assert told is not None
    assert TRACEPARENT.fullmatch(told)
    assert told[:36] == SAMPLED[:36]


async def test_the_way_is_protected_by_the_authority_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path, "localhost")
    other = certificate(tmp_path, "other")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pem)
    found = []
    async with collecting(tls) as collector:
        for ca in (other, None, pem):
            metrics = Metrics()
            monkeypatch.setattr(otel, "LAST", PATIENCE if ca is pem else LAST)
            table = TracingTable(endpoint=collector.url, ratio=1.0, ca=ca)
            tracer = OtelTracer(table, "bus.test", "node-1", metrics)
            tracer.begin(str(ca), "server", None).end()
            await tracer.close()
            found.append(counted(metrics)["sent"])
    assert found == [0, 0, 1]
    assert [each.name for each in collector.spans] == [str(pem)]


# --- one node


def traced(root: Path, collector: Collector) -> Deployment:
    deployment = puppet_deployment(root)
    deployment.gsb["tracing"] = {"endpoint": collector.url, "ratio": 1.0}
    return deployment


def of(spans: list[Sent], name: str) -> Sent:
    (found,) = [each for each in spans if each.name == name]
    return found


async def test_the_spans_of_a_call_on_one_node(tmp_path: Path) -> None:
    puppet().acts = answering(PERSON)
    async with collecting() as collector:
        async with node_in_process(tmp_path, traced(tmp_path, collector)) as node, node.client() as client:
            result = await client.call(READ, PERSON_BODY, purpose="payroll")
        spans = collector.spans
    puppet().reset()
    door, perform = of(spans, "POST /services/{service}"), of(spans, "perform")
    assert {each.trace for each in spans} == {door.trace}
    below = {name: of(spans, name).parent for name in ("accept", "dispatch", "wait", "reply", "perform")}
    assert below == dict.fromkeys(below, door.id)
    assert of(spans, "adapter").parent == of(spans, "finish").parent == perform.id
    assert len(spans) == 8
    known = {"gsb.exchange": result.exchange, "gsb.service": READ, "gsb.agency": "payroll", "gsb.state": "done"}
    assert door.facts == {**known, "http.response.status_code": 200}
    assert perform.facts == {**known, "gsb.attempt": 1}
    assert of(spans, "adapter").facts == {"gsb.code": "answered"}
    assert [each for each in spans if each.failed] == []
    assert all(start <= end for start, end in (each.took for each in spans))


async def test_how_it_ended_stands_in_the_span(tmp_path: Path) -> None:
    async with collecting() as collector, node_in_process(tmp_path, traced(tmp_path, collector)) as node:
        async with node.client() as client:
            puppet().acts = raising(Refused("not_found", "canary"))
            with pytest.raises(BusProblem):
                await client.call(ONCE, NOTE, purpose="payroll", idempotency_key="k-1")
            with pytest.raises(BusProblem):
                await client.call("registry/none/v1", NOTE, purpose="payroll", idempotency_key="k-2")
        await stranger(node)
        await node.node.stop()
    puppet().reset()
    spans = collector.spans
    perform, adapter = of(spans, "perform"), of(spans, "adapter")
    assert (perform.facts["gsb.state"], perform.facts["gsb.code"]) == ("refused", "system_refused")
    assert (adapter.facts, adapter.failed) == ({"gsb.code": "refused"}, True)
    doors = [each.facts for each in spans if each.kind == "server"]
    assert [each["gsb.code"] for each in doors] == ["system_refused", "service_unknown"]
    assert b"canary" not in b"".join(collector.bodies)


async def stranger(node: InProcess) -> None:
    """Calls of nobody known, all of which say that they are sampled."""
    headers = {"traceparent": SAMPLED, "tracestate": "a=canary", "baggage": "b=canary", "User-Agent": "canary"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for path in (f"/services/{READ}", "/canary", "/services/canary"):
            async with session.post(node.url + path, data=b'{"a":"canary"}') as answer:
                assert answer.status >= 400
        for path in ("/.well-known/jwks.json", "/services"):
            async with session.get(node.url + path) as answer:
                assert answer.status == 200


async def test_calls_do_not_suffer_when_nobody_takes_their_spans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otel, "LAST", LAST)
    puppet().acts = answering(PERSON)
    async with collecting() as collector:
        deployment = traced(tmp_path, collector)
    async with node_in_process(tmp_path, deployment) as node, node.client() as client:
        for _ in range(5):
            assert (await client.call(READ, PERSON_BODY, purpose="payroll")).status == 200
    puppet().reset()
    assert counted(node.node.bus.metrics)["sent"] == 0
