"""A collector of traces: takes OTLP over HTTP and reads it by OpenTelemetry's own description (opentelemetry-proto).

async with collecting() as collector:
    deployment.gsb["tracing"] = {"endpoint": collector.url, "ratio": 1.0}
    ...
    spans = await collector.until(lambda spans: len(spans) == 7)
"""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

PATH = "/v1/traces"
WITHIN = 60.0
"""Seconds for spans to come, on a machine that is busy with other things."""


@dataclass(frozen=True)
class Sent:
    """One span as it came."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    """Empty for the first of a trace."""
    node: str
    """By which the node that sent it names itself."""
    failed: bool
    facts: dict[str, Any]
    took: tuple[int, int]
    """From when to when, in nanoseconds."""


@dataclass
class Collector:
    """What came in. ``status`` is what it answers."""

    url: str = ""
    status: int = 200
    spans: list[Sent] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    """As they came, uncompressed."""
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, enough: Callable[[Sequence[Sent]], bool]) -> list[Sent]:
        """All spans, as soon as they are enough."""
        async with asyncio.timeout(WITHIN), self.came:
            await self.came.wait_for(lambda: enough(self.spans))
        return list(self.spans)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        assert request.headers["Content-Type"] == "application/x-protobuf"
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        async with self.came:
            self.bodies.append(body)
            if self.status == 200:
                self.spans += read(body)
            self.came.notify_all()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(status=self.status, body=answer, content_type="application/x-protobuf")


def read(body: bytes) -> list[Sent]:
    """The spans of one request. Whatever of the format the bus has no use for must be empty."""
    found = []
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = {each.key: each.value.string_value for each in group.resource.attributes}
        for scope in group.scope_spans:
            found += [_sent(span, resource["service.instance.id"]) for span in scope.spans]
    return found


def _sent(span: Any, node: str) -> Sent:
    assert not span.events
    assert not span.links
    assert not span.trace_state
    assert not span.status.message
    return Sent(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        node=node,
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        facts={each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes},
        took=(span.start_time_unix_nano, span.end_time_unix_nano),
    )


@asynccontextmanager
async def collecting(tls: ssl.SSLContext | None = None) -> AsyncIterator[Collector]:
    """A collector on a free port of loopback."""
    collector = Collector()
    app = web.Application()
    app.router.add_post(PATH, collector.take)
    async with served(app, tls) as url:
        collector.url = url
        yield collector


@asynccontextmanager
async def served(app: web.Application, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """An application on a free port of loopback, by its URL."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        port = runner.addresses[0][1]
        yield f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
