"""The payroll of a ministry, run as one composed service over personnel, civil registry, taxes, books and bank.

What it came to is then counted in each of these systems, not through the bus, and must agree to the cent.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from config.government.play import counts, personnel
from config.government.play.moved import Ledger
from config.government.play.procurement import settled
from config.systems.running import Copy

PERIOD, DATE = "2026-09", "2026-09-28"
RUN = "payroll/run/v1"
WITHIN = 3_600.0
"""Seconds that a payroll may take; 200 people need a few."""
ACCOUNTS = {"gross": "6110", "income_tax": "4470", "social_security_contribution": "4310", "net": "4210"}
"""Where the totals are posted, as ``systems/payroll.toml`` says."""


async def play(ledger: Ledger, systems: Mapping[str, Copy], staff: list[personnel.Person]) -> None:
    """Run it, show its steps, and count."""
    ledger.report.chapter = f"Payroll of {len(staff)} people, {PERIOD}"
    before = await counts.postings(systems["tryton"].place, [*ACCOUNTS.values()])
    body = {"ministry": personnel.MINISTRY, "period": PERIOD, "date": DATE}
    options: dict[str, Any] = {"purpose": "payroll", "sub": "payroll-officer-1", "timeout": WITHIN}
    key = f"payroll-{personnel.MINISTRY}-{PERIOD}"
    what = f"payroll of {len(staff)} people"
    reply = await ledger.call("public-service-ministry", RUN, body, what, idempotency_key=key, **options)
    await ledger.add_steps()
    if reply is not None:
        await answered(ledger, reply)
        await agree(ledger, systems, staff, reply, before)


async def answered(ledger: Ledger, reply: Mapping[str, Any]) -> None:
    """What the bank says of each order."""
    found = Decimal()
    for order in reply["payment_orders"]:
        asked, what = {"order": order["order"]}, f"the bank's answer to order {order['reference']}"
        options = {"purpose": "payroll"}
        said = await ledger.until("payroll-agency", "treasury/payment-status/v1", asked, what, settled, **options)
        found += Decimal(said["settled"]["amount"]) if said else 0
    ledger.report.fact("settled by the bank", f"{reply['totals']['net']['amount']} XOF", f"{found} XOF")


async def agree(
    ledger: Ledger,
    systems: Mapping[str, Copy],
    staff: list[personnel.Person],
    reply: Mapping[str, Any],
    before: Mapping[str, Any],
) -> None:
    """The same totals in every system. ``before``: what stood in the books already."""
    report, ghosts = ledger.report, {person.employee: person.ghost for person in staff if person.ghost}
    withheld = {line["employee"]: line["reason"] for line in reply["withheld"]}
    told = f"{len(ghosts)} ghosts, each for its reason"
    report.fact("who was not paid", told, told if withheld == ghosts else f"{len(withheld)} others")
    totals = {name: Decimal(amount["amount"]) for name, amount in reply["totals"].items()}
    gross, net = f"{totals['gross']} XOF", f"{totals['net']} XOF"
    paid = counts.salaries(ledger.site.personnel, but=ghosts)
    report.fact("gross, in the personnel database", gross, f"{sum(paid.values())} XOF")
    found = await counts.taxes(systems["openfisca"].url, paid, PERIOD)
    kept = sum((totals[name] for name in counts.FIGURES), Decimal())
    report.fact("withheld, computed by the tax engine once more", f"{kept} XOF", f"{sum(found.values())} XOF")
    books = await counts.postings(systems["tryton"].place, [*ACCOUNTS.values()])
    posted = {name: sum(map(sum, books[code])) - sum(map(sum, before[code])) for name, code in ACCOUNTS.items()}
    report.fact("gross, in the books", gross, f"{posted['gross']} XOF")
    report.fact("owed to the people, in the books", net, f"{posted['net']} XOF")
    files = {f"{order['order']}.xml" for order in reply["payment_orders"]}
    payments = [each for each in counts.payments(systems["sshd"].place.folder / "bank") if each.file in files]
    report.fact("people in the payment files", f"{len(paid)} people", f"{len({each.name for each in payments})} people")
    amount = sum((each.amount for each in payments), Decimal())
    report.fact("net, in the payment files", net, f"{amount} XOF")
