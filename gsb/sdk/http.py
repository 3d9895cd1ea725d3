"""The HTTP client that adapters get: bounded in time and size, and precise about whether something was sent.

It never retries, follows no redirect, takes no proxy but one it is given and keeps no cookies. Whatever goes wrong is
``Unavailable`` (with ``sent``) or ``Broken``; any status is an answer, which the adapter judges. A crash in the middle
of a request means that the request may have been sent.
"""

from __future__ import annotations

import base64
import json as standard_json
import ssl
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from aiohttp.http_exceptions import ContentEncodingError
from yarl import URL

from gsb.sdk.errors import AdapterError, Broken, Refused, Unavailable
from gsb.tracing import leaving, span

RESPONSE_LIMIT = 10 * 1024 * 1024
SAFE = frozenset({"GET", "HEAD"})

Parameters = Mapping[str, str | int] | Sequence[tuple[str, str | int]]


@dataclass(frozen=True, slots=True)
class HttpReply:
    """What the system answered, whatever its status. Names of ``headers`` are found in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body as JSON. Numbers with a fraction come as ``Decimal``, so that amounts never become floats.

        Raises ``Broken`` for anything that is not JSON (RFC 8259), NaN and infinities too.
        """
        try:
            return standard_json.loads(
                self.body.decode("utf-8-sig"), parse_float=Decimal, parse_constant=_refuse_constant
            )
        except (ValueError, RecursionError) as error:
            raise Broken(f"status {self.status} with a body that is not JSON") from error

    def error(
        self,
        refused: Mapping[int, str] | None = None,
        *,
        untouched: Collection[int] = (429,),
        unavailable: Collection[int] = (502, 503, 504),
    ) -> AdapterError:
        """What to raise if this is no answer to what was asked, by its status.

        ``refused`` names the code of each status that is the system's no. ``untouched`` are those by which it says that
        it did nothing: tried again, like ``unavailable``, where it may have acted. Any other is ``Broken``: 401 for one
        speaks of the bus's own password, and is no refusal of what a caller asked. The system's own words go along as
        evidence.
        """
        detail = f"status {self.status}: {self.body[:500].decode('utf-8', 'replace')}"
        if refused and self.status in refused:
            return Refused(refused[self.status], detail)
        if self.status in (*untouched, *unavailable):
            return Unavailable(detail, sent=self.status not in untouched, after=self.after())
        return Broken(detail)

    def after(self, header: str = "Retry-After", *, now: float | None = None) -> float | None:
        """Seconds that the system asks to wait (RFC 9110, section 10.2.3: seconds or a date); None if it does not."""
        value = self.headers.get(header, "").strip()
        if value.isascii() and value.isdecimal():
            return float(value[:9])
        try:
            when = parsedate_to_datetime(value)
        except ValueError:
            return None
        return max(0.0, when.timestamp() - (time.time() if now is None else now))


def basic(user: str, password: str) -> dict[str, str]:
    """The header of Basic authentication (RFC 7617)."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


@dataclass(slots=True)
class _Flight:
    """How far one request got. From the moment it has a connection, it may have been sent."""

    connected: bool = False


class Http:
    """One system's HTTP client. Make it inside a running event loop; close it, or use it with ``async with``.

    ``timeout`` bounds a request as a whole, in seconds, and half of it the making of a connection, so that a system
    that cannot be reached is told from one that does not answer. ``limit`` bounds an answer's body, in bytes after
    decompression.
    """

    def __init__(self, timeout: float, *, limit: int = RESPONSE_LIMIT) -> None:
        self._limit = limit
        self._tls: ssl.SSLContext | bool = True
        self._proxy: URL | None = None
        # A request that may act gets a connection of its own: one that was kept could be closed by the system at the
        # moment of its use, and then nobody knows whether the request arrived.
        self._keeping = _session(timeout, keep=True)
        self._fresh = _session(timeout, keep=False)

    async def __aenter__(self) -> Http:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._keeping.close()
        await self._fresh.close()

    def use_tls(
        self, *, authority: Path | None = None, certificate: Path | None = None, key: Path | None = None
    ) -> None:
        """Trust only this authority, and show this client certificate (PEM files). Raises OSError if unreadable."""
        context = ssl.create_default_context(cafile=authority)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        self._tls = context

    def use_proxy(self, url: str) -> None:
        """Reach the system through this HTTP proxy, ``http://host:port``; what is https goes through a tunnel."""
        self._proxy = URL(url)

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Parameters | None = None,
    ) -> HttpReply:
        """Send one request and read its answer.

        ``url`` goes out as it is given, so encode what you put into it; ``params`` are encoded and appended. ``json``
        is any JSON value but null; a ``Decimal`` in it goes out as a number that reads back as exactly that decimal.
        Raises ``Unavailable`` and ``Broken``.
        """
        content = data if json is None else _write(json)
        target = _url(url, params)
        with span("request", "client") as asked:
            reply = await self.exchange(method, target, content, _headers(headers, json is not None))
            asked.says(status=reply.status)
            return reply

    async def exchange(self, method: str, url: URL, content: bytes | None, headers: Mapping[str, str]) -> HttpReply:
        """One request as it goes over the wire, and its answer. Recordings stand in here."""
        flight = _Flight()
        asked: dict[str, Any] = {
            "data": content,
            "headers": headers,
            "allow_redirects": False,
            "ssl": self._tls,
            "proxy": self._proxy,
            "middlewares": () if method in SAFE else (_once,),
            "trace_request_ctx": flight,
        }
        session = self._keeping if method in SAFE else self._fresh
        try:
            async with session.request(method, url, **asked) as response:
                return await self._read(response)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _told(error, connected=flight.connected) from error

    async def _read(self, response: aiohttp.ClientResponse) -> HttpReply:
        if response.status < 200 or (300 <= response.status < 400 and response.status != 304):
            raise Broken(f"status {response.status}, which is not an answer")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._limit:
                raise Broken(f"the answer is larger than {self._limit} bytes")
        return HttpReply(response.status, response.headers, bytes(body))


def _told(error: Exception, *, connected: bool) -> AdapterError:
    """Which of the errors it is. The order counts: some of these classes are others, too."""
    match error:
        case aiohttp.ClientConnectionError():
            return Unavailable(type(error).__name__, sent=connected)
        case aiohttp.ClientHttpProxyError():  # it made no tunnel, so nothing went through
            return Unavailable(f"the proxy answered {error.status}", sent=False)
        case aiohttp.ClientResponseError() | ValueError():
            return Broken(f"no HTTP exchange was possible: {type(error).__name__}")
        case aiohttp.ClientPayloadError() if isinstance(error.__cause__, ContentEncodingError):
            return Broken("the answer's compression is broken")
        case aiohttp.ClientPayloadError():
            return Unavailable("the answer broke off", sent=True)
        case _:
            return Unavailable(type(error).__name__, sent=connected)


def _session(timeout: float, *, keep: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        # The number of connections is bounded by the bus, which knows the system's concurrency.
        connector=aiohttp.TCPConnector(limit=0, force_close=not keep),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=timeout, connect=timeout / 2),
        trust_env=False,
        trace_configs=[_watch()],
    )


def _watch() -> aiohttp.TraceConfig:
    config = aiohttp.TraceConfig()

    async def connected(session: aiohttp.ClientSession, context: SimpleNamespace, params: Any) -> None:
        context.trace_request_ctx.connected = True

    config.on_connection_create_end.append(connected)
    config.on_connection_reuseconn.append(connected)
    return config


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from silently repeating a PUT or DELETE whose connection broke: the first may have acted."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise Unavailable(type(error).__name__, sent=True) from error


def _headers(given: Mapping[str, str] | None, is_json: bool) -> dict[str, str]:
    headers = {"User-Agent": "gsb", "Accept": "application/json"}
    if is_json:
        headers["Content-Type"] = "application/json"
    if (parent := leaving()) is not None:
        headers["traceparent"] = parent
    return headers | dict(given or {})


def _url(url: str, params: Parameters | None) -> URL:
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        raise Broken("the URL holds characters that must be encoded")
    if params:
        url += ("&" if "?" in url else "?") + urlencode(params, quote_via=quote, safe="")
    return URL(url, encoded=True)


def _write(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=_number)
    except TypeError as error:
        raise Broken("the request cannot be written as JSON") from error


def _number(value: Any) -> float:
    if isinstance(value, Decimal) and Decimal(repr(float(value))) == value:
        return float(value)
    raise TypeError(type(value).__name__)


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)
