"""One page of a payroll: who is on it, who they really are, and what each is to be paid. It pays nobody.

Composed of ``call``s of other services that change nothing, so it changes nothing itself: a crash means that it is
asked again, and every step that had an outcome keeps it. Who must not be paid is reported with the reason instead.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import Field

from gsb.sdk import Adapter, Broken, Currency, NoSettings, Refused, Reply, Request, Settings

AMOUNTS = ("gross", "income_tax", "social_security_contribution", "net")
"""What the tax service says of a salary."""
SERVICE = r"^[a-z][a-z0-9-]*/[a-z][a-z0-9-]*/v[1-9][0-9]*$"
ACCOUNT = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
Line = Mapping[str, Any]


class PageSettings(Settings):
    """``[settings]`` of a system with the adapter ``payroll_page``."""

    currency: str = Field(pattern=r"^[A-Z]{3}$")
    """The currency (ISO 4217) of all salaries."""
    payroll_list: str = Field(default="hrmis/payroll-list/v1", pattern=SERVICE)
    """The service that tells who is on the payroll."""
    identity: str = Field(default="registry/identity/v1", pattern=SERVICE)
    """The service that tells whether a person is registered, alive, and who the personnel system says."""
    tax: str = Field(default="tax/income-tax/v1", pattern=SERVICE)
    """The service that computes what is withheld from a salary."""
    purpose: str = "payroll"
    """The purpose under which the agreements grant these services."""
    at_once: int = Field(default=8, ge=1, le=100)
    """People of a page that are looked at at once."""


class PayrollPage(Adapter[PageSettings, NoSettings]):
    """``page``: the payments of one page, its totals, and who is not to be paid and why."""

    Settings = PageSettings

    async def handle(self, request: Request) -> Reply:
        asked = {name: request.body[name] for name in ("ministry", "after", "limit") if name in request.body}
        page = await self._call(request, self.context.settings.payroll_list, asked, "list")
        lines = await self._lines(request, page["employees"])
        reply = {
            "people": len(lines),
            "payments": [line["payment"] for line in lines if "payment" in line],
            "withheld": [line for line in lines if "reason" in line],
            "totals": {name: self._sum(line[name] for line in lines if name in line) for name in AMOUNTS},
        }
        return Reply(reply | ({"next": page["next"]} if "next" in page else {}))

    async def _call(self, request: Request, service: str, body: Any, step: str) -> Any:
        return await self.context.call(request, service, body, step=step, purpose=self.context.settings.purpose)

    async def _lines(self, request: Request, people: Sequence[Line]) -> list[Line]:
        """What becomes of each; the first of whom that cannot be told ends it for all."""
        places = asyncio.Semaphore(self.context.settings.at_once)

        async def one(number: int, person: Line) -> Line:
            async with places:
                return await self._line(request, number, person)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(number, person)) for number, person in enumerate(people)]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _line(self, request: Request, number: int, person: Line) -> Line:
        """Steps are named after the place on the page: names of steps are no place for a person's number."""
        if person["salary"]["currency"] != self.context.settings.currency:
            raise Refused("currency_invalid")
        claimed = {
            "national_id": person["national_id"],
            "given_name": person["name"]["given"],
            "family_name": person["name"]["family"],
            "birth_date": person["birth_date"],
        }
        said = await self._call(request, self.context.settings.identity, claimed, f"identity-{number}")
        if (reason := doubt(said) or unpayable(person)) is not None:
            return {"employee": person["employee"], "reason": reason}
        salary = {"tin": person["tin"], "period": request.body["period"], "gross": person["salary"]}
        tax = await self._call(request, self.context.settings.tax, salary, f"tax-{number}")
        if not adds_up(tax, person["salary"]):
            raise Broken("what the tax service withholds and leaves is not the salary")
        name = f"{person['name']['given']} {person['name']['family']}"
        payment = {"employee": person["employee"], "name": name, "bank_account": person["bank_account"]}
        return {name: tax[name] for name in AMOUNTS} | {"payment": payment | {"amount": tax["net"]}}

    def _sum(self, amounts: Iterable[Line]) -> Line:
        total = sum((Decimal(each["amount"]) for each in amounts), Decimal())
        return Currency(self.context.settings.currency).money(total)


def doubt(said: Line) -> str | None:
    """Why the civil registry does not confirm somebody; None if it does."""
    for predicate, reason in (("registered", "unregistered"), ("alive", "dead"), ("matches", "mismatch")):
        if said[predicate] is not True:
            return reason
    return None


def unpayable(person: Line) -> str | None:
    """Why there is nothing to order for somebody; None if there is. A bank would refuse the whole order for one."""
    if not Decimal(person["salary"]["amount"]):
        return "nothing_due"
    return None if well_formed(person["bank_account"]) else "account_invalid"


def well_formed(account: str) -> bool:
    """Whether the account's check digits are right (ISO 13616)."""
    if ACCOUNT.fullmatch(account) is None:
        return False
    return int("".join(str(int(each, 36)) for each in account[4:] + account[:4])) % 97 == 1


def adds_up(tax: Line, salary: Line) -> bool:
    """Whether the tax service spoke of this salary, and left something of it: what it did not withhold."""
    gross, income_tax, contribution, net = (Decimal(tax[name]["amount"]) for name in AMOUNTS)
    currencies = {tax[name]["currency"] for name in AMOUNTS}
    same = gross == Decimal(salary["amount"]) and currencies == {salary["currency"]}
    return same and net == gross - income_tax - contribution > 0
