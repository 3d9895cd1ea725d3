"""Routes and the way of one call: read it, answer it, sign the answer for whoever is known.

Two servers: the API for agencies, and the operations port for probes and operators. Routing works on the raw target,
the very string that is signed.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import orjson
from aiohttp import web

from gsb import jws
from gsb.admit import SERVICES, admit, find_service
from gsb.bus import Bus
from gsb.errors import (
    Busy,
    Draining,
    InternalError,
    MethodRefused,
    PathUnknown,
    Problem,
    SigningUnavailable,
    StoreUnavailable,
)
from gsb.handout import leaf_text
from gsb.metrics import CONTENT_TYPE, OTHER
from gsb.model import JSON_TYPE, PROBLEM_TYPE, Answer, Call, Exchange
from gsb.problem import problem_answer
from gsb.tracing import Tracer, arriving, says, span
from gsb.web import admin, erasure, exchanges, receipts, services
from gsb.web import log as logs
from gsb.web.reference import docs, openapi
from gsb.web.server import Said, make_server, new_instance, read_call, read_trace, respond

log = logging.getLogger("gsb.web")

PLACES = {
    "{id}": r"([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})",
    "{service}": r".+",
    "{code}": r"([a-z0-9_]+)",
    "{log}": r"([A-Za-z0-9._~-]+)",
    "{tile}": r"(tile/[a-z0-9./]+)",
}
"""What may stand in the places of a template. A service is looked up by its step, so its text is caught nowhere."""
LOOK = 5.0
"""Seconds that the store has for the numbers: Prometheus waits for ten, and has nothing of a node that takes longer."""
BUSY_PAUSE = 1.0
"""Seconds for which the answer ``busy`` is held back: as long as its Retry-After asks its caller to wait."""
Endpoint = Callable[..., Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a pattern of the raw path; what the pattern's groups catch are the endpoint's last arguments."""

    name: str
    method: str
    pattern: re.Pattern[str]
    endpoint: Endpoint


def route(method: str, template: str, endpoint: Endpoint) -> Route:
    """``template`` is the path with places in braces; with the method it is the route's name."""
    pattern = template.replace(".", r"\.")
    for place, text in PLACES.items():
        pattern = pattern.replace(place, text)
    return Route(f"{method} {template}", method, re.compile(pattern), endpoint)


async def keys(bus: Bus, call: Call) -> Answer:
    """``GET /.well-known/jwks.json``: with what the bus signs (RFC 7517)."""
    return Answer(200, orjson.dumps(bus.catalogue.bus_keys.jwks(bus.clock())), "application/jwk-set+json")


async def alive(bus: Bus, call: Call) -> Answer:
    """``GET /livez``: the process answers. It never asks anything else, so that nothing else restarts it."""
    return Answer(200, b'{"status":"alive"}')


async def ready(bus: Bus, call: Call) -> Answer:
    """``GET /readyz``: 200 if this node can do all its work, else 503 and the names of what cannot."""
    missing = await bus.unready()
    body = {"status": "not ready" if missing else "ready", "missing": missing, "systems": bus.runtime.health()}
    return Answer(503 if missing else 200, orjson.dumps(body), JSON_TYPE)


async def metrics(bus: Bus, call: Call) -> Answer:
    """``GET /metrics``: the node's numbers, in Prometheus' text format."""
    try:
        async with asyncio.timeout(LOOK):
            standing = await bus.store.standing()
    except (StoreUnavailable, TimeoutError):
        standing = None  # whoever reads the rest must see that the store is what is missing
    text = await asyncio.to_thread(bus.metrics.text, bus.runtime.breakers(), standing)
    return Answer(200, text, CONTENT_TYPE)


API = (
    route("POST", "/services/{service}", admit),
    route("GET", "/services", services.listing),
    route("GET", "/exchanges/{id}", exchanges.show),
    route("GET", "/exchanges/{id}/reply", exchanges.reply),
    route("GET", "/exchanges/{id}/receipt", receipts.receipt),
    route("GET", "/openapi.json", openapi.description),
    route("GET", "/docs", docs.page),
    route("GET", "/problems/{code}", docs.problem),
    route("GET", "/.well-known/jwks.json", keys),
    route("GET", "/log/checkpoint", logs.checkpoint),
    route("GET", "/log/{log}/checkpoint", logs.checkpoint),
    route("GET", "/log/{tile}", logs.file_for_auditor),
    route("GET", "/log/{log}/{tile}", logs.file_for_auditor),
)
OPERATIONS = (
    route("GET", "/livez", alive),
    route("GET", "/readyz", ready),
    route("GET", "/metrics", metrics),
    route("GET", "/log/checkpoint", logs.checkpoint),
    route("GET", "/log/{log}/checkpoint", logs.checkpoint),
    route("GET", "/log/{tile}", logs.file),
    route("GET", "/log/{log}/{tile}", logs.file),
    route("GET", "/admin/exchanges", admin.search),
    route("GET", "/admin/exchanges/{id}", admin.show),
    route("GET", "/admin/exchanges/{id}/body", admin.body),
    route("GET", "/admin/exchanges/{id}/evidence", erasure.evidence),
    route("POST", "/admin/exchanges/{id}/resolve", admin.resolve),
    route("POST", "/admin/exchanges/{id}/close", admin.close),
    route("POST", "/admin/exchanges/{id}/replay", admin.replay),
    route("POST", "/admin/erase", erasure.erase),
    route("POST", "/admin/keys/revoke", admin.revoke),
)


def find_route(routes: tuple[Route, ...], method: str, target: str) -> tuple[Route, tuple[str, ...]]:
    """The route of this raw target, and its endpoint's last arguments. Raises PathUnknown, or MethodRefused with Allow
    (RFC 9110, section 15.5.6)."""
    path = target.partition("?")[0]
    allowed = []
    for candidate in routes:
        if match := candidate.pattern.fullmatch(path):
            if candidate.method == method:
                return candidate, match.groups()
            allowed.append(candidate.method)
    if allowed:
        raise MethodRefused(headers={"Allow": ", ".join(sorted(set(allowed)))})
    raise PathUnknown


class Edge:
    """One listening side of a node."""

    def __init__(self, bus: Bus, routes: tuple[Route, ...], *, guarded: bool) -> None:
        """``guarded``: refuse calls when closed or beyond the limit in flight; probes and operators are never."""
        self._bus = bus
        self._routes = routes
        self._guarded = guarded
        self._in_flight = 0
        self.closed = False
        """Set when nothing is admitted any more, since the node is out of order."""
        self.idle = asyncio.Event()
        """Set while no call is in flight."""
        self.idle.set()
        port = "api" if guarded else "operations"
        bus.metrics.serve(port, [route.name for route in routes], lambda: self._in_flight)

    def server(self) -> web.Server:
        return make_server(
            self._way if self._guarded else self.handle, self._spoilt, lambda: self._bus.catalogue.gsb.limits
        )

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def _way(self, request: web.BaseRequest) -> Awaitable[Said]:
        tracer = self._bus.tracer
        return self.handle(request) if tracer is None else self._traced(tracer, request)

    async def _traced(self, tracer: Tracer, request: web.BaseRequest) -> Said:
        """The same with a span, but for what has no route or comes from nobody known: strangers cannot fill traces."""
        try:
            found, _ = find_route(self._routes, request.method, request.raw_path)
        except Problem:
            return await self.handle(request)
        with arriving(tracer, found.name, read_trace(request.headers.get("traceparent"))) as call:
            said = await self.handle(request)
            if said.signed:
                call.keep()
            return said

    async def handle(self, request: web.BaseRequest) -> Said:
        self._in_flight += 1
        self.idle.clear()
        call: Call | None = None
        found: Route | None = None
        code: str | None = None
        try:
            self._guard()
            found, arguments = find_route(self._routes, request.method, request.raw_path)
            within = self._bus.catalogue.gsb.limits.body_within
            call = await read_call(request, self._limit(request.raw_path), within)
            if call.signature is not None:
                # Nothing is taken, or done by an operator, that could not be answered: answers are signed.
                self._bus.catalogue.bus_keys.signing(self._bus.clock())
            answer = await found.endpoint(self._bus, call, *arguments)
        except Problem as problem:
            code = problem.code
            answer = problem_answer(problem, self._bus.base_url, new_instance())
        except Exception:
            # The one place where anything unforeseen becomes an answer; the caller may repeat under the same key.
            code, instance = InternalError.code, new_instance()
            log.exception("a call failed", extra={"facts": {"instance": instance}})
            answer = problem_answer(InternalError(), self._bus.base_url, instance)
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self.idle.set()
        self._count(found, call, answer, code)
        if code == Busy.code:
            # Whoever comes back at once all the same is told so once a second on each connection, and costs no more.
            await asyncio.sleep(BUSY_PAUSE)
        return await self._respond(call, answer)

    async def _respond(self, call: Call | None, answer: Answer) -> Said:
        try:
            response = respond(answer, await self._signature(call, answer))
        except SigningUnavailable as problem:  # the last key ran out, or its HSM went; the exchange goes on
            response = respond(problem_answer(problem, self._bus.base_url, new_instance()))
        if self._bus.draining:
            response.force_close()  # so that whoever keeps connections comes back on one to another node
        return response

    def _count(self, found: Route | None, call: Call | None, answer: Answer, code: str | None) -> None:
        outcome = answer.exchange.outcome if answer.exchange else None
        if code is None and outcome is not None and answer.content_type == PROBLEM_TYPE:
            code = outcome.code  # the problem that an exchange ended with, handed out
        signed = call.signed if call is not None and self._guarded else None
        self._bus.metrics.answered(
            found.name if found else None, answer.status, code, signed.issuer if signed else None
        )
        if signed is not None and self._bus.tracer is not None:
            # An auditor at the API is a person, so only agencies are named.
            agency = signed.issuer if signed.issuer in self._bus.catalogue.agencies else OTHER
            says(status=answer.status, code=code, agency=agency, **exchange_of(answer))

    def _spoilt(self, problem: Problem) -> Answer:
        self._bus.metrics.answered(None, problem.status, problem.code, None)
        return problem_answer(problem, self._bus.base_url, new_instance())

    def _guard(self) -> None:
        if self._guarded and self.closed:
            raise Draining
        if self._guarded and self._in_flight > self._bus.catalogue.gsb.limits.in_flight:
            raise Busy

    def _limit(self, target: str) -> int:
        service = find_service(self._bus, target) if target.startswith(SERVICES) else None
        return service.body if service else self._bus.catalogue.gsb.limits.body

    async def _signature(self, call: Call | None, answer: Answer) -> str | None:
        """Everything said to a known caller is signed, errors too; whoever did not prove who they are gets none."""
        if call is None or call.signed is None:
            return None
        bus, now = self._bus, self._bus.clock()
        make = partial(
            jws.sign_reply,
            issuer=bus.catalogue.gsb.bus.id,
            audience=call.signed.issuer,
            request_jti=call.signed.jti,
            request_hash=call.signed.request_hash,
            facts=facts_of(answer),
            now=now,
        )
        with span("reply"):
            return await bus.catalogue.bus_keys.sign(now, make)


def exchange_of(answer: Answer) -> dict[str, str]:
    """What the span of a call says of the exchange that its answer speaks of."""
    exchange = answer.exchange
    return {} if exchange is None else {"exchange": exchange.id, "service": exchange.service, "state": exchange.state}


def facts_of(answer: Answer) -> jws.ReplyFacts:
    """What the reply's claims say of the answer and, where there is one, of its exchange."""
    exchange: Exchange | None = answer.exchange
    entry = leaf_text(exchange.entries[-1].leaf) if exchange is not None and exchange.entries else None
    return jws.ReplyFacts(
        status=answer.status,
        body=answer.body,
        content_type=answer.content_type,
        exchange=exchange.id if exchange else None,
        state=exchange.state if exchange else None,
        effect=exchange.outcome.effect if exchange and exchange.outcome else None,
        entry=entry,
    )
