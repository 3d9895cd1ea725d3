"""Gateway, worker and recorder, each a process of its own over real PostgreSQL and Kafka: each does its own part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from gsb.client import Client, OutcomePending
from gsb.evidence.log import CHECKPOINT, Files
from gsb.evidence.verify import verify_log
from tests.support import kafka
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ
from tests.support.cluster import Member, cluster
from tests.support.deployment import standard
from tests.support.reading import published, size_of

pytestmark = pytest.mark.slow
WITHIN = 120.0
"""Seconds for whatever must happen, on a machine that is busy with other things."""


@pytest.fixture(scope="module")
def brokers() -> Iterator[kafka.Cluster]:
    with kafka.own_cluster() as found:
        yield found


@pytest.fixture
async def nodes(tmp_path: Path, dsn: str, brokers: kafka.Cluster) -> AsyncIterator[list[Member]]:
    deployment = standard(tmp_path)
    deployment.system("archive")
    roles = ["gateway", "worker", "recorder"]
    more = {"worker": ["--system", "registry"]}
    async with cluster(tmp_path, dsn, roles, brokers=brokers.brokers, deployment=deployment, more=more) as found:
        yield found


async def reached(node: Member, name: str, number: float) -> None:
    """Returns when this number of the node has come so far: what it tells others it counts beside that."""
    async with asyncio.timeout(WITHIN):
        while True:
            if (await node.numbers()).get(name, 0) >= number:
                return
            await asyncio.sleep(0.1)


async def test_each_role_does_its_part_and_nothing_else(nodes: list[Member]) -> None:
    gateway, worker, recorder = nodes
    async with gateway.client() as client:
        for number in range(3):
            result = await client.call(ONCE, NOTE, purpose="payroll", idempotency_key=f"key-{number}")
            assert (result.status, result.body) == (200, NOTE)
    await reached(worker, f'gsb_exchanges_ended_total{{service="{ONCE}",state="done"}}', 3)
    await reached(recorder, "gsb_recorder_at_work", 1)
    numbers = {node.roles: await node.numbers() for node in nodes}
    for role, said in numbers.items():
        assert {each: said[f'gsb_role{{role="{each}"}}'] for each in numbers} == {
            each: each == role for each in numbers
        }
    accepted = {role: said.get(f'gsb_exchanges_accepted_total{{service="{ONCE}"}}') for role, said in numbers.items()}
    ended = {
        role: said.get(f'gsb_exchanges_ended_total{{service="{ONCE}",state="done"}}') for role, said in numbers.items()
    }
    assert accepted == {"gateway": 3, "worker": 0, "recorder": 0}
    assert ended == {"gateway": 0, "worker": 3, "recorder": 0}
    assert {role: said["gsb_recorder_at_work"] for role, said in numbers.items()} == {
        "gateway": 0,
        "worker": 0,
        "recorder": 1,
    }
    for node, systems in ((gateway, {}), (worker, {"registry": None}), (recorder, {})):
        status, said = await node.readiness()
        assert (status, said["missing"], said["systems"]) == (200, [], systems), node.roles


async def test_only_a_gateway_listens_on_the_api(nodes: list[Member]) -> None:
    gateway, *others = nodes
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{gateway.url}/.well-known/jwks.json") as answer:
            assert answer.status == 200
        for node in others:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"{node.url}/.well-known/jwks.json")


async def test_a_gateway_shows_the_log_that_the_recorder_keeps(nodes: list[Member]) -> None:
    gateway, _, recorder = nodes
    async with gateway.client() as client:
        await client.call(READ, PERSON_BODY, purpose="payroll")
    note = await published(gateway, holding=lambda note: size_of(note) >= 3)
    folder = next(each for each in gateway.deployment.log_folder.iterdir() if each.is_dir())
    verified = verify_log(Files(folder).read, gateway.deployment.log_verifier(folder.name))
    assert verified.checkpoint.size >= size_of(note)
    tile = f"{gateway.operations_url}/log/{folder.name}/tile/0/000.p/{size_of(note)}"
    async with aiohttp.ClientSession() as session, session.get(tile) as answer:
        assert (answer.status, len(await answer.read())) == (200, 32 * size_of(note))
    assert (folder / CHECKPOINT).exists()
    assert recorder.running


async def waits(client: Client, key: str) -> None:
    """The call is accepted with 202, and whoever waits a second for its outcome hears none."""
    accepted = await client.call(ONCE, NOTE, purpose="payroll", idempotency_key=key, respond_async=True)
    assert (accepted.status, accepted.state) == (202, "accepted")
    with pytest.raises(OutcomePending):
        await client.follow(accepted.exchange or "", timeout=1)


async def test_work_waits_for_a_worker_and_flows_when_there_is_one(nodes: list[Member]) -> None:
    gateway, worker, _ = nodes
    await worker.stop()
    async with gateway.client() as client:
        await waits(client, "later")
        await worker.start()
        result = await client.call(ONCE, NOTE, purpose="payroll", idempotency_key="later", timeout=WITHIN)
    assert (result.status, result.body) == (200, NOTE)


async def until(node: Member, status: int, missing: list[str]) -> None:
    """Returns when the node says so of itself."""
    async with asyncio.timeout(WITHIN):
        while True:
            found, said = await node.readiness()
            if (found, said["missing"]) == (status, missing):
                return
            await asyncio.sleep(0.1)


async def test_without_kafka_callers_get_202_and_the_work_flows_later(
    nodes: list[Member], brokers: kafka.Cluster
) -> None:
    gateway, worker, _ = nodes
    async with gateway.client() as client:
        (broker,) = brokers.nodes
        await asyncio.to_thread(broker.kill)
        await waits(client, "down")
        with pytest.raises(OutcomePending) as pending:  # so does a caller who would wait
            await client.call(ONCE, NOTE, purpose="payroll", idempotency_key="waiting", wait=1, timeout=1)
        assert pending.value.state == "accepted"
        await until(worker, 503, ["broker"])
        assert (await gateway.readiness())[0] == 200, "it can accept, and what it accepts is kept"
        broker.start()
        await asyncio.to_thread(brokers.wait)
        for key in ("down", "waiting"):
            result = await client.call(ONCE, NOTE, purpose="payroll", idempotency_key=key, timeout=WITHIN)
            assert (result.status, result.body) == (200, NOTE)
    await until(worker, 200, [])
