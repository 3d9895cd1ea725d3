"""An adapter for tests: does what the test in the same process tells it to do, call by call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from gsb.sdk import Adapter, NoSettings, Reply, Request


async def echo(request: Request) -> Reply:
    return Reply(request.body)


async def nothing(request: Request) -> Reply | None:
    return None


class Puppet(Adapter[NoSettings, NoSettings]):
    """``acts`` and ``finds`` are what the next calls do; ``requests`` are those that ``handle`` was given."""

    acts: ClassVar[Callable[[Request], Awaitable[Reply]]] = echo
    finds: ClassVar[Callable[[Request], Awaitable[Reply | None]]] = nothing
    requests: ClassVar[list[Request]] = []

    async def handle(self, request: Request) -> Reply:
        self.requests.append(request)
        return await type(self).acts(request)

    async def find(self, request: Request) -> Reply | None:
        return await type(self).finds(request)

    @classmethod
    def reset(cls) -> None:
        cls.acts, cls.finds, cls.requests = echo, nothing, []
