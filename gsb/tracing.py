"""Where spans of a trace begin and end. Who sends them, and whether anybody does, is ``gsb.otel``'s business.

A node that traces has a ``Tracer``, which begins the spans at its doors; what happens inside one finds it in the
context and hangs its own below it. Without a tracer nothing is made and nothing changes: a traceparent that came with a
call is handed on as it always is. A span says only what ``FACTS`` names: no value of a request, a reply or a URL has a
place in it. A crash loses the spans that were not sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Literal, Protocol

from gsb.telemetry import child_trace, trace

FACTS = {
    "exchange": "gsb.exchange",
    "service": "gsb.service",
    "agency": "gsb.agency",
    "state": "gsb.state",
    "code": "gsb.code",
    "attempt": "gsb.attempt",
    "status": "http.response.status_code",
}
"""All that a span can say, and the attribute by which it does. Ids and codes of the bus, and numbers."""

Kind = Literal["server", "internal", "producer", "consumer", "client"]
"""What a span is to the one above it (OpenTelemetry, Trace API, SpanKind)."""
Fact = str | int | None


class Live(Protocol):
    """A span that has begun."""

    @property
    def traceparent(self) -> str:
        """By which work that it causes names it (W3C Trace Context)."""

    @property
    def sampled(self) -> bool:
        """Whether it will be sent; if not, there are no spans below it."""

    def child(self, name: str, kind: Kind) -> Live:
        """A span below it, which begins now."""

    def says(self, facts: Mapping[str, Fact]) -> None:
        """``facts`` by their names in ``FACTS``; what is None is left out."""

    def fails(self) -> None:
        """What it is of did not succeed."""

    def end(self) -> None:
        """Let it be sent."""


class Tracer(Protocol):
    """What a node that traces has."""

    def begin(self, name: str, kind: Kind, parent: str | None) -> Live:
        """A span at one of the node's doors. ``parent`` is a traceparent; without one a trace begins, and it is decided
        whether it is sent."""

    async def close(self) -> None:
        """Send what there is, within a bound."""


class Under(Protocol):
    """What a ``with`` of a span gives: somewhere to say what became of it."""

    def __enter__(self) -> Under: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def says(self, **facts: Fact) -> None:
        """See ``Live.says``."""

    def keep(self) -> None:
        """Let it be sent, which only the span of a call that comes in needs to be told."""


_live: ContextVar[Live | None] = ContextVar("live", default=None)
"""The span of the work at hand, if it will be sent."""


class _Nothing:
    """A span where nobody traces."""

    __slots__ = ()

    def __enter__(self) -> Under:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def says(self, **facts: Fact) -> None: ...

    def keep(self) -> None: ...


NOTHING = _Nothing()


class _Span:
    """The span of what its ``with`` holds. Not the text of an error but only that there was one is told."""

    __slots__ = ("_kept", "_live", "_token", "_traced")

    def __init__(self, live: Live, *, kept: bool = True) -> None:
        self._live, self._kept = live, kept

    def __enter__(self) -> Under:
        self._traced: Token[str | None] = trace.set(self._live.traceparent)
        self._token: Token[Live | None] = _live.set(self._live if self._live.sampled else None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        trace.reset(self._traced)
        _live.reset(self._token)
        if error is not None:
            self._live.fails()
        if self._kept:
            self._live.end()

    def says(self, **facts: Fact) -> None:
        self._live.says(facts)

    def keep(self) -> None:
        self._kept = True


def span(name: str, kind: Kind = "internal") -> Under:
    """A part of the work at hand, as the span below the one that there is; of nothing where there is none."""
    live = _live.get()
    return NOTHING if live is None else _Span(live.child(name, kind))


def arriving(tracer: Tracer, name: str, parent: str | None) -> Under:
    """A call that comes in; of nobody known until it is kept."""
    return _Span(tracer.begin(name, "server", parent), kept=False)


def working(tracer: Tracer | None, name: str, parent: str | None, said: str | None = None) -> Under:
    """Work that ``parent`` caused. ``said``: the traceparent of the message that asked for it, which is nearer, but
    believed only if it is of the same trace. What is logged and sent meanwhile names the trace in any case."""
    if tracer is None:
        trace.set(child_trace(parent))
        return NOTHING
    near = said if said is not None and parent is not None and said[:36] == parent[:36] else parent
    return _Span(tracer.begin(name, "consumer", near))


def says(**facts: Fact) -> None:
    """Have the span of the work at hand say this."""
    if (live := _live.get()) is not None:
        live.says(facts)


def leaving() -> str | None:
    """The traceparent for a request that goes out: of its own span, if it has one."""
    parent = trace.get()
    return parent if parent is None or _live.get() is not None else child_trace(parent)
