"""A payroll over real core systems, with the bus killed in the middle: everybody is paid once, and every cent agrees.

Personnel in SQLite, a civil registry in Kinto, taxes by OpenFisca, books in Tryton, payment files over OpenSSH. What
they hold in the end is counted in each of them, and never through the bus. ``GSB_PAYROLL=5000`` runs it for so many.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from config.demo.children import Child
from config.government.play import counts, personnel
from config.government.play.site import OPERATOR, Site
from config.systems.catalogue import named
from config.systems.kinto import seed_persons
from config.systems.running import Copy
from tests.support.government import laid_out, started
from tests.support.needs import needs
from tests.support.real import real

NAMES = ("openfisca", "kinto", "tryton", "sshd")
SYSTEMS = ("hrmis", "registry", "tax", "fmis", "treasury", "payroll", "payroll-assessment")
ACCOUNTS = {"gross": "6110", "income_tax": "4470", "social_security_contribution": "4310", "net": "4210"}
RUN, PAGE, POSTING = "payroll/run/v1", "payroll-assessment/page/v1", "fmis/posting/v1"
IDENTITY = "registry/identity/v1"
PERIOD = "2026-09"
BODY = {"ministry": personnel.MINISTRY, "period": PERIOD, "date": "2026-09-28"}
KEY = f"payroll-{personnel.MINISTRY}-{PERIOD}"
WITHIN = 900.0
"""Seconds for anything here; an idle machine needs far fewer."""
LOOK = 0.05
MANY = int(os.environ.get("GSB_PAYROLL", "0"))
"""Employees of the long version; without it there is none."""


@dataclass
class Government:
    """The systems, with people in them, and the bus over them."""

    site: Site
    systems: Mapping[str, Copy]
    staff: list[personnel.Person]
    bus: Child

    @property
    def bank(self) -> Path:
        return self.systems["sshd"].place.folder / "bank"

    async def kill(self) -> None:
        """SIGKILL, and up again."""
        self.bus.kill()
        assert await self.bus.process.wait() == -signal.SIGKILL
        self.bus = await started(self.site)

    async def count(self, service: str, state: str | None = None) -> int:
        """How many exchanges of the service there are, in any state or in this one, as the operator sees them."""
        query = {"reason": "a test looks", "limit": 500, "service": service} | ({"state": state} if state else {})
        async with self.site.client(OPERATOR) as operator:
            return len((await operator.admin("GET", f"/admin/exchanges?{urlencode(query)}")).body["exchanges"])


@asynccontextmanager
async def government(root: Path, people: int, changes: Mapping[str, Mapping[str, Any]]) -> AsyncIterator[Government]:
    for name in NAMES:
        lack = named(name).missing()
        needs(lack is None, lack or "")
    async with AsyncExitStack() as stack:
        copies = await asyncio.gather(*(stack.enter_async_context(real(name, root / "var/systems")) for name in NAMES))
        systems = dict(zip(NAMES, copies, strict=True))
        site = laid_out(root, SYSTEMS, {copy.system.port: copy.port for copy in copies}, changes)
        staff = personnel.people(people)
        await seed_persons(systems["kinto"].place, personnel.civil_register(staff))
        personnel.build(site.personnel, staff)
        place = Government(site, systems, staff, await started(site))
        try:
            yield place
        finally:
            await place.bus.stop()


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(int(WITHIN / LOOK)):
        if await happened():
            return
        await asyncio.sleep(LOOK)
    raise AssertionError("it did not happen in time")


async def everything_agrees(place: Government, reply: Any, payments_at_most: int) -> None:
    """The reply, the personnel database, the tax engine, the books and the payment files, to the cent."""
    ghosts = {person.employee: person.ghost for person in place.staff if person.ghost}
    assert {each["employee"]: each["reason"] for each in reply["withheld"]} == ghosts
    assert (reply["people"], reply["paid"]) == (len(place.staff), len(place.staff) - len(ghosts))
    totals = {name: Decimal(amount["amount"]) for name, amount in reply["totals"].items()}

    paid = counts.salaries(place.site.personnel, but=ghosts)
    assert sum(paid.values()) == totals["gross"]
    withheld = await counts.taxes(place.systems["openfisca"].url, paid, PERIOD)
    assert {name: totals[name] for name in counts.FIGURES} == withheld

    lines = await counts.postings(place.systems["tryton"].place, list(ACCOUNTS.values()))
    nothing = Decimal()
    assert {name: [*lines[code]] for name, code in ACCOUNTS.items()} == {
        name: [(amount, nothing) if name == "gross" else (nothing, amount)] for name, amount in totals.items()
    }

    payments = counts.payments(place.bank)
    assert sum(each.amount for each in payments) == totals["net"]
    accounts = {f"{PERIOD}-{person.employee}": person.bank_account for person in place.staff if not person.ghost}
    assert sorted((each.name, each.account) for each in payments) == sorted(accounts.items())
    assert len({each.file for each in payments}) == len(reply["payment_orders"]) == -(-len(paid) // payments_at_most)


@pytest.mark.slow
async def test_a_payroll_ends_right_when_systems_are_away_and_the_bus_is_killed(tmp_path: Path) -> None:
    page, payments = 10, 25
    changes = {"payroll": {"timeout": 5.0, "settings": {"page": page, "payments": payments}}}
    async with government(tmp_path, 60, changes) as place:
        # The bank cannot be reached, so it cannot have ended when the bus is killed; and the registry is away at first.
        await place.systems["sshd"].stop()
        await place.systems["kinto"].kill()
        async with place.site.client("public-service-ministry") as ministry:
            asked: dict[str, Any] = {"purpose": "payroll", "idempotency_key": KEY, "sub": "officer-1"}
            run = (await ministry.call(RUN, BODY, **asked, respond_async=True)).exchange
            await until(lambda: _is(place.count(IDENTITY, "waiting"), 1))
            await place.systems["kinto"].start()
            await until(lambda: _is(place.count(POSTING, "done"), 1))
            await place.kill()
            await place.systems["sshd"].start()
            result = await ministry.follow(str(run), timeout=WITHIN)
            again = await ministry.call(RUN, BODY, **asked)
        await everything_agrees(place, result.body, payments)
        assert (again.replayed, again.body) == (True, result.body)
        assert [await place.count(name) for name in (RUN, PAGE, IDENTITY, POSTING)] == [1, 6, 60, 1]


async def _is(count: Awaitable[int], least: int) -> bool:
    return await count >= least


if MANY:

    @pytest.mark.slow
    async def test_a_large_payroll_ends_right_although_the_bus_is_killed_again_and_again(tmp_path: Path) -> None:
        async with government(tmp_path, MANY, {}) as place, place.site.client("public-service-ministry") as ministry:
            began = time.monotonic()
            asked: dict[str, Any] = {"purpose": "payroll", "idempotency_key": KEY, "sub": "officer-1"}
            run = (await ministry.call(RUN, BODY, **asked, respond_async=True)).exchange
            await until(lambda: _is(place.count(PAGE, "done"), MANY // 200))
            await place.kill()
            await until(lambda: _is(place.count(POSTING), 1))
            await place.kill()
            await until(lambda: _is(asyncio.to_thread(lambda: len([*(place.bank / "inbox").glob("*.xml")])), 1))
            await place.kill()
            result = await ministry.follow(str(run), timeout=WITHIN)
            print(f"{MANY} people in {time.monotonic() - began:.0f} s, with the bus killed three times")
            await everything_agrees(place, result.body, 1_000)
