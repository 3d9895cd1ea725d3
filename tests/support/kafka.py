"""A real Apache Kafka for tests (``gsb.bench.servers.kafka``): with doors, users and TLS where they are asked for.

Nodes are stopped, killed, halted and started again one by one, on the same data. ``GSB_TEST_KAFKA`` (``host:port,...``)
points to another cluster instead.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from gsb.bench.servers import kafka
from gsb.bench.servers.installed import free_ports, room
from gsb.bench.servers.kafka import missing, run
from tests.support.memory import in_memory
from tests.support.needs import needs

VARIABLE = "GSB_TEST_KAFKA"
Door = Callable[[int], int]
"""Makes what leads to a port of loopback, and answers its port."""
NO_DOORS: Mapping[str, Door] = {}
PROTOCOL = "listener.security.protocol"


class Node(kafka.Node):
    """One that has further ways in; ``extra`` are settings of the listener EXTRA, if there is to be one."""

    def __init__(self, number: int, folder: Path, doors: Mapping[str, Door], extra: Mapping[str, str]) -> None:
        super().__init__(number, folder)
        self._extra = dict(extra)
        self.extra_port, *ports = free_ports(1 + len(doors))
        self.doors = {name: (port, doors[name](port)) for name, port in zip(doors, ports, strict=True)}
        """By name: on which port it listens, and which port clients are told."""

    @property
    def extra_address(self) -> str:
        """Of the further listener; see ``own_cluster``."""
        return f"localhost:{self.extra_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        assert self._process is None
        super().start()

    def send(self, how: signal.Signals) -> None:
        """SIGSTOP halts it, SIGCONT lets it go on."""
        os.kill(self.pid, how)

    def listeners(self) -> dict[str, str]:
        more = {PROTOCOL: "PLAINTEXT", **self._extra}
        extra, protocol = f",EXTRA://{self.extra_address}" if self._extra else "", more.pop(PROTOCOL)
        usual = super().listeners()
        return {
            "listeners": f"{usual['listeners']}{extra}{self._at(0)}",
            "advertised.listeners": f"{usual['advertised.listeners']}{extra}{self._at(1)}",
            "listener.security.protocol.map": f"{usual['listener.security.protocol.map']},EXTRA:{protocol}"
            + "".join(f",{door}:PLAINTEXT" for door in self.doors),
            **more,
        }

    def _at(self, side: int) -> str:
        """The doors as listeners: by the ports on which it listens (0), or those that clients are told (1)."""
        return "".join(f",{door}://127.0.0.1:{ports[side]}" for door, ports in self.doors.items())


class Cluster(kafka.Cluster[Node]):
    """Nodes of the tests' own."""

    def through(self, door: str) -> str:
        """``host:port,...`` for clients that come through this door."""
        return ",".join(f"127.0.0.1:{node.doors[door][1]}" for node in self.nodes)

    def leader(self, topic: str, partition: int = 0) -> Node:
        """Who leads the partition now."""
        number = run(_leader(self.brokers, topic, partition))
        return next(node for node in self.nodes if node.number == number)


async def _leader(brokers: str, topic: str, partition: int) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        (told,) = await admin.describe_topics([topic])
        return int(next(each["leader"] for each in told["partitions"] if each["partition"] == partition))
    finally:
        await admin.close()


@contextmanager
def own_cluster(
    count: int = 1,
    *,
    extra: Mapping[str, str] | None = None,
    scram: Sequence[str] = (),
    doors: Mapping[str, Door] = NO_DOORS,
) -> Iterator[Cluster]:
    """New nodes, ready; skips the test where Kafka is not installed.

    ``extra`` are settings for a further listener named EXTRA on each node's ``extra_port``, with its protocol under
    ``listener.security.protocol``; ``scram`` are users as ``StorageTool format --add-scram`` takes them. Each door
    is a listener of every node without TLS; what leads to it from another port is made by the function that is given.
    """
    needs((lack := missing()) is None, f"{lack}; nor is {VARIABLE} set")
    with room("gsb-kafka-", in_memory()) as root:
        cluster = Cluster([Node(number, root / str(number), doors, extra or {}) for number in range(1, count + 1)])
        users = [argument for user in scram for argument in ("--add-scram", user)]
        with kafka.running(cluster, *users):
            yield cluster


@contextmanager
def some_cluster() -> Iterator[str]:
    """The addresses of a cluster that keeps running: the one named in the environment, or one of the tests' own."""
    if (given := os.environ.get(VARIABLE)) is not None:
        yield given
        return
    with own_cluster() as cluster:
        yield cluster.brokers
