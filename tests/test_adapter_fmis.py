"""The adapter for financial management against a real Tryton with budgets, suppliers and a chart of accounts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from config.systems.running import Copy
from gsb.model import new_id
from gsb.schema import Schema
from gsb.sdk import Broken, Refused, Reply, Unavailable
from gsb_adapters.fmis import Fmis
from tests.support.adapters import opened, request
from tests.support.real import shared
from tests.support.tryton import books, number_of, settings

SCHEMAS = Path(__file__).parents[1] / "schemas"
WRITES = ("fmis/purchase-order/v1", "fmis/supplier-invoice/v1", "fmis/posting/v1")
TABLES = {
    "fmis/purchase-order/v1": ("purchase_purchase", "reference", {"confirmed", "processing"}),
    "fmis/supplier-invoice/v1": ("account_invoice", "description", {"posted"}),
    "fmis/posting/v1": ("account_move", "description", {"posted"}),
}
module_loop = pytest.mark.asyncio(loop_scope="module")
pytestmark = pytest.mark.slow


def money(amount: str, currency: str = "XOF") -> dict[str, str]:
    return {"amount": amount, "currency": currency}


def order(**more: Any) -> dict[str, Any]:
    line = {"description": "Desk for two pupils", "quantity": 3, "unit_price": money("31250.10")}
    return {"supplier": "SUP-001", "date": "2026-06-15", "description": "Desks", "lines": [line]} | more


def bill(*amounts: str, account: str = "6220", **more: Any) -> dict[str, Any]:
    lines = [{"account": account, "description": "Desks", "amount": money(each)} for each in amounts or ("93750.30",)]
    return {"supplier": "SUP-001", "reference": new_id(), "date": "2026-06-30", "lines": lines} | more


def entry(*lines: tuple[str, str, str], **more: Any) -> dict[str, Any]:
    given = lines or (("6110", "debit", "214500.50"), ("4470", "credit", "32175.08"), ("4210", "credit", "182325.42"))
    told = [{"account": account, "side": side, "amount": money(amount)} for account, side, amount in given]
    return {"date": "2026-09-30", "description": "Payroll 2026-09", "lines": told} | more


def budget(account: str = "6220", year: str = "2026", amount: Mapping[str, str] | None = None) -> dict[str, Any]:
    return {"account": account, "fiscal_year": year, "amount": dict(amount or money("1.00"))}


def payment(invoice: str, amount: str) -> dict[str, Any]:
    return {"invoice": invoice, "date": "2026-07-03", "amount": money(amount)}


BODIES = {"fmis/purchase-order/v1": order, "fmis/supplier-invoice/v1": bill, "fmis/posting/v1": entry}


def fits(service: str, side: str, body: Any) -> None:
    document = json.loads((SCHEMAS / service / f"{side}.json").read_bytes())
    assert Schema.compile(document, service).faults(body) == []


async def ask(fmis: Fmis, service: str, body: Any, **more: Any) -> Any:
    fits(f"fmis/{service}/v1", "request", body)
    reply = await fmis.handle(request(f"fmis/{service}/v1", body, **more))
    fits(f"fmis/{service}/v1", "reply", reply.body)
    return reply.body


tryton = shared("tryton")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fmis(tryton: Copy) -> AsyncIterator[Fmis]:
    async with opened(Fmis, settings(tryton), {}, timeout=60) as adapter:
        yield adapter


def documents(tryton: Copy, service: str, exchange: str) -> list[str]:
    """The states of what stands in the books for an exchange."""
    table, field, _ = TABLES[service]
    return [state for (state,) in books(tryton.place.folder, f"SELECT state FROM {table} WHERE {field} = ?", exchange)]


# --- what each service does


@module_loop
async def test_from_the_budget_to_the_last_payment(fmis: Fmis) -> None:
    before = await ask(fmis, "budget-availability", budget(amount=money("50000000.01")))
    assert before["sufficient"] is False
    ordered = await ask(fmis, "purchase-order", order())
    assert (ordered["state"], ordered["total"]) == ("confirmed", money("93750.30"))
    posted = await ask(fmis, "supplier-invoice", bill(order=ordered["order"]))
    assert (posted["state"], posted["total"]) == ("posted", money("93750.30"))
    after = await ask(fmis, "budget-availability", budget())
    assert Decimal(before["available"]["amount"]) - Decimal(after["available"]["amount"]) == Decimal("93750.30")
    asked = {"invoice": posted["invoice"]}
    assert (await ask(fmis, "payment-status", asked))["state"] == "open"
    part = await ask(fmis, "supplier-payment", payment(posted["invoice"], "93750.29"))
    assert (part["state"], part["paid"], part["outstanding"]) == ("open", money("93750.29"), money("0.01"))
    await ask(fmis, "supplier-payment", payment(posted["invoice"], "0.01"))
    paid = await ask(fmis, "payment-status", asked)
    assert (paid["state"], paid["paid"], paid["outstanding"]) == ("paid", money("93750.30"), money("0.00"))


@module_loop
async def test_a_budget_covers_what_it_holds_to_the_last_unit(fmis: Fmis) -> None:
    left = (await ask(fmis, "budget-availability", budget()))["available"]
    assert (await ask(fmis, "budget-availability", budget(amount=left)))["sufficient"] is True
    more = money(str(Decimal(left["amount"]) + Decimal("0.01")))
    assert (await ask(fmis, "budget-availability", budget(amount=more)))["sufficient"] is False


@module_loop
async def test_amounts_that_floats_cannot_hold_arrive_exactly(fmis: Fmis, tryton: Copy) -> None:
    large = "90071992547409.93"
    lines = [("6110", "debit", "0.10"), ("6110", "debit", "0.20"), ("6110", "debit", large)]
    posted = await ask(fmis, "posting", entry(*lines, ("4210", "credit", "90071992547410.23")))
    assert posted["total"] == money("90071992547410.23")
    assert (await ask(fmis, "supplier-invoice", bill("0.10", "0.20")))["total"] == money("0.30")


# --- what is refused, and leaves nothing


@module_loop
@pytest.mark.parametrize(
    ("service", "body", "code"),
    [
        ("budget-availability", budget("9999"), "budget_unknown"),
        ("budget-availability", budget(year="2099"), "budget_unknown"),
        ("budget-availability", budget(amount=money("1.00", "EUR")), "currency_invalid"),
        ("budget-availability", budget(amount=money("1.005")), "amount_invalid"),
        ("payment-status", {"invoice": "2026-999999"}, "invoice_unknown"),
        ("purchase-order", order(supplier="SUP-999"), "supplier_unknown"),
        ("supplier-invoice", bill(supplier="SUP-999"), "supplier_unknown"),
        ("supplier-invoice", bill(account="9999"), "account_unknown"),
        ("supplier-invoice", bill(order="999999"), "order_unknown"),
        ("supplier-invoice", bill(date="2040-01-01"), "period_closed"),
        ("supplier-payment", payment("2026-999999", "1.00"), "invoice_unknown"),
        ("posting", entry(("6110", "debit", "1.00"), ("4210", "credit", "1.01")), "unbalanced"),
        ("posting", entry(("6110", "debit", "0.00"), ("4210", "credit", "0.00")), "amount_invalid"),
        ("posting", entry(("9999", "debit", "1.00"), ("4210", "credit", "1.00")), "account_unknown"),
        ("posting", entry(date="2040-01-01"), "period_closed"),
        # Tryton's own: debts to a supplier say to whom.
        ("posting", entry(("6110", "debit", "1.00"), ("4010", "credit", "1.00")), "rejected"),
    ],
)
async def test_what_is_refused_leaves_nothing(fmis: Fmis, tryton: Copy, service: str, body: Any, code: str) -> None:
    tables = ("purchase_purchase", "account_invoice", "account_move")
    before = [number_of(tryton.place.folder, table) for table in tables]
    with pytest.raises(Refused) as raised:
        await ask(fmis, service, body)
    assert raised.value.code == code
    assert [number_of(tryton.place.folder, table) for table in tables] == before


@module_loop
async def test_an_order_of_another_supplier_pays_no_invoice(fmis: Fmis) -> None:
    ordered = await ask(fmis, "purchase-order", order(supplier="SUP-002"))
    with pytest.raises(Refused) as raised:
        await ask(fmis, "supplier-invoice", bill(order=ordered["order"]))
    assert raised.value.code == "order_unknown"


@module_loop
async def test_an_invoice_is_not_paid_beyond_what_it_says(fmis: Fmis) -> None:
    posted = await ask(fmis, "supplier-invoice", bill("10.00"))
    with pytest.raises(Refused) as raised:
        await ask(fmis, "supplier-payment", payment(posted["invoice"], "10.01"))
    assert raised.value.code == "rejected"
    assert (await ask(fmis, "payment-status", {"invoice": posted["invoice"]}))["paid"] == money("0.00")


@module_loop
async def test_a_suppliers_number_sent_by_somebody_else_is_refused_and_leaves_no_draft(
    fmis: Fmis, tryton: Copy
) -> None:
    body, again = bill(), new_id()
    await ask(fmis, "supplier-invoice", body)
    with pytest.raises(Refused) as raised:
        await ask(fmis, "supplier-invoice", body, exchange=again)
    assert raised.value.code == "duplicate"
    assert documents(tryton, "fmis/supplier-invoice/v1", again) == []


@module_loop
async def test_what_the_user_has_no_right_to_is_for_an_operator(tryton: Copy, tmp_path: Path) -> None:
    (tmp_path / "poor").write_text("a-long-enough-password")
    poor = {"name": "Poor", "login": "poor", "password": "a-long-enough-password", "company": 1}
    as_admin = settings(tryton, user="admin", password=str((tryton.place.folder / "admin-password").resolve()))
    async with opened(Fmis, as_admin, {}) as admin:
        await admin._tryton.call("model.res.user.create", [poor | {"companies": [["add", [1]]]}])
    async with opened(Fmis, settings(tryton, user="poor", password=str(tmp_path / "poor")), {}) as fmis:
        with pytest.raises(Broken, match="not allowed"):
            await ask(fmis, "supplier-invoice", bill())


@module_loop
@pytest.mark.parametrize(
    ("setting", "service", "body"),
    [
        ("journal", "posting", entry()),
        ("invoice_journal", "supplier-invoice", bill()),
        ("payment_method", "supplier-payment", payment("", "1.00")),
    ],
)
async def test_what_the_settings_name_and_the_books_lack_is_for_an_operator(
    fmis: Fmis, tryton: Copy, setting: str, service: str, body: Any
) -> None:
    if service == "supplier-payment":
        body = body | {"invoice": (await ask(fmis, "supplier-invoice", bill()))["invoice"]}
    async with opened(Fmis, settings(tryton, **{setting: "NONE"}), {}) as other:
        with pytest.raises(Broken, match="NONE"):
            await ask(other, service, body)


@module_loop
async def test_a_service_that_it_does_not_have_is_for_an_operator(fmis: Fmis) -> None:
    with pytest.raises(Broken, match="no service"):
        await fmis.handle(request("fmis/nonesuch/v1", {}))


# --- one effect


@module_loop
@pytest.mark.parametrize("service", WRITES)
async def test_a_repeat_has_one_effect_and_the_same_reply(fmis: Fmis, tryton: Copy, service: str) -> None:
    asked = request(service, BODIES[service]())
    first, second = [(await fmis.handle(asked)).body for _ in range(2)]
    assert first == second
    assert await fmis.find(asked) == Reply(first)
    (state,) = documents(tryton, service, asked.exchange)
    assert state in TABLES[service][2]


class Losing(Fmis):
    """Loses the answer to one of its calls, which Tryton carried out."""

    def lose(self, number: int) -> None:
        whole, calls = self._tryton.call, iter(range(1_000))

        async def call(method: str, *params: Any, **more: Any) -> Any:
            result = await whole(method, *params, **more)
            if next(calls) == number:
                self._tryton.call = whole  # type: ignore[method-assign]
                raise Unavailable("lost", sent=True)
            return result

        self._tryton.call = call  # type: ignore[method-assign]


@module_loop
@pytest.mark.parametrize("service", WRITES)
async def test_wherever_a_try_breaks_off_the_next_one_ends_with_one_document(tryton: Copy, service: str) -> None:
    async with opened(Losing, settings(tryton), {}, timeout=60) as fmis:
        for number in range(100):
            asked = request(service, BODIES[service]())
            fmis.lose(number)
            try:
                await fmis.handle(asked)
            except Unavailable:
                found = await fmis.find(asked)
                reply = await fmis.handle(asked)
                assert found in (None, reply)
                (state,) = documents(tryton, service, asked.exchange)
                assert state in TABLES[service][2]
            else:
                break
        assert number >= 7  # so many answers could be lost


@module_loop
async def test_wherever_a_refusal_breaks_off_no_draft_is_left(tryton: Copy) -> None:
    body = bill()
    async with opened(Losing, settings(tryton), {}, timeout=60) as fmis:
        await ask(fmis, "supplier-invoice", body)
        for number in range(100):
            asked = request("fmis/supplier-invoice/v1", body)
            fmis.lose(number)
            with pytest.raises((Unavailable, Refused)) as raised:
                await fmis.handle(asked)
            if isinstance(raised.value, Refused):
                break
            with pytest.raises(Refused) as refused:
                await fmis.handle(asked)
            assert refused.value.code == "duplicate"
            assert documents(tryton, asked.service, asked.exchange) == []
        assert number >= 7


@module_loop
async def test_a_draft_that_another_try_leaves_meanwhile_is_no_duplicate(tryton: Copy) -> None:
    asked = request("fmis/supplier-invoice/v1", bill())
    async with opened(Fmis, settings(tryton), {}, timeout=60) as fmis:
        whole, left = fmis._tryton.call, iter([True])

        async def call(method: str, *params: Any, **more: Any) -> Any:
            if method.endswith(".post") and next(left, False):
                await leave_drafts(fmis, asked, 1)
            return await whole(method, *params, **more)

        fmis._tryton.call = call  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await fmis.handle(asked)
        await fmis.handle(asked)
    assert documents(tryton, asked.service, asked.exchange) == ["posted"]


@module_loop
@pytest.mark.parametrize("number", [1, 4, 5, 7])
async def test_a_payment_whose_answer_was_lost_is_found(tryton: Copy, number: int) -> None:
    async with opened(Losing, settings(tryton), {}, timeout=60) as fmis:
        posted = await ask(fmis, "supplier-invoice", bill("10.00"))
        asked = request("fmis/supplier-payment/v1", payment(posted["invoice"], "4.00"))
        fmis.lose(number)
        with pytest.raises(Unavailable):
            await fmis.handle(asked)
        found = await fmis.find(asked)
        left = (await ask(fmis, "payment-status", {"invoice": posted["invoice"]}))["outstanding"]
        assert left == money("10.00" if found is None else "6.00")
        paid = await fmis.handle(asked)
        assert paid.body["outstanding"] == money("6.00")


@module_loop
async def test_drafts_of_tries_that_went_on_by_themselves_become_one(fmis: Fmis, tryton: Copy) -> None:
    for service in WRITES:
        asked = request(service, BODIES[service]())
        await leave_drafts(fmis, asked, 2)
        assert await fmis.find(asked) is None
        await fmis.handle(asked)
        (state,) = documents(tryton, service, asked.exchange)
        assert state in TABLES[service][2]


async def leave_drafts(fmis: Fmis, asked: Any, count: int) -> None:
    session, name = await fmis._tryton.session(), asked.service.split("/")[1]
    values = await fmis._values(session, name, asked)
    model = {"purchase-order": "purchase.purchase", "supplier-invoice": "account.invoice", "posting": "account.move"}
    for _ in range(count):
        await fmis._tryton.call(f"model.{model[name]}.create", [values])


@module_loop
async def test_what_a_person_cancelled_meanwhile_is_for_an_operator(fmis: Fmis) -> None:
    asked = request("fmis/supplier-invoice/v1", bill())
    await leave_drafts(fmis, asked, 1)
    (draft,) = await fmis._tryton.read("account.invoice", [["description", "=", asked.exchange]], ["state"])
    await fmis._tryton.call("model.account.invoice.cancel", [draft["id"]])
    with pytest.raises(Broken):
        await fmis.handle(asked)
    assert await fmis.find(asked) is None


@module_loop
async def test_many_at_once_share_one_login(tryton: Copy) -> None:
    before = number_of(tryton.place.folder, "ir_session")
    async with opened(Fmis, settings(tryton), {}, timeout=60) as fmis:
        replies = await asyncio.gather(*(ask(fmis, "budget-availability", budget()) for _ in range(8)))
        assert len(replies) == 8
        assert number_of(tryton.place.folder, "ir_session") == before + 1
