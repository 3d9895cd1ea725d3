"""Load for a server under measure: signed calls over a number of connections, each sending the next when answered.

Bare sockets, since the generator must cost less than what it measures. It signs while it sends, which is meant to
happen on another core than the server's. Another answer than was expected ends the run: a refusal is cheaper than an
exchange, so counting one would flatter.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import orjson

from gsb import jws
from gsb.bench.place import BUS, CONSUMER, MESSAGE, PURPOSE, WRITE, Place
from gsb.model import JSON_TYPE, new_id

BODY = orjson.dumps(MESSAGE)
NOT_WAITED_FOR = 202
HELD = 50
"""Seconds for which the bus is asked to hold a call that is measured: on a machine that stands still for a moment it
would else say 202, and the run would end."""
PATIENCE = 60.0
"""Seconds after the end of a run for which answers are waited for."""
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_SIGNATURE = re.compile(rb"\r\ngsb-signature: *([^\r]+)", re.IGNORECASE)


class AnswerWrong(RuntimeError):
    """The server did not answer as it must for its speed to mean anything."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is called, and by whom."""

    place: Place
    url: str
    """The server's base URL."""
    service: str
    agency: str = CONSUMER
    """Who calls, with the place's key."""
    whatever: bool = False
    """Take every answer as it comes: for load whose own speed means nothing."""
    status: int = 200
    """What is answered if all is well; 202: nobody waits for the outcome."""

    def request(self) -> tuple[str, bytes]:
        """A new signed call: its token, and all of it as it goes over the wire."""
        path = f"/services/{self.service}"
        key = new_id() if self.service == WRITE else None
        prefers = "respond-async" if self.status == NOT_WAITED_FOR else None if self.whatever else f"wait={HELD}"
        token = jws.sign_request(
            self.place.key,
            issuer=self.agency,
            audience=BUS,
            method="POST",
            target_uri=self.url + path,
            body=BODY,
            content_type=JSON_TYPE,
            idempotency_key=key,
            purpose=PURPOSE,
            now=time.time(),
        )
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {urlsplit(self.url).netloc}",
            f"Content-Type: {JSON_TYPE}",
            f"Content-Length: {len(BODY)}",
            f"GSB-Signature: {token}",
            *([] if key is None else [f'Idempotency-Key: "{key}"']),
            *([] if prefers is None else [f"Prefer: {prefers}"]),
            "\r\n",
        ]
        return token, "\r\n".join(lines).encode("ascii") + BODY


@dataclass(slots=True)
class _Run:
    """What the connections of one run share."""

    target: Target
    until: float
    most: float
    ended: asyncio.Future[None]
    waiting: int
    answered: int = 0
    """Calls that were answered before ``until``."""
    times: list[float] = field(default_factory=list)

    def fail(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(AnswerWrong(reason))


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._read = bytearray()
        self._token = ""
        self._sent_at = 0.0
        self._checked = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send(self._transport)

    def _send(self, transport: asyncio.Transport) -> None:
        self._token, wire = self._run.target.request()
        self._sent_at = time.perf_counter()
        transport.write(wire)

    def data_received(self, data: bytes) -> None:
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._read[:end])
        length = _LENGTH.search(head)
        if length is None or not (
            self._run.target.whatever or head.startswith(b"HTTP/1.1 %d " % self._run.target.status)
        ):
            self._run.fail(bytes(self._read).decode(errors="replace"))
        elif len(self._read) >= end + 4 + int(length[1]):
            body = bytes(self._read[end + 4 :])
            self._read.clear()
            self._answered(head, body)

    def _answered(self, head: bytes, body: bytes) -> None:
        run, now = self._run, time.perf_counter()
        if not (self._checked or run.target.whatever):
            self._check(head, body)
        if not run.answered:
            run.until = max(run.until, now)
        if now <= run.until and run.answered < run.most:
            run.answered += 1
            run.times.append(now - self._sent_at)
            if run.answered >= run.most:
                run.until = now
            if self._transport is not None:
                self._send(self._transport)
            return
        run.waiting -= 1
        if not run.waiting and not run.ended.done():
            run.ended.set_result(None)

    def _check(self, head: bytes, body: bytes) -> None:
        """Believe the first answer of each connection only with its signature; checking all would take a core."""
        self._checked = True
        signature, place = _SIGNATURE.search(head), self._run.target.place
        try:
            jws.verify_reply(
                signature[1].decode("ascii") if signature else None,
                {place.bus_key.kid: place.bus_key},
                bus=BUS,
                caller=self._run.target.agency,
                request_jws=self._token,
                status=self._run.target.status,
                body=body,
                content_type=JSON_TYPE,
                now=time.time(),
            )
        except jws.ReplyRefused as refused:
            self._run.fail(refused.reason)
        if self._run.target.status != NOT_WAITED_FOR and orjson.loads(body) != MESSAGE:
            self._run.fail("the answer is not what was asked for")

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.fail("the server closed a connection")


@dataclass(frozen=True, slots=True)
class Counted:
    """One run: answers and seconds, and how long each answer took."""

    answers: int
    seconds: float
    times: list[float] = field(repr=False)

    @property
    def rate(self) -> float:
        return self.answers / self.seconds


async def load(target: Target, *, in_flight: int, seconds: float, most: float = math.inf) -> Counted:
    """Keep ``in_flight`` calls on their way for so long, but until one was answered at least, or until ``most`` were.
    Raises AnswerWrong, TimeoutError, OSError."""
    loop = asyncio.get_running_loop()
    host, _, port = urlsplit(target.url).netloc.partition(":")
    began = time.perf_counter()
    run = _Run(target, began + seconds, most, loop.create_future(), in_flight)
    opened = []
    try:
        for _ in range(in_flight):
            transport, _ = await loop.create_connection(lambda: _Connection(run), host, int(port))
            opened.append(transport)
        async with asyncio.timeout(seconds + PATIENCE):
            await run.ended
    finally:
        for transport in opened:
            transport.abort()
        if not run.ended.done():
            run.ended.cancel()
    return Counted(run.answered, run.until - began, run.times)
