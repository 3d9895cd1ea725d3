"""A real Apache Kafka of one's own: one node or several (KRaft), on loopback, in a new folder, from its own jars.

The jars are those that tests/deps/kafka.sh has fetched into this checkout; ``GSB_KAFKA_VERSION`` chooses between the
lines of tests/deps/kafka/pom.xml. Nodes are ended by their process ids. A crash of this program leaves them running and
their folder behind.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from gsb.bench.servers.installed import START, NotInstalled, free_ports, room

LINE = os.environ.get("GSB_KAFKA_VERSION", "4.1")
JARS = Path(__file__).parents[3] / ".deps/kafka" / LINE
MISSING = f"Apache Kafka {LINE} is not in {JARS} (make deps-test fetches it)"
NO_JAVA = "Java 17 is not installed (Debian: openjdk-17-jre-headless)"
MEMORY = ("-Xms128m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
"""How little Java is to take for a server that lives for minutes."""
COMMON = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "offsets.topic.num.partitions": "4",
    "log.index.size.max.bytes": "1048576",
    # A dead broker is noticed within this, or whoever kills one would mostly wait.
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
        self.port, self.controller_port = free_ports(2)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    def listeners(self) -> dict[str, str]:
        """Settings that say where it listens, and how."""
        return {
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        }

    def configure(self, settings: Mapping[str, str]) -> None:
        own = {"node.id": str(self.number), "log.dirs": str(self.folder / "data"), **self.listeners()}
        text = "".join(f"{name}={value}\n" for name, value in {**COMMON, **settings, **own}.items())
        (self.folder / "server.properties").write_text(text, "utf-8")
        for name, logging in LOGGING.items():
            (self.folder / name).write_text(logging, "utf-8")

    def format(self, cluster: str, *arguments: str) -> subprocess.Popen[bytes]:
        settings = str(self.folder / "server.properties")
        return self._java("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", settings, *arguments)

    def start(self) -> None:
        """Start its process, on whatever data it has; see ``Cluster.wait`` for when it is of use."""
        self._process = self._java("kafka.Kafka", str(self.folder / "server.properties"))

    def _java(self, *command: str) -> subprocess.Popen[bytes]:
        if (java := shutil.which("java")) is None:
            raise NotInstalled(NO_JAVA)
        logging = [f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties"]
        logging += [f"-Dlog4j.configuration=file:{self.folder}/log4j.properties"]
        with (self.folder / "log").open("ab") as log:
            # In a session of its own, so that Ctrl-C does not end it before those that use it.
            return subprocess.Popen(
                [java, *MEMORY, *logging, "-cp", f"{JARS}/*", *command], stdout=log, stderr=log, start_new_session=True
            )

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


N = TypeVar("N", bound=Node)


class Cluster(Generic[N]):
    """Nodes of one's own. Calls block, from whatever thread; whoever has a loop that must go on uses ``to_thread``."""

    def __init__(self, nodes: Sequence[N]) -> None:
        self.nodes = list(nodes)
        self.brokers = ",".join(node.address for node in nodes)
        """For clients: ``host:port,...`` without TLS."""

    def make(self, *arguments: str) -> None:
        """Format every node; ``arguments`` are of Kafka's StorageTool. Raises RuntimeError with a node's log."""
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        formats = []
        for node in self.nodes:
            node.folder.mkdir()
            node.configure(_shared(self.nodes))
            formats.append(node.format(cluster, *arguments))
        for node, process in zip(self.nodes, formats, strict=True):
            if process.wait(START):
                raise RuntimeError(node.log)

    def start(self) -> None:
        """All of them; returns when they are ready."""
        for node in self.nodes:
            node.start()
        self.wait()

    def wait(self) -> None:
        """Until all nodes that run serve clients and know each other."""
        until = time.monotonic() + START
        while True:
            nodes = [node for node in self.nodes if node.running]
            if all(node.listening for node in nodes) and {node.number for node in nodes} <= run(_alive(self.brokers)):
                return
            if time.monotonic() > until:
                raise RuntimeError("\n".join(node.log for node in nodes))
            time.sleep(0.1)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """In a thread of its own, so that an event loop may be running here."""
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


def missing() -> str | None:
    """What there is to be installed first."""
    if not (JARS / ".installed").exists():
        return MISSING
    return NO_JAVA if shutil.which("java") is None else None


@contextmanager
def running(cluster: Cluster[Any], *arguments: str) -> Iterator[None]:
    """Make and start it, see ``Cluster.make``; in the end its nodes are killed. Raises NotInstalled, RuntimeError."""
    if (lack := missing()) is not None:
        raise NotInstalled(lack)
    try:
        cluster.make(*arguments)
        cluster.start()
        yield
    finally:
        for node in cluster.nodes:
            node.kill()


@contextmanager
def one_node(where: Path | None = None) -> Iterator[str]:
    """The address of a single node, with its data in a new folder in ``where``."""
    with room("gsb-kafka-", where) as folder:
        cluster = Cluster([Node(1, folder / "1")])
        with running(cluster):
            yield cluster.brokers
