"""The adapter ``soap`` against Apache CXF with WSS4J: a vehicle register that checks its callers and its messages."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
import tomllib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from config.systems.running import Copy
from gsb.schema import Schema
from gsb.sdk import Broken, Clock, Refused, Unavailable
from gsb_adapters.soap import Soap
from tests.support.adapters import opened, request
from tests.support.real import real, shared

ROOT = Path(__file__).parents[1]
GOVERNMENT = ROOT / "config/government"
CONTRACT = ROOT / "adapters/gsb_adapters/soap/contract"
LOOK_UP, REGISTER = "vehicles/vehicle/v1", "vehicles/register/v1"
LORRY = {
    "plate": "AB-0002",
    "owner": "ID-000018",
    "category": "LORRY",
    "first_registered": "2021-11-30",
    "mass_in_tonnes": "7.500",
    "annual_fee": {"amount": "1980.50", "currency": "XOF"},
}
module_loop = pytest.mark.asyncio(loop_scope="module")
pytestmark = pytest.mark.slow


def table(path: str) -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads((GOVERNMENT / f"{path}.toml").read_text("utf-8"))["settings"]
    return settings


SERVICES = {name: table(f"services/{name}") for name in (LOOK_UP, REGISTER)}


def settings(system: Copy, **other: Any) -> dict[str, Any]:
    """Those of the deployment, for this copy of the system."""
    place = {"url": f"{system.url}/vehicles", "security": {"user": "gsb", "password": str(secret(system))}}
    return table("systems/vehicles") | place | other


def secret(system: Copy) -> Path:
    return system.place.folder / "password.txt"


def schema(service: str, side: str) -> Schema:
    return Schema.compile(json.loads((ROOT / "schemas" / service / f"{side}.json").read_bytes()), side)


def new(plate: str, **other: Any) -> dict[str, Any]:
    body = {**LORRY, "plate": plate, "owner": "ID-000042", **other}
    assert schema(REGISTER, "request").faults(body) == []
    return body


system = shared("soap")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vehicles(system: Copy) -> AsyncIterator[Soap]:
    async with opened(Soap, settings(system), SERVICES, folder=GOVERNMENT) as adapter:
        yield adapter


@module_loop
async def test_a_vehicle_comes_with_decimals_dates_and_lists(vehicles: Soap) -> None:
    reply = await vehicles.handle(request(LOOK_UP, {"plate": "AB-0002"}))
    assert schema(LOOK_UP, "reply").faults(reply.body) == []
    assert reply.body == {**LORRY, "liens": ["Development Bank", "Harbour Credit Union"]}
    assert (await vehicles.handle(request(LOOK_UP, {"plate": "AB-0001"}))).body["liens"] == []


@module_loop
async def test_the_examples_of_the_schemas_are_true(vehicles: Soap) -> None:
    asked, expected = schema(LOOK_UP, "request").examples[0], schema(LOOK_UP, "reply").examples[0]
    assert (await vehicles.handle(request(LOOK_UP, asked))).body == expected


@module_loop
async def test_a_fault_that_the_wsdl_declares_is_a_refusal(vehicles: Soap) -> None:
    with pytest.raises(Refused) as raised:
        await vehicles.handle(request(LOOK_UP, {"plate": "ZZ-9999"}))
    assert raised.value.code == "not_found"
    assert "no vehicle has this plate" in raised.value.detail


@module_loop
async def test_a_repeated_registration_is_the_first_one_and_can_be_found(vehicles: Soap) -> None:
    asked = request(REGISTER, new("CD-0001"))
    assert await vehicles.find(asked) is None
    first = await vehicles.handle(asked)
    assert schema(REGISTER, "reply").faults(first.body) == []
    assert (await vehicles.handle(asked)).body == first.body
    found = await vehicles.find(asked)
    assert found is not None
    assert found.body == first.body
    kept = (await vehicles.handle(request(LOOK_UP, {"plate": "CD-0001"}))).body
    assert kept == {**new("CD-0001"), "liens": []}


@module_loop
async def test_what_the_register_does_not_take_is_refused(vehicles: Soap) -> None:
    for body, code in ((new("AB-0001"), "conflict"), ({**new("CD-0002"), "plate": "CD 0002"}, "invalid")):
        asked = request(REGISTER, body)
        with pytest.raises(Refused) as raised:
            await vehicles.handle(asked)
        assert raised.value.code == code
        assert await vehicles.find(asked) is None


@module_loop
async def test_many_at_once(vehicles: Soap) -> None:
    plates = [f"EF-{number:04}" for number in range(16)]
    await asyncio.gather(*(vehicles.handle(request(REGISTER, new(plate))) for plate in plates))
    found = await asyncio.gather(*(vehicles.handle(request(LOOK_UP, {"plate": plate})) for plate in plates))
    assert [each.body["plate"] for each in found] == plates


@module_loop
async def test_the_wsdl_is_the_one_that_the_system_shows(system: Copy) -> None:
    """Nobody here wrote it: CXF makes it of the register's methods. Only the address is the copy's own."""
    async with aiohttp.ClientSession() as session, session.get(f"{system.url}/vehicles?wsdl") as answer:
        shown = await answer.text()
    for folder in (GOVERNMENT / "wsdl", CONTRACT):
        kept = (folder / "vehicle-register.wsdl").read_text("utf-8")
        assert sorted(_addressless(kept).split("<")) == sorted(_addressless(shown).split("<"))


def _addressless(wsdl: str) -> str:
    return re.sub(r'location="[^"]*"', "", wsdl).strip()


# --- WS-Security, as WSS4J checks it


@module_loop
async def test_check_takes_the_credentials_along(vehicles: Soap, system: Copy, tmp_path: Path) -> None:
    await vehicles.check()
    (tmp_path / "wrong.txt").write_text("wrong")
    wrong = {"user": "gsb", "password": str(tmp_path / "wrong.txt")}
    for security in (wrong, wrong | {"user": "nobody"}, None):
        async with opened(Soap, settings(system, security=security), SERVICES, folder=GOVERNMENT) as stranger:
            with pytest.raises(Broken, match="SecurityError"):
                await stranger.check()
            with pytest.raises(Broken, match="SecurityError"):
                await stranger.handle(request(LOOK_UP, {"plate": "AB-0002"}))


@module_loop
async def test_a_password_that_is_sent_as_it_is_is_not_taken_by_this_system(system: Copy) -> None:
    security = {"user": "gsb", "password": str(secret(system)), "digest": False}
    async with opened(Soap, settings(system, security=security), SERVICES, folder=GOVERNMENT) as adapter:
        with pytest.raises(Broken, match="SecurityError"):
            await adapter.check()


@module_loop
async def test_a_message_serves_once_and_for_a_while(system: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call has a nonce and a time of its own; here one that says the same twice, and one whose clock is slow."""

    async def told(clock: Clock) -> list[str]:
        outcomes = []
        async with opened(Soap, settings(system), SERVICES, folder=GOVERNMENT, clock=clock) as adapter:
            for _ in range(2):
                try:
                    outcomes.append((await adapter.handle(request(LOOK_UP, {"plate": "AB-0002"}))).body["plate"])
                except Broken as error:
                    outcomes.append("SecurityError" if "SecurityError" in error.detail else error.detail)
        return outcomes

    now = time.time()
    assert await told(Clock(now=lambda: now)) == ["AB-0002", "AB-0002"]
    assert await told(Clock(now=lambda: now - 3600)) == ["SecurityError", "SecurityError"]
    monkeypatch.setattr(secrets, "token_hex", lambda size: "5e" * size)
    assert await told(Clock(now=lambda: now)) == ["AB-0002", "SecurityError"]


# --- away and back


async def test_a_stopped_system_is_unavailable_and_a_started_one_is_back(tmp_path: Path) -> None:
    async with (
        real("soap", tmp_path) as system,
        opened(Soap, settings(system), SERVICES, folder=GOVERNMENT) as adapter,
    ):
        asked = request(REGISTER, new("GH-0001"))
        first = await adapter.handle(asked)
        await system.kill()
        for ask in (adapter.handle(asked), adapter.find(asked), adapter.check()):
            with pytest.raises(Unavailable) as raised:
                await ask
            assert raised.value.sent is False
        await system.start()
        await adapter.check()
        assert (await adapter.handle(asked)).body == first.body


@module_loop
async def test_the_secret_s_file_is_read_at_each_use(system: Copy, tmp_path: Path) -> None:
    password = tmp_path / "password.txt"
    password.write_bytes(secret(system).read_bytes())
    security: Mapping[str, Any] = {"user": "gsb", "password": str(password)}
    async with opened(Soap, settings(system, security=security), SERVICES, folder=GOVERNMENT) as adapter:
        await adapter.check()
        password.unlink()
        with pytest.raises(Unavailable) as raised:
            await adapter.handle(request(LOOK_UP, {"plate": "AB-0002"}))
        assert raised.value.sent is False
