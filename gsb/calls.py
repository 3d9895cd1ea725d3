"""Services that are composed of others: the adapter's ``call``, through the bus's front door and no other way.

A call is signed for the providing agency with the key that its system's table names, goes to the API over HTTP, and is
admitted, budgeted, performed and proved like any other agency's. Its idempotency key is made of the parent exchange and
the step, so whatever repeats the parent gets the first outcome again: a crash in the middle repeats nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from gsb.catalogue import Catalogue, SystemInfo
from gsb.client import BusProblem, Client, ClientError, OutcomePending, Result
from gsb.jwk import PrivateKey, PublicKey
from gsb.model import Reply, Request, State
from gsb.sdk.errors import Broken, Refused, Unavailable
from gsb.tracing import leaving, span

STEP = re.compile(r"[A-Za-z0-9._:-]{1,100}")
MARGIN = 0.5
"""Seconds of the adapter's own time that are left to it when a call is given up."""
LATER = frozenset({429, 500, 502, 503, 504})
"""Statuses by which the bus says that it cannot now."""
Handle = Callable[[Request], Awaitable[Reply]]

_acted: ContextVar[list[str] | None] = ContextVar("acted", default=None)
"""The steps of the exchange at hand that took effect, or may have."""


@dataclass(frozen=True, slots=True)
class Identity:
    """As whom a system calls, and where."""

    agency: str
    url: str
    bus: str
    key: PrivateKey
    bus_keys: Mapping[str, PublicKey] = field(repr=False)


def identity(catalogue: Catalogue, system: SystemInfo) -> Identity | None:
    """None for a system that calls no services."""
    if system.calls is None:
        return None
    bus = catalogue.gsb.bus
    url = system.calls.url or bus.base_urls[0]
    return Identity(system.agency, url, bus.id, system.calls.key, catalogue.bus_keys.public)


class Caller:
    """One system's ``call``. Make it inside the running event loop; close it."""

    def __init__(self, identity: Identity) -> None:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=0), middlewares=(_traced,)
        )
        self._client = Client(
            identity.url,
            bus=identity.bus,
            agency=identity.agency,
            key=identity.key,
            bus_keys=identity.bus_keys,
            session=self._session,
        )

    async def close(self) -> None:
        await self._session.close()

    async def __call__(self, request: Request, service: str, body: Any, *, step: str, purpose: str) -> Any:
        """See ``gsb.sdk.adapter.Call``."""
        if not STEP.fullmatch(step):
            raise ValueError("the name of a step is 1 to 100 letters, digits, dots, hyphens, colons and underscores")
        left = request.deadline - asyncio.get_running_loop().time() - MARGIN
        try:
            result = await self._client.call(
                service,
                body,
                purpose=purpose,
                idempotency_key=f"{request.exchange}.{step}",
                sub=request.sub,
                case=request.case,
                timeout=max(left, MARGIN),
            )
        except BusProblem as problem:
            raise self._judged(problem, step) from problem
        except ClientError as error:  # pending, unreachable, or not to be trusted: all may yet take effect
            _remember(step)
            told = "has no outcome yet" if isinstance(error, OutcomePending) else type(error).__name__
            raise Unavailable(f"step {step}: {told}", sent=True) from error
        if result.effect != "none":
            _remember(step)
        return result.body

    def _judged(self, problem: BusProblem, step: str) -> Exception:
        told = f"step {step}: {problem.status} {problem.code}"
        result: Result = problem.result
        if result.final:
            if result.effect != "none":
                _remember(step)
            if result.state != State.REFUSED:
                return Broken(told)
            said = result.body if isinstance(result.body, dict) else {}
            return Refused(str(said.get("reason", problem.code)), told)
        if problem.status in LATER or result.exchange is not None:
            _remember(step)
            return Unavailable(told, sent=True, after=result.retry_after or None)
        return Broken(told)


def honest(handle: Handle) -> Handle:
    """The same, but that nothing took effect is not believed of an exchange of which a step did."""

    async def handled(request: Request) -> Reply:
        steps: list[str] = []
        before = _acted.set(steps)
        try:
            return await handle(request)
        except Refused as error:
            if steps:
                raise Broken(f"refused with {error.code} after {steps[0]} had taken effect") from error
            raise
        except Unavailable as error:
            if steps and not error.sent:
                raise Unavailable(error.detail, sent=True, after=error.after) from error
            raise
        finally:
            _acted.reset(before)

    return handled


def _remember(step: str) -> None:
    steps = _acted.get()
    if steps is not None:
        steps.append(step)


async def _traced(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """The call belongs to the trace of the exchange of which it is a step."""
    with span("request", "client") as step:
        if (parent := leaving()) is not None:
            request.headers["traceparent"] = parent
        response = await send(request)
        step.says(status=response.status)
        return response
