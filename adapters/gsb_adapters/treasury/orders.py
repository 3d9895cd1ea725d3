"""A payment order as pain.001.001.03 (ISO 20022, CustomerCreditTransferInitiation): checked, written, and read back.

What is written depends on nothing but the exchange and the settings, so every try writes the same bytes. Whether
accounts exist is the bank's to say, payment by payment. It does no I/O; a crash means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from gsb.sdk import Currency, Refused, Request
from gsb_adapters.xml import Element, build, parse, written

NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.03"


@dataclass(frozen=True, slots=True)
class Order:
    """What was ordered, as far as the bank's answers are held against it."""

    message: str
    """MsgId: the exchange's number without its dashes, which ISO 20022 leaves no room for (35 characters)."""
    agency: str
    reference: str
    account: str
    currency: str
    payments: Mapping[str, Decimal]
    """Amounts by EndToEndId, in the order of the order."""

    @property
    def total(self) -> Decimal:
        return sum(self.payments.values(), Decimal())

    def money(self, amount: Decimal) -> dict[str, str]:
        return Currency(self.currency).money(amount)


def message_of(request: Request) -> str:
    return request.exchange.replace("-", "")


def ordered(request: Request) -> Order:
    """Raises Refused for an order that contradicts itself."""
    body = request.body
    currency, payments = body["total"]["currency"], {}
    for each in body["payments"]:
        if each["amount"]["currency"] != currency:
            raise Refused("currency_invalid")
        if each["end_to_end_id"] in payments:
            raise Refused("duplicate_payment")
        payments[each["end_to_end_id"]] = Decimal(each["amount"]["amount"])
    if not all(payments.values()):
        raise Refused("amount_invalid")
    order = Order(message_of(request), request.agency, body["reference"], body["debtor_account"], currency, payments)
    if order.total != Decimal(body["total"]["amount"]):
        raise Refused("total_differs")
    return order


def document(order: Order, body: Mapping[str, Any], debtor: str) -> bytes:
    """The message. Each payment is to be booked by itself (BtchBookg), so that each can be told settled."""
    count, total = build("NbOfTxs", str(len(order.payments))), build("CtrlSum", str(order.total))
    header = [
        build("MsgId", order.message),
        build("CreDtTm", _made(order.message)),
        count,
        total,
        build("InitgPty", [build("Nm", order.agency)]),
    ]
    information = [
        build("PmtInfId", order.reference),
        build("PmtMtd", "TRF"),
        build("BtchBookg", "false"),
        count,
        total,
        build("ReqdExctnDt", body["execution_date"]),
        build("Dbtr", [build("Nm", debtor)]),
        build("DbtrAcct", [_iban(order.account)]),
        build("DbtrAgt", [build("FinInstnId", [build("Othr", [build("Id", "NOTPROVIDED")])])]),
        build("ChrgBr", "SLEV"),
        *map(_transaction, body["payments"]),
    ]
    initiation = build("CstmrCdtTrfInitn", [build("GrpHdr", header), build("PmtInf", information)])
    return written(build("Document", [initiation], xmlns=NAMESPACE))


def _transaction(payment: Mapping[str, Any]) -> Element:
    amount = payment["amount"]
    members = [
        build("PmtId", [build("EndToEndId", payment["end_to_end_id"])]),
        build("Amt", [build("InstdAmt", amount["amount"], Ccy=amount["currency"])]),
        build("Cdtr", [build("Nm", payment["creditor_name"])]),
        build("CdtrAcct", [_iban(payment["creditor_account"])]),
    ]
    if "remittance" in payment:
        members.append(build("RmtInf", [build("Ustrd", payment["remittance"])]))
    return build("CdtTrfTxInf", members)


def _iban(account: str) -> Element:
    return build("Id", [build("IBAN", account)])


def _made(message: str) -> str:
    """When the exchange began, which its number says (UUIDv7: RFC 9562, section 5.7): the same at every try."""
    return datetime.fromtimestamp(int(message[:12], 16) // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_order(content: bytes) -> Order:
    """The order in a message that ``document`` wrote."""
    root, names = parse(content), {"": NAMESPACE}

    def text(path: str) -> str:
        return root.findtext(f".//{path}", "", names)

    amounts = root.findall(".//InstdAmt", names)
    identifiers = [each.text or "" for each in root.findall(".//EndToEndId", names)]
    return Order(
        message=text("MsgId"),
        agency=text("InitgPty/Nm"),
        reference=text("PmtInfId"),
        account=text("DbtrAcct/Id/IBAN"),
        currency=amounts[0].get("Ccy", ""),
        payments={name: Decimal(each.text or "0") for name, each in zip(identifiers, amounts, strict=True)},
    )
