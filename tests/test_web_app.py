"""The edge without a key of its own in force: it takes nothing that it could not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gsb.client import BusProblem, OutcomePending, Unreachable
from gsb.keys import BusKeys
from gsb.model import Reply, Request
from gsb.store.contract import Query
from tests.support.bus import NOTE, ONCE, puppet, puppet_deployment
from tests.support.node import InProcess, node_in_process


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[InProcess]:
    deployment = puppet_deployment(tmp_path)
    deployment.files["systems/registry.toml"]["timeout"] = 20
    async with node_in_process(tmp_path, deployment) as node:
        puppet().reset()
        yield node
        puppet().reset()


def without_keys(node: InProcess) -> BusKeys:
    """Let every key of the bus run out now; its keys as they were."""
    keys = node.node.bus.catalogue.bus_keys
    object.__setattr__(node.node.bus.catalogue, "bus_keys", BusKeys(()))
    return keys


async def test_nothing_is_taken_that_could_not_be_answered(node: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gsb.client.LEAST", 60.0)  # for the one call there is time on any machine
    without_keys(node)
    async with node.client() as client:
        with pytest.raises(BusProblem) as refused:
            await client.call(ONCE, NOTE, purpose="payroll", timeout=0.1)
        assert (refused.value.code, refused.value.status, refused.value.signed) == ("signing_unavailable", 503, False)
    async with node.operator() as operator:
        with pytest.raises(BusProblem) as refused:
            await operator.admin("GET", "/admin/exchanges?reason=nobody+can+be+told")
        assert refused.value.code == "signing_unavailable"
    assert (await node.node.bus.store.search(Query())).exchanges == ()
    assert puppet().requests == []
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{node.url}/docs") as answer:
            assert answer.status == 200, "whoever does not sign gets no signature"
        async with session.get(f"{node.operations_url}/readyz") as answer:
            assert (answer.status, (await answer.json())["missing"]) == (503, ["keys"])


async def test_what_was_taken_before_goes_on_and_is_told_later(node: InProcess) -> None:
    begun, leave = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Reply:
        begun.set()
        await leave.wait()
        return Reply(request.body)

    puppet().acts = slow
    async with node.client() as client:
        asked = asyncio.create_task(client.call(ONCE, NOTE, purpose="payroll", idempotency_key="k-1", timeout=0.1))
        await begun.wait()
        keys = without_keys(node)
        leave.set()
        with pytest.raises((BusProblem, Unreachable, OutcomePending)):
            await asked
        object.__setattr__(node.node.bus.catalogue, "bus_keys", keys)
        told = await client.call(ONCE, NOTE, purpose="payroll", idempotency_key="k-1")
    assert (told.status, told.replayed, len(puppet().requests)) == (200, True, 1)
