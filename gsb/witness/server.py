"""The witness over HTTP (c2sp.org/tlog-witness): cosign a checkpoint, show the newest one.

    POST /add-checkpoint              the cosignature of a checkpoint that extends the newest one
    GET  /<sha256(origin)>/checkpoint the newest checkpoint of a log, with its cosignature

Both prefixes of the specification are the root of this server. Whoever asks proves nothing but the log's signature.
Sizes, times and connections are bounded. A crash loses what was not answered; the log asks again.
"""

from __future__ import annotations

import logging
import re

from aiohttp import web

from gsb.config import Limits
from gsb.errors import Busy, Problem
from gsb.evidence.witness import ADD, REQUEST_LIMIT, SIZE_TYPE, Refused
from gsb.model import Answer
from gsb.trouble import Trouble
from gsb.web.server import make_server, read_body, respond
from gsb.witness.book import Book

log = logging.getLogger("gsb.witness")

LIMITS = Limits(connections=200, body=REQUEST_LIMIT, body_within=10.0)
"""A witness serves a few logs, each with one request at a time."""
IN_FLIGHT = 50
"""Requests at once; more are answered 503."""
TEXT = "text/plain; charset=utf-8"
_SEEN = re.compile(r"/([0-9a-f]{64}/checkpoint)")


class Service:
    """Answers the two calls from a book."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._in_flight = 0
        self._unkept = Trouble(log, "the state can be written again; checkpoints are cosigned")

    def server(self) -> web.Server:
        return make_server(self.handle, told, lambda: LIMITS)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._in_flight += 1
        try:
            return respond(await self._answer(request))
        except Problem as problem:
            return respond(told(problem))
        finally:
            self._in_flight -= 1

    async def _answer(self, request: web.BaseRequest) -> Answer:
        if self._in_flight > IN_FLIGHT:
            raise Busy
        if request.raw_path == f"/{ADD}":
            if request.method != "POST":
                return _text(405, "POST a request here", {"Allow": "POST"})
            return await self._add(await read_body(request, LIMITS.body, LIMITS.body_within))
        if match := _SEEN.fullmatch(request.raw_path):
            if request.method != "GET":
                return _text(405, "GET the newest checkpoint here", {"Allow": "GET"})
            found = self._book.seen(match[1])
            return _text(404, "no checkpoint of this log was cosigned") if found is None else Answer(200, found, TEXT)
        return _text(404, f"there is /{ADD} and /<sha256 of the origin>/checkpoint")

    async def _add(self, body: bytes) -> Answer:
        try:
            signature = await self._book.add(body)
        except Refused as refused:
            if refused.size is not None:
                return Answer(refused.status, f"{refused.size}\n".encode(), SIZE_TYPE)
            return _text(refused.status, str(refused))
        except OSError as error:
            self._unkept.is_there(f"the state cannot be written ({error}): nothing is cosigned; make room, or mend it")
            return _text(503, "what is cosigned cannot be kept now", {"Retry-After": "5"})
        self._unkept.is_over()
        return Answer(200, signature.line().encode(), TEXT)


def told(problem: Problem) -> Answer:
    """What went wrong, in a line: the specification asks for no form."""
    return _text(problem.status, problem.detail or problem.title, problem.headers)


def _text(status: int, line: str, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, f"{line}\n".encode(), TEXT, headers or {})
