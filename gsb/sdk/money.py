"""Amounts of money as the bus carries them, ``{"amount": "1234.50", "currency": "XOF"}``, and as adapters reckon.

Exact throughout: nothing is rounded, and no amount is ever a float. It sends and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from gsb.sdk.errors import Refused
from gsb.sdk.mapping import decimal_string


@dataclass(frozen=True, slots=True)
class Currency:
    """The one currency in which a system reckons."""

    code: str
    """ISO 4217."""
    places: int = 2
    """Decimal places of its amounts."""

    def exact(self, money: Mapping[str, str], *, positive: bool = False) -> Decimal:
        """An amount of a request. Raises ``Refused``: ``currency_invalid`` for another currency, ``amount_invalid`` for
        more places than it has, or for nothing where it must be ``positive``."""
        if money["currency"] != self.code:
            raise Refused("currency_invalid")
        amount = Decimal(money["amount"])
        if amount != round(amount, self.places) or (positive and not amount):
            raise Refused("amount_invalid")
        return amount

    def money(self, amount: Decimal) -> dict[str, str]:
        """An amount for a reply. Raises ``Broken`` rather than round."""
        return {"amount": decimal_string(amount, self.places), "currency": self.code}
