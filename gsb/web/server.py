"""aiohttp's low-level server, made to read bounded bodies and to answer even its own errors as problems.

The low-level one because the raw target is what is signed and routed: a framework's router normalises it first.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import TypeVar

from aiohttp import HttpVersion10, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDictProxy

from gsb.config import Limits, Tls
from gsb.errors import (
    BadRequest,
    BodyTooLarge,
    Busy,
    ContentCodingRefused,
    HeaderRepeated,
    IdempotencyKeyMalformed,
    InternalError,
    Problem,
    RequestTooSlow,
)
from gsb.model import Answer, Call
from gsb.telemetry import TRACEPARENT, trace

log = logging.getLogger("gsb.web")

ONCE = ("GSB-Signature", "Idempotency-Key", "Content-Type", "Prefer")
"""Headers that must not be repeated: two values would let two readers see two requests."""
KEY = re.compile(r'"([\x21\x23-\x5b\x5d-\x7e]{1,128})"|([\x21\x23-\x5b\x5d-\x7e]{1,128})')
"""Idempotency-Key: an RFC 8941 string without escapes, or the bare form that many clients send."""
LINGER = 2.0
LINGER_BYTES = 16 * 1024 * 1024
"""Seconds and bytes for which a connection that the bus ends is still read, and what comes dropped. One closed over
unread input is reset by the kernel, and the caller loses the answer; more than the largest body nobody sends in good
faith."""
UNREAD = (RequestTooSlow.status, BodyTooLarge.status)
"""Statuses that end a connection, since what is left of the request is not read."""
BARE = (204, 304)
"""Statuses of answers that never have a body, nor tell its length (RFC 9110, section 8.6)."""
WAIT = re.compile(r'wait[ \t]*=[ \t]*("?)([0-9]{1,6})\1')

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Read = TypeVar("Read", bytes, bytearray)


def make_server(handle: Handler, tell: Callable[[Problem], Answer], limits: Callable[[], Limits]) -> web.Server:
    """A server whose every error is a problem, those that aiohttp finds itself included: these never reach ``handle``,
    and ``tell`` gives what is answered. A connection keeps the ``limits`` that there are when it is opened."""

    class Protocol(Patient):
        __slots__ = ()

        def turned_away(self, problem: Problem) -> bytes:
            return plain(tell(problem))

        def handle_error(
            self,
            request: web.BaseRequest,
            status: int = 500,
            exc: BaseException | None = None,
            message: str | None = None,
        ) -> web.StreamResponse:
            problem: Problem = BadRequest() if status < 500 else InternalError()
            if status >= 500:
                log.error("a call failed", exc_info=exc)
            if request.writer.output_size > 0:
                raise ConnectionError("an answer was begun already")
            answer = respond(tell(problem))
            answer.force_close()
            return answer

    class Server(web.Server):
        def __call__(self) -> RequestHandler:
            return Protocol(self, limits(), others=len(self._connections))

    return Server(handle)


def tls_context(folder: Path, tls: Tls) -> ssl.SSLContext:
    """TLS 1.2 or later with this certificate; client certificates where the configuration names an authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(folder / tls.certificate, folder / tls.key)
    if tls.client_ca is not None:
        context.load_verify_locations(folder / tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def renew(context: ssl.SSLContext, folder: Path, tls: Tls) -> None:
    """Give new connections the certificate that the files hold now. Where it cannot be used the one before stays, and
    the log says so; another authority for clients needs a restart."""
    try:
        tls_context(folder, tls)  # first on the side: half changed, the other would answer nobody
        context.load_cert_chain(folder / tls.certificate, folder / tls.key)
    except OSError as error:
        facts = {"certificate": str(tls.certificate), "error": str(error)}
        log.error("the certificate cannot be renewed; the one before stays", extra={"facts": facts})


class Patient(RequestHandler):
    """A connection that waits as long as its limits say for each request's head, and no longer; when it ends it, it
    gives the caller time to read the answer. ``others``: how many connections there are without it."""

    __slots__ = ("_heads", "_late", "_limits", "_others", "_parting", "_unread")

    def __init__(self, server: web.Server, limits: Limits, *, others: int) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # aiohttp keeps no log then
            max_line_size=limits.header,
            max_field_size=limits.header,
            auto_decompress=False,
            lingering_time=LINGER,
            keepalive_timeout=limits.idle,
            logger=logging.getLogger("gsb.web.http"),
        )
        self._limits, self._others = limits, others
        self._heads = 0
        self._late: asyncio.TimerHandle | None = None
        """Runs while a head has begun and is not whole, and from the start on; at last while the caller may read."""
        self._parting: asyncio.Transport | None = None
        """Set once the last answer was written; the library knows of no connection any more then."""
        self._unread = LINGER_BYTES

    def turned_away(self, problem: Problem) -> bytes:
        """The whole answer to somebody who has not sent a request."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._others >= self._limits.connections:
            self._turn_away(Busy("there are as many connections as the bus takes"))
        else:
            self._late = self._loop.call_later(self._limits.header_within, self._too_slow)

    def data_received(self, data: bytes) -> None:
        if self._parting is not None:
            self._unread -= len(data)
            if self._unread < 0:
                self.force_close()
            return
        super().data_received(data)
        waiter = self._waiter
        if self._heads != self._request_count:
            self._heads = self._request_count
            self._stop()
        elif data and self._late is None and waiter is not None and not waiter.done():
            self._late = self._loop.call_later(self._limits.header_within, self._too_slow)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if resp.status in UNREAD:
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        if not resp.keep_alive:
            self._part()
        return finished

    def force_close(self) -> None:
        super().force_close()
        if self._parting is not None:
            self._parting.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_slow(self) -> None:
        self._late = None
        if self._waiter is not None and not self._waiter.done():
            text = f"the head did not arrive within {self._limits.header_within:g} seconds"
            self._turn_away(RequestTooSlow(text))

    def _turn_away(self, problem: Problem) -> None:
        if self.transport is not None:
            self.transport.write(self.turned_away(problem))
        self._part()

    def _part(self) -> None:
        """End the connection after what was written: at once when the caller closes, else when its time is over.

        Where there are far too many connections none is kept for a moment longer.
        """
        transport, self.transport = self.transport, None
        super().force_close()
        if transport is None:
            return
        self._parting = transport
        # TLS has no end of one side; closing it tells the other side and reads until that has answered.
        if not transport.can_write_eof() or self._others >= 2 * self._limits.connections:
            transport.close()
            return
        transport.write_eof()
        transport.resume_reading()
        self._stop()
        self._late = self._loop.call_later(LINGER, self.force_close)


class Said(web.StreamResponse):
    """An answer as HTTP/1, whole: its length is known and it is never coded, chunked or completed by the library."""

    def __init__(self, answer: Answer, signature: str | None) -> None:
        super().__init__(status=answer.status)
        self._answer, self._signature = answer, signature

    @property
    def signed(self) -> bool:
        """Whether it goes to somebody who proved who they are."""
        return self._signature is not None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        fields = self.headers
        fields.update(fields_of(self._answer, self._signature))
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        if not self._keep_alive:
            fields["Connection"] = "close"
        elif request.version == HttpVersion10:
            fields["Connection"] = "keep-alive"
        major, minor = request.version
        await request.writer.write_headers(f"HTTP/{major}.{minor} {self.status} {self.reason}", self.headers)
        self._begun = request
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        has_body = self._begun.method != "HEAD" and self.status not in BARE
        await self._begun.writer.write_eof(self._answer.body if has_body else b"")


def respond(answer: Answer, signature: str | None = None) -> Said:
    """The answer as HTTP."""
    return Said(answer, signature)


def fields_of(answer: Answer, signature: str | None) -> dict[str, str]:
    """The header fields. Nothing that a proxy may keep or change: it is signed, and it is somebody's data."""
    # Without a name of our own the library tells its version, and that of Python.
    fields = {"Server": "gsb", "Date": date(int(time.time())), "Cache-Control": "no-store, no-transform"}
    fields.update(answer.headers)
    if answer.content_type is not None:
        fields["Content-Type"] = answer.content_type
    if signature is not None:
        fields["GSB-Signature"] = signature
    if answer.status not in BARE:
        fields["Content-Length"] = str(len(answer.body))
    return fields


@lru_cache(maxsize=1)
def date(second: int) -> str:
    """RFC 9110, section 5.6.7."""
    return formatdate(second, usegmt=True)


def plain(answer: Answer) -> bytes:
    """The answer as it goes over the wire, for a connection that ends with it."""
    fields = {**fields_of(answer, None), "Connection": "close"}
    status = f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"
    lines = [status, *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + answer.body


def new_instance() -> str:
    """A URN for one occurrence of a problem (RFC 9562)."""
    return f"urn:uuid:{uuid.uuid4()}"


async def read_call(request: web.BaseRequest, limit: int, within: float) -> Call:
    """The call with its body: ``limit`` bytes at most, ``within`` seconds. Raises the problems of size and shape."""
    headers = request.headers
    if request.version < HttpVersion10:
        raise BadRequest  # the parser takes a request line without a version, and no other reader would
    signature, key, content_type, prefer = [once(headers, name) for name in ONCE]
    if "Content-Encoding" in headers and any(
        coding.lower() != "identity" for coding in headers.getall("Content-Encoding")
    ):
        raise ContentCodingRefused
    body = await read_body(request, limit, within)
    if body and request.method == "GET":
        raise BadRequest("GET carries no body")
    return Call(
        method=request.method,
        target=request.raw_path,
        body=body,
        received_at=time.time(),
        signature=signature,
        content_type=content_type,
        idempotency_key=read_key(key),
        wait=read_wait(prefer),
        # Where the node traces, what the call causes belongs to its own span, which belongs to the caller's.
        traceparent=trace.get() or read_trace(headers.get("traceparent")),
        if_none_match=headers.get("If-None-Match"),
        accept_encoding=headers.get("Accept-Encoding"),
    )


def once(headers: CIMultiDictProxy[str], name: str) -> str | None:
    values = headers.getall(name, None)
    if values is None:
        return None
    if len(values) > 1:
        raise HeaderRepeated(f"{name} stands more than once")
    return values[0]


async def read_body(request: web.BaseRequest, limit: int, within: float) -> bytes:
    if request.content_length is not None and request.content_length > limit:
        raise BodyTooLarge(f"at most {limit} bytes")
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    try:
        if request.content.is_eof():  # all of it came with the headers: there is nothing to wait for
            return bounded(request.content.read_nowait(), limit)
        async with asyncio.timeout(within):
            return await read_up_to(request, limit)
    except TimeoutError:
        raise RequestTooSlow(f"the body did not arrive within {within:g} seconds") from None
    except (web.RequestPayloadError, ConnectionError) as error:
        raise BadRequest("the body broke off") from error


async def read_up_to(request: web.BaseRequest, limit: int) -> bytes:
    chunks = bytearray()
    while chunk := await request.content.readany():
        chunks += chunk
        bounded(chunks, limit)
    return bytes(chunks)


def bounded(body: Read, limit: int) -> Read:
    if len(body) > limit:
        raise BodyTooLarge(f"at most {limit} bytes")
    return body


def read_key(header: str | None) -> str | None:
    """The string in an Idempotency-Key (draft-ietf-httpapi-idempotency-key-header, section 2.1)."""
    if header is None:
        return None
    match = KEY.fullmatch(header.strip())
    if match is None:
        raise IdempotencyKeyMalformed
    return match[1] or match[2]


def read_trace(header: str | None) -> str | None:
    """The caller's traceparent, if it is one: anything else is no text that may be kept."""
    return header if header is not None and TRACEPARENT.fullmatch(header) else None


def read_wait(header: str | None) -> float | None:
    """Seconds to wait by ``Prefer`` (RFC 7240, section 4). A preference that is not understood is ignored."""
    if header is None:
        return None
    # Neither has parameters, so what stands behind a semicolon changes nothing.
    preferences = [part.partition(";")[0].strip().lower() for part in header.split(",")]
    for preference in preferences:
        if match := WAIT.fullmatch(preference):
            return float(match[2])
    return 0.0 if "respond-async" in preferences else None
