"""Public investment in a real Kinto: look-ups through ``http_json`` as ``config/government`` configures it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from config.systems.kinto.data import DISBURSEMENTS, PERSONS, PROJECTS
from config.systems.running import Copy
from gsb.schema import Schema
from gsb.sdk import Broken, Refused, Unavailable
from gsb_adapters.http_json import HttpJson
from tests.support.adapters import opened, request
from tests.support.real import real
from tests.support.survival import ENOUGH, Ask, survives

ROOT = Path(__file__).parents[1]
GOVERNMENT = ROOT / "config" / "government"
PROJECT, DISBURSEMENT = "pim/project/v1", "pim/disbursement/v1"
module_loop = pytest.mark.asyncio(loop_scope="module")


def schema(service: str, side: str) -> Schema:
    return Schema.compile(json.loads((ROOT / "schemas" / service / f"{side}.json").read_bytes()), service)


def configured(system: Copy) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the system and its services, as the deployment has them; only the place is another."""
    text = (GOVERNMENT / "systems/pim.toml").read_text("utf-8").replace("127.0.0.1:8888", f"127.0.0.1:{system.port}")
    table = tomllib.loads(text.replace("../../var/systems/kinto/", f"{system.place.folder}/"))
    assert table["adapter"] == "http_json"
    services = {
        name: tomllib.loads((GOVERNMENT / f"services/{name}.toml").read_text("utf-8"))["settings"]
        for name in (PROJECT, DISBURSEMENT)
    }
    return table["settings"], services


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Copy]:
    async with real("kinto", tmp_path_factory.mktemp("investment")) as system:
        yield system


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pim(system: Copy) -> AsyncIterator[HttpJson]:
    settings, services = configured(system)
    async with opened(HttpJson, settings, services) as adapter:
        yield adapter


async def ask(pim: HttpJson, service: str, body: Any) -> Any:
    reply = (await pim.handle(request(service, body))).body
    assert schema(service, "reply").faults(reply) == []
    return reply


@pytest.mark.slow
@module_loop
@pytest.mark.parametrize("service", [PROJECT, DISBURSEMENT])
async def test_the_examples_of_the_schemas_are_true(pim: HttpJson, service: str) -> None:
    expected = schema(service, "reply").examples[0]
    assert await ask(pim, service, schema(service, "request").examples[0]) == expected


@pytest.mark.slow
@module_loop
async def test_everything_that_the_system_has_can_be_looked_up_to_the_cent(pim: HttpJson) -> None:
    for project in PROJECTS:
        seen = await ask(pim, PROJECT, {"project": project["code"]})
        assert seen["budget"] == {"amount": project["budget"], "currency": project["currency"]}
        assert seen["spent"] == {"amount": project["spent"], "currency": project["currency"]}
    for disbursement in DISBURSEMENTS:
        seen = await ask(pim, DISBURSEMENT, {"disbursement": disbursement["reference"]})
        assert seen["amount"] == {"amount": disbursement["amount"], "currency": disbursement["currency"]}
        assert seen.get("paid_on") == disbursement.get("paid_on")


@pytest.mark.slow
@module_loop
async def test_who_works_on_it_stays_there(pim: HttpJson) -> None:
    named = [
        each[member] for each in (*PROJECTS, *DISBURSEMENTS) for member in ("manager", "officer") if member in each
    ]
    assert named
    seen = [await ask(pim, PROJECT, {"project": each["code"]}) for each in PROJECTS]
    seen += [await ask(pim, DISBURSEMENT, {"disbursement": each["reference"]}) for each in DISBURSEMENTS]
    assert not [name for name in named if name in json.dumps(seen)]


@pytest.mark.slow
@module_loop
async def test_what_there_is_not_is_refused(pim: HttpJson) -> None:
    for service, body in ((PROJECT, {"project": "PIP-9999"}), (DISBURSEMENT, {"disbursement": "DSB-999999"})):
        with pytest.raises(Refused) as raised:
            await ask(pim, service, body)
        assert raised.value.code == "not_found"


@pytest.mark.slow
@module_loop
async def test_its_account_sees_nothing_of_the_other_registers(system: Copy) -> None:
    settings, services = configured(system)
    path = f"/buckets/registry/collections/persons/records/{PERSONS[0]['national_id']}"
    async with opened(HttpJson, settings, {PROJECT: {**services[PROJECT], "path": path}}) as stranger:
        with pytest.raises(Broken, match="403"):
            await ask(stranger, PROJECT, {"project": "PIP-0001"})


@pytest.mark.slow
@module_loop
async def test_a_system_that_stops_is_unavailable_and_back_with_what_it_had(system: Copy, pim: HttpJson) -> None:
    await pim.check()
    before = await ask(pim, PROJECT, {"project": "PIP-0001"})
    await system.stop()
    for attempt in (pim.check(), ask(pim, PROJECT, {"project": "PIP-0001"})):
        with pytest.raises(Unavailable) as raised:
            await attempt
        assert raised.value.sent is False
    await system.start()
    await pim.check()
    assert await ask(pim, PROJECT, {"project": "PIP-0001"}) == before


@pytest.mark.slow
async def test_look_ups_survive_whatever_happens_to_the_system(tmp_path: Path) -> None:
    async with real("kinto", tmp_path) as system:
        told = await survives(tmp_path, system, "pim", [Ask(PROJECT, {"project": "PIP-0001"})] * ENOUGH)
    assert set(told.states) == {"done"}
