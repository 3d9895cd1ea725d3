"""An adapter for tests: every method of its life plays what the test in the same process gave it."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from gsb.sdk import Adapter, NoSettings, Reply, Request, SecretFile, Settings


class Scenery(Settings):
    word: str = "none"
    secret: SecretFile | None = None


class Stage(Adapter[Scenery, NoSettings]):
    """``plays`` holds coroutine functions by the name of a method; ``past`` the names of those that were called."""

    Settings = Scenery
    plays: ClassVar[dict[str, Callable[..., Awaitable[Any]]]] = {}
    past: ClassVar[list[str]] = []
    newest: ClassVar[list[Stage]] = []

    async def open(self) -> None:
        self.newest[:] = [self]
        await self._play("open")

    async def check(self) -> None:
        await self._play("check")

    async def close(self) -> None:
        await self._play("close")

    async def handle(self, request: Request) -> Reply:
        played = await self._play("handle", request)
        return Reply(request.body) if played is None else played

    async def find(self, request: Request) -> Reply | None:
        found: Reply | None = await self._play("find", request)
        return found

    @staticmethod
    def block(until: threading.Event) -> None:
        """Keep the event loop from turning, for a minute at most."""
        until.wait(60.0)

    async def _play(self, name: str, *arguments: object) -> Any:
        self.past.append(name)
        play = self.plays.get(name)
        return None if play is None else await play(*arguments)
