"""Income tax and contributions, of a month or of a year, computed by OpenFisca over REST (``POST /calculate``).

The engine keeps nothing, so every service here is ``effect = none`` and a crash means nothing. Who the persons are
stays here: the engine needs salaries and birth dates, not taxpayers.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from typing import Any

from pydantic import Field

from gsb.sdk import Adapter, Broken, Currency, HttpReply, HttpSettings, NoSettings, Reply, Request
from gsb_adapters.tax.assessment import HOUSEHOLD, MONTHLY, Read, assessed, earning, situation

PERSON = "person"
NOT_COVERED = b"was not found in the"
"""In the text of a 500: a parameter has no value yet, or any more, in that period."""


class TaxSettings(HttpSettings):
    """``[settings]`` of a system with the adapter ``tax``."""

    currency: str = Field(pattern=r"^[A-Z]{3}$")
    """The currency (ISO 4217) in which the engine's rules are written."""
    places: int = Field(default=2, ge=0, le=4)
    """Decimal places of the amounts in the reply; the engine's figures are rounded half up to them."""

    @property
    def reckoned(self) -> Currency:
        return Currency(self.currency, self.places)


class Tax(Adapter[TaxSettings, NoSettings]):
    """``income-tax``: what is withheld from a month's salary; ``annual-assessment``: what is due for a year."""

    Settings = TaxSettings

    async def check(self) -> None:
        _rules(await self._ask("GET", "/spec"))

    async def handle(self, request: Request) -> Reply:
        match request.service.split("/")[1]:
            case "income-tax":
                reply, rules = await self._withholding(request.body)
            case "annual-assessment":
                currency = self.context.settings.reckoned
                read, rules = await self._calculated(situation(request.body, currency))
                reply = assessed(request.body, currency, read)
            case other:
                raise Broken(f"there is no service {other}")
        return Reply(reply | {"rules": rules}, note=f"computed by {rules}")

    async def _withholding(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        currency, period = self.context.settings.reckoned, body["period"]
        gross = currency.exact(body["gross"])
        one = {"persons": {PERSON: earning({period: gross})}, "households": {HOUSEHOLD: {"adults": [PERSON]}}}
        read, rules = await self._calculated(one)
        tax, contribution = (read("persons", PERSON, name, period) for name in MONTHLY)
        reply = {
            "tin": body["tin"],
            "period": period,
            "gross": currency.money(gross),
            "income_tax": currency.money(tax),
            "social_security_contribution": currency.money(contribution),
            "net": currency.money(gross - tax - contribution),
        }
        return reply, rules

    async def _calculated(self, situation: Mapping[str, Any]) -> tuple[Read, str]:
        """The figures that were asked for, and the rules by which they were computed."""
        answer = await self._ask("POST", "/calculate", situation)
        return partial(self._figure, answer.json()), _rules(answer)

    async def _ask(self, method: str, path: str, situation: Mapping[str, Any] | None = None) -> HttpReply:
        answer = await self.context.http.request(method, self.context.settings.url + path, json=situation)
        if answer.status == 200:
            return answer
        # A 500 is mostly a mistake of whoever asks, and a 404 a variable that these rules do not have: neither goes
        # away by asking again.
        raise answer.error({500: "period_not_covered"} if NOT_COVERED in answer.body else None)

    def _figure(self, answer: Any, group: str, who: str, name: str, period: str) -> Decimal:
        """One of the engine's figures, which are floats, as the amount that it stands for."""
        try:
            value = answer[group][who][name][period]
        except (KeyError, TypeError) as error:
            raise Broken(f"the answer has no {name}") from error
        if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
            raise Broken(f"{name} is not a number")
        return Decimal(value).quantize(Decimal(1).scaleb(-self.context.settings.places), ROUND_HALF_UP)


def _rules(answer: HttpReply) -> str:
    """Which rules were applied, in which version: part of what must be provable later."""
    package, version = (answer.headers.get(f"Country-Package{more}") for more in ("", "-Version"))
    if not package or not version:
        raise Broken("the answer does not say which rules were applied")
    return f"{package} {version}"
