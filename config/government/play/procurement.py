"""From a procurement to its payment: supplier, budget, order, invoice, payment file, the bank's answer, paid.

Each step is another agency's, in the order in which public money is spent; what one system answers is what the next is
asked. A step that does not come out well ends it, and the report says where.
"""

from __future__ import annotations

import time
from typing import Any

from config.government.play.moved import Ledger

PROCUREMENT, FINANCE, TREASURY = "procurement-authority", "ministry-of-finance", "treasury"
SUPPLIER, BUSINESS, NAME = "SUP-001", "BRN-000001", "Acme Construction"
ACCOUNT, DATE = "6220", "2026-09-28"
TOTAL = {"amount": "1250000.00", "currency": "XOF"}
DESKS: dict[str, Any] = {
    "description": "Desk for two pupils",
    "quantity": 40,
    "unit_price": {"amount": "31250.00", "currency": "XOF"},
}
DEBTOR, CREDITOR = "XA92TREASURY000000000001", "XA35000000000000000001"
OFFICER: dict[str, Any] = {"purpose": "procurement", "sub": "procurement-officer-1"}
PAYMENT: dict[str, Any] = {"purpose": "payment"}


async def play(ledger: Ledger) -> None:
    """The whole chain."""
    ledger.report.chapter = "From procurement to payment"
    # The core systems outlive a run, and an invoice's number counts once.
    number = f"AC-{int(time.time())}"
    what = "may the supplier trade?"
    await ledger.call(PROCUREMENT, "registry/business/v1", {"brn": BUSINESS}, what, purpose="supplier-check")
    asked = {"account": ACCOUNT, "fiscal_year": DATE[:4], "amount": TOTAL}
    budget = await ledger.call(
        PROCUREMENT, "fmis/budget-availability/v1", asked, "is there budget?", purpose="procurement"
    )
    ledger.report.fact("budget for it", "enough", "enough" if budget and budget["sufficient"] else "not enough")
    await release(ledger, number)
    order = await ledger.call(
        PROCUREMENT,
        "fmis/purchase-order/v1",
        {"supplier": SUPPLIER, "date": DATE, "description": "School desks", "lines": [DESKS]},
        f"order {TOTAL['amount']} XOF",
        idempotency_key=f"order-{number}",
        **OFFICER,
    )
    if order is not None:
        await invoice(ledger, number, order["order"])


async def release(ledger: Ledger, number: str) -> None:
    """The contract is published as open data, and its record compiled."""
    party = {"id": "XX-MOE", "name": "Ministry of Education", "roles": ["buyer"]}
    body = {
        "process": f"MOE-{number}",
        "tag": ["tender"],
        "language": "en",
        "parties": [party],
        "buyer": {"id": party["id"], "name": party["name"]},
        "tender": {"id": f"MOE-{number}-T", "title": "School desks", "status": "active", "value": TOTAL},
    }
    options: dict[str, Any] = {"purpose": "transparency"}
    key = f"release-{number}"
    await ledger.call(FINANCE, "procurement/release/v1", body, "publish the tender", idempotency_key=key, **options)
    process = {"process": body["process"]}
    await ledger.call(FINANCE, "procurement/record/v1", process, "compile its record", **options)


async def invoice(ledger: Ledger, number: str, order: str) -> None:
    line = {"account": ACCOUNT, "description": "40 desks", "amount": TOTAL}
    posted = await ledger.call(
        PROCUREMENT,
        "fmis/supplier-invoice/v1",
        {"supplier": SUPPLIER, "reference": number, "date": DATE, "order": order, "lines": [line]},
        f"invoice {number}",
        idempotency_key=f"invoice-{number}",
        **OFFICER,
    )
    if posted is not None:
        await pay(ledger, number, posted["invoice"])


async def pay(ledger: Ledger, number: str, invoiced: str) -> None:
    payment = {
        "end_to_end_id": number,
        "creditor_name": NAME,
        "creditor_account": CREDITOR,
        "amount": TOTAL,
        "remittance": f"Invoice {number}",
    }
    order = await ledger.call(
        FINANCE,
        "treasury/payment-order/v1",
        {
            "reference": number,
            "debtor_account": DEBTOR,
            "execution_date": DATE,
            "total": TOTAL,
            "payments": [payment],
        },
        "payment file to the bank",
        idempotency_key=f"payment-{number}",
        **PAYMENT,
    )
    if order is None:
        return
    asked = {"order": order["order"]}
    status = await ledger.until(FINANCE, "treasury/payment-status/v1", asked, "the bank's answer", settled, **PAYMENT)
    ledger.report.fact("what the bank says", "settled", str(status and status["state"]))
    paid = {"invoice": invoiced, "date": DATE, "amount": TOTAL}
    key = f"supplier-payment-{number}"
    await ledger.call(
        TREASURY, "fmis/supplier-payment/v1", paid, "the payment into the books", idempotency_key=key, **PAYMENT
    )
    status = await ledger.call(
        PROCUREMENT, "fmis/payment-status/v1", {"invoice": invoiced}, "is it paid?", purpose="procurement"
    )
    ledger.report.fact("what the books say", "paid", str(status and status["state"]))


def settled(status: Any) -> bool:
    """Whether the bank has said all that it will."""
    return bool(status["state"] not in ("pending", "accepted"))
