"""What each core system holds of a payroll in the end, asked of it directly and never through the bus.

The personnel database in SQL, the tax engine over its REST interface, the books over Tryton's JSON-RPC, the payment
files as they lie with the bank. It changes nothing in any of them.
"""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from config.systems.base import Place
from config.systems.tryton import CREDENTIAL, DATABASE, USER
from gsb_adapters.xml import parse

AT_ONCE = 250
"""People whose tax is asked for in one request."""
FIGURES = ("income_tax", "social_security_contribution")
CENT = Decimal("0.01")
PAIN = "{urn:iso:std:iso:20022:tech:xsd:pain.001.001.03}"
Salaries = Mapping[str, Decimal]
"""Gross salaries by personnel number."""


@dataclass(frozen=True, slots=True)
class Payment:
    """One line of a payment file."""

    file: str
    name: str
    """Its EndToEndId."""
    account: str
    amount: Decimal


def salaries(database: Path, but: Iterable[str]) -> Salaries:
    """Of everybody in the personnel database but these."""
    newest = "SELECT employee, max(valid_from), amount FROM salaries GROUP BY employee"
    without = set(but)
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as found:
        return {name: Decimal(amount) for name, _, amount in found.execute(newest) if name not in without}


async def taxes(url: str, of: Salaries, period: str) -> Mapping[str, Decimal]:
    """What the engine at ``url`` withholds from all these salaries together: each figure to the cent, then the sum."""
    found = dict.fromkeys(FIGURES, Decimal())
    names = sorted(of)
    async with aiohttp.ClientSession() as session:
        for first in range(0, len(names), AT_ONCE):
            asked = {name: of[name] for name in names[first : first + AT_ONCE]}
            async with session.post(f"{url}/calculate", json=_situation(asked, period)) as answer:
                for person in orjson.loads(await answer.read())["persons"].values():
                    for figure in FIGURES:
                        found[figure] += Decimal(repr(person[figure][period])).quantize(CENT, ROUND_HALF_UP)
    return found


def _situation(of: Salaries, period: str) -> Mapping[str, Any]:
    asked = {figure: {period: None} for figure in FIGURES}
    persons = {name: {"salary": {period: float(amount)}} | asked for name, amount in of.items()}
    return {"persons": persons, "households": {name: {"adults": [name]} for name in of}}


async def postings(place: Place, accounts: Sequence[str]) -> Mapping[str, Sequence[tuple[Decimal, Decimal]]]:
    """Debit and credit of every line in the books of the Tryton in this place, by the code of its account."""
    password = (place.folder / CREDENTIAL).read_text("ascii")
    async with aiohttp.ClientSession() as session:
        user, token = await _call(session, place, {}, "common.db.login", [USER, {"password": password}])
        pair = base64.b64encode(f"{USER}:{user}:{token}".encode()).decode()
        headers, found = {"Authorization": f"Session {pair}"}, {}
        for account in accounts:
            asked = [[["account.code", "=", account]], 0, None, None, ["debit", "credit"], {}]
            lines = await _call(session, place, headers, "model.account.move.line.search_read", asked)
            found[account] = [(Decimal(line["debit"]["decimal"]), Decimal(line["credit"]["decimal"])) for line in lines]
    return found


async def _call(
    session: aiohttp.ClientSession, place: Place, headers: Mapping[str, str], method: str, params: Sequence[Any]
) -> Any:
    content = {"id": 0, "method": method, "params": params}
    async with session.post(f"{place.url}/{DATABASE}/", json=content, headers=headers) as answer:
        return (await answer.json())["result"]


def payments(bank: Path) -> list[Payment]:
    """Every line of every payment file that came into the bank's folder. Raises ValueError where a file's own total or
    number of lines is another."""
    found = []
    for path in sorted([*(bank / "inbox").glob("*.xml"), *(bank / "archive").glob("*.xml")]):
        document = parse(path.read_bytes())
        lines = [
            Payment(
                path.name,
                line.findtext(f"{PAIN}PmtId/{PAIN}EndToEndId", ""),
                line.findtext(f"{PAIN}CdtrAcct/{PAIN}Id/{PAIN}IBAN", ""),
                Decimal(line.findtext(f"{PAIN}Amt/{PAIN}InstdAmt", "")),
            )
            for line in document.iter(f"{PAIN}CdtTrfTxInf")
        ]
        said = {each.text for tag in ("CtrlSum", "NbOfTxs") for each in document.iter(f"{PAIN}{tag}")}
        if said != {str(sum(line.amount for line in lines)), str(len(lines))}:
            raise ValueError(f"{path} does not say of itself what is in it")
        found += lines
    return found
