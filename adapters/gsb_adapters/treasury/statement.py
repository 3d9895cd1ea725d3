"""What the bank said, held against the order that it is about, and what became of its payments.

Only a booked debit that fits a payment in every respect makes it settled; a bank's word that it will pay makes it
accepted. What fits no payment changes nothing and is told apart. It does no I/O; a crash means nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from gsb.sdk import Currency
from gsb_adapters.batch.iso20022 import Balance, Said
from gsb_adapters.treasury.orders import Order

STATES = ("pending", "accepted", "rejected", "settled", "returned")
"""In the order in which one overrides another, whenever they come."""
MOST_TOLD = 100
DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")


def note(order: Order, message: str, all_said: Iterable[Said]) -> dict[str, Any]:
    """What a message of the bank comes to for this order, to be kept with it."""
    fits, unmatched = [], set()
    for said in all_said:
        if (why := _misfit(order, said)) is None:
            fits.append([said.payment, said.state, said.reason])
        else:
            unmatched.add(why)
    return {"message": message, "said": fits, "unmatched": sorted(unmatched)}


def _misfit(order: Order, said: Said) -> str | None:
    """Why it fits no payment of this order; None if it does."""
    if said.wrong is not None:
        return said.wrong
    if said.account not in (None, order.account):
        return "account_differs"
    if said.payments not in (None, len(order.payments)):
        return "count_differs"
    if said.payment is None:
        return None
    if said.payment not in order.payments:
        return "unknown_payment"
    if said.money is None or said.money == (order.payments[said.payment], order.currency):
        return None
    return "currency_differs" if said.money.currency != order.currency else "amount_differs"


def statement(order: Order, notes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The order's part of the reply of ``payment-status``, after all that is noted with it."""
    found: dict[str, tuple[str, str | None]] = dict.fromkeys(order.payments, ("pending", None))
    unmatched, booked = [], Counter[str]()
    for each in notes:
        for payment, state, reason in each["said"]:
            for name in order.payments if payment is None else (payment,):
                found[name] = max(found[name], (state, reason), key=lambda told: (STATES.index(told[0]), told[1] or ""))
        twice = {name for name, state, _ in each["said"] if state == "settled" and booked[name]}
        booked.update(name for name, state, _ in each["said"] if state == "settled")
        unmatched += [{"message": each["message"], "why": why} for why in each["unmatched"]]
        unmatched += [{"message": each["message"], "why": "booked_again"}] if twice else []
    kinds = {state for state, _ in found.values()}
    settled = (order.payments[name] for name, (state, _) in found.items() if state == "settled")
    return {
        "order": order.message,
        "reference": order.reference,
        "state": kinds.pop() if len(kinds) == 1 else "mixed",
        "total": order.money(order.total),
        "settled": order.money(sum(settled, Decimal())),
        "payments": [
            {"end_to_end_id": name, "amount": order.money(order.payments[name]), "state": state}
            | ({} if reason is None else {"reason": reason})
            for name, (state, reason) in found.items()
        ],
        "unmatched": unmatched[:MOST_TOLD],
    }


def balance_of(balance: Balance) -> dict[str, Any] | None:
    """The reply of ``account-balance``; None if the statement contradicts itself."""
    if not DAY.fullmatch(balance.day) or balance.opening + balance.booked != balance.closing:
        return None
    told = {"account": balance.account, "day": balance.day, "entries": balance.entries}
    money = Currency(balance.currency).money
    return told | {"opening": money(balance.opening), "closing": money(balance.closing)}
