"""What moved over the bus: every call that a scene makes, the steps of composed services, and the receipt of each.

Scenes call through a ``Ledger``, which counts each call as a step of the report. In the end the operator's list says
what else there was, such as the steps of a payroll, and each exchange's receipt is fetched and held to the log's public
key. It keeps nothing; a crash loses the table.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import orjson
from rich.box import SIMPLE_HEAD
from rich.table import Table

from config.demo.report import Report, Step
from config.government.play.site import OPERATOR, Site
from gsb.client import BusProblem, Client, ClientError, Result
from gsb.evidence.checkpoint import Verifier
from gsb.evidence.verify import LogWrong, verify_receipt

AT_ONCE = 16
"""Receipts that are fetched at once."""
PAGE = 500
PATIENCE = 60.0
"""Seconds for one call with all its repeats."""
PAUSE = 0.5
"""Seconds between two looks at something that is to come."""
DONE = "200 done"
VERIFIED = "verified"


@dataclass(slots=True)
class Move:
    """A row of the table: one call, or all steps of the same kind."""

    agency: str
    service: str
    what: str
    outcome: str
    exchanges: list[str] = field(default_factory=list)
    receipts: Counter[str] = field(default_factory=Counter)


class Ledger:
    """Calls as any agency, and everything that moved. ``async with`` it."""

    def __init__(self, site: Site, report: Report) -> None:
        self.site, self.report = site, report
        self.moves: list[Move] = []
        self._stack = AsyncExitStack()
        self._clients: dict[str, Client] = {}

    async def __aenter__(self) -> Ledger:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def as_member(self, member: str) -> Client:
        """A client of this agency or operator, made once."""
        if member not in self._clients:
            self._clients[member] = await self._stack.enter_async_context(self.site.client(member))
        return self._clients[member]

    async def call(
        self, agency: str, service: str, body: Any, what: str, *, expected: str = DONE, **options: Any
    ) -> Any:
        """Call as this agency; the reply's body, or None if it did not come out well. ``options`` are the client's."""
        step = self.report.step(what, expected)
        move = Move(agency, service, what, "")
        self.moves.append(move)
        with step.running():
            return await self._called(step, move, body, options)

    async def until(
        self, agency: str, service: str, body: Any, what: str, enough: Callable[[Any], bool], **options: Any
    ) -> Any:
        """Ask again and again until a reply is enough, or ``PATIENCE`` is over; the last one."""
        step = self.report.step(what, DONE, 0)
        move = Move(agency, service, what, "")
        self.moves.append(move)
        end = time.monotonic() + PATIENCE
        with step.running():
            while True:
                step.count += 1
                reply = await self._called(step, move, body, options)
                if reply is None or enough(reply) or time.monotonic() > end:
                    return reply
                await asyncio.sleep(PAUSE)

    async def _called(self, step: Step, move: Move, body: Any, options: Mapping[str, Any]) -> Any:
        client, began = await self.as_member(move.agency), time.perf_counter()
        result: Result | None = None
        try:
            result = await client.call(move.service, body, **{"timeout": PATIENCE, **options})
            move.outcome = f"{result.status} {result.state}"
        except BusProblem as problem:
            result, move.outcome = problem.result, _refusal(problem)
        except ClientError as error:
            move.outcome = type(error).__name__
        step.took(began, move.outcome)
        if result is not None and result.exchange is not None:
            move.exchanges.append(result.exchange)
        return result.body if result is not None and move.outcome == DONE else None

    async def add_steps(self) -> None:
        """What others than the scenes have asked for since the last call: steps of composed services, by their kind."""
        known = {exchange for move in self.moves for exchange in move.exchanges}
        kinds: dict[tuple[str, str, str], Move] = {}
        for each in reversed(await self._all()):
            if each["exchange"] in known:
                continue
            kind = each["agency"], each["service"], each["state"]
            move = kinds.setdefault(kind, Move(*kind[:2], "", each["state"]))
            move.exchanges.append(each["exchange"])
        for move in kinds.values():
            move.what = f"{len(move.exchanges)} step{'s' * (len(move.exchanges) > 1)}: {self.site.title(move.service)}"
            self.moves.append(move)

    async def _all(self) -> list[Mapping[str, Any]]:
        """Every exchange of this bus, newest first."""
        operator, found = await self.as_member(OPERATOR), list[Mapping[str, Any]]()
        query: dict[str, str | int] | None = {"reason": "what moved in this demonstration", "limit": PAGE}
        while query is not None:
            page = (await operator.admin("GET", f"/admin/exchanges?{urlencode(query)}")).body
            found += page["exchanges"]
            query = {**query, "cursor": page["next"]} if page["next"] else None
        return found

    async def prove(self, vkey: str) -> None:
        """Fetch every receipt, as the agency whose exchange it is, and verify it with the log's key."""
        verifier, places = Verifier.of(vkey), asyncio.Semaphore(AT_ONCE)
        count = sum(len(move.exchanges) for move in self.moves)
        step = self.report.step("receipts, one for each exchange", VERIFIED, count)

        async def one(move: Move, exchange: str) -> None:
            client = await self.as_member(move.agency)
            async with places:
                began = time.perf_counter()
                said = await _proved(client, exchange, verifier)
            step.took(began, said)
            move.receipts[said] += 1

        for move in self.moves:
            await self.as_member(move.agency)
        with step.running():
            await asyncio.gather(*(one(move, exchange) for move in self.moves for exchange in move.exchanges))

    def table(self) -> Table:
        """What moved where."""
        table = Table(title="What moved where", title_justify="left", box=SIMPLE_HEAD, show_edge=False)
        for column in ("from", "service", "to", "what", "outcome", "receipt"):
            table.add_column(column, overflow="fold", no_wrap=column in ("from", "service"))
        for move in self.moves:
            where = self.site.system(move.service)
            table.add_row(move.agency, move.service, where, move.what, move.outcome, "; ".join(_counted(move)))
        return table


def _refusal(problem: BusProblem) -> str:
    """The status and the code, and that of the core system where it was the one that refused."""
    body = problem.result.body
    reason = body.get("reason") if isinstance(body, dict) else None
    return f"{problem.status} {problem.code}" + (f" {reason}" if reason else "")


def _counted(move: Move) -> Iterator[str]:
    if not move.exchanges:
        yield "no exchange"
    for said, count in move.receipts.items():
        yield said if len(move.exchanges) == 1 else f"{count} of {len(move.exchanges)} {said}"


async def _proved(client: Client, exchange: str, verifier: Verifier) -> str:
    try:
        proven = verify_receipt(await client.receipt(exchange, timeout=PATIENCE), verifier)
    except (ClientError, LogWrong) as error:
        return f"{type(error).__name__}: {error}"
    return VERIFIED if orjson.loads(proven.entry)["exchange"] == exchange else "a receipt of another exchange"
