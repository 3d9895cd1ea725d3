"""The tax adapter against a real OpenFisca with its example country."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from config.systems.running import Copy
from gsb.schema import Schema
from gsb.sdk import Broken, Refused, Unavailable
from gsb_adapters.tax import Tax
from tests.support.adapters import opened, request
from tests.support.real import real, shared
from tests.support.sockets import answering, http

SERVICE = "tax/income-tax/v1"
FOLDER = Path(__file__).parents[1] / "schemas" / SERVICE
RULES = "openfisca-country_template 8.2.0"
module_loop = pytest.mark.asyncio(loop_scope="module")


def schema(name: str) -> Schema:
    return Schema.compile(json.loads((FOLDER / f"{name}.json").read_bytes()), name)


def asked(amount: str, *, period: str = "2026-09", currency: str = "XOF") -> dict[str, Any]:
    body = {"tin": "TIN-0000042", "period": period, "gross": {"amount": amount, "currency": currency}}
    assert schema("request").faults(body) == []
    return body


def money(amount: str) -> dict[str, str]:
    return {"amount": amount, "currency": "XOF"}


engine = shared("openfisca")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tax(engine: Copy) -> AsyncIterator[Tax]:
    async with opened(Tax, {"url": engine.url, "currency": "XOF"}, {SERVICE: {}}) as adapter:
        yield adapter


@pytest.mark.slow
@module_loop
@pytest.mark.parametrize(
    ("gross", "income_tax", "contribution", "net"),
    [
        ("4200", "630.00", "84.00", "3486.00"),
        ("4200.00", "630.00", "84.00", "3486.00"),
        ("0", "0.00", "0.00", "0.00"),
        ("2000.50", "300.08", "40.01", "1660.41"),  # 300.075 is rounded half up
        ("214500.50", "32175.08", "24756.06", "157569.36"),
    ],
)
async def test_a_months_tax(tax: Tax, gross: str, income_tax: str, contribution: str, net: str) -> None:
    reply = await tax.handle(request(SERVICE, asked(gross)))
    assert schema("reply").faults(reply.body) == []
    assert reply.body == {
        "tin": "TIN-0000042",
        "period": "2026-09",
        "gross": money(format(Decimal(gross), ".2f")),
        "income_tax": money(income_tax),
        "social_security_contribution": money(contribution),
        "net": money(net),
        "rules": RULES,
    }
    assert reply.note == f"computed by {RULES}"


@pytest.mark.slow
@module_loop
async def test_the_examples_of_the_schemas_are_true(tax: Tax) -> None:
    example, expected = schema("request").examples[0], schema("reply").examples[0]
    assert (await tax.handle(request(SERVICE, example))).body == expected


@pytest.mark.slow
@module_loop
async def test_many_at_once(tax: Tax) -> None:
    amounts = [str(1000 + number) for number in range(100)]
    replies = await asyncio.gather(*(tax.handle(request(SERVICE, asked(amount))) for amount in amounts))
    assert [reply.body["gross"]["amount"] for reply in replies] == [f"{amount}.00" for amount in amounts]


@pytest.mark.slow
@module_loop
async def test_a_month_without_rules_is_refused(tax: Tax) -> None:
    for period in ("1985-01", "1999-12"):
        with pytest.raises(Refused) as raised:
            await tax.handle(request(SERVICE, asked("4200", period=period)))
        assert raised.value.code == "period_not_covered"


@pytest.mark.slow
@module_loop
async def test_what_the_engine_does_not_understand_is_broken(tax: Tax) -> None:
    """Its answers to a caller's mistakes are 400, 404 and 500 alike, and none gets better by repeating."""
    for period in ("2026", "2026-13"):
        with pytest.raises(Broken, match="status"):
            await tax.handle(request(SERVICE, {**asked("4200"), "period": period}))


@pytest.mark.slow
@module_loop
async def test_check_says_whether_it_is_there(tax: Tax) -> None:
    await tax.check()


@pytest.mark.slow
async def test_a_stopped_engine_is_unavailable_and_a_started_one_is_back(tmp_path: Path) -> None:
    async with (
        real("openfisca", tmp_path) as server,
        opened(Tax, {"url": server.url, "currency": "XOF"}, {SERVICE: {}}) as tax,
    ):
        await server.stop()
        with pytest.raises(Unavailable) as raised:
            await tax.handle(request(SERVICE, asked("4200")))
        assert raised.value.sent is False
        with pytest.raises(Unavailable):
            await tax.check()
        await server.start()
        await tax.check()
        assert (await tax.handle(request(SERVICE, asked("4200")))).body["net"] == money("3486.00")


# --- what a real engine cannot be made to answer

HEADERS = ("Country-Package: rules", "Country-Package-Version: 1")


@pytest.mark.parametrize(
    ("amount", "currency", "code"),
    [("4200.00", "EUR", "currency_invalid"), ("4200.005", "XOF", "amount_invalid")],
)
async def test_other_amounts_are_refused_before_the_engine_is_asked(amount: str, currency: str, code: str) -> None:
    async with (
        answering(http(b"{}")) as server,
        opened(Tax, {"url": server.url, "currency": "XOF"}, {SERVICE: {}}) as tax,
    ):
        with pytest.raises(Refused) as raised:
            await tax.handle(request(SERVICE, asked(amount, currency=currency)))
    assert raised.value.code == code
    assert server.requests == []


async def test_the_engine_learns_nothing_of_the_person_and_amounts_stay_decimal() -> None:
    asks = (
        b'{"persons": {"person": {"income_tax": {"2026-09": 0.1}, "social_security_contribution": {"2026-09": 0.2}}}}'
    )
    async with (
        answering(http(asks, "200 OK", *HEADERS)) as server,
        opened(Tax, {"url": server.url, "currency": "XOF", "places": 1}, {SERVICE: {}}) as tax,
    ):
        reply = await tax.handle(request(SERVICE, asked("0.4")))
    assert reply.body["net"] == money("0.1")
    assert b"TIN" not in server.requests[0]


@pytest.mark.parametrize(
    ("status", "sent"), [("429 Slow", False), ("502 Bad", True), ("503 Busy", True), ("504 Late", True)]
)
async def test_an_overloaded_engine_is_unavailable(status: str, sent: bool) -> None:
    async with (
        answering(http(b"", status, "Retry-After: 9")) as server,
        opened(Tax, {"url": server.url, "currency": "XOF"}, {SERVICE: {}}) as tax,
    ):
        with pytest.raises(Unavailable) as raised:
            await tax.handle(request(SERVICE, asked("4200")))
    assert (raised.value.sent, raised.value.after) == (sent, 9.0)


@pytest.mark.parametrize(
    "answer",
    [
        http(b"[]", "200 OK", *HEADERS),
        http(b"{}", "200 OK", *HEADERS),
        http(b"<html>", "200 OK", *HEADERS),
        http(b'{"persons": {"person": {"income_tax": {"2026-09": "1"}}}}', "200 OK", *HEADERS),
        http(b'{"persons": {"person": {"income_tax": {"2026-09": true}}}}', "200 OK", *HEADERS),
        http(b"{}"),
        http(b"no such thing", "404 Not Found"),
        http(b"oops", "500 Internal Server Error"),
    ],
    ids=["array", "empty", "html", "text", "bool", "no-rules", "404", "500"],
)
async def test_an_answer_that_makes_no_sense_is_broken(answer: bytes) -> None:
    async with (
        answering(answer) as server,
        opened(Tax, {"url": server.url, "currency": "XOF"}, {SERVICE: {}}) as tax,
    ):
        with pytest.raises(Broken):
            await tax.handle(request(SERVICE, asked("4200")))
