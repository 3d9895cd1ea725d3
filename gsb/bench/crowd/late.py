"""The adapter of these benchmarks: a core system that takes its time, or never answers within it."""

from __future__ import annotations

import asyncio

from gsb.sdk import Adapter, NoSettings, Reply, Request, Settings


class Delay(Settings):
    """Of a service."""

    seconds: float
    """How long the core system takes."""


class Late(Adapter[NoSettings, Delay]):
    """Reaches no system."""

    ServiceSettings = Delay

    async def handle(self, request: Request) -> Reply:
        await asyncio.sleep(self.context.services[request.service].seconds)
        return Reply(request.body)
