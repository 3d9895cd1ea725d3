"""Income tax of one month's salary, computed by OpenFisca over its REST interface (``POST /calculate``).

The engine keeps nothing, so every service here is ``effect = none`` and a crash means nothing. Who the person is stays
here: the engine needs a salary, not a taxpayer.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from pydantic import Field

from gsb.sdk import (
    Adapter,
    Broken,
    HttpReply,
    HttpSettings,
    NoSettings,
    Refused,
    Reply,
    Request,
    Unavailable,
    decimal_string,
)

PERSON = "person"
ASKED = ("income_tax", "social_security_contribution")
NOT_COVERED = "was not found in the"
"""In the text of a 500: a parameter has no value yet, or any more, in that period."""


class TaxSettings(HttpSettings):
    """``[settings]`` of a system with the adapter ``tax``."""

    currency: str = Field(pattern=r"^[A-Z]{3}$")
    """The currency (ISO 4217) in which the engine's rules are written."""
    places: int = Field(default=2, ge=0, le=4)
    """Decimal places of the amounts in the reply; the engine's figures are rounded half up to them."""


class Tax(Adapter[TaxSettings, NoSettings]):
    """``income-tax``: what is withheld from a gross salary in a month, and what is left."""

    Settings = TaxSettings

    async def check(self) -> None:
        _rules(await self._ask("GET", "/spec"))

    async def handle(self, request: Request) -> Reply:
        settings, body = self.context.settings, request.body
        gross = self._gross(body["gross"])
        answer = await self._ask("POST", "/calculate", _situation(body["period"], gross))
        rules = _rules(answer)
        tax, contribution = (self._amount(answer.json(), name, body["period"]) for name in ASKED)

        def money(amount: Decimal) -> dict[str, str]:
            return {"amount": decimal_string(amount, settings.places), "currency": settings.currency}

        reply = {
            "tin": body["tin"],
            "period": body["period"],
            "gross": money(gross),
            "income_tax": money(tax),
            "social_security_contribution": money(contribution),
            "net": money(gross - tax - contribution),
            "rules": rules,
        }
        return Reply(reply, note=f"computed by {rules}")

    def _gross(self, money: Mapping[str, str]) -> Decimal:
        settings = self.context.settings
        if money["currency"] != settings.currency:
            raise Refused("currency_invalid")
        amount = Decimal(money["amount"])
        if amount != round(amount, settings.places):
            raise Refused("amount_invalid")
        return amount

    async def _ask(self, method: str, path: str, situation: Any = None) -> HttpReply:
        answer = await self.context.http.request(method, self.context.settings.url + path, json=situation)
        if answer.status == 200:
            return answer
        if answer.status in (429, 502, 503, 504):
            raise Unavailable(f"status {answer.status}", sent=True, after=answer.after())
        # A 500 is mostly a mistake of whoever asks, and a 404 a variable that these rules do not have: neither goes
        # away by asking again.
        text = answer.body.decode("utf-8", "replace")
        if answer.status == 500 and NOT_COVERED in text:
            raise Refused("period_not_covered", text)
        raise Broken(f"status {answer.status}: {text[:500]}")

    def _amount(self, answer: Any, name: str, period: str) -> Decimal:
        try:
            value = answer["persons"][PERSON][name][period]
        except (KeyError, TypeError) as error:
            raise Broken(f"the answer has no {name}") from error
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
            raise Broken(f"{name} is not a number")
        return Decimal(value).quantize(Decimal(1).scaleb(-self.context.settings.places), ROUND_HALF_UP)


def _situation(period: str, gross: Decimal) -> dict[str, Any]:
    """One adult in a household. A period is the name of a member, and a null is a question."""
    asked = {name: {period: None} for name in ASKED}
    return {
        "persons": {PERSON: {"salary": {period: gross}} | asked},
        "households": {"household": {"adults": [PERSON]}},
    }


def _rules(answer: HttpReply) -> str:
    """Which rules were applied, in which version: part of what must be provable later."""
    package, version = (answer.headers.get(f"Country-Package{more}") for more in ("", "-Version"))
    if not package or not version:
        raise Broken("the answer does not say which rules were applied")
    return f"{package} {version}"
