"""The bank itself: program.py ACCOUNT FOLDER, where ACCOUNT has inbox, archive and outbox, and FOLDER is its own.

Runs in an environment of its own with sepaxml, xmlschema and pyiso20022; nothing of the bus is imported. A file counts
once it stands in the inbox under a name without a dot in front. It is checked against the schema of pain.001.001.03,
answered with pain.002.001.03, and with camt.054.001.04 for what was booked; then it goes to the archive. Answers are
whole before they have their names, and the same after a crash in the middle: each is made of nothing but the file and
the conduct. The ledger has a line for each file taken; a message that stands there is never paid again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import sepaxml
import xmlschema
from pyiso20022.camt import camt_053_001_04 as statement
from pyiso20022.camt import camt_054_001_04 as camt
from pyiso20022.pain import pain_001_001_03 as pain1
from pyiso20022.pain import pain_002_001_03 as pain2
from xsdata.formats.dataclass.parsers import XmlParser
from xsdata.formats.dataclass.serializers import XmlSerializer
from xsdata.models.datatype import XmlDate, XmlDateTime

SCHEMA = Path(sepaxml.__file__).parent / "schemas/pain.001.001.03.xsd"
ACCOUNT, BEGINNING = "XA92TREASURY000000000001", Decimal("1000000.00")
BALANCE = statement.BalanceType12Code
PAUSE = 0.1
"""Seconds between two looks into the inbox."""


@dataclass(frozen=True)
class Conduct:
    """How the bank behaves; ``conduct.json`` in its folder."""

    closed: list[str] = field(default_factory=list)
    """Accounts (IBAN) that are closed: payments to them are rejected with AC04."""
    refuse: str = ""
    """A reason, such as AM04 (no funds): whole orders are rejected with it."""
    shut: bool = False
    """Nothing is taken, so the answers come late."""
    book: bool = True
    """Whether payments are booked, and told in a camt.054, as soon as they are accepted."""
    back: list[str] = field(default_factory=list)
    """Accounts that give the money back (AC06): a second camt.054 tells it."""
    odd: str = ""
    """What is wrong in a camt.054: order, payment, amount, currency, direction or account; in a camt.053: sum."""
    day: str = ""
    """The day that has ended (YYYY-MM-DD): a camt.053 tells what was booked since the one before."""


@dataclass(frozen=True)
class Taken:
    """One payment of an order, and why it is not made: an ISO code, or ""."""

    payment: pain1.CreditTransferTransactionInformation10
    reason: str

    @property
    def name(self) -> str:
        return self.payment.pmt_id.end_to_end_id

    @property
    def iban(self) -> str:
        return self.payment.cdtr_acct.id.iban


class Booked(NamedTuple):
    """What an order took from which account."""

    booked: str
    currency: str
    account: str


NOTHING = Booked("0", "", "")


class Bank:
    """Its account, and its own folder."""

    def __init__(self, account: Path, own: Path) -> None:
        self.account, self.own = account, own
        self.schema = xmlschema.XMLSchema(SCHEMA)
        self.known: dict[str, str] = {}
        self.paid: set[str] = set()
        for line in self._ledger().read_text("utf-8").splitlines() if self._ledger().exists() else []:
            told = json.loads(line)
            self.known[told["file"]] = told["digest"]
            self.paid.add(told["message"])

    def _ledger(self) -> Path:
        return self.own / "ledger.jsonl"

    def conduct(self) -> Conduct:
        path = self.own / "conduct.json"
        told = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return Conduct(**{each.name: told[each.name] for each in fields(Conduct) if each.name in told})

    def work(self) -> None:
        """Take what is there now."""
        inbox = self.account / "inbox"
        if not inbox.is_dir():
            return
        # In this order: how it is to behave was said before the files came for which that counts.
        there, conduct = sorted(inbox.iterdir()), self.conduct()
        if conduct.shut:
            return
        for path in there:
            if path.is_file() and not path.name.startswith("."):
                self.take(path, conduct)
                path.rename(self.account / "archive" / path.name)
        if conduct.day:
            self.end(conduct)

    def end(self, conduct: Conduct) -> None:
        """Tell what stands in the account at the end of a day, once for each."""
        path = self.own / "days.json"
        days = json.loads(path.read_text("utf-8")) if path.exists() else {}
        lines = self._ledger().read_text("utf-8").splitlines() if self._ledger().exists() else []
        if conduct.day in days or not lines:
            return
        told = [json.loads(line) for line in lines]
        known = max((count for count, _ in days.values()), default=0)
        opening = Decimal(list(days.values())[-1][1]) if days else BEGINNING
        booked = [each for each in told[known:] if Decimal(each["booked"])]
        self._answer(f"camt053-{conduct.day}", _stated(conduct, opening, booked))
        closing = opening - sum(Decimal(each["booked"]) for each in booked)
        draft = path.with_name(".days.json")
        draft.write_text(json.dumps(days | {conduct.day: (len(lines), str(closing))}), "utf-8")
        draft.rename(path)

    def take(self, path: Path, conduct: Conduct) -> None:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        resumed = self.known.get(path.name) == digest and not (self.account / "archive" / path.name).exists()
        faults = self._faults(content)
        if faults:
            self._note(path, digest, path.stem, [], faults)
            self._answer(f"pain002-{path.stem}", _rejected(path.stem, "FF01", faults))
            return
        order = XmlParser().from_bytes(content, pain1.Document).cstmr_cdt_trf_initn
        message = order.grp_hdr.msg_id
        if message in self.paid and not resumed:
            self._note(path, digest, message, [], "it came before")
            self._answer(f"pain002-{message}-again", _rejected(f"{message}", "AM05", "it came before", again=True))
            return
        whole = _wrong(order) or conduct.refuse
        taken = [
            Taken(each, whole or _refused(each, conduct)) for group in order.pmt_inf for each in group.cdt_trf_tx_inf
        ]
        made = [each for each in taken if not each.reason]
        if not resumed:
            self._note(path, digest, message, [each.name for each in made], "", _booked(order, made, conduct))
        self._answer(f"pain002-{message}", _report(order, taken))
        if made and conduct.book:
            self._answer(f"camt054-{message}", _notification(order, made, conduct.odd))
        given_back = [each for each in made if each.iban in conduct.back]
        if given_back:
            self._answer(f"camt054-{message}-back", _notification(order, given_back, conduct.odd, back=True))

    def _faults(self, content: bytes) -> str:
        """What the schema has against it, or that it is no XML at all, or has a document type."""
        try:
            resource = xmlschema.XMLResource(content, defuse="always")
            return "; ".join(each.reason or "?" for each in self.schema.iter_errors(resource))
        except (xmlschema.XMLResourceError, SyntaxError, ValueError) as error:
            return f"{type(error).__name__}: {error}"

    def _note(
        self, path: Path, digest: str, message: str, payments: list[str], faults: str, booked: Booked = NOTHING
    ) -> None:
        told = {"file": path.name, "digest": digest, "message": message, "payments": payments, "faults": faults}
        told |= booked._asdict()
        with self._ledger().open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.known[path.name] = digest
        self.paid.add(message)

    def _answer(self, name: str, document: object) -> None:
        path = self.account / "outbox" / f"{name}.xml"
        draft = path.with_name(f".{path.name}.tmp")
        draft.write_text(XmlSerializer().render(document), "utf-8")
        draft.rename(path)


def _booked(order: pain1.CustomerCreditTransferInitiationV03, made: list[Taken], conduct: Conduct) -> Booked:
    if not made or not conduct.book:
        return NOTHING
    total = sum(each.payment.amt.instd_amt.value for each in made)
    return Booked(str(total), made[0].payment.amt.instd_amt.ccy, order.pmt_inf[0].dbtr_acct.id.iban)


def _wrong(order: pain1.CustomerCreditTransferInitiationV03) -> str:
    """What contradicts itself in an order that fits the schema."""
    payments = [each for group in order.pmt_inf for each in group.cdt_trf_tx_inf]
    if int(order.grp_hdr.nb_of_txs) != len(payments):
        return "AM18"
    return "" if order.grp_hdr.ctrl_sum == sum(each.amt.instd_amt.value for each in payments) else "AM10"


def _refused(payment: pain1.CreditTransferTransactionInformation10, conduct: Conduct) -> str:
    iban = payment.cdtr_acct.id.iban
    if not _is_iban(iban):
        return "AC01"
    return "AC04" if iban in conduct.closed else ""


def _is_iban(text: str) -> bool:
    """Whether the check digits are right (ISO 13616-1, ISO 7064 MOD 97-10)."""
    if not re.fullmatch("[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", text):
        return False
    return int("".join(str(int(each, 36)) for each in text[4:] + text[:4])) % 97 == 1


# --- what it answers


def _now() -> XmlDateTime:
    return XmlDateTime.from_datetime(datetime.now(UTC).replace(microsecond=0))


def _why(reason: str, words: str = "") -> list[pain2.StatusReasonInformation8]:
    told = [words[:105]] if words else []
    return [pain2.StatusReasonInformation8(rsn=pain2.StatusReason6Choice(cd=reason), addtl_inf=told)]


def _rejected(message: str, reason: str, words: str, *, again: bool = False) -> pain2.Document:
    group = pain2.OriginalGroupInformation20(
        orgnl_msg_id=message[:35],
        orgnl_msg_nm_id="pain.001.001.03",
        grp_sts=None if again else pain2.TransactionGroupStatus3Code.RJCT,
        sts_rsn_inf=_why(reason, words),
    )
    header = pain2.GroupHeader36(msg_id=f"S{'A' if again else 'R'}{message}"[:35], cre_dt_tm=_now())
    return pain2.Document(
        cstmr_pmt_sts_rpt=pain2.CustomerPaymentStatusReportV03(grp_hdr=header, orgnl_grp_inf_and_sts=group)
    )


def _report(order: pain1.CustomerCreditTransferInitiationV03, taken: list[Taken]) -> pain2.Document:
    """pain.002: the whole order, and each payment that is not made."""
    header, refused = order.grp_hdr, [each for each in taken if each.reason]
    status = pain2.TransactionGroupStatus3Code
    overall = status.ACSP if not refused else status.RJCT if len(refused) == len(taken) else status.PART
    transactions = [
        pain2.PaymentTransactionInformation25(
            orgnl_end_to_end_id=each.name,
            tx_sts=pain2.TransactionIndividualStatus3Code.RJCT
            if each.reason
            else pain2.TransactionIndividualStatus3Code.ACSP,
            sts_rsn_inf=_why(each.reason) if each.reason else [],
        )
        for each in taken
        if refused
    ]
    group = pain2.OriginalGroupInformation20(
        orgnl_msg_id=header.msg_id,
        orgnl_msg_nm_id="pain.001.001.03",
        orgnl_nb_of_txs=header.nb_of_txs,
        orgnl_ctrl_sum=header.ctrl_sum,
        grp_sts=overall,
    )
    information = pain2.OriginalPaymentInformation1(
        orgnl_pmt_inf_id=order.pmt_inf[0].pmt_inf_id, tx_inf_and_sts=transactions
    )
    return pain2.Document(
        cstmr_pmt_sts_rpt=pain2.CustomerPaymentStatusReportV03(
            grp_hdr=pain2.GroupHeader36(msg_id=f"S-{header.msg_id}"[:35], cre_dt_tm=_now()),
            orgnl_grp_inf_and_sts=group,
            orgnl_pmt_inf_and_sts=[information],
        )
    )


def _notification(
    order: pain1.CustomerCreditTransferInitiationV03, made: list[Taken], odd: str, *, back: bool = False
) -> camt.Document:
    """camt.054: what was booked, an entry for each payment; ``back``: what came back."""
    message, iban = order.grp_hdr.msg_id, order.pmt_inf[0].dbtr_acct.id.iban
    account = "XA35000000000000000001" if odd == "account" else iban
    notification = camt.AccountNotification7(
        id=f"N{message}"[:35],
        cre_dt_tm=_now(),
        acct=camt.CashAccount25(id=camt.AccountIdentification4Choice(iban=account)),
        ntry=[_entry(message, each, odd, back) for each in made],
    )
    header = camt.GroupHeader58(msg_id=f"N{'B' if back else '-'}{message}"[:35], cre_dt_tm=_now())
    return camt.Document(
        bk_to_cstmr_dbt_cdt_ntfctn=camt.BankToCustomerDebitCreditNotificationV04(grp_hdr=header, ntfctn=[notification])
    )


def _entry(message: str, each: Taken, odd: str, back: bool) -> camt.ReportEntry4:
    told = each.payment.amt.instd_amt
    value = told.value + Decimal("0.01") if odd == "amount" else told.value
    amount = camt.ActiveOrHistoricCurrencyAndAmount(value=value, ccy="XXX" if odd == "currency" else told.ccy)
    direction = camt.CreditDebitCode.CRDT if back != (odd == "direction") else camt.CreditDebitCode.DBIT
    references = camt.TransactionReferences3(
        msg_id="f" * 32 if odd == "order" else message,
        end_to_end_id="nobody" if odd == "payment" else each.name,
    )
    reason = camt.PaymentReturnReason2(rsn=camt.ReturnReason5Choice(cd="AC06")) if back else None
    details = camt.EntryTransaction4(refs=references, amt=amount, cdt_dbt_ind=direction, rtr_inf=reason)
    return camt.ReportEntry4(
        amt=amount,
        cdt_dbt_ind=direction,
        sts=camt.EntryStatus2Code.BOOK,
        bk_tx_cd=camt.BankTransactionCodeStructure4(),
        ntry_dtls=[camt.EntryDetails3(tx_dtls=[details])],
    )


def _stated(conduct: Conduct, opening: Decimal, booked: list[dict[str, str]]) -> statement.Document:
    """camt.053: opening balance, an entry for each order, closing balance."""
    debit, credit = statement.CreditDebitCode.DBIT, statement.CreditDebitCode.CRDT
    currency = booked[0]["currency"] if booked else "XOF"
    closing = opening - sum(Decimal(each["booked"]) for each in booked)
    closing += Decimal("0.01") if conduct.odd == "sum" else Decimal()

    def amount(value: Decimal) -> statement.ActiveOrHistoricCurrencyAndAmount:
        return statement.ActiveOrHistoricCurrencyAndAmount(value=abs(value), ccy=currency)

    def balance(kind: statement.BalanceType12Code, value: Decimal) -> statement.CashBalance3:
        return statement.CashBalance3(
            tp=statement.BalanceType12(cd_or_prtry=statement.BalanceType5Choice(cd=kind)),
            amt=amount(value),
            cdt_dbt_ind=debit if value < 0 else credit,
            dt=statement.DateAndDateTimeChoice(dt=XmlDate.from_string(conduct.day)),
        )

    entries = [
        statement.ReportEntry4(
            amt=amount(Decimal(each["booked"])),
            cdt_dbt_ind=debit,
            sts=statement.EntryStatus2Code.BOOK,
            bk_tx_cd=statement.BankTransactionCodeStructure4(),
        )
        for each in booked
    ]
    account = statement.AccountIdentification4Choice(iban=booked[0]["account"] if booked else ACCOUNT)
    told = statement.AccountStatement4(
        id=f"D-{conduct.day}",
        cre_dt_tm=_now(),
        acct=statement.CashAccount25(id=account),
        bal=[balance(BALANCE.OPBD, opening), balance(BALANCE.CLBD, closing)],
        ntry=entries,
    )
    header = statement.GroupHeader58(msg_id=f"D-{conduct.day}", cre_dt_tm=_now())
    return statement.Document(bk_to_cstmr_stmt=statement.BankToCustomerStatementV04(grp_hdr=header, stmt=[told]))


def main() -> None:
    bank = Bank(Path(sys.argv[1]), Path(sys.argv[2]))
    used = ", ".join(f"{name} {version(name)}" for name in ("sepaxml", "xmlschema", "pyiso20022"))
    (bank.own / "ready").write_text(f"reads and writes with {used}\n", "utf-8")
    while True:
        bank.work()
        time.sleep(PAUSE)


main()
