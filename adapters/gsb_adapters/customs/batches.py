"""A batch of customs declarations, what of it is remembered, and whether an acknowledgement fits it. No I/O.

Amounts are decimals throughout. An acknowledgement counts only if it speaks of exactly the declarations that were sent,
each once, and its control totals are those of what was sent: everything else is somebody's mistake.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Self

from gsb.sdk import Broken, Currency, Refused, Request

COLUMNS = ("reference", "declarant", "procedure", "origin", "commodity", "description", "net_mass", "value", "duty")
"""Of a declaration, in the order of a file."""


@dataclass(frozen=True, slots=True)
class Total:
    """How many declarations, and what their values and duties add up to."""

    count: int
    value: Decimal
    duty: Decimal

    @classmethod
    def of(cls, amounts: Iterable[tuple[Decimal, Decimal]]) -> Self:
        pairs = list(amounts)
        return cls(len(pairs), sum((each for each, _ in pairs), Decimal()), sum((each for _, each in pairs), Decimal()))

    def told(self, currency: str) -> dict[str, Any]:
        money = Currency(currency).money
        return {"count": self.count, "value": money(self.value), "duty": money(self.duty)}


@dataclass(frozen=True, slots=True)
class Batch:
    """What is sent."""

    name: str
    """The exchange's number without its dashes."""
    agency: str
    office: str
    currency: str
    rows: tuple[tuple[str, ...], ...]
    """The declarations, by ``COLUMNS``."""
    control: Total


@dataclass(frozen=True, slots=True)
class Sent:
    """What is remembered of a batch to hold its acknowledgement against."""

    agency: str
    file: str
    currency: str
    declarations: Mapping[str, tuple[Decimal, Decimal]]
    """Value and duty of each, by reference."""

    @classmethod
    def of(cls, batch: Batch, file: str) -> Self:
        return cls(
            batch.agency, file, batch.currency, {row[0]: (Decimal(row[7]), Decimal(row[8])) for row in batch.rows}
        )

    @classmethod
    def read(cls, content: bytes) -> Self:
        told = json.loads(content)
        lines = {name: (Decimal(value), Decimal(duty)) for name, value, duty in told.pop("declarations")}
        return cls(declarations=lines, **told)

    def written(self) -> bytes:
        lines = [[name, str(value), str(duty)] for name, (value, duty) in self.declarations.items()]
        told = {"agency": self.agency, "file": self.file, "currency": self.currency, "declarations": lines}
        return json.dumps(told).encode()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the customs system says of one declaration."""

    reference: str
    status: str
    code: str
    registration: str


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A whole file of the customs system: verdicts, and the totals of what it got and of what it accepted."""

    batch: str
    verdicts: tuple[Verdict, ...]
    received: Total
    accepted: Total


def batch_of(request: Request) -> Batch:
    """Raises Refused for a batch that contradicts itself."""
    body = request.body
    currency, declarations = body["control"]["value"]["currency"], body["declarations"]
    amounts = [each[name] for each in [body["control"], *declarations] for name in ("value", "duty")]
    if any(each["currency"] != currency for each in amounts):
        raise Refused("currency_invalid")
    if len({each["reference"] for each in declarations}) != len(declarations):
        raise Refused("reference_repeated")
    rows = tuple(tuple(_text(each[column]) for column in COLUMNS) for each in declarations)
    control = Total.of((Decimal(row[7]), Decimal(row[8])) for row in rows)
    if control.told(currency) != body["control"]:
        raise Refused("control_total")
    return Batch(request.exchange.replace("-", ""), request.agency, body["office"], currency, rows, control)


def judged(name: str, sent: Sent, answer: Acknowledgement) -> dict[str, Any]:
    """What is told of a batch by its acknowledgement. Raises Broken for one that does not fit what was sent."""
    verdicts = {each.reference: each for each in answer.verdicts}
    if answer.batch != name or len(verdicts) != len(answer.verdicts) or verdicts.keys() != sent.declarations.keys():
        raise Broken("the acknowledgement speaks of other declarations than were sent")
    if any((each.status == "rejected") != bool(each.code) for each in answer.verdicts):
        raise Broken("the acknowledgement rejects without a code, or accepts with one")
    by_status = {
        status: Total.of(pair for ref, pair in sent.declarations.items() if verdicts[ref].status == status)
        for status in ("accepted", "rejected")
    }
    if answer.received != Total.of(sent.declarations.values()) or answer.accepted != by_status["accepted"]:
        raise Broken("the control totals of the acknowledgement are not those of what was sent")
    rejected, accepted = by_status["rejected"].count, by_status["accepted"].count
    state = "rejected" if not accepted else "partly_accepted" if rejected else "accepted"
    declarations = [_told(verdicts[reference]) for reference in sent.declarations]
    totals = {status: total.told(sent.currency) for status, total in by_status.items()}
    return {"batch": name, "state": state, "declarations": declarations} | totals


def _told(verdict: Verdict) -> dict[str, str]:
    told = {"reference": verdict.reference, "status": verdict.status}
    more = {"code": verdict.code, "registration": verdict.registration}
    return told | {name: value for name, value in more.items() if value}


def _text(value: Any) -> str:
    return str(value["amount"] if isinstance(value, dict) else value)
