"""The registry's feed of changes, against a real Kinto on PostgreSQL and against pages that make no sense."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from config.systems.base import unprivileged
from config.systems.running import Copy
from gsb.bench.servers import postgres
from gsb.sdk import Broken, Refused
from gsb_adapters.registry import Registry
from tests.support.adapters import request
from tests.support.real import shared
from tests.support.registry import adapter, as_registrar, ask, new_collection, registration, told
from tests.support.sockets import http

FEED = 120.0
"""Seconds in which the feed must have come so far, on a machine that is busy with other things."""
module_loop = pytest.mark.asyncio(loop_scope="module")


system = shared("kinto")


async def feed(registry: Registry, since: str | None = None, limit: int = 100) -> Any:
    body = {"limit": limit} | ({} if since is None else {"since": since})
    return await ask(registry, "registry/changes/v1", body)


def shown(page: Any) -> list[tuple[str, str]]:
    return [(each["change"], each["brn"]) for each in page["changes"]]


async def followed(registry: Registry, count: int, since: str | None = None) -> tuple[list[tuple[str, str]], str]:
    """The next so many changes, in pages of two, as soon as they are shown; and the cursor after them."""
    seen: list[tuple[str, str]] = []
    async with asyncio.timeout(FEED):
        while len(seen) < count:
            page = await feed(registry, since, 2)
            seen += shown(page)
            since = page["next"]
            if not page["more"]:
                await asyncio.sleep(0.1)
    assert since is not None
    return seen, since


@pytest.mark.slow
@module_loop
async def test_every_change_is_in_the_feed_removals_too(system: Copy) -> None:
    collection = await new_collection(system, "feed")
    async with adapter(system, businesses=collection, settle=0) as registry:
        nothing = await feed(registry)
        assert nothing == {"changes": [], "next": nothing["next"], "more": False}
        numbers = [f"BRN-00020{number}" for number in range(5)]
        for brn in numbers:
            await registry.handle(registration(brn))
        seen, cursor = await followed(registry, 5, nothing["next"])
        assert seen == [("set", brn) for brn in numbers]
        records = "/buckets/registry/collections/feed/records"
        await as_registrar(system, "DELETE", f"{records}/BRN-000201")
        await as_registrar(system, "PATCH", f"{records}/BRN-000200", {"status": "STRUCK_OFF"})
        seen, cursor = await followed(registry, 2, cursor)
        assert seen == [("removed", "BRN-000201"), ("set", "BRN-000200")]
        assert (await feed(registry, cursor)) == {"changes": [], "next": cursor, "more": False}
        everything = await feed(registry)
        assert sorted(brn for _, brn in shown(everything)) == numbers
        assert everything["changes"][-1]["business"]["status"] == "STRUCK_OFF"


@pytest.mark.slow
@module_loop
async def test_what_changes_during_a_walk_moves_to_its_end(system: Copy) -> None:
    collection = await new_collection(system, "walk")
    async with adapter(system, businesses=collection, settle=0) as registry:
        for number in range(4):
            await registry.handle(registration(f"BRN-00030{number}"))
        seen, cursor = await followed(registry, 2)
        await as_registrar(
            system, "PATCH", "/buckets/registry/collections/walk/records/BRN-000300", {"status": "STRUCK_OFF"}
        )
        more, _ = await followed(registry, 3, cursor)
        assert [brn for _, brn in seen + more] == [f"BRN-00030{number}" for number in (0, 1, 2, 3, 0)]


@pytest.mark.slow
@module_loop
async def test_what_commits_late_is_not_lost(system: Copy) -> None:
    """Kinto gives a change its time before it commits it: a later one may be seen first."""
    collection = await new_collection(system, "late")
    bin_ = postgres.programs()
    assert bin_ is not None
    command = unprivileged([bin_ / "psql", "-h", f"@gsb-kinto-{system.port}", "-d", "postgres", "-q", "-t"])
    pipe = asyncio.subprocess.PIPE
    async with (
        adapter(system, businesses=collection, settle=300) as patient,
        adapter(system, businesses=collection, settle=0) as hasty,
    ):
        start = (await feed(patient))["next"]
        clerk = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        assert clerk.stdin is not None
        assert clerk.stdout is not None
        entry = json.dumps({"brn": "BRN-000400", "name": "Late", "status": "ACTIVE"})
        clerk.stdin.write(
            b"BEGIN; INSERT INTO objects (id, parent_id, resource_name, data, deleted) VALUES ('BRN-000400', "
            + f"'/buckets/registry/collections/late', 'record', '{entry}', FALSE) RETURNING id;\n".encode()
        )
        assert b"BRN-000400" in await clerk.stdout.readline()
        await patient.handle(registration("BRN-000401"))
        seen, cursor = await followed(hasty, 1, start)
        assert seen == [("set", "BRN-000401")], "a feed without patience runs ahead"
        assert await feed(patient, start) == {"changes": [], "next": start, "more": False}
        await clerk.communicate(b"COMMIT;\n")
        assert (await feed(hasty, cursor))["changes"] == [], "and has missed one"
        seen, _ = await followed(hasty, 2, start)
        assert seen == [("set", "BRN-000400"), ("set", "BRN-000401")], "the cursor of who was patient misses none"


@pytest.mark.slow
@module_loop
async def test_cursors_of_another_register_and_dates_in_the_future(system: Copy) -> None:
    collection = await new_collection(system, "future")
    async with adapter(system, businesses=collection, settle=0) as registry:
        in_an_hour = str(int(time.time() * 1000) + 3_600_000)
        for cursor in ("abc", in_an_hour, "9" * 13):
            with pytest.raises(Refused) as raised:
                await feed(registry, cursor)
            assert raised.value.code == "cursor_unknown"
        record = {"brn": "BRN-000500", "name": "Tomorrow", "status": "ACTIVE", "last_modified": 2000000000000}
        await as_registrar(system, "PUT", "/buckets/registry/collections/future/records/BRN-000500", record)
        with pytest.raises(Broken, match="future"):
            await feed(registry)


# --- what a real register cannot be made to answer

CHANGES = request("registry/changes/v1", {})
DATE = "Date: Sun, 22 Nov 2026 07:05:00 GMT"
ETAG = 'ETag: "1795331099500"'


@pytest.mark.parametrize(
    ("answer", "headers"),
    [
        (b'{"data": []}', (ETAG,)),
        (b'{"data": []}', (DATE,)),
        (b'{"data": []}', (DATE, "ETag: W/1")),
        (b'{"data": {}}', (DATE, ETAG)),
        (b'{"data": 3}', (DATE, ETAG)),
        (b'{"data": [3]}', (DATE, ETAG)),
        (b'{"data": [{"id": "BRN-000001", "last_modified": "soon"}]}', (DATE, ETAG)),
        (b'{"data": [{"last_modified": 1795330999027, "deleted": true}]}', (DATE, ETAG)),
        (b"[]", (DATE, ETAG)),
    ],
)
async def test_a_page_that_makes_no_sense_is_broken(tmp_path: Path, answer: bytes, headers: tuple[str, ...]) -> None:
    assert isinstance(await told(tmp_path, http(answer, "200 OK", *headers), CHANGES), Broken)
