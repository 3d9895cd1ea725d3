"""Any SOAP 1.1 service: one operation of its WSDL per service, declared in its settings.

Messages are written, read and checked in threads (``wsdl.py``); what is sent goes through the bus's own HTTP client. It
keeps nothing. A crash in the middle of a call means that it may have been sent; where the service has a ``find``, that
can be asked later.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from zeep.wsse.username import UsernameToken as Token

from gsb.sdk import Adapter, Broken, Context, HttpReply, Refused, Reply, Request, Unavailable, acted, scope
from gsb_adapters.soap.settings import Lookup, Operation, SoapSettings
from gsb_adapters.soap.wsdl import Fault, Message, Port, Unfit


class Soap(Adapter[SoapSettings, Operation]):
    """One operation per exchange, as its service's settings say."""

    Settings = SoapSettings
    ServiceSettings = Operation

    def __init__(self, context: Context[SoapSettings, Operation]) -> None:
        super().__init__(context)
        self._port: Port | None = None

    async def open(self) -> None:
        await super().open()
        self._port = await self.context.in_thread(self._load)

    def _load(self) -> Port:
        settings, services = self.context.settings, self.context.services.values()
        port = Port(settings.wsdl, settings.port)
        for lookup in filter(None, (settings.check, *services, *(service.find for service in services))):
            port.operation(lookup.operation)
        return port

    async def check(self) -> None:
        settings = self.context.settings
        if settings.check is None:
            _judge(await self.context.http.request("GET", settings.url))
            return
        try:
            await self._ask(settings.check, {})
        except Fault as fault:
            raise Broken(str(fault)) from fault

    async def handle(self, request: Request) -> Reply:
        service = self.context.services[request.service]
        return Reply(await self._perform(service, service, request))

    async def find(self, request: Request) -> Reply | None:
        service = self.context.services[request.service]
        try:
            found = service.find and await self._perform(service, service.find, request)
        except Refused:
            return None
        return None if found is None else Reply(found)

    async def _perform(self, service: Operation, lookup: Lookup, request: Request) -> Any:
        seen = scope(request)
        try:
            answer = await self._ask(lookup, seen)
        except Fault as fault:
            raise _error(service, fault) from fault
        return lookup.reply.of({**seen, "answer": answer})

    async def _ask(self, lookup: Lookup, seen: Mapping[str, Any]) -> Any:
        """What the answer holds. Raises ``Fault`` beside the three errors."""
        port = self._port
        if port is None:
            raise Unavailable("not open", sent=False)
        content, headers = await self.context.in_thread(self._written, port, lookup, seen)
        answer = await self.context.http.request("POST", self.context.settings.url, data=content, headers=headers)
        _judge(answer)
        try:
            with acted():  # if no thread is free, that nothing was begun is true of the reading alone
                held = await self.context.in_thread(port.read, lookup.operation, answer.body)
        except Unfit as error:
            raise Broken(f"status {answer.status}: {error}") from error
        if answer.status not in (200, 202):
            raise Broken(f"status {answer.status} without a fault")
        return held

    def _written(self, port: Port, lookup: Lookup, seen: Mapping[str, Any]) -> Message:
        """Nothing was sent yet, so a message that cannot be built is a refusal and no more."""
        try:
            return port.write(lookup.operation, lookup.arguments.asked(seen), self._sign)
        except Unfit as error:
            raise Refused("invalid", str(error)) from error

    def _sign(self, envelope: Any) -> None:
        """Put the user's token into the header (WS-Security UsernameToken Profile 1.1, section 3.1)."""
        if (security := self.context.settings.security) is None:
            return
        # Only a digest takes nonce and time along, by which the system knows a message that somebody repeats.
        once = {"nonce": secrets.token_hex(16), "created": datetime.fromtimestamp(self.context.clock.now(), UTC)}
        password = security.password.read()
        Token(security.user, password, use_digest=security.digest, zulu_timestamp=True, **once).apply(envelope, {})


def _judge(answer: HttpReply) -> None:
    """Raises what a status means that comes without an envelope. A fault has 500 (SOAP 1.1, section 6.2)."""
    if answer.status in (401, 403, 429, 502, 503, 504):
        raise answer.error()


def _error(service: Operation, fault: Fault) -> Exception:
    """What a fault means. The system's own words go along as evidence."""
    for name in fault.names:
        if name in service.refused:
            return Refused(service.refused[name], str(fault))
        if name in (*service.untouched, *service.unavailable):
            return Unavailable(str(fault), sent=name in service.unavailable)
    return Broken(str(fault))
