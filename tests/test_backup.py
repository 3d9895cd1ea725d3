"""Backups of a node that runs under signed load, and what becomes of one on another machine. Real processes and files.

On SQLite and on a real PostgreSQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path

import pytest

from gsb.admit import BEHIND_PAUSE
from gsb.client import BusProblem, Client
from gsb.evidence.checkpoint import Signer
from gsb.evidence.verify import verify_receipt
from gsb.jwk import read_ed25519
from tests.support.backups import REASON, Kept, Said, contents, run
from tests.support.canaries import Planted
from tests.support.deployment import Deployment, closed, standard
from tests.support.node import running_node
from tests.support.postgres import Server, own_server

NOTE, READ, SLOW = "registry/note/v1", "registry/person/v1", "vault/store/v1"
ENOUGH = 25
"""Exchanges that are acknowledged before something else is done."""


def silent(deployment: Deployment, port: int) -> None:
    """A write to a system that takes the request and never answers."""
    settings = {"method": "POST", "path": "/", "content": "body"}
    deployment.system("vault", adapter="http_json", settings={"url": f"http://127.0.0.1:{port}"}, timeout=300)
    schema = closed({"text": {"type": "string"}}, {"text": "x"})
    deployment.service(SLOW, effect="once", request=schema, reply=schema, settings=settings)
    grant = {"service": SLOW, "purpose": "payroll", "fields": [""]}
    deployment.agreement("a-2", grants=[grant])


@asynccontextmanager
async def hole() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A port at which every request is swallowed, and whether one was."""
    reached, over = asyncio.Event(), asyncio.Event()

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        reached.set()
        await over.wait()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], reached
    finally:
        over.set()
        server.close()


class Load:
    """Agencies that call without a pause; ``acknowledged`` is what they were told, in order."""

    def __init__(self, client: Client) -> None:
        self._client, self._grown, self._number = client, asyncio.Condition(), 0
        self.acknowledged: list[str] = []

    async def _call(self) -> None:
        while True:
            self._number += 1
            text = f"{self._number}"
            result = await self._client.call(NOTE, {"id": "P-0001", "text": text}, purpose="payroll")
            async with self._grown:
                self.acknowledged.append(result.exchange or "")
                self._grown.notify_all()

    async def more(self, count: int) -> list[str]:
        """All that is acknowledged once there are so many more."""
        wanted = len(self.acknowledged) + count
        async with asyncio.timeout(120), self._grown:
            await self._grown.wait_for(lambda: len(self.acknowledged) >= wanted)
        return list(self.acknowledged)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._call()) for _ in range(3)]
            yield self
            for task in tasks:
                task.cancel()


@contextmanager
def on(kind: str, deployment: Deployment) -> Iterator[Server | None]:
    with own_server() if kind == "postgres" else nullcontext() as server:
        if server is not None:
            deployment.gsb["store"] = {"kind": "postgres", "dsn": "dsn", "key": "store.key"}
            (deployment.folder / "dsn").write_text(server.dsn, "utf-8")
        yield server


def verified(deployment: Deployment, receipt: bytes) -> int:
    """The place of the entry that a receipt proves, by the log's key alone."""
    _, key = read_ed25519((deployment.folder / "keys" / "log.jwk.json").read_bytes())
    origin = receipt.partition(b"\n\n")[2].partition(b"\n")[0].decode()
    return verify_receipt(receipt, Signer(origin, key).verifier).index


async def logs_are_verified(folder: Path) -> None:
    keys = await run("log", "key", folder)
    assert keys.code == 0
    for key in keys.out.split():
        said = await run("log", "verify", folder.parent / "log", "--key", key)
        assert said.code == 0, said.wrong


def head(said: Said) -> str:
    """Of the log, as the command tells it."""
    return said.out.rpartition(", log ")[2].strip()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_backup_under_load_goes_on_elsewhere_with_all_that_was_acknowledged(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gsb.client.LEAST", 60.0)  # for the one call that is refused there is time on any machine
    kept = Kept(tmp_path)
    deployment = kept.deployment
    async with hole() as (port, reached):
        silent(deployment, port)
        with on(kind, deployment), own_server() if kind == "postgres" else nullcontext() as elsewhere:
            async with running_node(tmp_path, deployment) as node, node.client() as client:
                began = await client.call(SLOW, {"text": "x"}, purpose="payroll", respond_async=True)
                await asyncio.wait_for(reached.wait(), 120)
                async with Load(client).running() as load:
                    before = await load.more(ENOUGH)
                    for each in before:
                        await client.receipt(each)  # so that the log has their places before the backup begins
                    made = await kept.backup()
                    assert made.code == 0, made.wrong
                    await load.more(ENOUGH)
                await node.kill()
            seen = await kept.verify(None, "--identity", kept.identity)
            assert (seen.code, head(seen)) == (0, head(made)), seen.wrong
            more: list[Path | str] = []
            if elsewhere is not None:
                (tmp_path / "dsn").write_text(elsewhere.dsn, "utf-8")
                more = ["--dsn", tmp_path / "dsn"]
            other = await kept.restored(*more)
            await holds(other, before, began.exchange or "", head(made))


async def holds(other: Deployment, before: list[str], began: str, head: str) -> None:
    """The other machine knows all that was acknowledged before, can prove it, and repeats nothing."""
    origin, size, _ = head.split()
    stood = other.log_folder / origin.rpartition("/")[2] / "checkpoint"
    assert stood.read_text("utf-8").split("\n")[:3] == head.split()
    async with running_node(other.folder, other) as node, node.client() as client:
        found = [await client.exchange(each) for each in before]
        assert {each.state for each in found} == {"done"}
        places = [verified(other, await client.receipt(each)) for each in before]
        assert max(places) < int(size)
        unfinished = await client.exchange(began)
        assert (unfinished.state, unfinished.body["reason"]) == ("unknown", "restored")
        with pytest.raises(BusProblem) as refused:
            await client.call(NOTE, {"id": "P-0001", "text": "x"}, purpose="payroll", timeout=float(BEHIND_PAUSE))
        assert refused.value.code == "writes_withheld"
        assert (await client.call(READ, {"id": "P-0001"}, purpose="payroll")).status == 200
        await client.receipt(began)
    await logs_are_verified(other.folder)
    if "path" in other.gsb["store"]:
        admitted = await run("restore", other.folder, "--admit-writes", "--reason", REASON)
        assert admitted.code == 0, admitted.wrong
        async with running_node(other.folder, other) as node, node.client() as client:
            await client.call(NOTE, {"id": "P-0001", "text": "x"}, purpose="payroll")


async def test_the_folder_comes_back_byte_for_byte_and_with_what_it_names_outside(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    deployment = kept.deployment
    beside = deployment.folder.parent / "secrets"
    beside.mkdir()
    for name in ("bus.jwk.json", "log.jwk.json"):
        (deployment.folder / "keys" / name).rename(beside / name)
    deployment.gsb["bus"]["keys"] = [{"file": "../secrets/bus.jwk.json"}]
    deployment.gsb["log"]["key"] = "../secrets/log.jwk.json"
    absolute = tmp_path / "machine" / "token"
    absolute.parent.mkdir()
    absolute.write_text("canary-token", "ascii")
    absolute.chmod(0o640)
    auth = {"kind": "bearer", "token": str(absolute)}
    deployment.system("tax", adapter="http_json", settings={"url": "http://127.0.0.1:9", "auth": auth})
    (deployment.folder / "NOTES.md").write_text("ours", "utf-8")
    async with running_node(tmp_path, deployment):
        pass
    assert (await kept.backup()).code == 0
    absolute.unlink()
    await kept.restored()
    store = {"store.db", "store.db.lock"}
    here, there = contents(deployment.folder), contents(kept.there)
    assert {name: data for name, data in there.items() if name not in store} == {
        name: data for name, data in here.items() if name not in store
    }
    assert contents(kept.there.parent / "secrets") == contents(beside)
    assert (absolute.read_text("ascii"), absolute.stat().st_mode & 0o777) == ("canary-token", 0o640)


async def test_a_log_that_survived_names_what_the_backup_does_not_know(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    async with running_node(tmp_path, kept.deployment) as node, node.client() as client:
        await client.call(NOTE, {"id": "P-0001", "text": "before"}, purpose="payroll")
        assert (await kept.backup()).code == 0
        lost = await client.call(NOTE, {"id": "P-0001", "text": "after"}, purpose="payroll")
        await client.receipt(lost.exchange or "")
    kept.there.parent.mkdir()
    (kept.deployment.folder.parent / "log").rename(kept.there.parent / "log")
    said = await run(*kept.words())
    assert said.code == 0, said.wrong
    assert [line.split()[:3] for line in said.out.splitlines()] == [[lost.exchange, "payroll", NOTE]]
    async with running_node(tmp_path, kept.other()):
        pass
    await logs_are_verified(kept.there)


async def test_a_log_that_contradicts_the_backup_is_not_gone_on_with(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    await noted(kept)
    assert (await kept.backup()).code == 0
    another = Kept(tmp_path / "another", standard(tmp_path / "another" / "here"))
    another.deployment.gsb["bus"] |= {"base_urls": kept.deployment.gsb["bus"]["base_urls"]}
    another.deployment.gsb["listen"] = kept.deployment.gsb["listen"]
    another.deployment.gsb["bus"]["operations_url"] = kept.deployment.gsb["bus"]["operations_url"]
    another.deployment.bus_url, another.deployment.operations_url = (
        kept.deployment.bus_url,
        kept.deployment.operations_url,
    )
    await noted(another)
    kept.there.parent.mkdir()
    (another.deployment.folder.parent / "log").rename(kept.there.parent / "log")
    said = await run(*kept.words())
    assert (said.code, said.wrong.count("\n")) == (2, 1)
    assert "do not extend" in said.wrong
    assert not kept.there.exists()


async def noted(kept: Kept) -> None:
    async with running_node(kept.root, kept.deployment) as node, node.client() as client:
        result = await client.call(NOTE, {"id": "P-0001", "text": "x"}, purpose="payroll")
        await client.receipt(result.exchange or "")


async def test_nothing_of_anybody_can_be_read_in_a_backup(tmp_path: Path) -> None:
    kept, planted = Kept(tmp_path), Planted()
    secret = kept.deployment.folder / "token"
    secret.write_text(planted.text("secret"), "ascii")
    for name in ("store.key", "keys/bus.jwk.json", "keys/log.jwk.json"):
        planted.keep(name, (kept.deployment.folder / name).read_text("ascii").strip())
    planted.keep("title", "Agreement a-1")
    async with running_node(tmp_path, kept.deployment) as node, node.client() as client:
        body = {"id": planted.person(), "text": planted.text("text")}
        await client.call(NOTE, body, purpose="payroll", idempotency_key=planted.text("key"), sub=planted.text("sub"))
        assert (await kept.backup()).code == 0
    assert planted.found({"the backup": kept.file.read_bytes()}) == []
    assert kept.file.stat().st_mode & 0o777 == 0o600
