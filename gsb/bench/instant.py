"""The adapter of benchmarks: answers at once with what it was asked, so that only the bus is measured."""

from __future__ import annotations

from gsb.sdk import Adapter, NoSettings, Reply, Request


class Instant(Adapter[NoSettings, NoSettings]):
    """Reaches no system."""

    async def handle(self, request: Request) -> Reply:
        return Reply(request.body)
