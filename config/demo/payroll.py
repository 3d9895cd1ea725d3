"""The payroll month: the payroll agency reads, computes, records; then asks without waiting, and repeats itself.

Everything goes through the bus with ``gsb.client``, which verifies each reply; what the personnel database holds in
the end is counted in the database itself, not through the bus. What is right is said by each step's expectation.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import cycle
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from config.demo import personnel
from config.demo.deployment import MINISTRY, PAGE, PERIOD, STAFF, Site
from config.demo.prepare import PERSONNEL
from config.demo.report import Report, Step
from gsb.client import BusProblem, Client, ClientError, Result

AT_ONCE = 32
"""Calls in flight."""
PATIENCE = 60.0
"""Seconds for one call with all its repeats, on a machine that is busy with other things."""
GRANTED = {"employee", "tin", "name", "post", "grade", "salary", "bank_account"}
"""What the agreement grants of a civil servant's record; the rest, such as health notes, must stay."""
OFFICER = "payroll-officer-1"
RECORD = "hrmis/record-payslip/v1"
COLUMNS = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
"""Of a bar that shows how far something is."""

Person = Mapping[str, Any]
Payslip = Mapping[str, Any]
A = TypeVar("A")
B = TypeVar("B")


class Desk:
    """The payroll agency at work: makes calls, by one gateway after the other, and counts how each came out."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = cycle(clients)

    async def call(self, step: Step, service: str, body: Any, **options: Any) -> Result | None:
        """One call under the purpose payroll; None when it did not come out well, which the step then shows."""
        client = next(self._clients)
        return await self._count(step, client.call(service, body, purpose="payroll", timeout=PATIENCE, **options))

    async def follow(self, step: Step, exchange: str) -> Result | None:
        """The outcome of an exchange that was not waited for."""
        return await self._count(step, next(self._clients).follow(exchange, timeout=PATIENCE))

    async def record(self, step: Step, slip: Payslip) -> Result | None:
        """Have a payslip recorded."""
        return await self.call(step, RECORD, slip, sub=OFFICER, idempotency_key=key_of(slip))

    @staticmethod
    async def _count(step: Step, call: Awaitable[Result]) -> Result | None:
        began = time.perf_counter()
        try:
            result = await call
        except BusProblem as problem:
            step.took(began, f"{problem.status} {problem.code}")
            return None
        except ClientError as error:
            step.took(began, type(error).__name__)
            return None
        step.took(began, "202" if result.status == 202 else f"{result.status} {result.state}")
        return result


async def play(site: Site, report: Report, out: Console, make_desk: Callable[[Sequence[Client]], Desk] = Desk) -> None:
    """The whole month. What goes wrong is in the report."""
    key = site.key("payroll-agency")
    clients = [
        Client(url, bus=site.bus, agency="payroll-agency", key=key, bus_keys=site.bus_keys()) for url in site.urls
    ]
    async with AsyncExitStack() as stack:
        desk = make_desk([await stack.enter_async_context(client) for client in clients])
        with Progress(*COLUMNS, console=out, disable=not out.is_terminal) as progress:
            slips = await Month(desk, report, progress).run()
        await without_waiting(desk, report)
        if slips:
            await once_more(desk, report, slips[0])


class Month:
    """From the ministry's payroll to a payslip for everybody on it."""

    def __init__(self, desk: Desk, report: Report, progress: Progress) -> None:
        self._desk, self._report, self._progress = desk, report, progress

    async def run(self) -> list[Payslip]:
        """The payslips that were recorded."""
        self._report.chapter = "Payroll month, Ministry of Justice"
        staff = await self._payroll_list()
        people = await self._many("hrmis/employee/v1, for each", "records read", staff, self._employee)
        self._report.fact("of a record's 13 members leave", "the 7 granted", leaving(people))
        slips = await self._many("tax/income-tax/v1, for each", "taxes computed", people, self._tax)
        recorded = await self._many(f"{RECORD}, for each", "payslips recorded", slips, self._record)
        rows = personnel.payslips(PERSONNEL, PERIOD)
        self._report.fact("payslips in the personnel database", f"{STAFF} rows", f"{rows} rows")
        return recorded

    async def _payroll_list(self) -> list[str]:
        """Personnel numbers of the ministry's staff, read page by page."""
        title = f"hrmis/payroll-list/v1, pages of {PAGE}"
        step = self._report.step(title, "200 done", STAFF // PAGE)
        staff: list[str] = []
        ask: dict[str, Any] | None = {"ministry": MINISTRY, "limit": PAGE}
        with step.running():
            while ask is not None:
                result = await self._desk.call(step, "hrmis/payroll-list/v1", ask)
                page = result.body if result else {}
                staff += [each["employee"] for each in page.get("employees", ())]
                ask = {**ask, "after": page["next"]} if page.get("next") else None
        self._report.fact("people on these pages", f"{STAFF} people", f"{len(set(staff))} people")
        return staff

    async def _many(
        self, title: str, doing: str, items: Sequence[A], do: Callable[[Step, A], Awaitable[B | None]]
    ) -> list[B]:
        """Do it for every item, ``AT_ONCE`` at a time; what came of those that went well, in their order."""
        step = self._report.step(title, "200 done", STAFF)
        bar = self._progress.add_task(doing, total=len(items))
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(item: A) -> B | None:
            async with slots:
                done = await do(step, item)
            self._progress.advance(bar)
            return done

        with step.running():
            results = await asyncio.gather(*(one(item) for item in items))
        return [result for result in results if result is not None]

    async def _employee(self, step: Step, employee: str) -> Person | None:
        result = await self._desk.call(step, "hrmis/employee/v1", {"employee": employee})
        return result.body if result else None

    async def _tax(self, step: Step, person: Person) -> Payslip | None:
        ask = {"tin": person["tin"], "period": PERIOD, "gross": person["salary"]}
        result = await self._desk.call(step, "tax/income-tax/v1", ask)
        return payslip(person, result.body) if result else None

    async def _record(self, step: Step, slip: Payslip) -> Payslip | None:
        return slip if await self._desk.record(step, slip) else None


def payslip(person: Person, tax: Mapping[str, Any]) -> Payslip:
    """What the personnel system is told of a month's salary."""
    figures = ("gross", "income_tax", "social_security_contribution", "net")
    return {"employee": person["employee"], "period": PERIOD, **{name: tax[name] for name in figures}}


def key_of(slip: Payslip) -> str:
    """One payslip for a person and month, however often it is sent."""
    return f"payslip-{slip['employee']}-{slip['period']}"


def leaving(people: Sequence[Person]) -> str:
    """Which members left the bus in any of these records."""
    members = set().union(*people)
    return f"the {len(members)} granted" if members == GRANTED else ", ".join(sorted(members)) or "none"


async def without_waiting(desk: Desk, report: Report) -> None:
    """An exchange that the caller does not wait for: 202 at once, the outcome later."""
    report.chapter = "Not waited for"
    asked = report.step("a call with Prefer: respond-async", "202")
    with asked.running():
        result = await desk.call(asked, "hrmis/employee/v1", {"employee": "E-000042"}, respond_async=True)
    followed = report.step("its exchange, to the outcome", "200 done")
    if result and result.exchange:
        with followed.running():
            await desk.follow(followed, result.exchange)


async def once_more(desk: Desk, report: Report, slip: Payslip) -> None:
    """The same payslip again under the same key, as after a lost answer: the first outcome, and still one row."""
    report.chapter = "Sent again, as after a lost answer"
    again = report.step("a payslip under the key it had", "200 done")
    with again.running():
        result = await desk.call(again, RECORD, slip, sub=OFFICER, idempotency_key=key_of(slip))
    replayed = bool(result and result.replayed)
    report.fact("whose outcome came back", "the first one's", "the first one's" if replayed else "a new one's")
    rows = personnel.payslips(PERSONNEL, PERIOD, slip["employee"])
    report.fact("rows of it in the database", "1 row", f"{rows} row" + "s" * (rows != 1))
    other = report.step("another amount under that key", "422 idempotency_key_reused")
    with other.running():
        changed = {**slip, "net": slip["gross"]}
        await desk.call(other, RECORD, changed, sub=OFFICER, idempotency_key=key_of(slip))
