"""Publishing goes on, once each, while Kinto is slowed, cut off, killed and stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from config.systems.running import Copy
from tests.support.contracting import RECORD, RELEASE, published
from tests.support.real import real
from tests.support.survival import ENOUGH, Ask, survives

RECORDS = "/v1/buckets/procurement/collections/releases/records"


@pytest.mark.slow
async def test_every_release_is_published_once_and_records_are_told_again(tmp_path: Path) -> None:
    """Each fifth request asks for a record, which has no effect."""
    async with real("kinto", tmp_path) as system:
        asks = [ask(number) for number in range(ENOUGH)]

        async def count(exchange: str, body: Any) -> int:
            found = (await lying(system)).count(body["process"])
            assert found <= 1
            return found

        told = await survives(tmp_path, system, "procurement", asks, count)
        processes = [ask.body["process"] for ask in asks if ask.service == RELEASE]
        assert (told.states["done"], told.states["refused"]) == (len(processes), ENOUGH - len(processes))
        assert sorted(await lying(system)) == sorted(processes)


def ask(number: int) -> Ask:
    if number % 5 == 4:
        return Ask(RECORD, {"process": f"NOBODY-{number}"})
    return Ask(RELEASE, published(f"SURVIVED-{number}").body)


async def lying(system: Copy) -> list[str]:
    """The processes of which something lies in Kinto, each as often as something does."""
    password = (system.place.folder / "admin.txt").read_text("utf-8").strip()
    headers = {"Authorization": aiohttp.encode_basic_auth("admin", password)}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(system.url + RECORDS) as answer:
        answer.raise_for_status()
        return [each["ocid"].removeprefix("ocds-213czf-") for each in (await answer.json())["data"]]
