"""The services of the social insurance fund in ``config/government``: the adapter for databases by configuration alone,
with the same statements on SQLite and PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from config.government.play.insurance import ROWS, SCHEMA, build
from gsb.model import Request
from gsb.schema import Schema
from gsb.sdk import Effect, Refused, Unavailable
from gsb_adapters.sql import Sql
from gsb_adapters.sql.settings import Statement
from tests.support.adapters import opened, request
from tests.support.postgres import some_server

ROOT = Path(__file__).parents[1]
CONTRIBUTION, ENTITLEMENT = "social-insurance/contribution/v1", "social-insurance/entitlement/v1"
TABLES = {
    name: tomllib.loads((ROOT / f"config/government/services/{name}.toml").read_text("utf-8"))
    for name in (CONTRIBUTION, ENTITLEMENT)
}
SETTINGS = {name: table["settings"] for name, table in TABLES.items()}
HELD = "SELECT employer, person, period, earnings, amount FROM contributions ORDER BY person, period, employer"
EMPLOYER, OTHER = "EMP-00001", "EMP-00002"


@dataclass(frozen=True)
class Fund:
    """The services, and what another program reads in the database."""

    services: Sql
    held: Callable[[], Awaitable[list[tuple[Any, ...]]]]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with some_server() as dsn:
        yield dsn


@pytest.fixture(params=["sqlite", "postgresql"])
async def fund(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Fund]:
    if request.param == "sqlite":
        async with on_sqlite(tmp_path) as found:
            yield found
    else:
        async with on_postgres(request.getfixturevalue("server")) as found:
            yield found


@asynccontextmanager
async def on_sqlite(folder: Path) -> AsyncIterator[Fund]:
    path = folder / "insurance.sqlite"
    build(path)

    async def held() -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path)) as database:
            return database.execute(HELD).fetchall()

    async with opened(Sql, {"url": "sqlite+aiosqlite:///insurance.sqlite"}, SETTINGS, folder=folder) as services:
        yield Fund(services, held)


@asynccontextmanager
async def on_postgres(dsn: str) -> AsyncIterator[Fund]:
    """In a schema of its own, which is dropped in the end."""
    owner = await asyncpg.connect(dsn)

    async def held() -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await owner.fetch(HELD)]

    try:
        await owner.execute("CREATE SCHEMA insurance")
        await owner.execute("SET search_path TO insurance")
        await owner.execute(SCHEMA)
        for statement, rows in ROWS:
            parts = statement.split("?")
            numbered = "".join(f"{part}${number}" for number, part in enumerate(parts[:-1], start=1)) + parts[-1]
            await owner.executemany(numbered, rows)
        await owner.execute("ALTER ROLE CURRENT_USER SET search_path TO insurance")
        async with opened(Sql, {"url": dsn.replace("postgresql:", "postgresql+asyncpg:")}, SETTINGS) as services:
            yield Fund(services, held)
    finally:
        await owner.execute("ALTER ROLE CURRENT_USER RESET search_path")
        await owner.execute("DROP SCHEMA IF EXISTS insurance CASCADE")
        await owner.close()


def faults(service: str, side: str, body: Any) -> list[Any]:
    path = ROOT / "schemas" / service / f"{side}.json"
    return list(Schema.compile(json.loads(path.read_bytes()), path.name).faults(body))


async def answered(fund: Fund, asked: Request) -> Any:
    assert faults(asked.service, "request", asked.body) == []
    reply = (await fund.services.handle(asked)).body
    assert faults(asked.service, "reply", reply) == []
    return reply


async def code(fund: Fund, asked: Request) -> str:
    with pytest.raises(Refused) as raised:
        await answered(fund, asked)
    return raised.value.code


def money(amount: str, currency: str = "XOF") -> dict[str, str]:
    return {"amount": amount, "currency": currency}


def paid(
    period: str = "2026-09",
    *,
    employer: str = EMPLOYER,
    person: str = "NID-0000042",
    earnings: str = "214500.50",
    **more: Any,
) -> Request:
    """A contribution of a tenth of the earnings, but for what is given."""
    tenth = (Decimal(earnings) / 10).quantize(Decimal("0.01"), ROUND_HALF_UP)
    body = {"employer": employer, "person": person, "period": period}
    return request(CONTRIBUTION, body | {"earnings": money(earnings), "contribution": money(str(tenth))} | more)


def asks(benefit: str, period: str = "2026-09", person: str = "NID-0000042") -> Request:
    return request(ENTITLEMENT, {"person": person, "benefit": benefit, "period": period})


# --- contributions


async def test_a_contribution_is_recorded_once_however_often_it_comes(fund: Fund) -> None:
    first = paid()
    reply = {"reference": first.exchange, "employer": EMPLOYER, "person": "NID-0000042", "period": "2026-09"}
    assert await fund.services.find(first) is None
    assert await answered(fund, first) == reply
    # The same exchange again, and another one that says the same: both get the first one's reference.
    assert await answered(fund, first) == reply
    assert await answered(fund, paid()) == reply
    assert await fund.held() == [(EMPLOYER, "NID-0000042", "2026-09", 21450050, 2145005)]
    found = await fund.services.find(first)
    assert found is not None
    assert found.body == reply


@pytest.mark.parametrize(
    "more",
    [
        {"contribution": money("21450.06")},
        {"earnings": money("214500.51"), "contribution": money("21450.05")},
        {"contribution": money("21450.05", "EUR")},
        {"earnings": money("214500.50", "EUR"), "contribution": money("21450.05", "EUR")},
    ],
    ids=["another amount", "other earnings", "two currencies", "another currency"],
)
async def test_something_else_for_the_same_month_is_refused_and_changes_nothing(
    fund: Fund, more: dict[str, Any]
) -> None:
    await answered(fund, paid())
    before = await fund.held()
    asked = request(CONTRIBUTION, paid().body | more)
    assert await code(fund, asked) == "conflict"
    assert await fund.held() == before
    assert await fund.services.find(asked) is None


async def test_a_currency_that_the_fund_does_not_keep_is_refused(fund: Fund) -> None:
    euros = {"earnings": money("10.00", "EUR"), "contribution": money("1.00", "EUR")}
    for more in (euros, {"contribution": money("1.00", "EUR")}):
        assert await code(fund, request(CONTRIBUTION, paid().body | more)) == "conflict"
    assert await fund.held() == []


@pytest.mark.parametrize("who", [{"person": "NID-9999999"}, {"employer": "EMP-99999"}], ids=str)
async def test_whom_the_fund_does_not_know_pays_nothing_in(fund: Fund, who: dict[str, str]) -> None:
    assert await code(fund, paid(**who)) == "not_found"
    assert await fund.held() == []


async def test_many_at_once_are_each_recorded_once(fund: Fund) -> None:
    """Two of each: an agency that sent everything again under other keys."""
    ten = [paid(person=f"NID-{number:07}") for number in range(1, 11)]
    again = [paid(person=each.body["person"]) for each in ten]

    async def until_it_is_done(asked: Request) -> Any:
        for _ in range(1_000):
            try:
                return await answered(fund, asked)
            except Unavailable as error:
                if error.sent:
                    raise  # else another one was writing, and nothing of this was sent
        raise AssertionError("the database stays busy")

    replies = await asyncio.gather(*map(until_it_is_done, [*ten, *again]))
    assert [each["reference"] for each in replies[:10]] == [each["reference"] for each in replies[10:]]
    assert len(await fund.held()) == 10


def test_amounts_that_are_no_amounts_are_refused_before_the_database() -> None:
    for amount in ("1.5", "1", "-1.00", "01.00", "1e3", "10000000000.00", "1,00", ""):
        assert faults(CONTRIBUTION, "request", paid(contribution=money(amount)).body), amount


# --- entitlement


async def pay(fund: Fund, *periods: str, **how: Any) -> None:
    for period in periods:
        await answered(fund, paid(period, **how))


async def test_the_months_that_count_decide(fund: Fund) -> None:
    """Sickness: three months of the last six."""
    await pay(fund, "2026-04", "2026-05", "2026-09", earnings="300000.00")
    assert await answered(fund, asks("sickness")) == {
        "person": "NID-0000042",
        "benefit": "sickness",
        "period": "2026-09",
        "months": 3,
        "required": 3,
        "within": 6,
        "entitled": True,
        "contributed": money("90000.00"),
        "monthly": money("210000.00"),
    }
    later = await answered(fund, asks("sickness", "2026-10"))
    assert (later["months"], later["entitled"], later["monthly"]) == (2, False, money("0.00"))
    earlier = await answered(fund, asks("sickness", "2026-08"))
    assert (earlier["months"], earlier["contributed"]) == (2, money("60000.00"))


async def test_months_count_over_the_end_of_a_year(fund: Fund) -> None:
    await pay(fund, "2025-08", "2025-11", "2025-12", "2026-01", earnings="100.00")
    assert (await answered(fund, asks("sickness", "2026-01")))["months"] == 4
    assert (await answered(fund, asks("sickness", "2026-02")))["months"] == 3


async def test_two_employers_make_one_month(fund: Fund) -> None:
    await pay(fund, "2026-07", "2026-08", earnings="200000.00")
    await pay(fund, "2026-08", employer=OTHER, earnings="100000.00")
    reply = await answered(fund, asks("sickness"))
    assert (reply["months"], reply["entitled"], reply["contributed"]) == (2, False, money("50000.00"))
    await pay(fund, "2026-09", earnings="200000.00")
    # 700,000 earned in three months, of which 70 per cent.
    assert (await answered(fund, asks("sickness")))["monthly"] == money("163333.33")


async def test_nothing_was_paid_for_somebody_else(fund: Fund) -> None:
    await pay(fund, "2026-07", "2026-08", "2026-09")
    reply = await answered(fund, asks("sickness", person="NID-0000043"))
    assert (reply["months"], reply["entitled"], reply["contributed"]) == (0, False, money("0.00"))


@pytest.mark.parametrize("asked", [asks("sickness", person="NID-9999999"), asks("leisure")], ids=["person", "benefit"])
async def test_what_the_fund_does_not_know_is_not_found(fund: Fund, asked: Request) -> None:
    assert await code(fund, asked) == "not_found"


async def test_amounts_are_exact_and_rounded_half_up(fund: Fund) -> None:
    """As decimals add up, and not as floats do: 0.10 + 0.20 is 0.30."""
    earned = [Decimal(text) for text in ("0.10", "0.20", "9999999999.99")]
    for period, each in zip(("2026-07", "2026-08", "2026-09"), earned, strict=True):
        await answered(fund, paid(period, earnings=str(each), contribution=money(str(each))))
    reply = await answered(fund, asks("sickness"))
    assert reply["contributed"] == money(str(sum(earned)))
    expected = (sum(earned, Decimal(0)) / 3 * 70 / 100).quantize(Decimal("0.01"), ROUND_HALF_UP)
    assert reply["monthly"] == money(str(expected))


# --- the configuration


def test_what_is_declared_holds() -> None:
    assert {name: table["effect"] for name, table in TABLES.items()} == {
        CONTRIBUTION: "repeatable",
        ENTITLEMENT: "none",
    }
    for name, table in TABLES.items():
        Statement.model_validate(table["settings"]).fits(Effect(table["effect"]))
        for side in ("request", "reply"):
            document = json.loads((ROOT / f"schemas/{name}/{side}.json").read_bytes())
            assert [faults(name, side, example) for example in document["examples"]] == [[]]


def test_a_database_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "fund" / "insurance.sqlite"
    for _ in range(2):
        build(path)
        with closing(sqlite3.connect(path)) as database:
            database.execute("INSERT INTO insured VALUES (hex(randomblob(8)))")
            database.commit()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM insured").fetchone() == (202,)
