"""Amounts of money between the bus and an adapter: exact both ways, in one currency."""

from __future__ import annotations

from decimal import Decimal

import pytest

from gsb.sdk import Broken, Currency, Refused

FRANC, DINAR = Currency("XOF"), Currency("TND", 3)


def test_an_amount_is_the_same_both_ways() -> None:
    money = {"amount": "1234.50", "currency": "XOF"}
    assert FRANC.exact(money) == Decimal("1234.5")
    assert FRANC.money(FRANC.exact(money)) == money
    assert DINAR.money(Decimal("0.5")) == {"amount": "0.500", "currency": "TND"}
    assert FRANC.exact({"amount": "0", "currency": "XOF"}) == 0


@pytest.mark.parametrize(
    ("amount", "currency", "positive", "code"),
    [
        ("1.00", "TND", False, "currency_invalid"),
        ("1.001", "XOF", False, "amount_invalid"),
        ("0.00", "XOF", True, "amount_invalid"),
    ],
)
def test_an_amount_that_the_system_does_not_have_is_refused(
    amount: str, currency: str, positive: bool, code: str
) -> None:
    with pytest.raises(Refused) as raised:
        FRANC.exact({"amount": amount, "currency": currency}, positive=positive)
    assert raised.value.code == code


def test_nothing_is_rounded() -> None:
    with pytest.raises(Broken):
        FRANC.money(Decimal("1.005"))
