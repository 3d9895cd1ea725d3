"""The ordinary client, from which nothing is hidden: what it or its library would repeat is written down or counted."""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver

from gsb.client import AGAIN, Client, ClientError, Result
from gsb.send import Ask
from tests.histories.load import briefly
from tests.support.deployment import Deployment

WIDTH = 12
"""Calls in flight."""


class Strict(Client):
    """Whatever it would hide by repeating a call stands in ``faults``."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.calls = 0
        self.faults: list[str] = []

    async def _send(self, ask: Ask, timeout: float) -> Result:
        self.calls += 1
        try:
            result = await super()._send(ask, timeout)
        except ClientError as error:
            self.faults.append(f"{ask.method} {ask.target_uri}: {error!r}")
            raise
        if not result.signed or (result.status in AGAIN and not result.final):
            self.faults.append(f"{ask.method} {ask.target_uri}: {result.status} {result.body}")
        return result


class Sent:
    """How often a session wrote a request: its library repeats some by itself and tells nobody."""

    def __init__(self) -> None:
        self.times = 0
        self.trace = aiohttp.TraceConfig()
        self.trace.on_request_headers_sent.append(self._sent)

    async def _sent(self, *_: object) -> None:
        self.times += 1


def session(sent: Sent, resolver: AbstractResolver | None = None, *, kept: bool = True) -> aiohttp.ClientSession:
    """For strict clients. ``kept``: connections are, as they are unless somebody says otherwise."""
    connector = aiohttp.TCPConnector(limit=0, resolver=resolver, use_dns_cache=False, force_close=not kept)
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), connector=connector, trace_configs=[sent.trace])


def strict(deployment: Deployment, owner: str, there: aiohttp.ClientSession) -> Strict:
    """That of an agency or operator."""
    public = deployment.bus_key().public
    return Strict(
        deployment.bus_url,
        bus=deployment.bus,
        agency=owner,
        key=deployment.key(owner),
        bus_keys={public.kid: public},
        operations_url=deployment.operations_url,
        session=there,
        pause=briefly,
    )
