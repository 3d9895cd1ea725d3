"""A worker is killed in the middle of the payslips, with SIGKILL, and everybody gets paid once all the same.

What the worker had begun and not written down is ``unknown`` when its lease has run out: the bus never tries a payslip
again by itself. It looks whether the personnel system has it; where it has not, the operator looks too and says so, and
the agency sends that payslip once more. What is right is counted in the database and in the log, not through the bus.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from config.demo import personnel
from config.demo.deployment import PERIOD, STAFF, Site
from config.demo.payroll import OFFICER, RECORD, Desk, Payslip, key_of
from config.demo.prepare import DATA, PERSONNEL
from config.demo.proof import client
from config.demo.report import Report, Step
from gsb.client import BusProblem, Client, ClientError, OutcomePending, Result, Unreachable
from gsb.evidence.log import CHECKPOINT
from gsb.evidence.tiles import WIDTH, bundle_path, unpack
from gsb.model import FINAL

AFTER = STAFF // 2
"""Payslips that are recorded before the worker is killed."""
LOOK = 0.5
"""Seconds between two looks at an exchange that is not final."""
SOON = 15.0
"""Seconds until the agency asks how an exchange stands whose outcome does not come."""
ENDS_WITHIN = 240.0
"""Seconds; the lease of a payslip takes 25, and a group of Kafka's waits 10 for a member."""
REASON = "its worker was killed; the personnel database has no such payslip"


class Interruption:
    """``kill`` kills the worker; what came of that is counted here."""

    def __init__(self, site: Site, kill: Callable[[], None]) -> None:
        self.site = site
        self._kill = kill
        self._recorded = 0
        self.unknown: set[str] = set()
        """Exchanges of which nobody could know."""
        self.resolved = 0
        """How many of them an operator ended, since the personnel system did not have them."""

    def desk(self, clients: Sequence[Client]) -> Desk:
        return InterruptedDesk(clients, self)

    def recorded(self) -> None:
        """One payslip more."""
        self._recorded += 1
        if self._recorded == AFTER:
            self._kill()

    def tell(self, report: Report) -> None:
        """What is in the database and in the log, and what became of what the worker had begun."""
        report.chapter = "After a worker was killed in the middle"
        twice = personnel.paid_twice(PERSONNEL, PERIOD)
        report.fact("people with two payslips", "0 people", f"{twice} people")
        count_outcomes(report, entries(DATA / "log"))
        found = len(self.unknown) - self.resolved
        report.proof.append(
            f"A worker was killed after {AFTER} payslips. Unknown after that: {len(self.unknown)}, of which the bus "
            f"found {found} in the personnel system, and {self.resolved} were ended by the operator and sent again."
        )


class InterruptedDesk(Desk):
    """The agency while a worker dies; where nobody can know of a payslip, it has the operator look."""

    def __init__(self, clients: Sequence[Client], interruption: Interruption) -> None:
        super().__init__(clients)
        self._interruption = interruption

    async def record(self, step: Step, slip: Payslip) -> Result | None:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(ENDS_WITHIN):
                result = await self._pursue(slip, key_of(slip))
        except (ClientError, TimeoutError) as error:
            step.took(began, f"{error.status} {error.code}" if isinstance(error, BusProblem) else type(error).__name__)
            return None
        step.took(began, f"{result.status} {result.state}")
        self._interruption.recorded()
        return result

    async def _pursue(self, slip: Payslip, key: str) -> Result:
        """Until the payslip is recorded, under another key if an operator has said that it was not."""
        bus = next(self._clients)
        try:
            return await bus.call(RECORD, slip, purpose="payroll", timeout=SOON, sub=OFFICER, idempotency_key=key)
        except OutcomePending as pending:
            exchange = pending.exchange
        except Unreachable:
            return await self._pursue(slip, key)
        while (result := await bus.reply(exchange)).status == 202:
            if result.state == "unknown":
                self._interruption.unknown.add(exchange)
                if not personnel.payslips_of(PERSONNEL, exchange):
                    await self._resolve(exchange)
                    return await self._pursue(slip, f"{key}-again")
            await asyncio.sleep(LOOK)
        return result

    async def _resolve(self, exchange: str) -> None:
        said = {"state": "failed", "effect": "none", "reason": REASON}
        async with client(self._interruption.site, "duty-operator") as operator:
            await operator.admin("POST", f"/admin/exchanges/{exchange}/resolve", said)
        self._interruption.resolved += 1


def count_outcomes(report: Report, log: Iterable[Any]) -> None:
    """How many outcomes each accepted exchange has in the log."""
    accepted, ended = set[str](), Counter[str]()
    for entry in log:
        match entry:
            case {"kind": "accepted", "exchange": str(exchange)}:
                accepted.add(exchange)
            case {"kind": "outcome" | "act", "exchange": str(exchange), "state": state} if state in FINAL:
                ended[exchange] += 1
    once = sum(ended[exchange] == 1 for exchange in accepted)
    report.fact("exchanges with one outcome in the log", f"{len(accepted)} exchanges", f"{once} exchanges")


def entries(log: Path) -> Iterator[Any]:
    """What the entries of every log in this folder say; its files are taken as they are, having been verified."""
    for folder in sorted(path.parent for path in log.glob(f"*/{CHECKPOINT}")):
        size = int((folder / CHECKPOINT).read_text("utf-8").splitlines()[1])
        for first in range(0, size, WIDTH):
            bundle = folder / bundle_path(first // WIDTH, min(WIDTH, size - first))
            yield from map(orjson.loads, unpack(bundle.read_bytes()))
