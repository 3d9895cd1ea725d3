"""Keys at a cluster of real processes over PostgreSQL and Kafka; its folder is swapped as Kubernetes swaps a ConfigMap.

A key that is revoked, by an operator's act or in the files, is refused by every gateway within five seconds of the
change, and no worker begins after that what it had signed. Keys that take turns are noticed by nobody.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from gsb.catalogue import build
from gsb.client import BusProblem, Client, Result
from gsb.evidence.checkpoint import Verifier
from gsb.evidence.verify import verify_receipt
from gsb.jwk import PrivateKey
from gsb.model import Exchange, State
from gsb.store.contract import Query
from gsb.store.postgres import PostgresStore
from gsb.store.seal import read_key
from tests.support import kafka
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ
from tests.support.cluster import Member, cluster
from tests.support.deployment import Deployment, agency_key, closed, standard
from tests.support.reloading import mount, remount
from tests.test_rotation import (
    Load,
    fetching,
    log_command,
    next_key,
    next_log_key,
    second_log_begun,
    soon,
    until,
)

pytestmark = pytest.mark.slow
ROLES = ("gateway", "gateway,recorder", "worker", "worker")
EFFECTIVE = 5.0
"""Seconds within which a revocation must count everywhere."""
TICK, LATE = 0.1, 1.0
"""Seconds between two looks at the time, and by which a look is so late that the machine stood still."""
WITHIN = 60.0
"""Seconds for whatever must happen, on a machine that is busy with other things."""
SLOW = "slow/note/v1"
TAKES = 0.3
"""Seconds for one exchange of the slow system, which does one at a time."""
WAITING = 60
"""Exchanges that wait for it: far more than it can do before a revocation counts."""


@pytest.fixture(scope="module")
def brokers() -> Iterator[kafka.Cluster]:
    with kafka.own_cluster() as found:
        yield found


class Place:
    """The cluster, and the folder that all of it reads."""

    def __init__(self, nodes: Sequence[Member], deployment: Deployment) -> None:
        self.nodes, self.deployment = nodes, deployment
        self.gateways = [node for node in nodes if "gateway" in node.roles]
        self._folder, self._version = deployment.folder, 1
        mount(self._folder, "..v1")

    def swap(self) -> None:
        """Let every node find the deployment as it now stands, from one moment to the next."""
        version = f"..v{self._version + 1}"
        shutil.copytree(self._folder / f"..v{self._version}", self._folder / version)
        written = copy.copy(self.deployment)
        written.folder = self._folder / version
        written.write()
        remount(self._folder, version)
        self._version += 1

    async def taken_up(self) -> None:
        """Every node has the deployment as it now stands."""
        series = f'gsb_catalogue_info{{digest="{build(self._folder).digest}"}}'
        async with asyncio.timeout(WITHIN):
            while True:
                numbers = await asyncio.gather(*(node.numbers() for node in self.nodes))
                if all(each.get(series) == 1 for each in numbers):
                    return
                await asyncio.sleep(0.1)


@pytest.fixture
async def place(tmp_path: Path, dsn: str, brokers: kafka.Cluster) -> AsyncIterator[Place]:
    deployment = standard(tmp_path)
    deployment.gsb["reload"] = "watch"
    deployment.system("slow", concurrency=1)
    schema = closed({"id": {"type": "string"}, "text": {"type": "string"}}, NOTE)
    deployment.service(SLOW, effect="once", request=schema, reply=schema, settings={"seconds": TAKES})
    grants = [{"service": SLOW, "purpose": "payroll", "fields": [""]}]
    deployment.agreement("a-slow", grants=grants)
    both = [{"service": each, "purpose": "payroll", "fields": ["/id"]} for each in (READ, ONCE)]
    deployment.agreement("a-other", consumer="audit-office", grants=both)
    # The port that operators' signatures name.
    more = {"gateway": ["--operations-port", str(deployment.operations_port)]}
    async with cluster(tmp_path, dsn, ROLES, brokers=brokers.brokers, deployment=deployment, more=more) as nodes:
        yield Place(nodes, deployment)


# --- revoking


class Caller:
    """Calls a gateway with one key until it is refused."""

    def __init__(self, client: Client) -> None:
        self.warm = asyncio.Event()
        self._client = client

    async def run(self) -> None:
        async with self._client as client:
            with pytest.raises(BusProblem) as refused:
                await self._go_on(client)
        assert refused.value.code == "key_revoked"

    async def _go_on(self, client: Client) -> None:
        while True:
            try:
                await client.call(READ, PERSON_BODY, purpose="payroll")
            except BusProblem as problem:
                if problem.code != "authority_withdrawn":  # that one was accepted, and did not begin any more
                    raise
            self.warm.set()


async def test_a_revoked_key_counts_nowhere_after_five_seconds(
    place: Place, dsn: str, record_property: Callable[[str, object], None]
) -> None:
    second, _, public = next_key(place.deployment, "payroll-2")
    keys = place.deployment.files["agencies/payroll.toml"]["keys"]
    keys.append({"file": public})
    place.swap()
    await place.taken_up()

    async def by_act() -> None:
        async with place.gateways[0].operator() as olive:
            await olive.admin("POST", "/admin/keys/revoke", {"reason": "stolen", "key": agency_key("payroll").kid})

    async def by_files() -> None:
        keys[1]["state"] = "revoked"
        place.swap()

    others = Load(lambda key: place.gateways[1].client("audit-office"), agency_key("audit-office"))
    async with others.on():
        for key, revoke in ((agency_key("payroll"), by_act), (second, by_files)):
            took = await revoked(place, key, revoke, dsn)
            record_property(f"seconds {revoke.__name__}", took)
            print(f"{revoke.__name__}: accepted last {took[0]:.2f} s, begun last {took[1]:.2f} s after the change")
            await others.go_on()


async def revoked(
    place: Place, key: PrivateKey, revoke: Callable[[], Awaitable[None]], dsn: str
) -> tuple[float, float]:
    """Revoke the key under load. How many seconds later a gateway accepted, and a worker began, for the last time."""
    callers = [Caller(node.client(key=key)) for node in place.gateways for _ in range(2)]
    async with place.gateways[0].client(key=key) as client:
        waiting = [client.call(SLOW, NOTE, purpose="payroll", respond_async=True) for _ in range(WAITING)]
        queued = [result.exchange or "" for result in await asyncio.gather(*waiting)]
    async with standstills() as stood_still, asyncio.timeout(WITHIN), asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(caller.run())
        await asyncio.gather(*(caller.warm.wait() for caller in callers))
        moment = time.time()
        await revoke()
    async with stored(place, dsn) as store:
        # By the store's clock, which is this machine's.
        (newest,) = (await store.search(Query(agency="payroll", limit=1))).exchanges
        ended = await all_ended(store, queued)
    assert {each.state for each in ended} == {State.DONE, State.FAILED}
    accepted = newest.accepted_at - moment
    begun = max(each.began_at or 0.0 for each in ended if each.state is State.DONE) - moment
    assert accepted < EFFECTIVE + sum(stood_still)
    assert begun < EFFECTIVE + sum(stood_still)
    return accepted, begun


@asynccontextmanager
async def standstills() -> AsyncIterator[list[float]]:
    """For how many seconds each the machine did nothing meanwhile, as far as this process is one that it did not let
    run: no node could hear of anything then."""
    found: list[float] = []

    async def watch() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(TICK)
            late = time.monotonic() - before - TICK
            if late > LATE:
                found.append(late)

    watching = asyncio.create_task(watch())
    try:
        yield found
    finally:
        watching.cancel()


@asynccontextmanager
async def stored(place: Place, dsn: str) -> AsyncIterator[PostgresStore]:
    table = place.deployment.gsb["store"]
    store = PostgresStore(dsn, read_key(place.deployment.folder / "store.key"), schema=table["schema_name"])
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def all_ended(store: PostgresStore, ids: Sequence[str]) -> list[Exchange]:
    """These exchanges, once each has its outcome."""
    async with asyncio.timeout(WITHIN):
        while True:
            found = [await store.exchange(each) for each in ids]
            known = [each for each in found if each is not None and each.outcome is not None]
            if len(known) == len(ids):
                return known
            await asyncio.sleep(0.2)


# --- taking turns


async def test_agency_bus_and_log_change_their_keys_and_nobody_notices(place: Place) -> None:
    deployment = place.deployment
    turns = itertools.cycle(place.gateways)
    load = Load(lambda key: fetching(next(turns), key), deployment.key("payroll"))
    bus_keys: list[Any] = deployment.gsb["bus"]["keys"]
    agency_keys = deployment.files["agencies/payroll.toml"]["keys"]
    second, _, public = next_key(deployment, "payroll-2")
    _, bus_private, _ = next_key(deployment, "bus-2")
    log_key = next_log_key(deployment)

    async def swapped() -> None:
        place.swap()
        await place.taken_up()

    async with load.on():
        first = load.results[0]
        agency_keys.append({"file": public})
        bus_keys.append({"file": bus_private, "state": "announced"})
        await swapped()
        load.key = second  # and everybody asks for the bus's keys, of which there are two by now
        await load.go_on()
        end = soon(2)
        agency_keys[0] |= {"state": "retiring", "until": end}
        bus_keys[:] = [bus_keys[0] | {"until": end}, {"file": bus_private, "since": end}]
        await swapped()
        await until(end)
        await load.go_on()
        deployment.gsb["log"] |= {"key": log_key, "former": ["keys/log.jwk.json"]}
        await swapped()
        await second_log_begun(deployment)
        await load.go_on()
    await every_proof_holds(place, second, first, load.results[-1])


async def every_proof_holds(place: Place, key: PrivateKey, *results: Result) -> None:
    """Each receipt with the key of its own log, and both logs."""
    deployment = place.deployment
    keys = {verifier.name: verifier for verifier in map(Verifier.of, log_command("key", deployment.folder))}
    assert len(keys) == 2
    origins = []
    async with place.gateways[0].client(key=key, bus_keys=None) as client:
        for result in results:
            text = await client.receipt(result.exchange or "", timeout=WITHIN)
            origins.append(text.partition(b"\n\n")[2].partition(b"\n")[0].decode())
            assert orjson.loads(verify_receipt(text, keys[origins[-1]]).entry)["exchange"] == result.exchange
    assert origins == list(keys)
    for origin, verifier in keys.items():
        log_command("verify", deployment.log_folder / origin.rpartition("/")[2], "--key", verifier.vkey)
