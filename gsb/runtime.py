"""Adapters at work, held to their contract: concurrency, time-out, circuit breaker, three errors.

What leaves ``call`` and ``find`` is a reply or one of ``Unavailable``, ``Refused`` and ``Broken``, whatever the adapter
does. It keeps nothing that must survive: a crash in the middle of a call is the caller's lease to judge.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson

from gsb.breaker import Breaker, Passage
from gsb.calls import Caller, honest
from gsb.catalogue import Catalogue, ServiceInfo, SystemInfo
from gsb.deadlines import Deadlines
from gsb.load import ConfigInvalid, Finding
from gsb.metrics import Metrics
from gsb.model import Reply, Request
from gsb.plans import Plan, plans
from gsb.sdk.adapter import Adapter, Context, no_calls
from gsb.sdk.errors import Broken, Refused, Unavailable
from gsb.sdk.http import Http
from gsb.sdk.threads import Threads
from gsb.shares.places import PREPARE, Places
from gsb.tracing import span
from gsb.watchdog import Blocked, Watchdog

log = logging.getLogger("gsb.runtime")

RESULTS = {Refused: "refused", Unavailable: "unavailable", Broken: "broken"}
"""How a call that raises this is counted."""
FAREWELL = 5.0
"""Seconds that an adapter has for closing."""

T = TypeVar("T")
Work = Callable[[Request], Awaitable[T]]
Ask = Callable[[float], Request]
"""Makes what is asked, as soon as it is known when the bus stops waiting: the request's ``deadline``."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The lines of another catalogue, all open: those of the old one that may stay, and the ``opened`` ones."""

    lines: Mapping[str, Line]
    opened: Sequence[Line]
    codes: Mapping[str, Mapping[str, str]]
    """Of every system, with a line here or not."""


class Answered(NamedTuple):
    """A reply that is JSON, whoever made it."""

    body: Any
    note: str | None
    whole: bytes
    """The body as JSON."""


class Runtime:
    """The adapters of one node. ``clock`` is the breakers': seconds that only grow. ``works_for`` says whether this
    node calls a system; it opens no other's adapter."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, works_for: Callable[[str], bool] = lambda _: True
    ) -> None:
        self._clock, self._works_for = clock, works_for
        self.metrics = Metrics()
        """The node's. It is the runtime's because adapters are measured here, and nothing of a node comes before it."""
        self.places: Callable[[SystemInfo], Places] = lambda system: Places(system.concurrency)
        """Where a system's calls get their places; set before the first adapter is opened."""
        self._lines: Mapping[str, Line] = {}
        self.metrics.call(lambda: {name: line.places.limit for name, line in self._lines.items()})
        self._codes: Mapping[str, Mapping[str, str]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._watchdog = Watchdog(_blocks)

    async def open(self, catalogue: Catalogue) -> None:
        """Open every system's adapter; one whose system is down counts as open. Raises ConfigInvalid."""
        self.swap(await self.prepare(catalogue))
        self._watchdog.start()

    async def prepare(self, catalogue: Catalogue) -> Prepared:
        """Open what is new or different in this catalogue, and change nothing yet. Raises ConfigInvalid."""
        lines: dict[str, Line] = {}
        opened: list[Line] = []
        codes: dict[str, Mapping[str, str]] = {}
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_close, opened)
            for plan in await asyncio.to_thread(lambda: list(plans(catalogue))):
                codes[plan.system.id] = plan.loaded.manifest.errors
                if not self._works_for(plan.system.id):
                    continue
                line = self._lines.get(plan.system.id)
                if line is None or line.essence != plan.essence:
                    opened.append(line := await _made(plan, self._clock, self.metrics, self.places))
                lines[line.name] = line
            found = await asyncio.gather(*(line.open() for line in opened))
            if findings := [finding for finding in found if finding is not None]:
                raise ConfigInvalid(findings)
            stack.pop_all()
        return Prepared(lines, opened, codes)

    def swap(self, prepared: Prepared) -> None:
        """From now on call only these lines. Those that are gone close as soon as their running calls have ended."""
        gone = [line for name, line in self._lines.items() if prepared.lines.get(name) is not line]
        self._lines, self._codes = prepared.lines, prepared.codes
        self._watchdog.adapters = {
            line.essence.loaded.folder: line.essence.loaded.manifest.name for line in self._lines.values()
        }
        for line in gone:
            leaving = asyncio.create_task(line.leave())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def discard(self, prepared: Prepared) -> None:
        """Close what was opened for a change that does not come."""
        await _close(prepared.opened)

    async def close(self) -> None:
        """Close every adapter; one that fails to close keeps none of the others."""
        self._watchdog.stop()
        lines, self._lines = self._lines, {}
        await asyncio.gather(_close(lines.values()), *self._leaving)

    @property
    def secrets(self) -> frozenset[Path]:
        """The secret files on which the lines depend."""
        return frozenset(path for line in self._lines.values() for path in line.essence.secrets)

    async def call(self, service: ServiceInfo, ask: Ask) -> Answered:
        """Have the service's adapter perform the exchange. Raises Unavailable, Refused or Broken."""
        line = self._lines[service.system]
        return _fit(await line.run(line.handle, ask))

    async def find(self, service: ServiceInfo, ask: Ask) -> Answered | None:
        """Ask whether the exchange took effect; None proves nothing. Raises Unavailable, Refused or Broken."""
        line = self._lines[service.system]
        reply = await line.run(line.adapter.find, ask)
        return None if reply is None else _fit(reply)

    async def check(self, system: str) -> None:
        """Ask the system's adapter whether it can be reached, and nothing else. Raises whatever that raises."""
        await self._lines[system].adapter.check()

    def room(self, system: str, busy: int) -> bool:
        """Whether one more call of the system may begin beside so many; if not, it is wanted."""
        line = self._lines.get(system)
        return not busy if line is None else line.places.room(busy)

    def health(self) -> Mapping[str, str | None]:
        """Of each system why it counts as down, or None."""
        return {name: line.down for name, line in self._lines.items()}

    def codes(self, system: str) -> Mapping[str, str]:
        """The codes with which the system's adapter may refuse, each with its title."""
        return self._codes[system]

    def breakers(self) -> Mapping[str, str]:
        """Of each system the state of its circuit breaker."""
        return {name: line.breaker for name, line in self._lines.items()}


class Line:
    """One system with its adapter, and everything that stands between them and the bus."""

    def __init__(
        self,
        plan: Plan,
        adapter: Adapter[Any, Any],
        clock: Callable[[], float],
        metrics: Metrics,
        clients: Sequence[Http | Caller],
        places: Places,
    ) -> None:
        self.name, self.adapter, self._clients = plan.system.id, adapter, clients
        self.handle = adapter.handle if plan.essence.caller is None else honest(adapter.handle)
        self._metrics = metrics
        self.essence = plan.essence
        self.down: str | None = None
        self._calls = 0
        self._idle = asyncio.Event()
        self._timeout = plan.system.timeout
        self._deadlines = Deadlines(plan.system.timeout)
        self.codes = plan.loaded.manifest.errors
        self._checks = type(adapter).check is not Adapter.check
        self.places = places
        self._breaker = Breaker(clock)

    @property
    def breaker(self) -> str:
        return self._breaker.state

    async def open(self) -> Finding | None:
        """None, or why the adapter cannot be run at all."""
        try:
            async with asyncio.timeout(self._timeout):
                await self.adapter.open()
        except (Unavailable, TimeoutError):
            self._breaker.trip()
            self._went_down("it could not be reached at the start")
        except Exception as error:
            message = f"the adapter cannot open: {type(error).__name__}: {error}"
            return Finding(f"systems/{self.name}.toml", "settings", message)
        return None

    async def leave(self) -> None:
        """Close once the running calls have ended, each of which is bounded in time."""
        if self._calls:
            self._idle.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(2 * PREPARE + self._timeout + FAREWELL):
                    await self._idle.wait()
        await self.close()

    async def close(self) -> None:
        try:
            async with asyncio.timeout(FAREWELL):
                await self.adapter.close()
        except Exception as error:
            facts = {"system": self.name, "error": type(error).__name__}
            log.warning("adapter did not close", extra={"facts": facts})
        for client in self._clients:
            await client.close()

    async def run(self, work: Work[T], ask: Ask) -> T:
        """Do the work in one of the system's places, unless the breaker says that it is down."""
        self._refuse_while_open()
        self._calls += 1
        try:
            if not self.places.take():
                await self._wait_for_a_place()
            try:
                self._refuse_while_open()
                passage = self._breaker.enter()
                if passage.probe:
                    await self._probe(passage)
                return await self._measured(work, ask, passage)
            finally:
                self.places.release()
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def _wait_for_a_place(self) -> None:
        try:
            async with asyncio.timeout(PREPARE):
                await self.places.wait()
        except TimeoutError:
            raise Unavailable("every place is taken", sent=False, after=1.0) from None

    def _refuse_while_open(self) -> None:
        wait = self._breaker.wait()
        if wait is not None:
            raise Unavailable("the system is left alone for a while", sent=False, after=wait)

    async def _probe(self, passage: Passage) -> None:
        """Ask the adapter's ``check`` first: if the system is still down, nothing of the exchange was sent to it."""
        try:
            async with asyncio.timeout(PREPARE):
                await self.adapter.check()
        except asyncio.CancelledError:
            self._breaker.cancelled(passage)
            raise
        except Exception as error:
            self._failed(passage, "it cannot be reached")
            raise Unavailable("the system is still down", sent=False, after=self._breaker.wait()) from error

    async def _measured(self, work: Work[T], ask: Ask, passage: Passage) -> T:
        began, result = time.perf_counter(), "given_up"
        with span("adapter") as asked:
            try:
                reply = await self._timed(work, ask, passage)
                result = "answered"
                return reply
            except (Refused, Unavailable, Broken) as error:
                result = next(name for kind, name in RESULTS.items() if isinstance(error, kind))
                raise
            finally:
                self._metrics.system(self.name).called(result, time.perf_counter() - began)
                asked.says(code=result)

    async def _timed(self, work: Work[T], ask: Ask, passage: Passage) -> T:
        limit = self._deadlines.begin()
        try:
            with limit:
                result = await work(ask(limit.at))
        except asyncio.CancelledError:
            self._breaker.cancelled(passage)
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired:
                self._failed(passage, "it does not answer in time")
                raise Unavailable(f"no answer within {self._timeout:g} s", sent=True) from error
            if isinstance(error, Unavailable):
                self._failed(passage, "it is unavailable")
                raise
            self._answered(passage)
            raise self._allowed(error) from error.__cause__
        if result is None:
            self._found_nothing(passage)
        else:
            self._answered(passage)
        return result

    def _allowed(self, error: Exception) -> Exception:
        """The error that the bus may see: a declared refusal or ``Broken``, which never quotes a foreign text."""
        if isinstance(error, Broken) or (isinstance(error, Refused) and error.code in self.codes):
            return error
        if isinstance(error, Refused):
            wrong = Broken("the adapter refused with a code that its manifest does not declare")
        else:
            wrong = Broken(f"{type(error).__name__} escaped the adapter")
        # A mistake of its code, so whoever mends it is told the place, which no evidence shows them. A warning, since a
        # caller can bring it about again and again, and errors are for what the bus itself cannot do.
        log.warning("adapter broke its contract", exc_info=error, extra={"facts": {"system": self.name}})
        return wrong

    def _found_nothing(self, passage: Passage) -> None:
        """It may have asked nothing, so it is no sign that the system is well; the check of a probe is one."""
        if passage.probe and self._checks:
            self._answered(passage)
        else:
            self._breaker.cancelled(passage)

    def _answered(self, passage: Passage) -> None:
        if self._breaker.succeeded(passage):
            self.down = None
            log.info("system is back", extra={"facts": {"system": self.name}})

    def _failed(self, passage: Passage, reason: str) -> None:
        if self._breaker.failed(passage):
            self._went_down(reason)

    def _went_down(self, reason: str) -> None:
        self.down = reason
        log.warning("system is down", extra={"facts": {"system": self.name, "reason": reason}})


def _blocks(blocked: Blocked) -> None:
    """Told by another thread, so that it is told even if the loop never turns again."""
    log.warning("adapter blocks the event loop", extra={"facts": {"adapter": blocked.adapter, "place": blocked.place}})


async def _made(
    plan: Plan,
    clock: Callable[[], float],
    metrics: Metrics,
    places: Callable[[SystemInfo], Places],
) -> Line:
    """The system's line, not open yet. Raises ConfigInvalid when the adapter cannot even be made."""
    name, http = plan.system.id, Http(plan.system.timeout)
    caller = None if plan.essence.caller is None else Caller(plan.essence.caller)
    clients: list[Http | Caller] = [http] if caller is None else [http, caller]
    context: Context[Any, Any] = Context(
        system=name,
        settings=plan.settings,
        services=plan.services,
        http=http,
        log=logging.getLogger(f"gsb.system.{name}"),
        call=caller or no_calls,
        threads=Threads(plan.system.concurrency),
    )
    try:
        return Line(plan, plan.loaded.kind(context), clock, metrics, clients, places(plan.system))
    except Exception as error:
        for client in clients:
            await client.close()
        text = f"the adapter {plan.system.adapter!r} cannot be made: {type(error).__name__}: {error}"
        raise ConfigInvalid([Finding(f"systems/{name}.toml", "adapter", text)]) from error


async def _close(lines: Iterable[Line]) -> None:
    await asyncio.gather(*(line.close() for line in lines))


def _fit(reply: Reply) -> Answered:
    """The reply, which everything after this may take for JSON. Adapters are foreign code, typed or not."""
    if not isinstance(reply, Reply):
        raise Broken(f"the adapter returned {type(reply).__name__} instead of a reply")
    try:
        return Answered(reply.body, reply.note, orjson.dumps(reply.body))
    except TypeError as error:
        raise Broken("the adapter's reply is not JSON") from error
