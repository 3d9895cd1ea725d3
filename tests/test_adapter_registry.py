"""The registry adapter against a real Kinto, and against servers that answer what Kinto cannot be made to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from config.systems.kinto import SYSTEM, Kinto, seed_persons
from config.systems.running import Copy, running
from gsb.sdk import Broken, Clock, Refused, Request, Unavailable
from gsb_adapters.registry import Registry
from tests.support.adapters import opened, request
from tests.support.needs import needs
from tests.support.real import shared
from tests.support.registry import BUSINESSES, SERVICES, adapter, as_registrar, ask, fits, registration, told
from tests.support.sockets import answering, http
from tests.support.survival import until

TOLD_WITHIN = 90.0
module_loop = pytest.mark.asyncio(loop_scope="module")


system = shared("kinto")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def registry(system: Copy) -> AsyncIterator[Registry]:
    async with adapter(system) as registry:
        yield registry


# --- businesses


@pytest.mark.slow
@module_loop
async def test_a_business_as_it_stands_now(system: Copy, registry: Registry) -> None:
    await registry.handle(registration("BRN-000100", tin="TIN-7"))
    seen = await ask(registry, "registry/business/v1", {"brn": "BRN-000100"})
    assert seen["name"] == "Société Aïssa"
    assert (seen["status"], seen["tin"]) == ("ACTIVE", "TIN-7")
    record = f"{BUSINESSES}/records/BRN-000100"
    await as_registrar(system, "PATCH", record, {"status": "STRUCK_OFF"})
    assert (await ask(registry, "registry/business/v1", {"brn": "BRN-000100"})) == {**seen, "status": "STRUCK_OFF"}
    await as_registrar(system, "DELETE", record)
    with pytest.raises(Refused) as raised:
        await ask(registry, "registry/business/v1", {"brn": "BRN-000100"})
    assert raised.value.code == "not_found"


@pytest.mark.slow
@module_loop
async def test_a_repeat_is_answered_like_the_first_and_another_registration_is_refused(
    system: Copy, registry: Registry
) -> None:
    first = registration("BRN-000101")
    assert await registry.find(first) is None
    reply = await registry.handle(first)
    fits("registry/register-business/v1", reply.body)
    await as_registrar(system, "PATCH", f"{BUSINESSES}/records/BRN-000101", {"status": "STRUCK_OFF"})
    assert await registry.handle(first) == reply
    assert await registry.find(first) == reply
    another = registration("BRN-000101")
    with pytest.raises(Refused) as raised:
        await registry.handle(another)
    assert raised.value.code == "already_registered"
    assert await registry.find(another) is None
    assert (await ask(registry, "registry/business/v1", {"brn": "BRN-000101"}))["status"] == "STRUCK_OFF"


@pytest.mark.slow
@module_loop
async def test_one_of_many_at_once_registers_and_the_rest_hear_of_it(registry: Registry) -> None:
    """Kinto undoes one of two that come together; it is tried again as the bus would."""

    pauses = set()

    async def until_told(each: Request) -> Any:
        async with asyncio.timeout(TOLD_WITHIN):
            while True:
                try:
                    return (await registry.handle(each)).body
                except Unavailable as error:
                    pauses.add((error.sent, error.after))
                except Refused as error:
                    return error.code

    same = registration("BRN-000102")
    outcomes = await asyncio.gather(*(until_told(same) for _ in range(8)))
    assert all(outcome == outcomes[0] and outcome["brn"] == "BRN-000102" for outcome in outcomes)
    others = await asyncio.gather(*(until_told(registration("BRN-000103")) for _ in range(8)))
    assert others.count("already_registered") == 7
    assert pauses <= {(False, 3.0)}


@pytest.mark.slow
@module_loop
async def test_what_the_register_does_not_take(system: Copy, registry: Registry) -> None:
    with pytest.raises(Refused) as raised:
        await registry.handle(registration("X-1"))
    assert raised.value.code == "invalid"
    assert "400" in raised.value.detail
    for brn in ("../../../../accounts/gsb", "a b?c=d", "%2e%2e", "é"):
        with pytest.raises((Refused, Broken)):
            await registry.handle(registration(brn))
    async with adapter(system, user="pim", password="pim.txt") as stranger:
        with pytest.raises(Broken, match="403"):  # the bus's own rights are no refusal of what a caller asked
            await stranger.handle(registration("BRN-000104"))


@pytest.mark.slow
@module_loop
async def test_a_wrong_password_calls_an_operator_and_a_new_one_is_read(system: Copy) -> None:
    secret = system.place.folder / "other.txt"
    secret.write_text("wrong\n")
    async with adapter(system, password="other.txt") as registry:
        for attempt in (registry.check(), registry.handle(registration("BRN-000105"))):
            with pytest.raises(Broken, match="401"):
                await attempt
        secret.write_text((system.place.folder / "gsb.txt").read_text())
        await registry.check()
        secret.unlink()
        with pytest.raises(Unavailable) as raised:
            await registry.check()
        assert raised.value.sent is False


# --- identities


@pytest.mark.slow
@module_loop
@pytest.mark.parametrize(
    ("claim", "says"),
    [
        (("N-000000001", "Adjoua", "N'Guessan", "1984-03-02"), (True, True, True)),
        (("N-000000001", " ADJOUA", "n'guessan", "1984-03-02"), (True, True, True)),
        (("N-000000001", "Adjoua", "Nguessan", "1984-03-02"), (True, True, False)),
        (("N-000000001", "Adjoua", "N'Guessan", "1984-03-03"), (True, True, False)),
        (("N-000000002", "عبد  الرحمن", "بن علي", "1971-12-30"), (True, True, True)),
        (("N-000000003", "Nde\u0300ye Fatou", "Sow", "1950-07-14"), (True, False, True)),
        (("N-000000999", "Adjoua", "N'Guessan", "1984-03-02"), (False, False, False)),
    ],
)
async def test_a_claimed_identity(registry: Registry, claim: tuple[str, ...], says: tuple[bool, ...]) -> None:
    body = dict(zip(("national_id", "given_name", "family_name", "birth_date"), claim, strict=True))
    said = await ask(registry, "registry/identity/v1", body)
    assert said == dict(zip(("registered", "alive", "matches"), says, strict=True))


@pytest.mark.slow
@module_loop
async def test_a_whole_payroll_can_be_asked_for(system: Copy, registry: Registry) -> None:
    people = [
        {"national_id": f"N-{number:09}", "given_name": "Awa", "family_name": "Sow", "birth_date": "1990-01-01"}
        for number in range(5000, 5250)
    ]
    await seed_persons(system.place, people)
    places = asyncio.Semaphore(8)

    async def asked(person: dict[str, str]) -> Any:
        async with places:
            return await ask(registry, "registry/identity/v1", person)

    said = await asyncio.gather(*(asked(person) for person in people))
    assert all(each == {"registered": True, "alive": True, "matches": True} for each in said)


@pytest.mark.slow
@module_loop
async def test_a_register_that_is_not_there_makes_nobody_unregistered(system: Copy) -> None:
    claim = {"national_id": "N-000000001", "given_name": "A", "family_name": "B", "birth_date": "1984-03-02"}
    async with adapter(system, persons="registry/people") as registry:
        with pytest.raises(Broken, match="404"):
            await ask(registry, "registry/identity/v1", claim)


# --- pauses, stops


@pytest.mark.slow
async def test_the_register_gets_the_pause_it_asks_for(tmp_path: Path) -> None:
    needs(SYSTEM.missing() is None, SYSTEM.missing() or "")
    busy, now = Kinto(), 100.0
    busy.more = "kinto.backoff = 7"
    async with running(busy, tmp_path) as system, adapter(system, clock=Clock(steady=lambda: now)) as registry:
        await registry.handle(registration("BRN-000001"[:-1] + "9"))
        now = 106.5
        for attempt in (registry.check(), registry.handle(registration("BRN-000010"))):
            with pytest.raises(Unavailable) as raised:
                await attempt
            assert (raised.value.sent, raised.value.after) == (False, 0.5)
        now = 107.0
        await registry.handle(registration("BRN-000010"))


@pytest.mark.slow
@module_loop
async def test_a_register_that_was_killed_has_what_it_had_said(system: Copy, registry: Registry) -> None:
    asked = registration("BRN-000600")
    reply = await registry.handle(asked)
    await system.kill()

    async def database_is_gone() -> bool:
        return not (system.place.folder / "data/postmaster.pid").exists()

    await until(database_is_gone, "the database does not end by itself, in order")
    with pytest.raises(Unavailable) as raised:
        await registry.handle(asked)
    assert raised.value.sent is False
    with pytest.raises(Unavailable):
        await registry.check()
    await system.start()
    await registry.check()
    assert await registry.find(asked) == reply
    assert await registry.handle(asked) == reply


# --- what a real register cannot be made to answer


@pytest.mark.parametrize(("status", "sent"), [(409, False), (429, False), (502, True), (503, True), (504, True)])
async def test_a_register_that_has_no_time(tmp_path: Path, status: int, sent: bool) -> None:
    error = await told(tmp_path, http(b"{}", f"{status} X", "Retry-After: 30"), registration("BRN-000001"))
    assert isinstance(error, Unavailable)
    assert (error.sent, error.after) == (sent, 30.0)


@pytest.mark.parametrize("kept", [b"{}", b'{"brn": "BRN-000001"}', b'{"brn": "BRN-000002", "exchange": "e"}', b"[]"])
async def test_a_record_that_is_not_the_one_that_was_sent_is_broken(tmp_path: Path, kept: bytes) -> None:
    error = await told(tmp_path, http(b'{"data": ' + kept + b"}", "201 Created"), registration("BRN-000001"))
    assert isinstance(error, Broken)


@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone", "500 Oops"])
async def test_any_other_status_is_broken(tmp_path: Path, status: str) -> None:
    asked = request("registry/business/v1", {"brn": "BRN-000001"})
    assert isinstance(await told(tmp_path, http(b'{"code": 1}', status), asked), Broken)


async def test_a_pause_without_end_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x")
    async with answering(http(b'{"data": {"brn": "BRN-000001"}}', "200 OK", "Backoff: 999999")) as server:
        settings = {"url": server.url, "user": "gsb", "password": "password"}
        async with opened(Registry, settings, SERVICES, folder=tmp_path, clock=Clock(steady=lambda: 1.0)) as registry:
            asked = request("registry/business/v1", {"brn": "BRN-000001"})
            await registry.handle(asked)
            with pytest.raises(Unavailable) as raised:
                await registry.handle(asked)
    assert raised.value.after == 300.0


async def test_a_service_that_it_does_not_have_is_broken(tmp_path: Path) -> None:
    assert isinstance(await told(tmp_path, http(b"{}"), request("registry/other/v1", {})), Broken)
