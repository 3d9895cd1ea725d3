"""The personnel services of ``config/government`` on SQLite and PostgreSQL: the same statements, the same answers."""

from __future__ import annotations

import json
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from config.government.play.personnel import INSERTS, MINISTRY, MONEY, SCHEMA, Person, build, people, rows
from gsb.model import Request
from gsb.schema import Schema
from gsb.sdk import Refused
from gsb_adapters.sql import Sql
from tests.support.adapters import opened, request
from tests.support.postgres import some_server

ROOT = Path(__file__).parents[1]
NAMES = ("employee", "post", "payroll-list")
STAFF = people(45)
SERVICES: Mapping[str, Mapping[str, Any]] = {
    f"hrmis/{name}/v1": tomllib.loads((ROOT / f"config/government/services/hrmis/{name}/v1.toml").read_text("utf-8"))[
        "settings"
    ]
    for name in NAMES
}
Hrmis = Callable[[], AbstractAsyncContextManager[Sql]]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with some_server() as dsn:
        yield dsn


@pytest.fixture(params=["sqlite", "postgresql"])
def hrmis(request: pytest.FixtureRequest, tmp_path: Path) -> Hrmis:
    """Opens the services on this database, with the staff in it."""
    if request.param == "sqlite":
        build(tmp_path / "personnel.sqlite", STAFF)
        return lambda: opened(Sql, {"url": "sqlite+aiosqlite:///personnel.sqlite"}, SERVICES, folder=tmp_path)
    dsn = request.getfixturevalue("server")
    return lambda: _on_postgres(dsn)


@asynccontextmanager
async def _on_postgres(dsn: str) -> AsyncIterator[Sql]:
    """The same in a schema of its own, which is dropped in the end."""
    owner = await asyncpg.connect(dsn)
    try:
        await owner.execute("CREATE SCHEMA personnel")
        await owner.execute("SET search_path TO personnel")
        await owner.execute(SCHEMA.replace("MONEY", MONEY["postgresql"]))
        for statement, content in zip(INSERTS, rows(STAFF), strict=True):
            await owner.executemany(numbered(statement), content)
        await owner.execute("ALTER ROLE CURRENT_USER SET search_path TO personnel")
        async with opened(Sql, {"url": dsn.replace("postgresql:", "postgresql+asyncpg:")}, SERVICES) as adapter:
            yield adapter
    finally:
        await owner.execute("ALTER ROLE CURRENT_USER RESET search_path")
        await owner.execute("DROP SCHEMA IF EXISTS personnel CASCADE")
        await owner.close()


def numbered(statement: str) -> str:
    """With PostgreSQL's placeholders."""
    before, *marks = statement.split("?")
    return before + "".join(f"${number}{rest}" for number, rest in enumerate(marks, start=1))


def fits(name: str, body: Any) -> bool:
    path = ROOT / f"schemas/hrmis/{name}/v1/reply.json"
    return not Schema.compile(json.loads(path.read_bytes()), path.name).faults(body)


async def asked(adapter: Sql, name: str, body: Any) -> Any:
    reply = (await adapter.handle(_asked(name, body))).body
    assert fits(name, reply)
    return reply


def _asked(name: str, body: Any) -> Request:
    return request(f"hrmis/{name}/v1", body)


def money(person: Person) -> Mapping[str, str]:
    return {"amount": f"{person.salary:.2f}", "currency": "XOF"}


async def test_a_record_tells_the_salary_in_force_to_the_cent(hrmis: Hrmis) -> None:
    async with hrmis() as adapter:
        for person in STAFF[:5]:
            record = await asked(adapter, "employee", {"employee": person.employee})
            assert record["salary"] == money(person)
            assert record["birth_date"] == person.birth_date.isoformat()
            assert record["name"] == {"family": person.family, "given": person.given}
            assert record["national_id"] == person.national_id


@pytest.mark.parametrize(("name", "body"), [("employee", {"employee": "E-999999"}), ("post", {"post": 999_999})])
async def test_what_is_not_there_is_not_found(hrmis: Hrmis, name: str, body: Any) -> None:
    async with hrmis() as adapter:
        with pytest.raises(Refused) as refused:
            await adapter.handle(_asked(name, body))
    assert refused.value.code == "not_found"


async def test_a_post_tells_how_many_hold_it(hrmis: Hrmis) -> None:
    async with hrmis() as adapter:
        for number in sorted({person.post for person in STAFF}):
            post = await asked(adapter, "post", {"post": number})
            assert post["filled"] == sum(person.post == number for person in STAFF)
            assert (post["ministry"], post["established"]) == (MINISTRY, len(STAFF))


@pytest.mark.parametrize("limit", [1, 7, 45, 200])
async def test_pages_hold_everybody_once_in_order(hrmis: Hrmis, limit: int) -> None:
    async with hrmis() as adapter:
        found: list[Any] = []
        ask: dict[str, Any] | None = {"ministry": MINISTRY, "limit": limit}
        while ask is not None:
            page = await asked(adapter, "payroll-list", ask)
            assert len(page["employees"]) <= limit
            found += page["employees"]
            ask = ask | {"after": page["next"]} if "next" in page else None
    assert [each["employee"] for each in found] == [person.employee for person in STAFF]
    assert [each["salary"] for each in found] == [money(person) for person in STAFF]
    assert [each["bank_account"] for each in found] == [person.bank_account for person in STAFF]


async def test_a_page_does_not_move_when_people_before_it_leave(tmp_path: Path) -> None:
    build(tmp_path / "personnel.sqlite", STAFF)
    settings = {"url": "sqlite+aiosqlite:///personnel.sqlite"}
    ask = {"ministry": MINISTRY, "after": STAFF[19].employee, "limit": 10}
    async with opened(Sql, settings, SERVICES, folder=tmp_path) as adapter:
        before = await asked(adapter, "payroll-list", ask)
    build(tmp_path / "personnel.sqlite", STAFF[10:])
    async with opened(Sql, settings, SERVICES, folder=tmp_path) as adapter:
        assert await asked(adapter, "payroll-list", ask) == before


async def test_another_ministry_has_a_payroll_without_people(hrmis: Hrmis) -> None:
    async with hrmis() as adapter:
        assert await asked(adapter, "payroll-list", {"ministry": "MFA"}) == {"employees": []}
