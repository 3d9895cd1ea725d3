"""aiohttp's low-level server, made to read bounded bodies and to answer even its own errors as problems.

The low-level one because the raw target is what is signed and routed: a framework's router normalises it first.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion10, web
from aiohttp.web_protocol import RequestHandler

from gsb.errors import (
    BadRequest,
    BodyTooLarge,
    ContentCodingRefused,
    HeaderRepeated,
    IdempotencyKeyMalformed,
    InternalError,
    Problem,
)
from gsb.jws import LEEWAY, LIFETIME
from gsb.model import Answer, Call
from gsb.problem import problem_answer
from gsb.telemetry import TRACEPARENT

log = logging.getLogger("gsb.web")

ONCE = ("GSB-Signature", "Idempotency-Key", "Content-Type", "Prefer")
"""Headers that must not be repeated: two values would let two readers see two requests."""
FIELD_LIMIT = 16_384
"""Bytes of one header line that aiohttp reads; the signature's own limit is smaller, and has its own problem."""
BODY_WITHIN = float(LIFETIME + LEEWAY)
"""Seconds in which a body must arrive: later its signature would be refused, and a call in flight is not given away."""
HEAD_WITHIN = 75.0
"""Seconds that a connection may stand without a whole request head; longer than proxies keep theirs."""
KEY = re.compile(r'"([\x21\x23-\x5b\x5d-\x7e]{1,128})"|([\x21\x23-\x5b\x5d-\x7e]{1,128})')
"""Idempotency-Key: an RFC 8941 string without escapes, or the bare form that many clients send."""
WAIT = re.compile(r"wait=([0-9]{1,6})")

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def make_server(handle: Handler, base_url: str, spoilt: Callable[[Problem], None]) -> web.Server:
    """A server whose every error is a problem document, those that aiohttp finds itself included: these never reach
    ``handle``, and ``spoilt`` is told of them."""

    class Protocol(RequestHandler):
        __slots__ = ()

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
            spoilt(problem)
            answer = respond(problem_answer(problem, base_url, new_instance()))
            answer.force_close()
            return answer

    class Server(web.Server):
        def __call__(self) -> RequestHandler:
            return Protocol(self, loop=asyncio.get_running_loop(), **self._kwargs)

    return Server(
        handle,
        access_log=None,
        max_line_size=FIELD_LIMIT,
        max_field_size=FIELD_LIMIT,
        auto_decompress=False,
        lingering_time=2.0,
        keepalive_timeout=HEAD_WITHIN,
        logger=logging.getLogger("gsb.web.http"),
    )


def new_instance() -> str:
    """A URN for one occurrence of a problem (RFC 9562)."""
    return f"urn:uuid:{uuid.uuid4()}"


def respond(answer: Answer, signature: str | None = None) -> web.Response:
    """The answer as HTTP. Nothing that a proxy may keep or change: it is signed, and it is somebody's data."""
    # Without a name of our own the library tells its version, and that of Python.
    headers = {"Server": "gsb", "Cache-Control": "no-store, no-transform", **answer.headers}
    if answer.content_type is not None:
        headers["Content-Type"] = answer.content_type
    if signature is not None:
        headers["GSB-Signature"] = signature
    return web.Response(status=answer.status, body=answer.body, headers=headers)


async def read_call(request: web.BaseRequest, limit: int) -> Call:
    """The call with its body of at most ``limit`` bytes. Raises the problems of size and shape."""
    headers = request.headers
    if request.version < HttpVersion10:
        raise BadRequest  # the parser takes a request line without a version, and no other reader would
    for name in ONCE:
        if len(headers.getall(name, ())) > 1:
            raise HeaderRepeated(f"{name} stands more than once")
    if any(coding.lower() != "identity" for coding in headers.getall("Content-Encoding", ())):
        raise ContentCodingRefused
    body = await read_body(request, limit)
    if body and request.method == "GET":
        raise BadRequest("GET carries no body")
    return Call(
        method=request.method,
        target=request.raw_path,
        body=body,
        received_at=time.time(),
        signature=headers.get("GSB-Signature"),
        content_type=headers.get("Content-Type"),
        idempotency_key=read_key(headers.get("Idempotency-Key")),
        wait=read_wait(headers.get("Prefer")),
        traceparent=read_trace(headers.get("traceparent")),
    )


async def read_body(request: web.BaseRequest, limit: int) -> bytes:
    if request.content_length is not None and request.content_length > limit:
        raise BodyTooLarge(f"at most {limit} bytes")
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    try:
        if request.content.is_eof():  # all of it came with the headers: there is nothing to wait for
            return await read_up_to(request, limit)
        async with asyncio.timeout(BODY_WITHIN):
            return await read_up_to(request, limit)
    except TimeoutError:
        raise BadRequest(f"the body did not arrive within {BODY_WITHIN:g} seconds") from None
    except (web.RequestPayloadError, ConnectionError) as error:
        raise BadRequest("the body broke off") from error


async def read_up_to(request: web.BaseRequest, limit: int) -> bytes:
    chunks = bytearray()
    while chunk := await request.content.readany():
        chunks += chunk
        if len(chunks) > limit:
            raise BodyTooLarge(f"at most {limit} bytes")
    return bytes(chunks)


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
    preferences = [part.strip().lower() for part in (header or "").split(",")]
    for preference in preferences:
        if match := WAIT.fullmatch(preference):
            return float(match[1])
    return 0.0 if "respond-async" in preferences else None
