"""The adapter for personnel against a real Tryton with posts and employees, with the settings of its contract."""

from __future__ import annotations

import json
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import ValidationError

from config.systems.running import Copy
from gsb.schema import Schema
from gsb.sdk import Broken, Effect, Refused, Unavailable
from gsb_adapters.hrmis import Hrmis, Question
from tests.support.adapters import opened, request
from tests.support.real import real, shared
from tests.support.tryton import settings

ROOT = Path(__file__).parents[1]
CONTRACT = tomllib.loads((ROOT / "adapters/gsb_adapters/hrmis/contract/contract.toml").read_text("utf-8"))
SERVICES: dict[str, Any] = {name: table["settings"] for name, table in CONTRACT["services"].items()}
module_loop = pytest.mark.asyncio(loop_scope="module")
pytestmark = pytest.mark.slow


tryton = shared("tryton")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hrmis(tryton: Copy) -> AsyncIterator[Hrmis]:
    async with opened(Hrmis, settings(tryton), SERVICES) as adapter:
        yield adapter


async def ask(hrmis: Hrmis, service: str, body: Any) -> Any:
    reply = await hrmis.handle(request(f"hrmis/{service}/v1", body))
    document = json.loads((ROOT / f"schemas/hrmis/{service}/v1/reply.json").read_bytes())
    assert Schema.compile(document, service).faults(reply.body) == []
    return reply.body


@module_loop
async def test_an_employee(hrmis: Hrmis) -> None:
    assert await ask(hrmis, "employee", {"employee": "E-000004"}) == {
        "employee": "E-000004",
        "national_id": "NIN-1995-0004",
        "tin": "TIN-000004",
        "name": {"family": "欧阳", "given": "静"},
        "birth_date": "1995-01-30",
        "hired_on": "2020-01-01",
        "ministry": "MOF",
        "department": "Records",
        "post": "Clerk",
        "grade": "C",
        "salary": {"amount": "143250.25", "currency": "XOF"},
        "bank_account": "XX990000000000000004",
        "home_address": "4 Harbour Lane\nPort Sable",
        "health_notes": "none on file",
    }


@module_loop
async def test_a_post_and_who_holds_it(hrmis: Hrmis) -> None:
    assert await ask(hrmis, "post", {"post": 2}) == {
        "post": 2,
        "title": "Officer",
        "grade": "B",
        "ministry": "MOF",
        "department": "Treasury",
        "established": 3,
        "filled": 2,
    }


@module_loop
@pytest.mark.parametrize(("service", "body"), [("employee", {"employee": "E-999999"}), ("post", {"post": 99})])
async def test_who_is_not_there_is_refused(hrmis: Hrmis, service: str, body: Any) -> None:
    with pytest.raises(Refused) as raised:
        await ask(hrmis, service, body)
    assert raised.value.code == "not_found"


@module_loop
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 200])
async def test_pages_hold_everybody_of_the_ministry_once_and_in_order(hrmis: Hrmis, limit: int) -> None:
    after: dict[str, str] = {}
    seen, pages = [], 0
    while True:
        page = await ask(hrmis, "payroll-list", {"ministry": "MOF", "limit": limit} | after)
        seen += [each["employee"] for each in page["employees"]]
        pages += 1
        if "next" not in page:
            break
        assert len(page["employees"]) == limit
        after = {"after": page["next"]}
    assert seen == [f"E-{number:06}" for number in range(1, 6)]
    assert pages == -(-5 // limit)


@module_loop
async def test_a_ministry_without_employees_has_an_empty_page(hrmis: Hrmis) -> None:
    assert (await ask(hrmis, "payroll-list", {"ministry": "XXX"}))["employees"] == []


@module_loop
async def test_a_limit_beyond_the_largest_page_is_refused(hrmis: Hrmis) -> None:
    for limit in (0, 201):
        with pytest.raises(Refused) as raised:
            await hrmis.handle(request("hrmis/payroll-list/v1", {"ministry": "MOF", "limit": limit}))
        assert raised.value.code == "rejected"


@module_loop
@pytest.mark.parametrize(
    "table",
    [
        {"read": ["nonesuch"], "reply": "records"},
        {"model": "personnel.nonesuch", "read": ["number"], "reply": "records"},
        {"read": ["party.nonesuch"], "reply": "records"},
        {"read": ["salary"], "reply": "decimal(records[1].salary, `0`)"},
        {"read": ["salary"], "single": True, "reply": "records[0]"},
    ],
    ids=["field", "model", "inner field", "places", "several"],
)
async def test_a_configuration_that_does_not_fit_this_tryton_is_for_an_operator(tryton: Copy, table: Any) -> None:
    async with opened(Hrmis, settings(tryton), {"hrmis/employee/v1": table}) as hrmis:
        with pytest.raises(Broken):
            await hrmis.handle(request("hrmis/employee/v1", {"employee": "E-000002"}))


async def test_a_tryton_that_stops_is_unavailable_and_one_that_is_back_is_used(tmp_path: Path) -> None:
    async with real("tryton", tmp_path) as system, opened(Hrmis, settings(system), SERVICES) as hrmis:
        await hrmis.check()
        await system.stop()
        with pytest.raises(Unavailable) as raised:
            await hrmis.handle(request("hrmis/employee/v1", {"employee": "E-000002"}))
        assert raised.value.sent is False
        with pytest.raises(Unavailable):
            await hrmis.check()
        await system.start()
        await hrmis.check()
        assert (await ask(hrmis, "employee", {"employee": "E-000002"}))["grade"] == "B"


def test_it_only_reads() -> None:
    question = Question.model_validate({"read": ["salary"], "reply": "records"})
    question.fits(Effect.NONE)
    for effect in (Effect.REPEATABLE, Effect.ONCE):
        with pytest.raises(ValueError, match="only reads"):
            question.fits(effect)


@pytest.mark.parametrize("name", ["party code", "party..code", "1st", ""])
def test_a_field_has_a_name(name: str) -> None:
    with pytest.raises(ValidationError):
        Question.model_validate({"read": ["salary"], "order": name, "reply": "records"})
