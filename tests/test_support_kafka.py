"""The tests' own Kafka can be reached through doors, each of which the tests' own network cuts by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.producer import AIOKafkaProducer

from tests.cluster.proxy import Network, Wire, network
from tests.support.kafka import Cluster, own_cluster

pytestmark = pytest.mark.slow


class Ways:
    """Wires to the nodes through one door, one for each node."""

    def __init__(self, net: Network) -> None:
        self._net = net
        self.wires: list[Wire] = []

    def door(self, port: int) -> int:
        self.wires.append(self._net.wire(("127.0.0.1", port)))
        return self.wires[-1].port


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture(scope="module")
def ways(net: Network) -> dict[str, Ways]:
    return {"NORTH": Ways(net), "SOUTH": Ways(net)}


@pytest.fixture(scope="module")
def cluster(ways: dict[str, Ways]) -> Iterator[Cluster]:
    with own_cluster(doors={name: each.door for name, each in ways.items()}) as made:
        yield made


async def test_a_door_that_is_cut_leaves_the_other_open(cluster: Cluster, ways: dict[str, Ways]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.brokers)
    await admin.start()
    await admin.create_topics([NewTopic("told", 1, 1)])
    await admin.close()
    producers = {name: AIOKafkaProducer(bootstrap_servers=cluster.through(name), acks="all") for name in ways}
    for producer in producers.values():
        await producer.start()
        await producer.send_and_wait("told", b"first")
    assert all(wire.carried > 0 for each in ways.values() for wire in each.wires)
    for wire in ways["NORTH"].wires:
        wire.cut()
    await producers["SOUTH"].send_and_wait("told", b"second")
    cut = asyncio.create_task(producers["NORTH"].send_and_wait("told", b"third"))
    done, _ = await asyncio.wait([cut], timeout=0.5)
    assert not done
    for wire in ways["NORTH"].wires:
        wire.restore()
    assert (await cut).offset == 3
    for producer in producers.values():
        await producer.stop()
