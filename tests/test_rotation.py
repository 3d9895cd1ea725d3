"""Keys that take turns while a real node works: nobody's call fails, and every reply can be verified."""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from gsb import jwk
from gsb.cli.main import app
from gsb.client import Client, Result
from gsb.evidence.checkpoint import Signer, Verifier
from gsb.evidence.verify import verify_receipt
from gsb.keys import BusKeys, Life
from gsb.reload import hasty
from tests.support.auditor import contents_of
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ
from tests.support.certificates import certificate
from tests.support.deployment import Deployment, standard
from tests.support.logs import by_go
from tests.support.node import Reachable, RunningNode, running_node
from tests.support.reloading import Ear, Lines
from tests.support.witness import witness_process

CALLERS = 4
ROUND = 25
"""Calls that must have gone well after each step before the next one."""
WITHIN = 60.0
HOLD = 50
"""Seconds that the bus is asked to hold a call: one that the machine stood still in is answered once all the same."""
RELOADED = '"reloaded"'


class Load:
    """Calls without a pause, each of which must get its outcome at once; ``keys`` are those that callers sign with."""

    def __init__(self, clients: Callable[[jwk.PrivateKey], Client], key: jwk.PrivateKey) -> None:
        self.key = key
        self.results: list[Result] = []
        self._clients = clients
        self._over = False
        self._more = asyncio.Event()
        self._signing: dict[int, jwk.PrivateKey] = {}
        """With what each caller signs now."""

    async def caller(self, number: int) -> None:
        """Keeps what it knows of the bus's keys for as long as its own key stays."""
        while not self._over:
            key = self._signing[number] = self.key
            async with self._clients(key) as client:
                while not self._over and key is self.key:
                    await self._keep(await client.call(READ, PERSON_BODY, purpose="payroll", wait=HOLD))
                    await self._keep(await client.call(ONCE, NOTE, purpose="payroll", wait=HOLD))

    async def _keep(self, result: Result) -> None:
        self.results.append(result)
        self._more.set()

    async def go_on(self, count: int = ROUND) -> None:
        """Return when every caller signs with the key, and so many more calls have gone well."""
        enough = len(self.results) + count
        async with asyncio.timeout(WITHIN):
            while len(self.results) < enough or any(key is not self.key for key in self._signing.values()):
                self._more.clear()
                await self._more.wait()

    @asynccontextmanager
    async def on(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(self.caller(number))
            await self.go_on()
            yield
            await self.go_on()
            self._over = True
        assert {(result.status, result.requests, result.signed) for result in self.results} == {(200, 1, True)}


def next_key(deployment: Deployment, name: str, algorithm: str = "ES256") -> tuple[jwk.PrivateKey, str, str]:
    """What ``gsb keygen`` makes: the key, and the names of its private and its public file in the deployment."""
    private = jwk.generate(algorithm)
    names = f"keys/{name}.jwk.json", f"keys/{name}.pub.jwk.json"
    (deployment.folder / names[0]).write_bytes(private)
    (deployment.folder / names[1]).write_bytes(jwk.public_of(private))
    return jwk.read_private(private), *names


def fetching(node: Reachable, key: jwk.PrivateKey) -> Client:
    """A client that fetches the bus's keys, as most do."""
    return node.client(key=key, bus_keys=None)


class Node:
    """A node of its own process, whose folder is changed under way."""

    def __init__(self, node: RunningNode) -> None:
        self.node, self._ear, self._times = node, Ear(), 0
        node.log = Lines(node.log, self._ear.tell)

    async def reload(self) -> None:
        self._times += 1
        self.node.deployment.write()
        self.node.process.send_signal(signal.SIGHUP)
        await self._ear.hear(RELOADED, self._times)

    async def hear(self, part: str) -> None:
        await self._ear.hear(part, 1)

    async def published(self) -> list[str]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.node.url}/.well-known/jwks.json") as answer:
            return [key["kid"] for key in (await answer.json(content_type=None))["keys"]]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running_node(tmp_path, standard(tmp_path)) as running:
        yield Node(running)


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def test_an_agency_changes_its_key_and_no_call_fails(node: Node) -> None:
    deployment = node.node.deployment
    load = Load(lambda key: fetching(node.node, key), deployment.key("payroll"))
    keys = deployment.files["agencies/payroll.toml"]["keys"]
    async with load.on():
        key, _, public = next_key(deployment, "payroll-2", "Ed25519")
        keys.append({"file": public})
        await node.reload()
        load.key = key
        await load.go_on()
        keys[0] |= {"state": "retiring", "until": soon(0)}
        await node.reload()
        await load.go_on()
        del keys[0]
        await node.reload()


async def test_the_bus_changes_its_key_and_every_reply_is_verified_by_who_keeps_the_keys(node: Node) -> None:
    deployment = node.node.deployment
    load = Load(lambda key: fetching(node.node, key), deployment.key("payroll"))
    keys: list[Any] = deployment.gsb["bus"]["keys"]
    old = deployment.bus_key()
    async with load.on():
        key, private, _ = next_key(deployment, "bus-2")
        keys.append({"file": private, "state": "announced"})
        await node.reload()
        assert await node.published() == [old.kid, key.kid], "the next one is known before it signs"
        # Whoever comes by now has both, and keeps them.
        load.key = deployment.key("payroll")
        await load.go_on()
        end = soon(1.5)
        keys[:] = [keys[0] | {"until": end}, {"file": private, "since": end}]
        await node.reload()
        await until(end)
        await load.go_on()
        assert await node.published() == [old.kid, key.kid], "what the old one signed last is on its way"
        del keys[0]
        await node.reload()
        assert await node.published() == [key.kid]
        await load.go_on()
    # Only those who have got the new key can verify now.
    async with node.node.client(bus_keys={key.kid: key.public}) as client:
        assert (await client.call(READ, PERSON_BODY, purpose="payroll")).requests == 1


async def until(moment: datetime) -> None:
    """The clock, which alone ends a key, has passed this moment."""
    await asyncio.sleep(max(moment.timestamp() - time.time(), 0) + 0.05)


async def test_a_bus_key_that_nobody_knows_yet_does_not_sign(node: Node) -> None:
    deployment = node.node.deployment
    keys: list[Any] = deployment.gsb["bus"]["keys"]
    key, private, _ = next_key(deployment, "bus-2")
    old = dict(keys[0])
    keys[0] |= {"state": "retiring", "until": soon(3_600)}
    keys.append({"file": private})
    deployment.write()
    node.node.process.send_signal(signal.SIGHUP)
    await node.hear("callers have not heard of")
    async with node.node.client() as client:
        assert (await client.call(READ, PERSON_BODY, purpose="payroll")).requests == 1
    keys[0] = old | {"state": "revoked"}
    await node.reload()
    assert await node.published() == [key.kid]


def test_which_changes_of_the_key_that_signs_are_hasty() -> None:
    old, new = (jwk.read_private(jwk.generate("ES256")) for _ in range(2))
    before = BusKeys([(old, Life("active"))])
    for keys, is_hasty in (
        ([(new, Life("active"))], True),
        ([(old, Life("retiring", until=2_000.0)), (new, Life("active"))], True),
        ([(old, Life("active")), (new, Life("active", since=500.0))], False),
        ([(old, Life("active", until=2_000.0)), (new, Life("active", since=2_000.0))], False),
        ([(old, Life("revoked")), (new, Life("active"))], False),
        ([(old, Life("revoked"))], False),
    ):
        assert bool(list(hasty(before, BusKeys(keys), 1_000.0))) == is_hasty
    both = BusKeys([(old, Life("active")), (new, Life("announced"))])
    assert not list(hasty(both, BusKeys([(new, Life("active"))]), 1_000.0))


# --- the log's key


@asynccontextmanager
async def witnessed(tmp_path: Path, deployment: Deployment, *keys: Ed25519PrivateKey) -> AsyncIterator[str]:
    """A witness that knows these keys of the log; answers its own."""
    origin = f"{deployment.bus_url.partition('://')[2]}/log"
    known = ", ".join(f'"{Signer(f"{origin}/2020", key).vkey}"' for key in keys)
    text = f'[[logs]]\norigin = "{origin}"\nyearly = true\nkeys = [{known}]\n'
    async with witness_process(tmp_path / "witness", text) as (there, _):
        vkey = there.settings.cosigner.vkey
        # A checkpoint that did not wait for its cosignature may be a log's last.
        log = {"cosignatures": 1, "cosign_wait": 10.0, "every": 0.2}
        deployment.gsb["log"] |= {"witnesses": [{"url": there.url, "key": vkey}], **log}
        yield vkey


async def receipt(node: RunningNode, result: Result) -> bytes:
    async with node.client() as client:
        return await client.receipt(result.exchange or "", timeout=WITHIN)


async def second_log_begun(deployment: Deployment) -> None:
    async with asyncio.timeout(WITHIN):
        while True:
            if len(list(deployment.log_folder.glob("*/checkpoint"))) == 2:
                return
            await asyncio.sleep(0.05)


def next_log_key(deployment: Deployment) -> str:
    """Another key for the log: its name in the deployment."""
    (deployment.folder / "keys/log-2.jwk.json").write_bytes(jwk.generate("Ed25519"))
    return "keys/log-2.jwk.json"


def log_command(*words: object) -> list[str]:
    ran = CliRunner().invoke(app, ["log", *map(str, words)], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.stdout.splitlines()


async def test_the_log_changes_its_key_and_every_receipt_and_both_logs_verify(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    names = "keys/log.jwk.json", next_log_key(deployment)
    old, new = (jwk.read_ed25519((deployment.folder / name).read_bytes())[1] for name in names)
    async with witnessed(tmp_path, deployment, old, new) as witness, running_node(tmp_path, deployment) as running:
        node = Node(running)
        load = Load(lambda key: fetching(running, key), deployment.key("payroll"))
        async with load.on():
            before = [(result, await receipt(running, result)) for result in load.results[:4]]
            deployment.gsb["log"] |= {"key": names[1], "former": [names[0]]}
            await node.reload()
            await second_log_begun(deployment)
            await load.go_on()
            after = [(result, await receipt(running, result)) for result in load.results[-4:]]
            again = [(result, await receipt(running, result)) for result, _ in before]
        keys = [Verifier.of(line) for line in log_command("key", deployment.folder)]
        del deployment.gsb["log"]["former"]
        await node.reload()
        await running.stop()
        await running.start()
        last = [(result, await receipt(running, result)) for result in (load.results[0], load.results[-1])]
    first_log, second_log = folders = sorted(each for each in deployment.log_folder.iterdir() if each.is_dir())
    assert [key.name.rpartition("/")[2] for key in keys] == [folder.name for folder in folders]
    assert [key.public for key in keys] == [key.public_key().public_bytes_raw() for key in (old, new)]
    for verifier, receipts in ((keys[0], before + again + last[:1]), (keys[1], after + last[1:])):
        for result, text in receipts:
            assert orjson.loads(verify_receipt(text, verifier).entry)["exchange"] == result.exchange
    for folder, verifier in zip(folders, keys, strict=True):
        log_command("verify", folder, "--key", verifier.vkey, "--witness", witness, "--cosignatures", 1)
        assert by_go(folder, verifier.vkey).verified
    ended = orjson.loads(contents_of(first_log, keys[0])[-1])
    begun = orjson.loads(contents_of(second_log, keys[1])[0])
    assert (ended["next"], ended["next_key"]) == (keys[1].name, keys[1].vkey)
    assert begun["previous_key"] == keys[0].vkey
    assert begun["previous"].startswith(f"{keys[0].name} ")


async def test_a_log_is_not_left_without_the_key_that_ends_it(node: Node) -> None:
    deployment = node.node.deployment
    deployment.gsb["log"]["key"] = next_log_key(deployment)
    deployment.write()
    node.node.process.send_signal(signal.SIGHUP)
    await node.hear("log.former: the key before is needed")
    async with node.node.client() as client:
        assert (await client.call(READ, PERSON_BODY, purpose="payroll")).requests == 1
    assert len([each for each in deployment.log_folder.iterdir() if each.is_dir()]) == 1


# --- the certificate


async def served(port: int) -> bytes:
    """The certificate that a new connection is shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    await writer.wait_closed()
    return shown


def der(pem: Path) -> bytes:
    return x509.load_pem_x509_certificate(pem.read_bytes()).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("cause", ["signal", "watch"])
async def test_a_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on(tmp_path: Path, cause: str) -> None:
    pem = certificate(tmp_path, "localhost")
    deployment = standard(tmp_path)
    deployment.gsb["listen"]["tls"] = {"certificate": str(pem), "key": str(pem)}
    deployment.gsb["reload"] = cause
    async with running_node(tmp_path, deployment) as running:
        node = Node(running)
        first = der(pem)
        assert await served(deployment.port) == first
        trusts = ssl.create_default_context(cafile=str(pem))
        trusting = aiohttp.TCPConnector(ssl=trusts, keepalive_timeout=WITHIN)
        async with aiohttp.ClientSession(connector=trusting) as kept:
            url = f"https://localhost:{deployment.port}/.well-known/jwks.json"
            assert (await kept.get(url)).status == 200
            good = certificate(tmp_path, "localhost").read_bytes()
            if cause == "signal":
                await node.reload()
            else:
                await node.hear(RELOADED)
            assert await served(deployment.port) == der(pem) != first
            assert (await kept.get(url)).status == 200, "it is not connected anew: that certificate it would not trust"
        pem.write_bytes(b"nonsense")
        if cause == "signal":
            await node.reload()
        await node.hear("the certificate cannot be renewed")
        pem.write_bytes(good)
        assert await served(deployment.port) == der(pem)
