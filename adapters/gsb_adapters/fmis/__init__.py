"""A financial management system on Tryton 7.0: budgets, purchase orders, supplier invoices, payments, journal entries.

Whatever is written carries the id of its exchange, so a repeat finds what an earlier try left, at whatever point that
ended, and goes on from there. A document begins as a draft, which moves no money; a crash leaves a draft at most.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple

from gsb.sdk import Adapter, AdapterError, Broken, Context, NoSettings, Refused, Reply, Request, Unavailable, acted
from gsb_adapters.tryton import Client, Record, Session, TrytonSettings, Warned, untouched

INVOICE_STATES = {"posted": "open", "paid": "paid", "cancelled": "cancelled"}
INVOICE = ("number", "reference", "state", "total_amount", "amount_to_pay", "party.code")


class FmisSettings(TrytonSettings):
    """``[settings]`` of a system with the adapter ``fmis``."""

    payable: str = "4010"
    """Code of the account on which debts to suppliers stand."""
    invoice_journal: str = "EXP"
    """Code of the journal of suppliers' invoices."""
    journal: str = "MISC"
    """Code of the journal of the entries of ``posting``."""
    payment_method: str = "Treasury single account"
    """Name of the payment method with which payments to suppliers are entered."""


class Kind(NamedTuple):
    """One kind of document in Tryton."""

    model: str
    exchange: str
    """The field that holds the exchange."""
    fields: tuple[str, ...]
    steps: Mapping[str, tuple[str, ...]]
    """What makes of a draft in this state a document that counts."""
    done: tuple[str, ...]
    """The states of one that counts."""


ORDER = Kind(
    "purchase.purchase",
    "reference",
    ("number", "state", "total_amount", "party.code"),
    {"draft": ("quote", "confirm"), "quotation": ("confirm",)},
    ("confirmed", "processing", "done"),
)
BILL = Kind("account.invoice", "description", INVOICE, {"draft": ("post",), "validated": ("post",)}, ("posted", "paid"))
ENTRY = Kind(
    "account.move", "description", ("post_number", "state", "date", "lines.debit"), {"draft": ("post",)}, ("posted",)
)
WIZARD = "wizard.account.invoice.pay"
KINDS = {"purchase-order": ORDER, "supplier-invoice": BILL, "posting": ENTRY}


class Fmis(Adapter[FmisSettings, NoSettings]):
    """One method for each service; what they share are the documents."""

    Settings = FmisSettings

    def __init__(self, context: Context[FmisSettings, NoSettings]) -> None:
        super().__init__(context)
        self._tryton = Client(context)

    async def check(self) -> None:
        await self._tryton.check()

    async def handle(self, request: Request) -> Reply:
        body, service = request.body, request.service.split("/")[1]
        if service == "supplier-payment":
            return await self._paid(request)
        session = await self._tryton.session()
        match service:
            case "budget-availability":
                return Reply(await self._budget(session, body))
            case "payment-status":
                return Reply(_status(session, await self._invoice(session, body["invoice"])))
            case name if name in KINDS:
                return Reply(_document(session, name, await self._settled(session, name, request)))
        raise Broken(f"there is no service {request.service}")

    async def find(self, request: Request) -> Reply | None:
        session, name = await self._tryton.session(), request.service.split("/")[1]
        if name == "supplier-payment":
            paid = await self._made(session, ENTRY, request.exchange)
            return Reply(_status(session, await self._invoice(session, request.body["invoice"]))) if paid else None
        kind = KINDS[name]
        found = [each for each in await self._made(session, kind, request.exchange) if each["state"] in kind.done]
        return Reply(_document(session, name, found[0])) if found else None

    # --- what is asked

    async def _budget(self, session: Session, body: Mapping[str, Any]) -> dict[str, Any]:
        wanted = session.currency.exact(body["amount"])
        lines = await self._tryton.read(
            "account.budget.line",
            [
                ["account.code", "=", body["account"]],
                ["budget.fiscalyear.name", "=", body["fiscal_year"]],
                ["budget.company", "=", session.company],
                ["amount", "!=", None],
            ],
            ["amount", "actual_amount"],
        )
        if not lines:
            raise Refused("budget_unknown")
        if len(lines) > 1:
            raise Broken("the account stands in several budgets of the year")
        budgeted, spent = _decimal(lines[0], "amount"), _decimal(lines[0], "actual_amount")
        return {
            "account": body["account"],
            "fiscal_year": body["fiscal_year"],
            "budgeted": session.currency.money(budgeted),
            "spent": session.currency.money(spent),
            "available": session.currency.money(budgeted - spent),
            "sufficient": budgeted - spent >= wanted,
        }

    async def _invoice(self, session: Session, number: str) -> Record:
        of_supplier = [["type", "=", "in"], ["company", "=", session.company]]
        domain = [["number", "=", number], ["state", "in", list(INVOICE_STATES)], *of_supplier]
        return await self._one("account.invoice", domain, INVOICE, "invoice_unknown")

    async def _one(self, model: str, domain: Sequence[Any], fields: Sequence[str], code: str) -> Record:
        """The only record of which this holds. Raises ``Refused`` with the code if there is none."""
        found = await self._tryton.read(model, domain, fields, limit=2)
        if not found:
            raise Refused(code)
        if len(found) > 1:
            raise Broken(f"{code.removesuffix('_unknown')}: there are two of them")
        return found[0]

    # --- documents: a draft, of which Tryton makes what counts

    async def _made(self, session: Session, kind: Kind, exchange: str) -> list[Record]:
        """What tries of this exchange left, the first one first."""
        domain = [[kind.exchange, "=", exchange], ["company", "=", session.company]]
        return await self._tryton.read(kind.model, domain, kind.fields)

    async def _settled(self, session: Session, name: str, request: Request) -> Record:
        """The one document of this exchange, whichever try made it, in its last state."""
        kind = KINDS[name]
        found = await self._made(session, kind, request.exchange)
        if not found:
            await self._tryton.call(f"model.{kind.model}.create", [await self._values(session, name, request)])
        with acted():
            ended = await self._finished(session, kind, request.exchange)
        if isinstance(ended, Refused):
            raise ended
        return ended

    async def _finished(self, session: Session, kind: Kind, exchange: str) -> Record | Refused:
        """What came of the drafts of an exchange; Tryton's refusal, if that left nothing."""
        found = await self._made(session, kind, exchange)
        one = _first(kind, found)
        # A try that was given up may have gone on in Tryton meanwhile.
        for each in found:
            if each is not one and each["state"] in kind.steps:
                await self._delete(kind, each)
        return one if one["state"] in kind.done else await self._advanced(session, kind, one, exchange)

    async def _advanced(self, session: Session, kind: Kind, draft: Record, exchange: str) -> Record | Refused:
        refused = None
        try:
            for step in kind.steps[draft["state"]]:
                await self._tryton.call(f"model.{kind.model}.{step}", [draft["id"]])
        except Refused as error:
            refused = error
        found = await self._made(session, kind, exchange)
        one = _first(kind, found)
        if one["state"] in kind.done:
            return one
        if refused is None or len(found) > 1:
            raise Unavailable("another try is at work on it", sent=True)
        await self._delete(kind, one)  # Tryton keeps the draft of what it does not accept
        if isinstance(refused, Warned) and refused.name == "invoice_similar":
            return Refused("duplicate", refused.detail)
        return refused

    async def _delete(self, kind: Kind, draft: Record) -> None:
        try:
            await self._tryton.call(f"model.{kind.model}.delete", [draft["id"]])
        except Refused as refused:
            raise Broken(f"a draft cannot be deleted: {refused.detail}") from refused

    async def _values(self, session: Session, name: str, request: Request) -> dict[str, Any]:
        """What the draft holds."""
        drafted = {"purchase-order": self._order, "supplier-invoice": self._bill, "posting": self._entry}
        return await drafted[name](session, request)

    async def _order(self, session: Session, request: Request) -> dict[str, Any]:
        body = request.body
        supplier = await self._supplier(body["supplier"])
        lines = [
            {
                "type": "line",
                "description": line["description"],
                "quantity": int(line["quantity"]),  # 40.0 is a whole number, too
                "unit_price": session.currency.exact(line["unit_price"]),
            }
            for line in body["lines"]
        ]
        return {
            "company": session.company,
            "currency": session.currency_id,
            "party": supplier["id"],
            "invoice_party": supplier["id"],
            "invoice_address": next(iter(supplier["addresses"]), None),
            "invoice_method": "manual",  # else Tryton drafts an invoice of its own beside the supplier's
            "purchase_date": dt.date.fromisoformat(body["date"]),
            "description": body["description"],
            "reference": request.exchange,
            "lines": [["create", lines]],
        }

    async def _bill(self, session: Session, request: Request) -> dict[str, Any]:
        body, settings = request.body, self.context.settings
        supplier = await self._supplier(body["supplier"])
        if "order" in body:
            of_supplier = [["number", "=", body["order"]], ["party", "=", supplier["id"]], ["state", "in", ORDER.done]]
            await self._one("purchase.purchase", of_supplier, ["number"], "order_unknown")
        accounts = await self._accounts(session, {settings.payable, *(line["account"] for line in body["lines"])})
        lines = [
            {
                "type": "line",
                "account": accounts[line["account"]],
                "description": line["description"],
                "quantity": 1,
                "unit_price": session.currency.exact(line["amount"]),
                "currency": session.currency_id,
                "company": session.company,
                "invoice_type": "in",
            }
            for line in body["lines"]
        ]
        await self._period(session, body["date"])
        return {
            "type": "in",
            "company": session.company,
            "currency": session.currency_id,
            "party": supplier["id"],
            "invoice_address": next(iter(supplier["addresses"]), None),
            "journal": await self._journal(settings.invoice_journal),
            "account": accounts[settings.payable],
            "reference": body["reference"],
            "description": request.exchange,
            "comment": f"Order {body['order']}" if "order" in body else "",
            "invoice_date": dt.date.fromisoformat(body["date"]),
            "lines": [["create", lines]],
        }

    async def _entry(self, session: Session, request: Request) -> dict[str, Any]:
        body = request.body
        amounts = [(line["side"], session.currency.exact(line["amount"], positive=True)) for line in body["lines"]]
        if sum(amount if side == "debit" else -amount for side, amount in amounts):
            raise Refused("unbalanced")
        accounts = await self._accounts(session, {line["account"] for line in body["lines"]})
        lines = [
            {"account": accounts[line["account"]], "description": body["description"]}
            | {each: amount if each == side else Decimal(0) for each in ("debit", "credit")}
            for line, (side, amount) in zip(body["lines"], amounts, strict=True)
        ]
        return {
            "company": session.company,
            "journal": await self._journal(self.context.settings.journal),
            "period": await self._period(session, body["date"]),
            "date": dt.date.fromisoformat(body["date"]),
            "description": request.exchange,
            "lines": [["create", lines]],
        }

    async def _supplier(self, code: str) -> Record:
        return await self._one("party.party", [["code", "=", code]], ["addresses"], "supplier_unknown")

    async def _accounts(self, session: Session, codes: set[str]) -> dict[str, int]:
        domain = [["code", "in", sorted(codes)], ["company", "=", session.company]]
        found = {each["code"]: each["id"] for each in await self._tryton.read("account.account", domain, ["code"])}
        if codes - found.keys():
            raise Refused("account_unknown", f"of the codes {', '.join(sorted(codes - found.keys()))}")
        return found

    async def _journal(self, code: str) -> int:
        found = await self._tryton.read("account.journal", [["code", "=", code]], ["code"], limit=1)
        if not found:
            raise Broken(f"there is no journal {code}")
        return int(found[0]["id"])

    async def _period(self, session: Session, day: str) -> int:
        """Of the month in which this day lies."""
        date = dt.date.fromisoformat(day)
        around = [["start_date", "<=", date], ["end_date", ">=", date], ["type", "=", "standard"]]
        domain = [*around, ["state", "=", "open"], ["company", "=", session.company]]
        return int((await self._one("account.period", domain, ["name"], "period_closed"))["id"])

    # --- payments: Tryton enters one as a whole, so there is no draft, and a repeat would pay again

    async def _paid(self, request: Request) -> Reply:
        """How far the invoice is paid after it."""
        with untouched():
            session = await self._tryton.session()
            invoice = await self._invoice(session, request.body["invoice"])
            if await self._made(session, ENTRY, request.exchange):
                return Reply(_status(session, invoice))
            payment = await self._payment(session, invoice, request)
            dialogue = await self._dialogue()
        await self._execute(dialogue, {"start": payment, "ask": {"type": "partial"}}, invoice["id"])
        with acted():
            return Reply(_status(session, await self._invoice(session, request.body["invoice"])))

    async def _payment(self, session: Session, invoice: Record, request: Request) -> dict[str, Any]:
        """What is entered."""
        body, settings = request.body, self.context.settings
        amount = session.currency.exact(body["amount"], positive=True)
        await self._period(session, body["date"])
        by_name = [["name", "=", settings.payment_method], ["company", "=", session.company]]
        methods = await self._tryton.read("account.invoice.payment.method", by_name, ["name"], limit=1)
        if not methods:
            raise Broken(f"there is no payment method {settings.payment_method}")
        return {
            "payee": invoice["party"]["id"],
            "company": session.company,
            "currency": session.currency_id,
            "amount": amount,
            "date": dt.date.fromisoformat(body["date"]),
            "description": request.exchange,
            "payment_method": methods[0]["id"],
        }

    async def _dialogue(self) -> int:
        """Tryton's own for a payment: it keeps the answers to its questions, and does nothing until it is executed."""
        match await self._tryton.call(f"{WIZARD}.create"):
            case [int(dialogue), *_]:
                return dialogue
        raise Broken("a dialogue does not begin")

    async def _execute(self, dialogue: int, data: Mapping[str, Any], invoice: int) -> None:
        """The last step of a dialogue."""
        on = {"active_model": "account.invoice", "active_id": invoice, "active_ids": [invoice]}
        try:
            await self._tryton.call(f"{WIZARD}.execute", dialogue, data, "pay", **on)
        except Refused:
            with suppress(AdapterError):
                await self._tryton.call(f"{WIZARD}.delete", dialogue)
            raise
        with suppress(AdapterError):  # the payment stands
            await self._tryton.call(f"{WIZARD}.delete", dialogue)


def _first(kind: Kind, found: Sequence[Record]) -> Record:
    """The document that counts, or else the first draft."""
    done = [each for each in found if each["state"] in kind.done]
    left = done or [each for each in found if each["state"] in kind.steps]
    if not left or len(done) > 1:
        raise Broken(f"of {len(found)} documents with this exchange {len(done)} count: somebody changed them by hand")
    return left[0]


def _document(session: Session, name: str, record: Record) -> dict[str, Any]:
    """The reply of the service that made it."""
    if name == "posting":
        total = sum((_decimal(line, "debit") for line in record["lines"]), Decimal(0))
        told = {"posting": record["post_number"], "date": record["date"], "state": "posted"}
        return told | {"total": session.currency.money(total)}
    told = {"supplier": record["party"]["code"], "total": session.currency.money(_decimal(record, "total_amount"))}
    if name == "purchase-order":
        return {"order": record["number"], "state": "confirmed"} | told
    return {"invoice": record["number"], "reference": record["reference"], "state": "posted"} | told


def _status(session: Session, invoice: Record) -> dict[str, Any]:
    total, left = _decimal(invoice, "total_amount"), _decimal(invoice, "amount_to_pay")
    return {
        "invoice": invoice["number"],
        "state": INVOICE_STATES[invoice["state"]],
        "total": session.currency.money(total),
        "paid": session.currency.money(total - left),
        "outstanding": session.currency.money(left),
    }


def _decimal(record: Record, name: str) -> Decimal:
    value = record.get(name)
    if not isinstance(value, Decimal):
        raise Broken(f"{name} is not a decimal")
    return value
