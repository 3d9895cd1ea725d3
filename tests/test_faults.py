"""A full disk, no descriptors, a clock that is set: what was acknowledged is safe, the error says what to do, and
service resumes by itself. The agency, the operator, the core system and the checker are those of the kill tests.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gsb.jws import sign_request
from gsb.model import Effect, new_id
from gsb.sdk.errors import Unavailable
from gsb.sdk.http import Http
from gsb.store.sqlite import SqliteStore
from gsb.store.sqlite import writer as sqlite_writer
from tests.histories.checker import Finding
from tests.histories.deployment import PURPOSE
from tests.kills.campaign import SMALL_JOURNAL, Campaign, campaign
from tests.kills.stepped import STEPS, Steps
from tests.support.node import RunningNode, running_node
from tests.support.stores import new

pytestmark = pytest.mark.slow

WITHIN = 120.0
"""Seconds in which everything that is waited for must come."""
KEPT = 60.0
"""Seconds for which a connection is kept though nothing is sent: less than the node keeps it, and longer than the
machine stands still, since without descriptors there is no other."""
READ = "ledger/look/v1"
ASKED = {"key": "k", "delay": 1, "early": False, "mood": "fine"}


class Caller:
    """Calls without the client's patience: each is sent once, and what is heard is what the bus said to it."""

    def __init__(self, node: RunningNode, session: aiohttp.ClientSession) -> None:
        self._node, self._session = node, session

    def signed(self, service: str = READ, body: Any = ASKED) -> tuple[str, bytes, dict[str, str]]:
        """A call as it goes over the wire, to be sent as often as one likes."""
        deployment, data, url = self._node.deployment, json.dumps(body).encode(), f"{self._node.url}/services/{service}"
        token = sign_request(
            deployment.key("payroll"),
            issuer="payroll",
            audience=deployment.bus,
            method="POST",
            target_uri=url,
            body=data,
            content_type="application/json",
            purpose=PURPOSE,
            now=time.time(),
            jti=new_id(),
        )
        return url, data, {"Content-Type": "application/json", "GSB-Signature": token, "Prefer": "wait=60"}

    async def send(self, call: tuple[str, bytes, dict[str, str]]) -> tuple[int, Any, str]:
        """Status, body and Retry-After."""
        url, data, headers = call
        async with self._session.post(url, data=data, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None), answer.headers.get("Retry-After", "")

    async def missing(self) -> list[str]:
        """What the readiness probe says is missing."""
        async with self._session.get(f"{self._node.operations_url}/readyz") as answer:
            told = await answer.json()
            assert (answer.status == 200) == (told["missing"] == [])
            return list(told["missing"])

    async def recorded(self) -> bool:
        """Whether the log is published; from then on a node that nobody asks for anything opens no file."""
        async with self._session.get(f"{self._node.operations_url}/log/checkpoint") as answer:
            return answer.status == 200

    async def until(self, missing: list[str]) -> None:
        async def as_wanted() -> bool:
            return await self.missing() == missing

        await until(as_wanted)


@asynccontextmanager
async def caller(node: RunningNode) -> AsyncIterator[Caller]:
    connector = aiohttp.TCPConnector(keepalive_timeout=KEPT)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(WITHIN)) as session:
        yield Caller(node, session)


@contextmanager
def limited(pid: int, what: int, most: int) -> Iterator[None]:
    """The process may have no more of it for a while."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def processor(pid: int) -> float:
    """Seconds of processor that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def lines(node: RunningNode, *levels: str) -> list[str]:
    """What it said at these levels."""
    told = [json.loads(line) for line in node.log]
    return [line["message"] for line in told if line["level"] in levels]


def not_asked_here(battle: Campaign) -> list[Finding]:
    """What is wrong; the exchanges of the caller are not the agency's, so the checker does not know them."""
    return [finding for finding in battle.findings if finding.kind != "stranger"]


async def ended(battle: Campaign, more: int) -> None:
    """Wait until so many more calls have come to their end."""
    wanted = sum(op.ended is not None for op in battle.load.ops) + more

    async def as_wanted() -> bool:
        return sum(op.ended is not None for op in battle.load.ops) >= wanted

    await until(as_wanted)


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    """Look, again and again, until it is so; what is looked at is another process."""
    async with asyncio.timeout(WITHIN):
        while True:
            if await check():
                return
            await asyncio.sleep(0.05)


async def without(asked: Caller, name: str) -> bool:
    """Whether the readiness probe says that this is missing, whatever else is."""
    return name in await asked.missing()


async def test_a_full_disk(tmp_path: Path) -> None:
    async with campaign(tmp_path) as battle:
        await battle.start()
        await battle.load.full()
        node = battle.node
        async with caller(node) as asked:
            assert (await asked.send(asked.signed()))[0] == 200
            with limited(node.pid, resource.RLIMIT_FSIZE, 0):
                await until(lambda: without(asked, "store"))
                for _ in range(30):
                    status, told, retry = await asked.send(asked.signed())
                    assert (status, told["origin"]) == (503, "bus")
                    # The recorder has told first if it was writing its files when the disk was full.
                    assert told["code"] in ("store_unavailable", "recorder_behind")
                    assert told["detail"].startswith("Nothing was promised. Repeat ")
                    assert retry.isdigit()
                assert await without(asked, "store")
            await asked.until([])
            assert (await asked.send(asked.signed()))[0] == 200
        await ended(battle, 50)
        errors = lines(node, "error", "critical")
        (error,) = [each for each in errors if each.startswith("the store cannot be written (")]
        assert f"make room for {battle.store_folder / 'store.db'}" in error
        # Deletion, recorder and journal may have met the full disk too; each tells it once.
        others = (
            "what has run out cannot be deleted (",
            "the evidence log cannot be written (",
            "the store's journal cannot be carried over (",
        )
        assert [each for each in errors if each != error and not each.startswith(others)] == []
        assert len({each.partition("(")[0] for each in errors}) == len(errors)
        assert lines(node, "warning").count("the store can be written again") == 1
        await battle.conclude()
        assert not_asked_here(battle) == []


async def test_no_descriptors_under_load(tmp_path: Path) -> None:
    async with campaign(tmp_path) as battle, Crowd() as crowd:
        await battle.start()
        await battle.load.full()
        node = battle.node
        async with caller(node) as asked:
            assert (await asked.send(asked.signed()))[0] == 200
            with limited(node.pid, resource.RLIMIT_NOFILE, descriptors(node.pid) + 20):

                async def told() -> bool:
                    await crowd.fill(node)
                    # What is connected is served, and each of these is a commit; systems may be out of reach.
                    assert (await asked.send(asked.signed()))[0] in (200, 202)
                    return lines(node, "error") != []

                await until(told)
                crowd.leave()
                await until(lambda: opened(node))
                await ended(battle, 50)
        await battle.conclude()
        assert not_asked_here(battle) == []
        (error,) = lines(node, "error", "critical")
        assert error.startswith("no file can be opened (Too many open files)")
        assert "ulimit -n" in error
        assert lines(node, "warning").count("files and connections can be opened again") == 1


class Crowd:
    """Connections that are held open and ask nothing."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    async def __aenter__(self) -> Crowd:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.leave()

    def come(self, node: RunningNode, count: int) -> None:
        for _ in range(count):
            self._held.append(one := socket.socket())
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", node.deployment.port))

    async def fill(self, node: RunningNode) -> None:
        """Until no other connection is taken."""
        while await opened(node):
            self.come(node, 10)

    def leave(self) -> None:
        while self._held:
            self._held.pop().close()


async def opened(node: RunningNode) -> bool:
    """Whether a new connection is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.deployment.operations_port)
    try:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return (await reader.read()).startswith(b"HTTP/1.1 200 ")
    except ConnectionError:
        return False
    finally:
        writer.close()


async def test_no_descriptors_cost_no_processor_and_no_lines(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, caller(node) as asked, Crowd() as crowd:
        assert await asked.missing() == []  # over a connection that is kept
        await until(asked.recorded)
        with limited(node.pid, resource.RLIMIT_NOFILE, descriptors(node.pid) + 5):
            before, began = processor(node.pid), time.monotonic()
            crowd.come(node, 300)
            # It is told at the next sweep, which takes as long as the store does.
            while time.monotonic() < began + 3 or not lines(node, "error"):
                assert time.monotonic() < began + WITHIN, "it is not told"
                assert await asked.missing() == []
                await asyncio.sleep(0.2)
            assert processor(node.pid) - before < 1.0
            crowd.leave()
            await until(lambda: opened(node))
        assert len(lines(node, "error", "critical")) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_system_that_cannot_be_reached_for_want_of_descriptors_was_sent_nothing(host: str) -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Http(5.0) as http:
        free = os.dup(0)
        os.close(free)
        with limited(os.getpid(), resource.RLIMIT_NOFILE, free), pytest.raises(Unavailable) as raised:
            await http.request("POST", f"http://{host}:{port}/", json={})
        assert raised.value.sent is False
        with pytest.raises(Unavailable) as raised:
            await http.request("POST", f"http://{host}:{port}/", json={})
        assert raised.value.sent is True


async def test_a_journal_is_carried_over_though_there_are_no_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "CHECKPOINT", SMALL_JOURNAL)
    store = SqliteStore(tmp_path / "store.db", bytes(32))
    await store.open()
    free = os.dup(0)
    os.close(free)
    with limited(os.getpid(), resource.RLIMIT_NOFILE, free):
        for _ in range(60):
            await asyncio.gather(*(store.accept(new(Effect.NONE)) for _ in range(8)))
    assert (tmp_path / "store.db-wal").stat().st_size < 8 * SMALL_JOURNAL
    await store.close()


HOURS = 7_200.0
HELD = 4.0
"""Seconds for which the operator waits after a step: longer than a call of the ledger, so that no effect is to come."""


async def test_a_clock_that_is_set_ahead_and_back(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "steps")
    async with campaign(tmp_path, clock=steps.clock()) as battle:
        battle.module, battle.environment[STEPS] = "tests.kills.stepped", str(tmp_path / "steps")
        await battle.start()
        await battle.load.full()
        async with caller(battle.node) as asked:
            for ahead, refusal in ((HOURS, "token_expired"), (-HOURS, "token_not_yet_valid")):
                call = asked.signed()
                assert (await asked.send(call))[0] == 200
                for step, said in ((ahead, (401, refusal)), (0.0, (409, "replayed"))):
                    await battle.operator.stop()
                    steps.set(step)
                    status, told, _ = await asked.send(call)
                    assert (status, told["code"]) == said
                    await ended(battle, 40)
                    await asyncio.sleep(HELD)
                    battle.operator.start()
                    assert await asked.missing() == []
        await battle.conclude()
        assert not_asked_here(battle) == []
        assert lines(battle.node, "error", "critical") == []
