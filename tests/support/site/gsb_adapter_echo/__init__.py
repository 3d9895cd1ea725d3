"""An adapter for tests: answers what its settings say, or the request itself. It reaches no system."""

from __future__ import annotations

import asyncio
from typing import Any

from gsb.sdk import Adapter, NoSettings, Reply, Request, Settings


class Answer(Settings):
    reply: Any = None
    """The body of every reply; none: the request's."""
    seconds: float = 0.0
    """How long it takes."""


class Echo(Adapter[NoSettings, Answer]):
    ServiceSettings = Answer

    async def handle(self, request: Request) -> Reply:
        settings = self.context.services[request.service]
        await asyncio.sleep(settings.seconds)
        return Reply(request.body if settings.reply is None else settings.reply)
