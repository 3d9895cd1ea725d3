"""The same month beyond one machine: a PostgreSQL and a Kafka of the demonstration's own, and five nodes over them.

Its deployment is the embedded one with two tables of gsb.toml changed and a gateway more; everything else is the same
files. Both servers listen on loopback only, write to temporary folders, and end with the demonstration. A crash leaves
servers and folders behind.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from config.demo.children import Child, NotStarted, Programs
from config.demo.deployment import GSB, ROOT, Site
from config.demo.prepare import CONFIG
from config.demo.proof import said
from config.demo.report import Report
from gsb.bench.servers import kafka, postgres
from gsb.bench.servers.installed import free_ports

FOLDER = ROOT / "var" / "cluster"
"""Its deployment: as deep as config/demo, so that relative paths lead to the same places."""
SAME = ("agencies", "operators", "systems", "services", "agreements", "keys")
ON_POSTGRES = """[store]
kind = "postgres"
dsn = "dsn"
key = "keys/store.key"
"""
ON_KAFKA = """[broker]
kind = "kafka"
brokers = ["{brokers}"]
partitions = 4
replication = 1
"""
ROLES = ("recorder", "gateway 1", "gateway 2", "worker 1", "worker 2")


class Cluster:
    """Five nodes of one bus, each a process of its own."""

    def __init__(self, site: Site, programs: Programs, out: Console) -> None:
        self._site, self._programs, self._out = site, programs, out
        self._nodes: dict[str, Child] = {}

    async def start(self) -> None:
        """Raises NotStarted. The first makes the tables, so the others wait for it."""
        second = self._site.urls[1].rpartition(":")[2]
        for name in ROLES:
            operations = self._site.operations_url.rpartition(":")[2]
            options = ["--role", name.partition(" ")[0]]
            if name == "gateway 2":
                options += ["--port", second]
            if name != "gateway 1":
                (port,) = free_ports(1)
                operations = str(port)
                options += ["--operations-port", operations]
            ready = f"http://127.0.0.1:{operations}/readyz"
            self._nodes[name] = await self._programs.start(name, self._site.bus_command(*options), ready)

    def kill(self, name: str) -> None:
        """SIGKILL."""
        self._nodes[name].kill()
        self._out.print(f"{name} is killed; what it had begun is settled when its lease has run out, in half a minute")


def require() -> None:
    """What has to be installed is. Raises NotStarted."""
    lack = postgres.MISSING if postgres.programs() is None else kafka.missing()
    if lack is not None:
        raise NotStarted(f"{lack}; BACKEND=cluster needs it")


async def servers(stack: AsyncExitStack, report: Report) -> Site:
    """PostgreSQL, Kafka with its topics, and the deployment over them. Raises NotStarted."""
    with report.preparing("PostgreSQL, from nothing to ready") as notes, _starting("PostgreSQL"):
        server = stack.enter_context(postgres.running(postgres.Server))
        notes.append("on a socket in a temporary folder")
    with report.preparing("Kafka, from nothing to ready") as notes, _starting("Kafka"):
        brokers = stack.enter_context(kafka.one_node())
        notes.append(f"version {kafka.LINE}, at {brokers}")
    lay_out(server.dsn, brokers)
    with report.preparing("topics") as notes:
        code, last = await said(GSB, "topics", "apply", FOLDER)
        notes.append(last)
    if code:
        raise NotStarted(f"gsb topics apply: {last}")
    return Site.read(FOLDER)


@contextmanager
def _starting(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise NotStarted(f"{name} cannot be started: {error}") from None


def lay_out(dsn: str, brokers: str) -> None:
    """Write the deployment. Raises OSError."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for name in SAME:
        (FOLDER / name).symlink_to(Path("../..") / CONFIG.relative_to(ROOT) / name)
    (FOLDER / "dsn").write_text(f"{dsn}&sslmode=disable\n", "utf-8")
    (port,) = free_ports(1)
    text = (CONFIG / "gsb.toml").read_text("utf-8")
    (FOLDER / "gsb.toml").write_text(changed(text, brokers, f"http://127.0.0.1:{port}"), "utf-8")


def changed(text: str, brokers: str, second: str) -> str:
    """What the embedded deployment's gsb.toml becomes: two tables, and another base URL for the second gateway."""
    text = re.sub(r"\[store\]\n(.+\n)+", f"{ON_POSTGRES}\n{ON_KAFKA.format(brokers=brokers)}", text)
    return re.sub(r"base_urls = \[(.+)\]", rf'base_urls = [\1, "{second}"]', text)
