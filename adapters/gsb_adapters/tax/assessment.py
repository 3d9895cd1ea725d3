"""A household's assessment for a year: what the engine is asked of each month, and what is then due, withheld and left.

Every month's tax is rounded by itself, as it is when it is withheld, so that a year of correct withholding leaves
nothing to pay. Pure: nothing is sent or kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from gsb.sdk import Currency, Refused

MONTHLY = ("income_tax", "social_security_contribution")
YEARLY = "housing_tax"
HOUSEHOLD = "household"

Body = Mapping[str, Any]
Read = Callable[[str, str, str, str], Decimal]
"""A figure of the answer: group of entities, entity, variable, period."""


def situation(body: Body, currency: Currency) -> dict[str, Any]:
    """What the engine is asked. Persons are numbered there: it needs no names. Raises Refused."""
    _check(body)
    adults = {
        _adult(number): earning({each["month"]: currency.exact(each["gross"]) for each in adult["months"]})
        for number, adult in enumerate(body["adults"])
    }
    births = enumerate(body.get("children", []))
    children = {f"child-{number}": {"birth": {"ETERNITY": birth}} for number, birth in births}
    household: dict[str, Any] = {"adults": list(adults), "children": list(children)}
    if (dwelling := body.get("dwelling")) is not None:
        # What was so in January holds for the year's tax.
        january = f"{body['year']}-01"
        household["accommodation_size"] = {january: dwelling["area"]}
        household["housing_occupancy_status"] = {january: dwelling["occupancy"]}
        household[YEARLY] = {body["year"]: None}
    return {"persons": adults | children, "households": {HOUSEHOLD: household}}


def assessed(body: Body, currency: Currency, read: Read) -> dict[str, Any]:
    """The reply, but for the rules that were applied."""
    money = currency.money
    adults, due, withheld = [], Decimal(0), Decimal(0)
    for number, adult in enumerate(body["adults"]):
        months = [
            (each["month"], *(read("persons", _adult(number), name, each["month"]) for name in MONTHLY))
            for each in adult["months"]
        ]
        tax, contribution = (sum((month[place] for month in months), Decimal(0)) for place in (1, 2))
        gross, kept = (_sum(adult, name, currency) for name in ("gross", "withheld"))
        due, withheld = due + tax + contribution, withheld + kept
        adults.append(
            {
                "tin": adult["tin"],
                "gross": money(gross),
                "income_tax": money(tax),
                "social_security_contribution": money(contribution),
                "withheld": money(kept),
                "months": [
                    {"month": month, "income_tax": money(one), "social_security_contribution": money(other)}
                    for month, one, other in months
                ],
            }
        )
    housing = read("households", HOUSEHOLD, YEARLY, body["year"]) if "dwelling" in body else Decimal(0)
    due += housing
    return {
        "tin": body["tin"],
        "year": body["year"],
        "adults": adults,
        "housing_tax": money(housing),
        "due": money(due),
        "withheld": money(withheld),
        "to_pay": money(max(due - withheld, Decimal(0))),
        "to_refund": money(max(withheld - due, Decimal(0))),
    }


def _adult(number: int) -> str:
    return f"adult-{number}"


def _sum(adult: Body, name: str, currency: Currency) -> Decimal:
    return sum((currency.exact(each[name]) for each in adult["months"]), Decimal(0))


def earning(salary: Mapping[str, Decimal]) -> dict[str, Any]:
    """Somebody with a salary in each of these months. A period is the name of a member, and a null is a question."""
    return {"salary": salary} | {name: dict.fromkeys(salary) for name in MONTHLY}


def _check(body: Body) -> None:
    """What a schema cannot say: who is assessed is one of them, once, and each month is one of the year, once."""
    persons = Counter(adult["tin"] for adult in body["adults"])
    if body["tin"] not in persons or persons.most_common(1)[0][1] > 1:
        raise Refused("persons_invalid")
    for adult in body["adults"]:
        months = Counter(each["month"] for each in adult["months"])
        if months.most_common(1)[0][1] > 1 or any(not month.startswith(f"{body['year']}-") for month in months):
            raise Refused("months_invalid")
