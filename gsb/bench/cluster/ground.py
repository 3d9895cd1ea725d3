"""What the bus of a cluster is measured on: a PostgreSQL and a Kafka, a deployment over them, and nodes of its roles.

Servers are those that are named, or new ones of the benchmark's own with their data on a disk. Whatever is made on
them is the benchmark's own too, a schema and a prefix of topics, and removed in the end; a crash leaves it behind.
Nodes are held to no core, since there are more of them than cores.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient

from gsb.backends import KafkaTable
from gsb.bench.place import Place, lay_out
from gsb.bench.served import Server
from gsb.bench.servers import kafka, postgres
from gsb.bench.servers.installed import NotInstalled, free_ports, room
from gsb.broker.kafka.admin import Topics
from gsb.broker.topics import Topic, topics

BACKEND = """
[store]
kind = "postgres"
dsn = "dsn"
key = "keys/store.key"
schema_name = "{name}"
[broker]
kind = "kafka"
brokers = {brokers}
topic_prefix = "{name}"
replication = 1
tls = "upstream"
"""
PING, PONG = "ping", "pong"
"""Topics of the benchmark's own: there, and back."""
MEMORY = {"shared_buffers": "256MB", "max_connections": "200", "max_wal_size": "4GB"}
"""What the benchmark's own server is given beyond what it has by itself: it is to be limited by its disk."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Where they are, as a node's configuration says it."""

    dsn: str
    brokers: str


@asynccontextmanager
async def servers(dsn: str | None, brokers: str | None, folder: Path) -> AsyncIterator[Servers]:
    """Those that are given, or new ones with their data in ``folder``. Raises NotInstalled, RuntimeError."""
    if dsn is None and postgres.programs() is None:
        raise NotInstalled(f"{postgres.MISSING}: install it, or name one with --postgres URI")
    if brokers is None and (lack := kafka.missing()) is not None:
        raise NotInstalled(f"{lack}: or name one with --kafka HOST:PORT")
    async with AsyncExitStack() as stack:
        if dsn is None:
            server = stack.enter_context(postgres.running(_Postgres, where=folder))
            dsn = f"{server.dsn}&sslmode=disable"
        yield Servers(dsn, brokers or stack.enter_context(kafka.one_node(folder)))


class _Postgres(postgres.Server):
    def __init__(self, folder: Path, bin_: Path, port: int | None) -> None:
        super().__init__(folder, bin_, port)
        self.settings |= MEMORY


@dataclass(frozen=True, slots=True)
class Ground:
    """A deployment and what it stands on. Its schema is called ``name``, and so begin its topics."""

    place: Place
    name: str
    dsn: str
    table: KafkaTable
    root: Path

    async def connect(self, schema: str | None = None) -> asyncpg.Connection:
        """A connection as the bus's own are, in this schema or in the bus's."""
        settings = {"search_path": schema or self.name, "synchronous_commit": "on", "jit": "off"}
        return await asyncpg.connect(self.dsn, server_settings=settings)

    def topic(self, name: str) -> str:
        return f"{self.name}.{name}"


@asynccontextmanager
async def ground(at: Servers, folder: Path, gateways: int) -> AsyncIterator[Ground]:
    """A deployment with its topics in a new folder below ``folder``. Raises what the servers' clients do."""
    name = f"bench_{uuid.uuid4().hex[:12]}"
    prefix = name.replace("_", "-")
    with room("gsb-bench-", folder) as root:
        brokers = "[" + ", ".join(f'"{each}"' for each in at.brokers.split(",")) + "]"
        backend = BACKEND.format(name=name, brokers=brokers).replace(f'prefix = "{name}"', f'prefix = "{prefix}"')
        place = lay_out(root, backend, gateways)
        (place.folder / "dsn").write_text(at.dsn + "\n", "utf-8")
        table = KafkaTable(
            kind="kafka", brokers=at.brokers.split(","), topic_prefix=prefix, replication=1, tls="upstream"
        )
        made = Ground(place, name, at.dsn, table, root)
        own = [Topic(made.topic(each), 1, 1, {}) for each in (PING, PONG)]
        wanted = [*topics(table, ["bench"]), *own]
        async with Topics(table) as there:
            await there.apply(wanted)
        try:
            yield made
        finally:
            await _clear(made, [each.name for each in wanted])


async def _clear(made: Ground, names: list[str]) -> None:
    db = await asyncpg.connect(made.dsn)
    found = await db.fetch("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, $1)", made.name)
    for (schema,) in found:
        await db.execute(f'DROP SCHEMA "{schema}" CASCADE')
    await db.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=made.table.brokers)
    await admin.start()
    await admin.delete_topics(names)
    await admin.close()


class Nodes:
    """Starts nodes of one deployment, each with its roles, and ends them when the stack closes."""

    def __init__(self, made: Ground, stack: AsyncExitStack, module: tuple[str, ...]) -> None:
        self._made, self._stack, self._module = made, stack, module

    async def start(self, role: str, url: str | None = None) -> Server:
        """``module``: what this interpreter runs, before the arguments of ``gsb serve``; ``url`` is a gateway's."""
        made = self._made
        (operations,) = free_ports(1)
        arguments = [str(made.place.folder), "--role", role, "--operations-port", str(operations)]
        if url is not None:
            arguments += ["--port", url.rpartition(":")[2]]
        said = made.root / f"{role}-{operations}.out"
        path = os.pathsep.join(filter(None, [str(made.place.site), os.environ.get("PYTHONPATH", "")]))
        with said.open("wb") as out, said.with_suffix(".log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self._module,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
            )
        # A node listens on its operations port when it does its part, but for a gateway, which then opens its own.
        server = Server(url or f"http://127.0.0.1:{operations}", process, said)
        self._stack.push_async_callback(server.stop)
        await server.up()
        return server
