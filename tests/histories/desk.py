"""The operator: looks at what stands still, finds out in the ledger what happened, and says so.

It acts through the admin API alone, as ``gsb exchanges resolve`` and ``gsb dead-letters replay|close`` do, and goes on
across restarts: an act whose answer was lost is tried again, and one that took is a conflict that does no harm.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from gsb.client import BusProblem, Client, ClientError, Result
from tests.histories.checker import read_effects

EVERY = 0.5
"""Seconds between two looks at what stands still."""
PATIENCE = 60.0
"""Seconds for an act. Who dies ends the connection; who only stands still answers later, and where nodes are replaced
no act may be without its answer."""
LOOKS = 4
"""Looks at an exchange that is unknown until its end is decided, which take longer than the slowest answer of the
ledger: a machine that stood still may have given up a call that the ledger had not even read, and reads then. A look
counts once the ledger has answered: it stands still too while its disk does."""

HARMLESS = ("state_conflict", "replayed", "store_unavailable", "token_expired", "token_not_yet_valid")
"""Answers after which the operator looks again: somebody was faster, or the bus is in trouble, or its clock is set."""


class Operator:
    """``acts`` counts what it did, by name."""

    def __init__(self, client: Client, effects: Path, core: str) -> None:
        """``core``: the ledger's URL; ``effects``: its file."""
        self.acts: Counter[str] = Counter()
        self._client = client
        self._effects, self._core = effects, core
        self._looks: Counter[str] = Counter()
        """By exchange, how often it was found to be unknown."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Raises whatever ended its work before."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> list[dict[str, Any]]:
        """What is unknown or held now, at most 500. Raises the client's errors."""
        query = urlencode([("reason", "daily look"), ("state", "unknown"), ("state", "held"), ("limit", "500")])
        found: list[dict[str, Any]] = (await self._act("GET", f"/admin/exchanges?{query}")).body["exchanges"]
        return found

    async def _act(self, method: str, path: str, body: Any = None) -> Result:
        return await self._client.admin(method, path, body, timeout=PATIENCE)

    async def _work(self) -> None:
        while True:
            try:
                await self._round()
            except BusProblem as problem:
                if problem.code not in HARMLESS:
                    raise
            except ClientError:
                pass  # the node is dead at the moment
            await asyncio.sleep(EVERY)

    async def _round(self) -> None:
        if not (standing := await self.look()):
            return
        async with aiohttp.ClientSession() as session, session.get(self._core) as answer:
            answer.raise_for_status()
        self._looks.update(each["exchange"] for each in standing if each["state"] == "unknown")
        # Whoever stands still was answered by the ledger or given up long ago, so that no effect comes any more.
        happened = {line.exchange for line in read_effects(self._effects)}
        for each in standing:
            if each["state"] == "unknown" and self._looks[each["exchange"]] < LOOKS:
                continue
            await self._decide(each["exchange"], each["state"], each["exchange"] in happened)

    async def _decide(self, exchange: str, state: str, happened: bool) -> None:
        path = f"/admin/exchanges/{exchange}"
        if state == "held" and int(exchange[-1], 16) % 2:
            act, body = "replay", {"reason": "the ledger is well again", "expires_in": 600}
        else:
            act = "close" if state == "held" else "resolve"
            end = {"state": "done", "effect": "done"} if happened else {"state": "failed", "effect": "none"}
            body = {"reason": "looked it up in the ledger", **end}
        await self._act("POST", f"{path}/{act}", body)
        self.acts[act] += 1
