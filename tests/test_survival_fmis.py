"""Financial management survives a Tryton that is slowed, cut off, killed, stopped and started again, at work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from config.systems.running import Copy
from gsb_adapters.fmis import Fmis
from tests.support.adapters import opened, request
from tests.support.real import real
from tests.support.survival import ENOUGH, Ask, survives
from tests.support.tryton import books, settings

DONE = {
    "purchase_purchase": ("reference", "('confirmed', 'processing', 'done')"),
    "account_invoice": ("description", "('posted', 'paid')"),
    "account_move": ("description", "('posted')"),
}


@pytest_asyncio.fixture
async def tryton(tmp_path: Path) -> AsyncIterator[Copy]:
    async with real("tryton", tmp_path) as system:
        yield system


def ask(number: int, invoices: Iterator[str]) -> Ask:
    """Each writing one has an effect of its own; a payment is the only service that is not repeatable."""
    amount = {"amount": f"{number}.10", "currency": "XOF"}
    match number % 10:
        case 0:
            line = {"description": "Desk", "quantity": 1, "unit_price": amount}
            body: dict[str, Any] = {"supplier": "SUP-001", "description": "Desks", "lines": [line]}
            return Ask("fmis/purchase-order/v1", body | {"date": "2026-06-15"})
        case 5:
            line = {"account": "6220", "description": "Desk", "amount": amount}
            body = {"supplier": "SUP-001", "reference": f"AC-{number}", "lines": [line]}
            return Ask("fmis/supplier-invoice/v1", body | {"date": "2026-06-30"})
        case 1 | 6:
            sides = (("6110", "debit"), ("4210", "credit"))
            lines = [{"account": account, "side": side, "amount": amount} for account, side in sides]
            return Ask("fmis/posting/v1", {"description": "Payroll", "lines": lines, "date": "2026-09-30"})
        case 2 | 7:
            part = {"amount": "1.00", "currency": "XOF"}
            return Ask("fmis/supplier-payment/v1", {"invoice": next(invoices), "date": "2026-07-03", "amount": part})
        case _:
            return Ask("fmis/budget-availability/v1", {"account": "6220", "fiscal_year": "2026", "amount": amount})


async def posted(tryton: Copy, count: int) -> list[str]:
    """Invoices to pay."""
    line = {"account": "6220", "description": "Chair", "amount": {"amount": "100.00", "currency": "XOF"}}
    bill = {"supplier": "SUP-002", "date": "2026-06-30", "lines": [line]}
    async with opened(Fmis, settings(tryton), {}, timeout=60) as fmis:
        asked = [request("fmis/supplier-invoice/v1", bill | {"reference": f"BW-{each}"}) for each in range(count)]
        return [(await fmis.handle(each)).body["invoice"] for each in asked]


@pytest.mark.slow
async def test_everything_written_ends_once_and_leaves_no_draft(tryton: Copy, tmp_path: Path) -> None:
    folder = tryton.place.folder
    invoices = iter(await posted(tryton, ENOUGH // 5))
    asks = [ask(number, invoices) for number in range(ENOUGH)]

    async def effects(exchange: str, body: Any) -> int:
        found = 0
        for table, (field, states) in DONE.items():
            statement = f"SELECT count(*) FROM {table} WHERE {field} = ? AND state IN {states}"
            found += int(books(folder, statement, exchange)[0][0])
        return found

    told = await survives(tmp_path, tryton, "fmis", asks, effects)
    # Only a payment may have had no outcome but an operator's.
    assert told.states["done"] >= ENOUGH - sum(each.service == "fmis/supplier-payment/v1" for each in asks)
    assert told.states["done"] + told.states["failed"] == ENOUGH
    for table in DONE:
        assert books(folder, f"SELECT count(*) FROM {table} WHERE state = 'draft'") == [(0,)]
