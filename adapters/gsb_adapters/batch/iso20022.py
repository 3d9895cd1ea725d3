"""What a bank says of payments and accounts, read from its messages: pain.002, camt.053, camt.054 (ISO 20022).

Nothing is judged here but what a message means by itself. Versions differ in members that are not read, so any is
taken. It does no I/O; a crash means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from gsb_adapters.xml import Element, Unreadable, parse

KINDS = {"CstmrPmtStsRpt": "pain.002", "BkToCstmrDbtCdtNtfctn": "camt.054", "BkToCstmrStmt": "camt.053"}
STATUSES = {
    **dict.fromkeys(("RCVD", "PDNG"), "pending"),
    **dict.fromkeys(("ACTC", "ACCP", "ACSP", "ACWC", "ACWP", "ACSC", "ACCC"), "accepted"),
    **dict.fromkeys(("RJCT", "CANC"), "rejected"),
}
"""ExternalPaymentTransactionStatus1Code; PART says nothing of any one payment."""
REASON = re.compile("[A-Z0-9]{1,4}")
NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,17})?")
MOST_OF_NAME = 35
"""Characters of a name (Max35Text)."""
NARRATIVE = "NARR"
"""ISO's code for a reason that is told in words."""


class Money(NamedTuple):
    """As the bank says it."""

    amount: Decimal
    currency: str


class Said(NamedTuple):
    """One thing that the bank says of a payment, or of all payments of an order."""

    order: str
    """OrgnlMsgId; "" if the bank does not say."""
    payment: str | None
    """EndToEndId; None: of every payment of the order."""
    state: str
    reason: str | None = None
    money: Money | None = None
    wrong: str | None = None
    """Why it is about no payment that was ordered, whatever else it says."""
    account: str | None = None
    """The account that it is about (IBAN), if the bank says it."""
    payments: int | None = None
    """How many payments the bank found in the order, if it says it."""


class Balance(NamedTuple):
    """What a statement says of an account; amounts owed to the bank are negative."""

    account: str
    day: str
    """Of the closing balance, YYYY-MM-DD."""
    currency: str
    opening: Decimal
    entries: int
    booked: Decimal
    """What the booked entries come to."""
    closing: Decimal


class Answer(NamedTuple):
    """One message of the bank."""

    name: str
    """Kind and MsgId: the same message is never taken into account twice."""
    message: str
    said: tuple[Said, ...] = ()
    balances: tuple[Balance, ...] = ()


def read_answer(content: bytes) -> Answer:
    """Raises Unreadable for whatever is no message that can be understood as a whole."""
    root = parse(content)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    kind = next((KINDS[each.tag] for each in root if each.tag in KINDS), None)
    if kind is None:
        raise Unreadable("it is none of the messages that are read here")
    message = _text(root[0], "GrpHdr/MsgId")
    if not 1 <= len(message) <= MOST_OF_NAME:
        raise Unreadable("it has no MsgId, or none of ISO 20022")
    if kind == "camt.053":
        return Answer(kind, message, balances=tuple(_stated(root[0])))
    return Answer(kind, message, tuple((_reported if kind == "pain.002" else _notified)(root[0])))


# --- pain.002: what the bank will do


def _reported(report: Element) -> Iterator[Said]:
    group = report.find("OrgnlGrpInfAndSts")
    if group is None:
        raise Unreadable("it does not say which order it is about")
    order = _text(group, "OrgnlMsgId")
    yield from _status(group, "GrpSts", order, None)
    for information in report.iterfind("OrgnlPmtInfAndSts"):
        yield from _status(information, "PmtInfSts", order, None)
        for each in information.iterfind("TxInfAndSts"):
            yield from _status(each, "TxSts", order, _text(each, "OrgnlEndToEndId"))


def _status(of: Element, name: str, order: str, payment: str | None) -> Iterator[Said]:
    status = _text(of, name)
    if status in ("", "PART"):
        return
    if status not in STATUSES:
        raise Unreadable("it has a status that is none of ISO 20022")
    money, count = _money(of.find("OrgnlTxRef/Amt/InstdAmt")), _text(of, "OrgnlNbOfTxs")
    reason = _reason(of, "StsRsnInf/Rsn")
    yield Said(order, payment, STATUSES[status], reason, money, payments=int(_number(count)) if count else None)


def _reason(of: Element, path: str) -> str | None:
    given = of.find(path)
    if given is None:
        return None
    code = _text(given, "Cd")
    return code if REASON.fullmatch(code) else NARRATIVE


# --- camt.054: what the bank has done


def _notified(report: Element) -> Iterator[Said]:
    for notification in report.iterfind("Ntfctn"):
        account = _text(notification, "Acct/Id/IBAN")
        for entry in notification.iterfind("Ntry"):
            details = entry.findall("NtryDtls/TxDtls")
            for each in details or [entry]:
                yield _booked(entry, each, account, alone=len(details) == 1)


def _booked(entry: Element, details: Element, account: str, *, alone: bool) -> Said:
    money = _money(details.find("Amt"), details.find("AmtDtls/TxAmt/Amt"), entry.find("Amt") if alone else None)
    direction = _text(details, "CdtDbtInd") or _text(entry, "CdtDbtInd")
    back = details.find("RtrInf") is not None or _text(entry, "RvslInd") == "true"
    booked = (_text(entry, "Sts/Cd") or _text(entry, "Sts")) == "BOOK"
    fits = direction == ("CRDT" if back else "DBIT")
    return Said(
        order=_text(details, "Refs/MsgId"),
        payment=_text(details, "Refs/EndToEndId"),
        state=("returned" if back else "settled") if booked else "accepted",
        reason=_reason(details, "RtrInf/Rsn"),
        money=money or Money(Decimal(), ""),
        wrong=None if fits else "direction_differs",
        account=account,
    )


# --- camt.053: what stands in the account


def _stated(report: Element) -> Iterator[Balance]:
    for each in report.iterfind("Stmt"):
        balances = {_text(balance, "Tp/CdOrPrtry/Cd"): balance for balance in each.iterfind("Bal")}
        opening, closing = balances.get("OPBD"), balances.get("CLBD")
        if opening is None or closing is None:
            raise Unreadable("a statement has no opening or no closing balance")
        booked = [entry for entry in each.iterfind("Ntry") if (_text(entry, "Sts/Cd") or _text(entry, "Sts")) == "BOOK"]
        yield Balance(
            account=_text(each, "Acct/Id/IBAN"),
            day=(_text(closing, "Dt/Dt") or _text(closing, "Dt/DtTm"))[:10],
            currency=(_money(closing.find("Amt")) or Money(Decimal(), "")).currency,
            opening=_signed(opening),
            entries=len(booked),
            booked=sum(map(_signed, booked), Decimal()),
            closing=_signed(closing),
        )


def _signed(of: Element) -> Decimal:
    amount = _number(_text(of, "Amt"))
    return -amount if _text(of, "CdtDbtInd") == "DBIT" else amount


def _money(*found: Element | None) -> Money | None:
    element = next((each for each in found if each is not None), None)
    return None if element is None else Money(_number((element.text or "").strip()), element.get("Ccy", ""))


def _number(text: str) -> Decimal:
    if not NUMBER.fullmatch(text):
        raise Unreadable("a number is none of ISO 20022")
    return Decimal(text)


def _text(of: Element, path: str) -> str:
    return (of.findtext(path) or "").strip()
