"""A ministry's payroll of a month: every page assessed, one budget check, one posting of the totals, then the payments.

Composed of ``call``s of other services. Everything is known before anything is done: a payroll that its budget does not
cover pays nobody, and nobody is paid before the posting is confirmed. A crash, or the end of its time, means that the
whole is taken up again; each step keeps the outcome it had, so no page is assessed twice and nobody is paid twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import Field

from gsb.sdk import Adapter, Broken, Currency, NoSettings, Refused, Reply, Request, Settings

TOTALS = ("gross", "income_tax", "social_security_contribution", "net")
NAME = 70
"""Characters of a creditor's name that banks take (ISO 20022, Max70Text)."""
SERVICE = r"^[a-z][a-z0-9-]*/[a-z][a-z0-9-]*/v[1-9][0-9]*$"
Line = Mapping[str, Any]


class Accounts(Settings):
    """Codes of accounts in the financial management system."""

    gross: str
    """Salaries: debited with all of it, and the one whose budget must cover it."""
    income_tax: str
    """Owed to the tax authority: credited."""
    social_security_contribution: str
    """Owed to the social insurance: credited."""
    net: str
    """Owed to the people, until they are paid: credited."""


class PayrollSettings(Settings):
    """``[settings]`` of a system with the adapter ``payroll_run``."""

    currency: str = Field(pattern=r"^[A-Z]{3}$")
    """The currency (ISO 4217) of the payroll."""
    debtor_account: str
    """The treasury's account (IBAN) from which is paid."""
    accounts: Accounts
    """The accounts to which the totals are posted."""
    assessment: str = Field(default="payroll-assessment/page/v1", pattern=SERVICE)
    """The service that assesses a page."""
    budget: str = Field(default="fmis/budget-availability/v1", pattern=SERVICE)
    """The service that tells what is left of a budget."""
    posting: str = Field(default="fmis/posting/v1", pattern=SERVICE)
    """The service that posts an entry."""
    payment_order: str = Field(default="treasury/payment-order/v1", pattern=SERVICE)
    """The service that orders payments."""
    purpose: str = "payroll"
    """The purpose under which the agreements grant these services."""
    page: int = Field(default=100, ge=1, le=200)
    """People on a page. Each page is an exchange, with one for the list and two for each of its people."""
    payments: int = Field(default=1_000, ge=1, le=1_000)
    """Payments in an order, at most."""


class PayrollRun(Adapter[PayrollSettings, NoSettings]):
    """``run``: the payroll of a ministry and month."""

    Settings = PayrollSettings

    async def handle(self, request: Request) -> Reply:
        pages = await self._pages(request)
        payments = [payment for page in pages for payment in page["payments"]]
        totals = {name: total(page["totals"][name] for page in pages) for name in TOTALS}
        if total(payment["amount"] for payment in payments) != totals["net"]:
            raise Broken("the payments are not the totals of their pages")
        if not payments:
            raise Refused("nobody_to_pay")
        await self._check_budget(request, totals["gross"])
        posting = await self._post(request, totals)
        size = self.context.settings.payments
        parts = [payments[first : first + size] for first in range(0, len(payments), size)]
        reply = {
            "ministry": request.body["ministry"],
            "period": request.body["period"],
            "people": sum(page["people"] for page in pages),
            "paid": len(payments),
            "withheld": [line for page in pages for line in page["withheld"]],
            "totals": {name: self._money(amount) for name, amount in totals.items()},
            "posting": posting,
            "payment_orders": [await self._order(request, number, part) for number, part in enumerate(parts, start=1)],
        }
        return Reply(reply)

    async def _call(self, request: Request, service: str, body: Any, step: str) -> Any:
        return await self.context.call(request, service, body, step=step, purpose=self.context.settings.purpose)

    async def _pages(self, request: Request) -> list[Line]:
        """One after the other, since each says where the next begins."""
        body = {name: request.body[name] for name in ("ministry", "period")} | {"limit": self.context.settings.page}
        pages = list[Line]()
        while not pages or "next" in pages[-1]:
            before, body = body.get("after", ""), body | ({"after": pages[-1]["next"]} if pages else {})
            if pages and body["after"] <= before:
                raise Broken("a page of the payroll leads back")
            page = self._call(request, self.context.settings.assessment, body, f"page-{len(pages) + 1}")
            pages.append(await page)
        return pages

    async def _check_budget(self, request: Request, gross: Decimal) -> None:
        settings, year = self.context.settings, request.body["date"][:4]
        asked = {"account": settings.accounts.gross, "fiscal_year": year, "amount": self._money(gross)}
        if (await self._call(request, settings.budget, asked, "budget"))["sufficient"] is not True:
            raise Refused("budget_insufficient")

    async def _post(self, request: Request, totals: Mapping[str, Decimal]) -> str:
        """The number of the entry. An entry has no lines of nothing."""
        settings, body = self.context.settings, request.body
        lines = [
            {
                "account": getattr(settings.accounts, name),
                "side": "debit" if name == "gross" else "credit",
                "amount": self._money(amount),
            }
            for name, amount in totals.items()
            if amount
        ]
        entry = {"date": body["date"], "description": f"Payroll {body['ministry']} {body['period']}", "lines": lines}
        return str((await self._call(request, settings.posting, entry, "posting"))["posting"])

    async def _order(self, request: Request, number: int, payments: Sequence[Line]) -> Line:
        settings, period = self.context.settings, request.body["period"]
        asked = {
            "reference": f"{period}-{request.body['ministry']}-{number}",
            "debtor_account": settings.debtor_account,
            "execution_date": request.body["date"],
            "total": self._money(total(payment["amount"] for payment in payments)),
            "payments": [
                {
                    "end_to_end_id": f"{period}-{payment['employee']}",
                    "creditor_name": payment["name"][:NAME],
                    "creditor_account": payment["bank_account"],
                    "amount": payment["amount"],
                    "remittance": f"Salary {period}",
                }
                for payment in payments
            ],
        }
        ordered = await self._call(request, settings.payment_order, asked, f"payment-order-{number}")
        return {name: ordered[name] for name in ("order", "reference", "payments", "total")}

    def _money(self, amount: Decimal) -> Line:
        return Currency(self.context.settings.currency).money(amount)


def total(amounts: Iterable[Line]) -> Decimal:
    return sum((Decimal(each["amount"]) for each in amounts), Decimal())
