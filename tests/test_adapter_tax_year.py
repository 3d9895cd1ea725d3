"""A household's assessment for a year, against a real OpenFisca with its example country."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from config.systems.running import Copy
from gsb.schema import Schema
from gsb.sdk import Broken, Refused
from gsb_adapters.tax import Tax
from gsb_adapters.tax.assessment import HOUSEHOLD
from tests.support.adapters import opened, request
from tests.support.real import shared
from tests.support.sockets import answering, http

MONTH, YEAR = "tax/income-tax/v1", "tax/annual-assessment/v1"
SCHEMAS = Path(__file__).parents[1] / "schemas"
MONTHS = [f"2026-{number:02}" for number in range(1, 13)]
HOME = {"area": 90, "occupancy": "tenant"}
module_loop = pytest.mark.asyncio(loop_scope="module")
pytestmark = pytest.mark.slow


def schema(side: str) -> Schema:
    return Schema.compile(json.loads((SCHEMAS / YEAR / f"{side}.json").read_bytes()), side)


def money(amount: str) -> dict[str, str]:
    return {"amount": amount, "currency": "XOF"}


def month(name: str, gross: str, withheld: str = "0") -> dict[str, Any]:
    return {"month": name, "gross": money(gross), "withheld": money(withheld)}


def adult(*months: dict[str, Any], tin: str = "TIN-0000042") -> dict[str, Any]:
    return {"tin": tin, "months": list(months)}


def asked(*adults: dict[str, Any], **more: Any) -> dict[str, Any]:
    body = {"tin": "TIN-0000042", "year": "2026", "adults": list(adults), **more}
    assert schema("request").faults(body) == []
    return body


engine = shared("openfisca")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tax(engine: Copy) -> AsyncIterator[Tax]:
    async with opened(Tax, {"url": engine.url, "currency": "XOF"}, {MONTH: {}, YEAR: {}}) as adapter:
        yield adapter


async def assess(tax: Tax, body: dict[str, Any]) -> Any:
    reply = await tax.handle(request(YEAR, body))
    assert schema("reply").faults(reply.body) == []
    assert reply.note == "computed by openfisca-country_template 8.2.0"
    return reply.body


@module_loop
async def test_who_withheld_what_each_month_said_owes_nothing(tax: Tax) -> None:
    """Of odd amounts, whose tax is rounded each month."""
    months = []
    for number, name in enumerate(MONTHS):
        gross = format(Decimal("2000.33") + 1500 * number, "f")
        asks = {"tin": "TIN-0000042", "period": name, "gross": money(gross)}
        told = (await tax.handle(request(MONTH, asks))).body
        withheld = sum(Decimal(told[each]["amount"]) for each in ("income_tax", "social_security_contribution"))
        months.append(month(name, gross, format(withheld, "f")))
    reply = await assess(tax, asked(adult(*months)))
    assert (reply["to_pay"], reply["to_refund"]) == (money("0.00"), money("0.00"))
    assert reply["due"] == reply["withheld"] != money("0.00")
    assert [each["month"] for each in reply["adults"][0]["months"]] == MONTHS


@module_loop
@pytest.mark.parametrize(
    ("withheld", "to_pay", "to_refund"),
    [("714", "900.00", "0.00"), ("1614.00", "0.00", "0.00"), ("1614.01", "0.00", "0.01"), ("0", "1614.00", "0.00")],
)
async def test_what_is_left_is_paid_or_refunded(tax: Tax, withheld: str, to_pay: str, to_refund: str) -> None:
    reply = await assess(tax, asked(adult(month("2026-09", "4200", withheld)), dwelling=HOME))
    assert {name: reply[name]["amount"] for name in ("housing_tax", "due", "to_pay", "to_refund")} == {
        "housing_tax": "900.00",
        "due": "1614.00",
        "to_pay": to_pay,
        "to_refund": to_refund,
    }


@module_loop
async def test_a_household_is_assessed_together(tax: Tax) -> None:
    first = adult(*(month(name, "4200", "714") for name in MONTHS))
    second = adult(month("2026-11", "2000.50", "400.00"), tin="TIN-0000043")
    reply = await assess(tax, asked(first, second, children=["2020-05-17", "2022-01-01"], dwelling=HOME))
    one, other = reply["adults"]
    assert (one["gross"], one["income_tax"], one["withheld"]) == (money("50400.00"), money("7560.00"), money("8568.00"))
    assert (other["tin"], other["income_tax"]) == ("TIN-0000043", money("300.08"))
    assert other["social_security_contribution"] == money("40.01")
    assert reply["due"] == money(format(Decimal("12") * 714 + Decimal("340.09") + 900, "f"))
    assert reply["to_refund"] == money("0.00")


@module_loop
async def test_housing_tax_is_asked_for_only_where_somebody_lives(tax: Tax) -> None:
    """The engine would ask the least of whoever says nothing."""
    september = adult(month("2026-09", "4200"))
    assert (await assess(tax, asked(september)))["housing_tax"] == money("0.00")
    for dwelling, amount in (
        (HOME, "900.00"),
        (HOME | {"area": 5}, "200.00"),
        (HOME | {"occupancy": "homeless"}, "0.00"),
    ):
        assert (await assess(tax, asked(september, dwelling=dwelling)))["housing_tax"] == money(amount)


@module_loop
async def test_the_examples_of_the_schemas_are_true(tax: Tax) -> None:
    assert await assess(tax, schema("request").examples[0]) == schema("reply").examples[0]


@module_loop
async def test_a_year_without_rules_is_refused(tax: Tax) -> None:
    body = {"tin": "TIN-0000042", "year": "1985", "adults": [adult(month("1985-01", "4200"))]}
    with pytest.raises(Refused) as raised:
        await tax.handle(request(YEAR, body))
    assert raised.value.code == "period_not_covered"


@module_loop
@pytest.mark.parametrize(
    ("persons", "household", "message"),
    [
        ({"income_tax": {"2026": None}}, {"adults": ["p"]}, "status 500: .*must be computed for a whole month"),
        ({"incom_tax": {"2026-09": None}}, {"adults": ["p"]}, "status 404: .*was not found in the loaded"),
        ({"income_tax": {"2026-09": None}}, {"parents": ["p"]}, "status 404: .*was not found in the loaded"),
        ({"salary": {"2026-09": "much"}}, {"adults": ["p"]}, "status 400: .*expected type number"),
        ({"housing_tax": {"2026": None}}, {"adults": ["p"]}, "status 400: .*is defined for 'households'"),
    ],
    ids=["year-for-month", "variable", "role", "type", "entity"],
)
async def test_a_mistake_of_ours_is_broken_and_never_tried_again(
    tax: Tax, monkeypatch: pytest.MonkeyPatch, persons: Any, household: Any, message: str
) -> None:
    """Whatever the status by which the engine says so: 500 for a wrong period, 404 for a word that it does not know."""
    wrong = {"persons": {"p": persons}, "households": {HOUSEHOLD: household}}
    monkeypatch.setattr("gsb_adapters.tax.situation", lambda body, exact: wrong)
    with pytest.raises(Broken, match=message):
        await tax.handle(request(YEAR, asked(adult(month("2026-09", "4200")))))


# --- what a real engine cannot be made to answer


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (asked(adult(month("2026-09", "1"), tin="TIN-0000043")), "persons_invalid"),
        (asked(adult(month("2026-09", "1")), adult(month("2026-10", "1"))), "persons_invalid"),
        (asked(adult(month("2025-09", "1"))), "months_invalid"),
        (asked(adult(month("2026-09", "1"), month("2026-09", "2"))), "months_invalid"),
        (asked(adult(month("2026-09", "1.005"))), "amount_invalid"),
        (asked(adult({**month("2026-09", "1"), "gross": {"amount": "1", "currency": "EUR"}})), "currency_invalid"),
    ],
)
async def test_what_a_schema_cannot_say_is_refused_before_the_engine_is_asked(body: dict[str, Any], code: str) -> None:
    async with answering(http(b"{}")) as server, opened(Tax, {"url": server.url, "currency": "XOF"}, {}) as tax:
        with pytest.raises(Refused) as raised:
            await tax.handle(request(YEAR, body))
    assert raised.value.code == code
    assert server.requests == []


async def test_the_engine_learns_nobody_s_number_and_floats_become_amounts() -> None:
    answer = b"""{"persons": {"adult-0": {"income_tax": {"2026-09": 0.145, "2026-10": 0.30000001192092896},
      "social_security_contribution": {"2026-09": 0, "2026-10": 1e-7}}}, "households": {}}"""
    headers = ("Country-Package: rules", "Country-Package-Version: 1")
    body = asked(adult(month("2026-09", "0.1", "0.45"), month("2026-10", "0.2")), children=["2020-05-17"])
    async with (
        answering(http(answer, "200 OK", *headers)) as server,
        opened(Tax, {"url": server.url, "currency": "XOF"}, {}) as tax,
    ):
        reply = (await tax.handle(request(YEAR, body))).body
        with pytest.raises(Broken, match="housing_tax"):
            await tax.handle(request(YEAR, body | {"dwelling": HOME}))
        with pytest.raises(Broken, match="no service"):
            await tax.handle(request("tax/poll-tax/v1", body))
    assert reply["adults"][0]["income_tax"] == money("0.45")
    assert (reply["due"], reply["to_pay"], reply["to_refund"]) == (money("0.45"), money("0.00"), money("0.00"))
    assert reply["rules"] == "rules 1"
    assert b"TIN" not in server.requests[0]
