"""Spans sent to a collector, as OpenTelemetry's own library makes, samples, gathers and sends them (OTLP over HTTP).

Nothing waits for a collector: spans are sent by a thread of their own, so many may wait and no more, and what is not
taken is dropped and counted. The library is told everything here, so its variables of the environment decide nothing
about where spans go. It is imported only where the extra is installed. A crash loses the spans that wait.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from threading import Thread

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from gsb import __version__
from gsb.backends import TracingTable
from gsb.metrics import Metrics
from gsb.telemetry import TRACEPARENT, child_trace
from gsb.tracing import FACTS, Fact, Kind
from gsb.trouble import Trouble

log = logging.getLogger("gsb.otel")

PATH = "/v1/traces"
"""Where a collector takes spans (OTLP 1.x, OTLP/HTTP Request)."""
LIMIT = 4_096
"""Spans that wait, or are on their way."""
BATCH = 512
"""Spans that are sent together, at most."""
EVERY = 1.0
"""Seconds after which fewer are sent."""
WITHIN = 5.0
"""Seconds for one batch."""
LAST = 2.0
"""Seconds that a node which ends gives what still waits."""
SERVER_ERROR = 500
AWAY = (
    "the collector of traces at {} takes none; spans are dropped and counted, and nothing else suffers; look at it, at "
    "what lies between, and at [tracing] in gsb.toml"
)
KINDS = {kind.name.lower(): kind for kind in SpanKind}


class OtelSpan:
    """See ``gsb.tracing.Live``."""

    __slots__ = ("_span", "_tracer", "sampled", "traceparent")

    def __init__(self, tracer: Tracer, span: Span, parent: str | None) -> None:
        self._tracer, self._span = tracer, span
        context = span.get_span_context()
        self.sampled = span.is_recording()
        self.traceparent = (
            f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
            if context.is_valid
            else child_trace(parent)  # the library was switched off by its environment
        )

    def child(self, name: str, kind: Kind) -> OtelSpan:
        context = set_span_in_context(self._span, Context())
        return OtelSpan(self._tracer, _begun(self._tracer, name, kind, context), self.traceparent)

    def says(self, facts: Mapping[str, Fact]) -> None:
        for name, value in facts.items():
            if value is not None:
                self._span.set_attribute(FACTS[name], value)
        status = facts.get("status")
        if isinstance(status, int) and status >= SERVER_ERROR:
            self.fails()

    def fails(self) -> None:
        self._span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        self._span.end()


class OtelTracer:
    """See ``gsb.tracing.Tracer``. ``bus`` and ``node`` are what the spans are of; begin and end them in one thread."""

    def __init__(self, table: TracingTable, bus: str, node: str, metrics: Metrics) -> None:
        # Its own lines quote addresses and errors, one for each batch; what there is to say is said by ``Sending``.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        resource = {"service.name": "gsb", "service.namespace": bus, "service.instance.id": node}
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(table.ratio)),
            resource=Resource(resource | {"service.version": __version__}),
            shutdown_on_exit=False,
            meter_provider=NoOpMeterProvider(),
        )
        self._sending = Sending(table, metrics)
        self._provider.add_span_processor(Waiting(self._sending, metrics))
        self._tracer = self._provider.get_tracer("gsb", __version__)

    def begin(self, name: str, kind: Kind, parent: str | None) -> OtelSpan:
        return OtelSpan(self._tracer, _begun(self._tracer, name, kind, _remote(parent)), parent)

    async def close(self) -> None:
        """Send what waits, in ``LAST`` seconds at most; what is then still on its way is given up."""
        ending = Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, LAST)
        self._sending.shutdown()


class Sending(SpanExporter):
    """Sends, and tells when nobody takes it. Called by one thread."""

    def __init__(self, table: TracingTable, metrics: Metrics) -> None:
        session = requests.Session()
        session.trust_env = False  # no proxy and no password of whoever started the node
        self._exporter = OTLPSpanExporter(
            endpoint=table.endpoint + PATH,
            certificate_file=_authorities(table),
            timeout=WITHIN,
            compression=Compression.Gzip,
            session=session,
            meter_provider=NoOpMeterProvider(),
        )
        self._metrics = metrics
        self._away, self._told = Trouble(log, "the collector takes traces again"), AWAY.format(table.endpoint)
        self.gone = 0
        """Spans that were sent or given up."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            sent = result is SpanExportResult.SUCCESS
            self.gone += len(spans)
            self._metrics.traced("sent" if sent else "failed", len(spans))
            if sent:
                self._away.is_over()
            else:
                self._away.is_there(self._told)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class Waiting(BatchSpanProcessor):
    """What waits for its batch. The library would drop the oldest without a count; this drops what does not fit."""

    def __init__(self, sending: Sending, metrics: Metrics) -> None:
        self._sending, self._metrics, self._come = sending, metrics, 0
        super().__init__(
            sending,
            max_queue_size=LIMIT,
            schedule_delay_millis=EVERY * 1000,
            max_export_batch_size=BATCH,
            export_timeout_millis=WITHIN * 1000,
            meter_provider=NoOpMeterProvider(),
        )

    def on_end(self, span: ReadableSpan) -> None:
        if self._come - self._sending.gone >= LIMIT:
            self._metrics.traced("dropped", 1)
            return
        self._come += 1
        super().on_end(span)


def _begun(tracer: Tracer, name: str, kind: Kind, context: Context) -> Span:
    # Never by its ``with``: the library would write the texts of errors into the span.
    return tracer.start_span(name, context, KINDS[kind], record_exception=False, set_status_on_exception=False)


def _remote(parent: str | None) -> Context:
    """The context that a traceparent names; an empty one where it names none."""
    if parent is None or not TRACEPARENT.fullmatch(parent):
        return Context()
    there = SpanContext(int(parent[3:35], 16), int(parent[36:52], 16), True, TraceFlags(int(parent[53:], 16)))
    return set_span_in_context(NonRecordingSpan(there), Context())


def _authorities(table: TracingTable) -> str | None:
    """PEM file or folder of who vouches for the collector: as configured, or those that this machine trusts."""
    if table.ca is not None:
        return str(table.ca)
    machine = ssl.get_default_verify_paths()
    return machine.cafile or machine.capath
