"""Any system with a JSON interface over HTTP: one request per service, declared in its settings.

It keeps nothing but the end of a pause that the system asked for. A crash in the middle of a request means that it may
have been sent; where the service has a ``find``, that can be asked later.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from gsb.sdk import (
    Adapter,
    Broken,
    HttpReply,
    Refused,
    Reply,
    Request,
    Shape,
    Unavailable,
    scope,
)
from gsb_adapters.http_json.settings import (
    PLACEHOLDER,
    Basic,
    Bearer,
    HttpJsonSettings,
    Lookup,
    Operation,
)

LONGEST_PAUSE = 300.0
"""Seconds of a pause that are believed: one answer with a mistake in it must not shut a system out for good."""


class HttpJson(Adapter[HttpJsonSettings, Operation]):
    """One HTTP request per exchange, as its service's settings say."""

    Settings = HttpJsonSettings
    ServiceSettings = Operation

    _paused_until = 0.0
    """By the steady clock."""

    async def check(self) -> None:
        answer = await self._send("GET", self.context.settings.check, {})
        if answer.status in (401, 403):
            raise Broken(f"status {answer.status}: the credentials are not taken")
        if answer.status >= 500:
            raise Unavailable(f"status {answer.status}", sent=False)

    async def handle(self, request: Request) -> Reply:
        operation, seen = self.context.services[request.service], scope(request)
        content = None if operation.content is None else _built(operation.content, seen)
        answer = await self._ask(operation, operation.method, seen, content)
        if answer.status >= 300:
            raise _error(operation, answer)
        return Reply(_reply(operation, answer, seen))

    async def find(self, request: Request) -> Reply | None:
        lookup, seen = self.context.services[request.service].find, scope(request)
        if lookup is None:
            return None
        answer = await self._ask(lookup, "GET", seen, None)
        found = _reply(lookup, answer, seen) if answer.status < 300 else None
        return None if found is None else Reply(found)

    async def _ask(self, lookup: Lookup, method: str, seen: Mapping[str, Any], content: Any) -> HttpReply:
        path = PLACEHOLDER.sub(lambda found: _segment(lookup, found.group(1), seen), lookup.path)
        query = [pair for name, shape in lookup.query.items() for pair in _pairs(name, _built(shape, seen))]
        headers = dict(pair for name, shape in lookup.headers.items() for pair in _pairs(name, _built(shape, seen)))
        if any(not value.isascii() or not value.isprintable() for value in headers.values()):
            raise Refused("invalid", "a header's value is not printable ASCII")
        return await self._send(method, path, headers, query, content)

    async def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        query: list[tuple[str, str]] | None = None,
        content: Any = None,
    ) -> HttpReply:
        left = self._paused_until - self.context.clock.steady()
        if left > 0:
            raise Unavailable("the system asked for a pause", sent=False, after=left)
        settings = self.context.settings
        answer = await self.context.http.request(
            method, settings.url + path, headers={**headers, **self._credentials()}, params=query, json=content
        )
        pause = answer.after(settings.backoff) if settings.backoff else None
        if pause is not None:
            self._paused_until = max(self._paused_until, self.context.clock.steady() + min(pause, LONGEST_PAUSE))
        return answer

    def _credentials(self) -> dict[str, str]:
        auth = self.context.settings.auth
        try:
            match auth:
                case None:
                    return {}
                case Basic():
                    pair = f"{auth.user}:{auth.password.read()}".encode()
                    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
                case Bearer():
                    return {"Authorization": f"Bearer {auth.token.read()}"}
                case _:
                    return {auth.name: auth.value.read()}
        except (OSError, UnicodeError) as error:
            raise Unavailable("the secret's file cannot be read", sent=False) from error


def _built(shape: Shape, seen: Mapping[str, Any]) -> Any:
    """A part of the request. Nothing was sent yet, so one that cannot be built is a refusal and no more."""
    try:
        return shape.of(seen)
    except Broken as error:
        raise Refused("invalid", error.detail) from error


def _segment(lookup: Lookup, name: str, seen: Mapping[str, Any]) -> str:
    shape = lookup.parameters.get(name)
    value = seen["body"].get(name) if shape is None else _built(shape, seen)
    text = _text(value)
    # An empty or dot segment would be another path than the one that is configured (RFC 3986, section 5.2.4).
    if text in {None, "", ".", ".."}:
        raise Refused("invalid", f"the path's parameter {name} has no value that can stand there")
    return quote(str(text), safe="")


def _pairs(name: str, value: Any) -> Iterator[tuple[str, str]]:
    for each in value if isinstance(value, list) else [value]:
        text = _text(each)
        if text is not None:
            yield name, text


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, (str, int, float)):
        return None if value is None else str(value)
    raise Refused("invalid", "an object or array cannot stand in a path, query or header")


def _reply(lookup: Lookup, answer: HttpReply, seen: Mapping[str, Any]) -> Any:
    parsed = answer.json() if answer.body else None
    return lookup.reply.of({**seen, "answer": parsed, "status": answer.status})


def _error(operation: Operation, answer: HttpReply) -> Exception:
    """What a status outside 2xx means. The system's own words go along as evidence."""
    status = answer.status
    detail = f"status {status}: {answer.body[:500].decode('utf-8', 'replace')}"
    if status in operation.refused:
        return Refused(operation.refused[status], detail)
    if status in operation.untouched:
        return Unavailable(detail, sent=False, after=answer.after())
    if status in operation.unavailable:
        return Unavailable(detail, sent=True, after=answer.after())
    return Broken(detail)
