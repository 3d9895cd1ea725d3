"""A real Apache Kafka for tests: one node or several (KRaft), on loopback, in a temporary folder, from its own jars.

Nodes are stopped, killed, halted and started again one by one, on the same data. ``GSB_TEST_KAFKA`` (``host:port,...``)
points to another cluster instead; ``GSB_KAFKA_VERSION`` chooses between the lines of tests/deps/kafka/pom.xml.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from tests.support.needs import needs

VARIABLE = "GSB_TEST_KAFKA"
LINE = os.environ.get("GSB_KAFKA_VERSION", "4.1")
JARS = Path(__file__).parents[2] / ".deps/kafka" / LINE
START = 90.0
"""Seconds within which nodes must be ready."""
ROOM = 2 << 30
"""Bytes that servers of tests may take."""
JAVA = ["java", "-Xms128m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
Door = Callable[[int], int]
"""Makes what leads to a port of loopback, and answers its port."""
NO_DOORS: Mapping[str, Door] = {}
COMMON = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "offsets.topic.num.partitions": "4",
    "log.index.size.max.bytes": "1048576",
    # A dead broker is noticed within this, or the tests of its death would mostly wait.
    "broker.session.timeout.ms": "4000",
    "broker.heartbeat.interval.ms": "1000",
}

LOGGING = {
    "log4j2.properties": """
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %m%n
""",
    "log4j.properties": """
log4j.rootLogger = WARN, out
log4j.appender.out = org.apache.log4j.ConsoleAppender
log4j.appender.out.layout = org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern = %d %m%n
""",
}
"""For Kafka 4 and Kafka 3."""


class Node:
    """One broker that is a controller too. Its process is this program's child, so its pid is known."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number, self.folder = number, folder
        self.port, self.extra_port, self.controller_port = _free_ports(3)
        self.doors: dict[str, tuple[int, int]] = {}
        """Further ways in by name: on which port it listens, and which port clients are told."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def extra_address(self) -> str:
        """Of the further listener; see ``own_cluster``."""
        return f"localhost:{self.extra_port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    def configure(self, settings: Mapping[str, str]) -> None:
        own = {"node.id": str(self.number), "log.dirs": str(self.folder / "data")}
        text = "".join(f"{name}={value}\n" for name, value in {**COMMON, **settings, **own}.items())
        (self.folder / "server.properties").write_text(text, "utf-8")
        for name, logging in LOGGING.items():
            (self.folder / name).write_text(logging, "utf-8")

    def format(self, cluster: str, *arguments: str) -> subprocess.Popen[bytes]:
        return self._java(
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={cluster}",
            "-c",
            str(self.folder / "server.properties"),
            *arguments,
        )

    def start(self) -> None:
        """Start its process, on whatever data it has; see ``Cluster.wait`` for when it is of use."""
        assert self._process is None
        self._process = self._java("kafka.Kafka", str(self.folder / "server.properties"))

    def _java(self, *command: str) -> subprocess.Popen[bytes]:
        logging = [f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties"]
        logging += [f"-Dlog4j.configuration=file:{self.folder}/log4j.properties"]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen([*JAVA, *logging, "-cp", f"{JARS}/*", *command], stdout=log, stderr=log)

    def send(self, how: signal.Signals) -> None:
        """SIGSTOP halts it, SIGCONT lets it go on."""
        os.kill(self.pid, how)

    def kill(self) -> None:
        """End it as a loss of power to its process would; data that it had written stay."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Let it hand over what it leads and end."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START)
            self._process = None

    @property
    def running(self) -> bool:
        """Whether it was started; one that ended by itself is an error."""
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(self.log)
        return self._process is not None

    @property
    def listening(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0


class Cluster:
    """Nodes of the tests' own. Calls block, from whatever thread; tests whose loop must go on use ``to_thread``."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = list(nodes)
        self.brokers = ",".join(node.address for node in nodes)
        """For clients: ``host:port,...`` without TLS."""

    def wait(self) -> None:
        """Until all nodes that run serve clients and know each other."""
        until = time.monotonic() + START
        while True:
            nodes = [node for node in self.nodes if node.running]
            if all(node.listening for node in nodes) and {node.number for node in nodes} <= _run(_alive(self.brokers)):
                return
            if time.monotonic() > until:
                raise RuntimeError("\n".join(node.log for node in nodes))
            time.sleep(0.1)

    def through(self, door: str) -> str:
        """``host:port,...`` for clients that come through this door."""
        return ",".join(f"127.0.0.1:{node.doors[door][1]}" for node in self.nodes)

    def leader(self, topic: str, partition: int = 0) -> Node:
        """Who leads the partition now."""
        number = _run(_leader(self.brokers, topic, partition))
        return next(node for node in self.nodes if node.number == number)


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """In a thread of its own, so that a test's event loop may be running here."""
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, coroutine).result()


async def _alive(brokers: str) -> set[int]:
    """Which nodes are known to be there and answer themselves."""
    client = AIOKafkaClient(bootstrap_servers=brokers, request_timeout_ms=5_000)
    try:
        await client.bootstrap()
        known = {each.nodeId for each in client.cluster.brokers()}
        return {number for number in known if await client.ready(number)}
    except (KafkaError, OSError):
        return set()
    finally:
        await client.close()


async def _leader(brokers: str, topic: str, partition: int) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        (told,) = await admin.describe_topics([topic])
        return int(next(each["leader"] for each in told["partitions"] if each["partition"] == partition))
    finally:
        await admin.close()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _in_memory() -> Path | None:
    """A large file system in memory, if there is one: tests kill servers, not machines, and wait for no disk there."""
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > ROOM
    return memory if roomy else None


def _shared(nodes: Sequence[Node]) -> dict[str, str]:
    """What all nodes of a cluster share: with three, each partition has three copies, two of which must agree."""
    copies = "3" if len(nodes) >= 3 else "1"
    enough = "2" if len(nodes) >= 3 else "1"
    return {
        "controller.quorum.voters": ",".join(f"{node.number}@127.0.0.1:{node.controller_port}" for node in nodes),
        "default.replication.factor": copies,
        "min.insync.replicas": enough,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": enough,
    }


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
    needs((JARS / ".installed").exists(), f"Apache Kafka {LINE} is not here (make deps-test), nor is {VARIABLE} set")
    needs(shutil.which("java") is not None, "Java 17 is not installed (make deps-test installs it)")
    root = Path(tempfile.mkdtemp(prefix="gsb-kafka-", dir=_in_memory()))
    nodes = [Node(number, root / str(number)) for number in range(1, count + 1)]
    try:
        for node in nodes:
            ports = zip(doors, _free_ports(len(doors)), strict=True)
            node.doors = {name: (port, doors[name](port)) for name, port in ports}
        _make(nodes, dict(extra or {}), scram)
        for node in nodes:
            node.start()
        cluster = Cluster(nodes)
        cluster.wait()
        yield cluster
    finally:
        for node in nodes:
            node.kill()
        shutil.rmtree(root)


def _make(nodes: Sequence[Node], extra: dict[str, str], scram: Sequence[str]) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    protocol = extra.pop("listener.security.protocol", "PLAINTEXT")
    formats = []
    for node in nodes:
        node.folder.mkdir()
        public = f"PLAINTEXT://{node.address}" + (f",EXTRA://{node.extra_address}" if extra else "")
        listeners = {
            "listeners": f"{public}{_at(node, 0)},CONTROLLER://127.0.0.1:{node.controller_port}",
            "advertised.listeners": public + _at(node, 1),
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,EXTRA:{protocol}"
            + "".join(f",{door}:PLAINTEXT" for door in node.doors),
        }
        node.configure({**_shared(nodes), **listeners, **extra})
        users = [argument for user in scram for argument in ("--add-scram", user)]
        formats.append(node.format(cluster, *users))
    for node, process in zip(nodes, formats, strict=True):
        if process.wait(START):
            raise RuntimeError(node.log)


def _at(node: Node, side: int) -> str:
    """The node's doors as listeners: by the ports on which it listens (0), or those that clients are told (1)."""
    return "".join(f",{door}://127.0.0.1:{ports[side]}" for door, ports in node.doors.items())


@contextmanager
def some_cluster() -> Iterator[str]:
    """The addresses of a cluster that keeps running: the one named in the environment, or one of the tests' own."""
    if (given := os.environ.get(VARIABLE)) is not None:
        yield given
        return
    with own_cluster() as cluster:
        yield cluster.brokers
