"""An adapter for tests: answers what its settings say, or the request itself. It reaches no system."""

from __future__ import annotations

from typing import Any

from gsb.sdk import Adapter, NoSettings, Reply, Request, Settings


class Answer(Settings):
    reply: Any = None
    """The body of every reply; none: the request's."""


class Echo(Adapter[NoSettings, Answer]):
    ServiceSettings = Answer

    async def handle(self, request: Request) -> Reply:
        fixed = self.context.services[request.service].reply
        return Reply(request.body if fixed is None else fixed)
