"""The client that agencies may import: it signs, sends, repeats safely, follows 202 and verifies every reply.

    async with Client("https://bus.example", bus="bus.example", agency="payroll", key=key) as client:
        result = await client.call("tax/income-tax/v1", {...}, purpose="payroll", idempotency_key="2026-03/P-0001")

It follows "Repeating safely" of the wire profile: only a signed final state ends an exchange, and after anything else
it repeats with a new ``jti`` and the same key until ``timeout`` is over. It keeps no state on disk: a program that
may crash between call and result chooses its own ``idempotency_key``, writes it down first, and calls again.
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from random import SystemRandom
from typing import Any, Self

import aiohttp
import orjson

from gsb.jwk import PrivateKey, PublicKey
from gsb.send import (
    Ask,
    BusKeys,
    BusProblem,
    ClientError,
    OutcomePending,
    ReceiptPending,
    ReplyUntrusted,
    Result,
    Sender,
    Unreachable,
)

__all__ = [
    "BusProblem",
    "Client",
    "ClientError",
    "OutcomePending",
    "ReceiptPending",
    "ReplyUntrusted",
    "Result",
    "Unreachable",
    "new_key",
    "sign_curl",
]

AGAIN = frozenset({429, 500, 502, 503, 504})
"""Statuses after which a repeat may help, unless a signed final state comes with them."""
ASK = 20
"""Seconds that the bus is asked to wait for an outcome, unless the caller wishes otherwise or there are fewer left."""
WAIT = 60.0
"""Seconds for which a bus is trusted to hold a call that does not say how long."""
GRACE = 15.0
"""Seconds beyond the wait asked for after which a call without any answer is given up and repeated."""
WAY = 0.5
"""Seconds of what is left that are kept for the answer's way: a bus must not wait so long that nobody hears it."""
LEAST = 1.0
"""Seconds that an HTTP call has at least: given less, what it says would be about the hurry and not about the bus."""
PAUSE = 0.05
PAUSE_MAX = 5.0
"""Seconds between repeats where the bus does not say: they double from the first to the second."""
CURL_LIMIT = 100_000
"""Bytes of a body that fit into one argument of a command line (Linux takes 128 KiB)."""
_random = SystemRandom()


Answer = Result | Unreachable | ReplyUntrusted
"""What became of one HTTP call."""


class _Budget:
    """The time that one call of the client may take, and the HTTP calls it has made."""

    def __init__(self, timeout: float) -> None:
        self._end = time.monotonic() + timeout
        self.requests = 0

    @property
    def left(self) -> float:
        return self._end - time.monotonic()


class Client:
    """One agency's (or operator's) client of one bus; any number of calls at once.

    ``bus_keys`` are the bus's public keys by kid. None fetches them once from ``/.well-known/jwks.json``, whose truth
    is then that of the server's certificate: allowed over TLS and loopback only. A ``session`` that is given is not
    closed. ``clock`` gives the epoch seconds that are signed; ``pause`` sleeps between repeats.
    """

    def __init__(
        self,
        base_url: str,
        *,
        bus: str,
        agency: str,
        key: PrivateKey,
        bus_keys: Mapping[str, PublicKey] | None = None,
        operations_url: str | None = None,
        session: aiohttp.ClientSession | None = None,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.base_url = _checked(base_url)
        self.operations_url = operations_url and _checked(operations_url)
        keys = BusKeys(self.base_url, bus_keys)
        self._sender = Sender(bus=bus, agency=agency, key=key, bus_keys=keys, clock=clock)
        self._session = session
        self._owns_session = session is None
        self._pause = pause

    async def __aenter__(self) -> Self:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=0)
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._owns_session and self._session is not None:
            await self._session.close()
            self._session = None

    # --- services

    async def call(
        self,
        service: str,
        body: Any,
        *,
        purpose: str,
        idempotency_key: str | None = None,
        wait: int | None = None,
        respond_async: bool = False,
        sub: str | None = None,
        case: str | None = None,
        timeout: float = 60.0,
    ) -> Result:
        """Call a service and return its outcome (status 200, or 204 without a body).

        ``body`` is JSON's value, or bytes that are sent as they are. Without ``idempotency_key`` a random one is used,
        so that every repeat within this call leads to the same exchange. ``wait`` asks the bus to hold each HTTP
        call at most so many seconds, which is never longer than there are left; ``respond_async`` returns the 202 at
        once instead of following it. ``timeout`` bounds everything, in seconds, but for the last HTTP call, which has
        one second at least; the exchange lives on. Raises BusProblem, OutcomePending, ReplyUntrusted or Unreachable.
        """
        if wait is not None and respond_async:
            raise ValueError("say wait or respond_async, not both")
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        key = idempotency_key or new_key()
        target = f"{self.base_url}/services/{service}"
        ask = Ask("POST", target, data, key, purpose, sub, case, ASK if wait is None else wait, respond_async)
        budget = _Budget(timeout)
        try:
            result = await self._persist(ask, budget)
            if result.status == 202 and not respond_async:
                result = await self._until_final(_promised(result), result, budget)
            return _judged(result)
        except ClientError as error:
            error.requests, error.idempotency_key = budget.requests, key
            raise

    async def follow(self, exchange: str, *, timeout: float = 60.0) -> Result:
        """Wait for the outcome of an exchange and return it as ``call`` would have; raises the same errors."""
        budget = _Budget(timeout)
        try:
            return _judged(await self._until_final(exchange, None, budget))
        except ClientError as error:
            error.requests = budget.requests
            raise

    async def reply(self, exchange: str, *, timeout: float = 60.0) -> Result:
        """The outcome of an exchange, or its 202, whichever it is now."""
        result = await self._persist(Ask("GET", self._reply_of(exchange)), _Budget(timeout))
        return _judged(_about(result, exchange))

    async def exchange(self, exchange: str, *, timeout: float = 60.0) -> Result:
        """How an exchange stands: state, effect, time line; never its reply."""
        result = await self._persist(Ask("GET", f"{self.base_url}/exchanges/{exchange}"), _Budget(timeout))
        return _success(result)

    async def receipt(self, exchange: str, entry: str | None = None, *, timeout: float = 60.0) -> bytes:
        """The proof that an entry of an exchange stands in the evidence log (c2sp.org/tlog-proof).

        Of its last entry, or of the one with this hash, as results and time lines name it. Waits ``timeout`` seconds
        for the checkpoint that covers it. The bus signed the reply; the proof itself is not checked here, since it
        needs the log's key: ``gsb receipt verify``. Raises BusProblem, ReceiptPending, ReplyUntrusted or Unreachable.
        """
        budget = _Budget(timeout)
        target = f"{self.base_url}/exchanges/{exchange}/receipt" + (f"?entry={entry}" if entry else "")
        while True:
            result = _about(_success(await self._persist(Ask("GET", target, wait=ASK), budget)), exchange)
            if result.status != 202:
                return _bytes(result)
            pause = max(result.retry_after, PAUSE)
            if pause >= budget.left:
                raise ReceiptPending(exchange)
            await self._pause(pause)

    async def services(self, *, timeout: float = 60.0) -> Result:
        """The services that this agency may use."""
        return _success(await self._persist(Ask("GET", f"{self.base_url}/services"), _Budget(timeout)))

    # --- operators

    async def admin(self, method: str, path_and_query: str, body: Any = None, *, timeout: float = 30.0) -> Result:
        """One administrative act on the operations port, signed by the operator's key; never repeated.

        ``path_and_query`` is raw, as it shall be signed and sent. Raises like ``call``, and ValueError without an
        ``operations_url``.
        """
        if self.operations_url is None:
            raise ValueError("administrative acts need the operations_url")
        data = b"" if body is None else orjson.dumps(body)
        return _success(await self._send(Ask(method, self.operations_url + path_and_query, data), timeout))

    async def log_file(self, path: str, *, timeout: float = 60.0) -> bytes | None:
        """A file of the evidence log, by its path below ``/log/``, as auditors may read it; None if there is none.

        Only the reply is verified: what the file says is believed by nobody who checks the log.
        """
        result = await self._persist(Ask("GET", f"{self.base_url}/log/{path}"), _Budget(timeout))
        return None if result.status == 404 and result.signed else _bytes(_success(result))

    # --- one call, and many

    async def _until_final(self, exchange: str, last: Result | None, budget: _Budget) -> Result:
        """Ask for the reply until it is one. Raises OutcomePending when the time is over."""
        state = last.state if last else None
        while True:
            if last is not None:
                pause = max(last.retry_after, PAUSE)
                if pause >= budget.left:
                    raise OutcomePending(exchange, state)
                await self._pause(pause)
            try:
                last = _about(await self._persist(Ask("GET", self._reply_of(exchange), wait=ASK), budget), exchange)
            except (Unreachable, ReplyUntrusted) as error:
                raise OutcomePending(exchange, state) from error
            if _again(last):
                raise OutcomePending(exchange, state) from BusProblem(last)
            if last.status != 202:
                return last
            state = last.state

    async def _persist(self, ask: Ask, budget: _Budget) -> Result:
        """Repeat until there is an answer that repeating cannot better, or the time is over.

        Then the last answer is returned, or an error raised: the last one, or one before it that tells more.
        """
        pause = PAUSE
        telling: Answer | None = None
        while True:
            budget.requests += 1
            answer = await self._tried(ask, budget)
            telling = answer if telling is None else max(answer, telling, key=_tells)
            wish = answer.retry_after if isinstance(answer, Result) else 0.0
            delay = max(pause * _random.uniform(1, 2), wish)
            over = delay >= budget.left
            if isinstance(answer, Result):
                if over or not _again(answer):
                    return replace(answer, requests=budget.requests)
            elif over:
                raise _silence(answer, telling)
            await self._pause(delay)
            pause = min(pause * 2, PAUSE_MAX)

    async def _tried(self, ask: Ask, budget: _Budget) -> Answer:
        left = max(budget.left, LEAST)
        if ask.wait is not None:
            ask = replace(ask, wait=min(ask.wait, int(left - WAY)))
        patience = (WAIT if ask.wait is None else ask.wait) + GRACE
        try:
            return await self._send(ask, min(patience, left))
        except (Unreachable, ReplyUntrusted) as error:
            return error

    async def _send(self, ask: Ask, timeout: float) -> Result:
        if self._session is None:
            raise RuntimeError("use the client as an asynchronous context manager")
        return await self._sender.send(self._session, ask, timeout)

    def _reply_of(self, exchange: str) -> str:
        return f"{self.base_url}/exchanges/{exchange}/reply"


def _tells(answer: Answer) -> int:
    """How much it tells about what is wrong with the bus: nothing came, something came, the bus said so."""
    return 0 if isinstance(answer, Unreachable) else 1 if isinstance(answer, ReplyUntrusted) else 2


def _silence(last: Unreachable | ReplyUntrusted, telling: Answer) -> ClientError:
    """The error to raise in the end. The last call may have been accepted, whatever the bus said of those before."""
    if not isinstance(telling, Result):
        return telling
    problem = BusProblem(telling)
    error = type(last)(f"{last}; before that: {problem}")
    error.__cause__ = problem
    return error


def _checked(base_url: str) -> str:
    # What has no scheme would else be asked for again and again, as if a bus were not there.
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"{base_url} is no base URL: it begins with https://, or http:// within one machine")
    return base_url.rstrip("/")


def _again(result: Result) -> bool:
    """Whether a repeat may get a better answer: rule 3 of "Repeating safely"."""
    if result.final:
        return False
    # An HTTP library that sends a call again when a kept connection breaks makes the bus say "replayed".
    replayed = isinstance(result.body, dict) and result.body.get("code") == "replayed"
    return replayed or result.status in AGAIN


def _success(result: Result) -> Result:
    if result.status >= 300:
        raise BusProblem(result)
    return result


def _judged(result: Result) -> Result:
    """An outcome or a 202; success that names no final state is neither."""
    if _success(result).status != 202 and not result.final:
        raise ReplyUntrusted("the reply claims success without a final state")
    return result


def _bytes(result: Result) -> bytes:
    if not isinstance(result.body, bytes):
        raise ReplyUntrusted("the reply is signed as JSON, which was not asked for")
    return result.body


def _about(result: Result, exchange: str) -> Result:
    if result.signed and result.status < 300 and result.exchange != exchange:
        raise ReplyUntrusted("the reply speaks of another exchange")
    return result


def _promised(result: Result) -> str:
    if result.exchange is None:
        raise ReplyUntrusted("the reply is a 202 that names no exchange")
    return result.exchange


def new_key() -> str:
    """A random idempotency key."""
    return secrets.token_urlsafe(16)


def sign_curl(
    key: PrivateKey,
    *,
    issuer: str,
    bus: str,
    base_url: str,
    service: str,
    body: bytes,
    purpose: str,
    idempotency_key: str | None = None,
    sub: str | None = None,
    case: str | None = None,
    now: float,
) -> str:
    """A shell line that makes this call with curl: valid once, for 60 seconds from ``now``.

    Without ``idempotency_key`` it carries a random one, as a call does. Raises ValueError for a body that does not
    fit into one argument, and for claims that a bus would refuse.
    """
    if len(body) > CURL_LIMIT:
        raise ValueError(f"a body of more than {CURL_LIMIT} bytes does not fit into a command line")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("a body that is not UTF-8 does not fit into a command line") from None
    target = f"{_checked(base_url)}/services/{service}"
    ask = Ask("POST", target, body, idempotency_key or new_key(), purpose, sub, case)
    headers = ask.headers(ask.sign(key, issuer, bus, now))
    words = ["curl", "--silent", "--show-error", "--include", "--globoff", "--path-as-is"]
    for name, value in headers.items():
        words += ["--header", f"{name}: {value}"]
    return shlex.join([*words, "--data-raw", text, ask.target_uri])
