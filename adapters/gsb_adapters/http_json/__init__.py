"""Any system with a JSON interface over HTTP: one request per service, declared in its settings.

It keeps nothing but the end of a pause that the system asked for. A crash in the middle of a request means that it may
have been sent; where the service has a ``find``, that can be asked later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from gsb.sdk import Adapter, Broken, Context, HttpReply, Refused, Reply, Request, Unavailable, scope
from gsb_adapters.http_json.settings import PLACEHOLDER, HttpJsonSettings, Lookup, Operation
from gsb_adapters.rest import Pause


class HttpJson(Adapter[HttpJsonSettings, Operation]):
    """One HTTP request per exchange, as its service's settings say."""

    Settings = HttpJsonSettings
    ServiceSettings = Operation

    def __init__(self, context: Context[HttpJsonSettings, Operation]) -> None:
        super().__init__(context)
        self._pause = Pause(context.clock)

    async def check(self) -> None:
        answer = await self._send("GET", self.context.settings.check, {})
        if answer.status in (401, 403):
            raise Broken(f"status {answer.status}: the credentials are not taken")
        if answer.status >= 500:
            raise Unavailable(f"status {answer.status}", sent=False)

    async def handle(self, request: Request) -> Reply:
        operation, seen = self.context.services[request.service], scope(request)
        content = None if operation.content is None else operation.content.asked(seen)
        answer = await self._ask(operation, operation.method, seen, content)
        if answer.status >= 300:
            raise answer.error(operation.refused, untouched=operation.untouched, unavailable=operation.unavailable)
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
        query = [pair for name, shape in lookup.query.items() for pair in _pairs(name, shape.asked(seen))]
        headers = dict(pair for name, shape in lookup.headers.items() for pair in _pairs(name, shape.asked(seen)))
        if any(not value.isascii() or not value.isprintable() for value in headers.values()):
            raise Refused("invalid", "a header's value is not printable ASCII")
        return await self._send(method, path, headers, params=query, json=content)

    async def _send(self, method: str, path: str, headers: Mapping[str, str], **more: Any) -> HttpReply:
        self._pause.respect()
        settings = self.context.settings
        shown = {**headers, **(settings.auth.headers() if settings.auth else {})}
        answer = await self.context.http.request(method, settings.url + path, headers=shown, **more)
        if settings.backoff:
            self._pause.heed(answer, settings.backoff)
        return answer


def _segment(lookup: Lookup, name: str, seen: Mapping[str, Any]) -> str:
    shape = lookup.parameters.get(name)
    value = seen["body"].get(name) if shape is None else shape.asked(seen)
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
