"""A node that is told to stop: what it still takes, what it finishes, what it leaves, and when it waits no longer."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest

from gsb.client import BusProblem
from gsb.model import Reply, Request
from gsb.sdk import Unavailable
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ, hanging, puppet, puppet_deployment, raising
from tests.support.node import InProcess, node_in_process
from tests.test_edge import signed

WITHIN = 45.0
"""Seconds for whatever must happen, on a machine that is busy with other things."""


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@asynccontextmanager
async def performing(tmp_path: Path) -> AsyncIterator[tuple[InProcess, Callable[[], Awaitable[None]]]]:
    """A node with a call that takes as long as the body, and what tells the node to stop. The call must be answered."""
    deployment = puppet_deployment(tmp_path)
    deployment.files["systems/registry.toml"]["timeout"] = WITHIN
    deployment.gsb["limits"]["drain"] = WITHIN
    entered, leave = asyncio.Event(), asyncio.Event()
    stopping: list[asyncio.Task[None]] = []

    async def slow(request: Request) -> Reply:
        entered.set()
        await leave.wait()
        return Reply(NOTE)

    async def stop() -> None:
        stopping.append(asyncio.create_task(node.node.stop()))
        await asyncio.sleep(0)  # its first step says that it drains
        assert node.node.bus.draining

    async with node_in_process(tmp_path, deployment) as node, node.client() as client:
        puppet().acts = slow
        asked = asyncio.create_task(client.call(ONCE, NOTE, purpose="payroll"))
        await entered.wait()
        yield node, stop
        leave.set()
        assert (await asked).body == NOTE
        await asyncio.gather(*stopping)
    puppet().reset()


async def test_a_stopping_node_finishes_what_it_began_and_takes_nothing_new(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with performing(tmp_path) as (node, stop):
        await stop()
        async with session.get(f"{node.operations_url}/readyz") as answer:
            assert (answer.status, (await answer.json())["missing"]) == (503, ["draining"])
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{node.url}/services")


async def test_a_connection_that_was_kept_brings_a_stopping_node_one_more_call(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with performing(tmp_path) as (node, stop):
        async with session.get(f"{node.url}/services") as answer:
            assert (answer.status, answer.headers.get("Connection")) == (200, None)
        await stop()
        async with session.get(f"{node.url}/services", headers=signed(node, "GET", "/services")) as answer:
            assert (answer.status, answer.headers["Connection"]) == (200, "close")
            assert "GSB-Signature" in answer.headers
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"{node.url}/services")


async def test_a_node_that_is_out_of_order_takes_nothing_while_it_stops(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with performing(tmp_path) as (node, stop):
        node.node.failed.set()
        await stop()
        async with session.get(f"{node.url}/services") as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (503, "draining")


async def test_a_stopping_node_writes_down_what_it_only_counted(tmp_path: Path) -> None:
    async with node_in_process(tmp_path) as node, node.client() as client:
        for _ in range(3):
            with pytest.raises(BusProblem):
                await client.call(READ, PERSON_BODY, purpose="curiosity")
    with sqlite3.connect(node.deployment.folder / "store.db") as database:
        entries = [orjson.loads(row[0]) for row in database.execute("SELECT content FROM entry ORDER BY row")]
    database.close()
    told = [(each["kind"], each.get("count")) for each in entries if each["kind"] != "log_begun"]
    assert told == [("refused", None), ("refusals", 2)]


async def test_a_stopping_node_does_not_wait_for_what_it_cannot_finish(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    deployment = puppet_deployment(tmp_path)
    deployment.gsb["limits"]["drain"] = 2 * WITHIN
    async with node_in_process(tmp_path, deployment) as node, node.client() as client:
        puppet().acts = raising(Unavailable(sent=False, after=600.0))
        accepted = await client.call(ONCE, NOTE, purpose="payroll", respond_async=True)
        path = f"/exchanges/{accepted.exchange}/reply"
        headers = signed(node, "GET", path) | {"Prefer": "wait=60"}
        asked = asyncio.create_task(session.get(node.url + path, headers=headers))
        await holds(lambda: node.node.api.in_flight == 1)
        async with asyncio.timeout(WITHIN):  # less than it drains, and than the caller would wait
            await node.node.stop()
        async with await asked as answer:
            assert (answer.status, answer.headers["Preference-Applied"]) == (202, "wait=60")
    puppet().reset()


async def test_a_stopping_node_begins_nothing_that_it_might_have_to_break_off(tmp_path: Path) -> None:
    deployment = puppet_deployment(tmp_path)
    # The second one would take a little longer than is left for it, and the first one has all that time to end.
    deployment.files["systems/registry.toml"] |= {"timeout": WITHIN + 1, "concurrency": 1}
    deployment.gsb["limits"]["drain"] = WITHIN
    entered, leave = asyncio.Event(), asyncio.Event()

    async def first(request: Request) -> Reply:
        puppet().acts = hanging
        entered.set()
        await leave.wait()
        return Reply(NOTE)

    async with node_in_process(tmp_path, deployment) as node, node.client() as client:
        puppet().acts = first
        for _ in range(2):
            await client.call(ONCE, NOTE, purpose="payroll", respond_async=True)
        await entered.wait()
        stopping = asyncio.create_task(node.node.stop())
        await holds(lambda: node.node.bus.draining)
        leave.set()
        await stopping
    puppet().reset()
    with sqlite3.connect(deployment.folder / "store.db") as database:
        states = database.execute("SELECT state, attempt FROM exchange ORDER BY row").fetchall()
    database.close()
    assert states == [("done", 1), ("accepted", 0)]


async def holds(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(WITHIN):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)
