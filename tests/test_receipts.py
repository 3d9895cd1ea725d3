"""Receipts: what is proved, to whom, when, and that what cannot be proved is not handed out."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from gsb import jws
from gsb.client import Client, ReceiptPending, ReplyUntrusted
from gsb.errors import LogUnavailable
from gsb.evidence.checkpoint import Signer, Verifier
from gsb.evidence.tiles import tile_path
from gsb.evidence.verify import Proven, verify_receipt
from gsb.jwk import from_base64url, to_base64url
from gsb.model import Answer, Call
from gsb.record import Recorder
from gsb.resume import Ground, begin_anew
from gsb.web import receipts
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ, Hands, bus_of
from tests.support.deployment import BUS, standard
from tests.support.node import GSB, InProcess, node_in_process
from tests.support.reading import published, read, size_of
from tests.support.signing_bus import EXCHANGE, Seen, Step, talking

NOBODYS = "01a0c450-6c00-71b6-b1a8-e21f6124ae04"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[InProcess]:
    async with node_in_process(tmp_path) as node:
        yield node


async def log_key(node: InProcess) -> Verifier:
    origin = (await published(node)).split(b"\n")[0].decode()
    return Signer(origin, node.node.bus.catalogue.log_key).verifier


async def note(client: Client, key: str = "k-1") -> Any:
    return await client.call(ONCE, NOTE, purpose="payroll", idempotency_key=key)


def entry_of(proven: Proven) -> Any:
    return orjson.loads(proven.entry)


# --- what is proved


async def test_a_receipt_proves_the_outcome_and_stands_alone(node: InProcess) -> None:
    async with node.client() as client:
        done = await note(client)
        proven = verify_receipt(await client.receipt(done.exchange), await log_key(node))
    said = entry_of(proven)
    assert (said["exchange"], said["kind"], said["state"], said["effect"]) == (done.exchange, "outcome", "done", "done")
    assert (said["agency"], said["service"], said["purpose"], said["agreement"]) == ("payroll", ONCE, "payroll", "a-1")
    assert said["key"] == node.deployment.key("payroll").public.kid
    assert leaf_text(proven.entry) == done.entry  # what the signed reply had promised


def leaf_text(content: bytes) -> str:
    return to_base64url(hashlib.sha256(b"\0" + content).digest())


async def test_every_entry_of_the_time_line_has_its_receipt(node: InProcess) -> None:
    async with node.client() as client:
        done = await note(client)
        line = (await client.exchange(done.exchange)).body["timeline"]
        verifier = await log_key(node)
        kinds = []
        for moment in line:
            proven = verify_receipt(await client.receipt(done.exchange, moment["entry"]), verifier)
            assert leaf_text(proven.entry) == moment["entry"]
            kinds.append(entry_of(proven)["kind"])
        last = await client.receipt(done.exchange)
    assert kinds == [moment["kind"] for moment in line] == ["accepted", "outcome"]
    assert leaf_text(verify_receipt(last, verifier).entry) == line[-1]["entry"]


async def test_an_old_receipt_stays_true_while_the_log_grows(node: InProcess) -> None:
    verifier = await log_key(node)
    async with node.client() as client:
        first = await note(client)
        early = await client.receipt(first.exchange)
        size = verify_receipt(early, verifier).checkpoint.size
        await asyncio.gather(*(client.call(READ, PERSON_BODY, purpose="payroll") for _ in range(150)))
        await published(node, holding=lambda note: size_of(note) > size + 256)
        later = await client.receipt(first.exchange)
    old, new = verify_receipt(early, verifier), verify_receipt(later, verifier)
    assert (old.entry, old.index) == (new.entry, new.index)
    assert old.checkpoint.size < new.checkpoint.size


async def test_the_reply_that_carries_it_is_signed(node: InProcess) -> None:
    async with node.client() as client:
        done = await note(client)
        await client.receipt(done.exchange)
        answer, body = await read(node, f"/exchanges/{done.exchange}/receipt", "payroll")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert answer.headers["Cache-Control"] == "no-store, no-transform"
    claims = orjson.loads(from_base64url(answer.headers["GSB-Signature"].split(".")[1]))
    assert claims["content_type"] == "text/plain; charset=utf-8"
    assert claims["content_digest"] == jws.content_digest(body)
    assert (claims["exchange"], claims["state"], claims["entry"]) == (done.exchange, "done", done.entry)


# --- to whom, and of what


async def test_another_agencys_exchange_is_answered_like_one_that_does_not_exist(node: InProcess) -> None:
    async with node.client() as client:
        done = await note(client)
    answers = []
    for exchange in (done.exchange, NOBODYS):
        answer, body = await read(node, f"/exchanges/{exchange}/receipt", "audit-office")
        answers.append((answer.status, {**orjson.loads(body), "instance": ""}))
    assert answers[0] == answers[1]
    assert (answers[0][0], answers[0][1]["code"]) == (404, "exchange_unknown")


@pytest.mark.parametrize(
    "query",
    [
        "entry=" + "A" * 43,
        "entry=",
        "entry=short",
        "entry",
        "leaf={entry}",
        "entry={entry}=",
        "entry={entry}&entry={entry}",
        "entry={entry}&x=1",
        "entry={other}",
        "entry={stray}",
        "ENTRY={entry}",
        "wait=5",
    ],
)
async def test_a_query_that_names_no_entry_of_it_is_refused(node: InProcess, query: str) -> None:
    async with node.client() as client:
        done, other = await note(client), await note(client, "k-2")
    # One bit beyond the hash: the same bytes to a reader that does not look.
    last = done.entry[-1]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    stray = done.entry[:-1] + alphabet[alphabet.index(last) ^ 1]
    query = query.format(entry=done.entry, other=other.entry, stray=stray)
    answer, body = await read(node, f"/exchanges/{done.exchange}/receipt?{query}", "payroll")
    assert (answer.status, orjson.loads(body)["code"]) == (404, "entry_unknown")
    assert "GSB-Signature" in answer.headers


async def test_nobody_gets_one_unsigned(node: InProcess) -> None:
    answer, _ = await read(node, f"/exchanges/{NOBODYS}/receipt")
    assert answer.status == 401


# --- when


class Asking:
    """A bus without a recorder of its own, and one in the test's hands."""

    def __init__(self, hands: Hands) -> None:
        self.hands = hands
        self.recorder = Recorder(hands.bus)

    async def accepted(self) -> str:
        return await self.hands.accept(READ, PERSON_BODY)

    async def ask(self, exchange: str, wait: float | None = None) -> Answer:
        target = f"/exchanges/{exchange}/receipt"
        token = jws.sign_request(
            self.hands.deployment.key("payroll"),
            issuer="payroll",
            audience=BUS,
            method="GET",
            target_uri=self.hands.deployment.bus_url + target,
            body=b"",
            content_type=None,
            now=self.hands.clock.now,
        )
        call = Call("GET", target, b"", self.hands.clock.now, token, wait=wait)
        return await receipts.receipt(self.hands.bus, call, exchange)


@asynccontextmanager
async def asking(root: Path) -> AsyncIterator[Asking]:
    async with bus_of(standard(root)) as hands:
        made = Asking(hands)
        await made.recorder.open()
        yield made


async def timed(what: Awaitable[Answer]) -> tuple[Answer, float]:
    began = time.perf_counter()
    return await what, time.perf_counter() - began


async def test_what_is_not_published_yet_is_202_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(seconds: float) -> None:
        raise AssertionError("it waits")

    async with asking(tmp_path) as desk:
        exchange = await desk.accepted()
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "sleep", never)
            answer = await desk.ask(exchange)
        assert (answer.status, answer.headers["Retry-After"]) == (202, "1")
        body = orjson.loads(answer.body)
        (entry,) = (await desk.hands.state(exchange)).entries
        assert (body["exchange"], body["state"]) == (exchange, "accepted")
        assert body["links"]["receipt"].endswith(f"/exchanges/{exchange}/receipt?entry={to_base64url(entry.leaf)}")
        await desk.recorder.look()
        assert (await desk.ask(exchange)).status == 200


async def test_a_call_that_waits_is_answered_when_the_checkpoint_is_published(tmp_path: Path) -> None:
    async with asking(tmp_path) as desk:
        exchange = await desk.accepted()
        waiting = asyncio.create_task(desk.ask(exchange, 60))
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not done
        await desk.recorder.look()
        answer, seconds = await timed(waiting)
        assert (answer.status, seconds < 50) == (200, True)
        assert answer.headers["Preference-Applied"] == "wait=60"


async def test_waiting_ends_when_it_was_said_to(tmp_path: Path) -> None:
    async with asking(tmp_path) as desk:
        exchange = await desk.accepted()
        answer, seconds = await timed(desk.ask(exchange, 0.3))
        assert (answer.status, answer.headers["Preference-Applied"]) == (202, "wait=0.3")
        assert 0.3 <= seconds < 50


async def test_a_node_that_leaves_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with asking(tmp_path) as desk:
        exchange = await desk.accepted()
        waiting = asyncio.create_task(desk.ask(exchange, 60))
        await asyncio.wait({waiting}, timeout=0.2)
        desk.hands.bus.leave()
        answer, seconds = await timed(waiting)
        assert (answer.status, seconds < 50) == (202, True)


async def test_what_has_its_place_in_a_log_that_ended_before_it_was_published_is_pending(tmp_path: Path) -> None:
    """It is not that files are damaged, and nobody is told to move them: the store has no other proof of it."""
    async with asking(tmp_path) as desk:
        await desk.recorder.look()
        folder = desk.hands.deployment.log_folder
        aside = folder.rename(tmp_path / "aside")
        folder.write_text("a disk that fails")
        exchange = await desk.accepted()
        await desk.recorder.look()
        folder.unlink()
        aside.rename(folder)
        bus = desk.hands.bus
        await begin_anew(Ground.of(bus.catalogue, bus.store), desk.hands.clock.now, "the backup of Sunday")
        assert [state.size for state in await bus.store.logs()] == [2, 0]
        assert (await desk.ask(exchange)).status == 202


async def test_the_client_waits_for_the_checkpoint_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The bus is to wait a second, and the client far longer for it: as close together as they are, a machine that
    # stands still for a moment lets the client hear nothing.
    monkeypatch.setattr("gsb.client.ASK", 1)
    monkeypatch.setattr("gsb.client.LEAST", 60.0)
    deployment = standard(tmp_path)
    async with node_in_process(tmp_path, deployment) as node, node.client() as client:
        await published(node)
        recorder = node.node.recorder
        look, held, go_on = recorder.look, asyncio.Event(), asyncio.Event()

        async def later() -> None:
            held.set()
            await go_on.wait()
            await look()

        monkeypatch.setattr(recorder, "look", later)
        await held.wait()  # from now on there is nothing new
        done = await note(client)
        with pytest.raises(ReceiptPending):
            await client.receipt(done.exchange, timeout=1)
        go_on.set()
        assert verify_receipt(await client.receipt(done.exchange, timeout=60), await log_key(node)).index > 0


# --- what cannot be proved


@pytest.mark.parametrize("damage", ["missing", "flipped", "cut"])
async def test_a_receipt_that_would_prove_nothing_is_not_handed_out(tmp_path: Path, damage: str) -> None:
    async with asking(tmp_path) as desk:
        exchange, other = await desk.accepted(), await desk.accepted()
        await desk.recorder.look()
        assert (await desk.ask(exchange)).status == 200
        size = (await desk.hands.bus.store.logs())[-1].published
        (folder,) = desk.hands.deployment.log_folder.iterdir()
        path = folder / tile_path(0, 0, size)
        data = path.read_bytes()
        damaged = {"missing": None, "flipped": bytes(32) + data[32:], "cut": data[:40]}[damage]
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
        for each in (exchange, other):
            with pytest.raises(LogUnavailable):
                await desk.ask(each)
        path.write_bytes(data)
        assert (await desk.ask(exchange)).status == 200


# --- the command


async def test_the_command_gets_what_the_other_one_verifies(node: InProcess, tmp_path: Path) -> None:
    async with node.client() as client:
        done = await note(client)
    verifier, file = await log_key(node), tmp_path / "receipt"
    code, said, wrong = await gsb(node, "receipt", "get", done.exchange)
    assert (code, wrong) == (0, b"")
    file.write_bytes(said)
    code, said, wrong = await gsb(node, "receipt", "verify", str(file), "--key", verifier.vkey)
    assert (code, orjson.loads(said)["exchange"]) == (0, done.exchange)
    code, said, wrong = await gsb(node, "receipt", "get", done.exchange, "--entry", "A" * 43)
    assert (code, said) == (3, b"")
    assert wrong.startswith(b"gsb: entry_unknown (404)")
    code, said, wrong = await gsb(node, "receipt", "get", NOBODYS, "--wait", "30")
    assert (code, said) == (3, b"")
    assert wrong.startswith(b"gsb: exchange_unknown (404)")


async def gsb(node: InProcess, *words: str) -> tuple[int, bytes, bytes]:
    keys = node.deployment.secrets / "bus.jwks.json"
    keys.write_bytes(orjson.dumps({"keys": [node.deployment.bus_key().public.jwk]}))
    environment = {
        "PATH": os.environ["PATH"],
        "GSB_URL": node.url,
        "GSB_BUS": BUS,
        "GSB_AGENCY": "payroll",
        "GSB_KEY": str(node.deployment.key_file("payroll")),
        "GSB_BUS_KEYS": str(keys),
    }
    process = await asyncio.create_subprocess_exec(
        GSB, *words, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(90):
        said, wrong = await process.communicate()
    return process.returncode or 0, said, wrong


# --- the client, against a bus that says something else


def receipt_of(seen: Seen, exchange: str = EXCHANGE, kind: str = "text/plain; charset=utf-8") -> web.Response:
    body = b"c2sp.org/tlog-proof@v1\n"
    facts = jws.ReplyFacts(200, body, kind, exchange, "done", "done", None)
    return web.Response(status=200, body=body, headers={"Content-Type": kind, "GSB-Signature": seen.sign(facts)})


async def test_the_client_asks_again_until_there_is_one() -> None:
    async with talking(lambda seen: seen.pending("done"), lambda seen: seen.problem(503, "busy"), receipt_of) as (
        bus,
        client,
        _,
    ):
        assert await client.receipt(EXCHANGE, "A" * 43) == b"c2sp.org/tlog-proof@v1\n"
    assert {seen.http.path_qs for seen in bus.seen} == {f"/exchanges/{EXCHANGE}/receipt?entry={'A' * 43}"}
    assert all(seen.http.headers["Prefer"].startswith("wait=") for seen in bus.seen)
    assert len(bus.seen) == 3


@pytest.mark.parametrize(
    "step",
    [
        lambda seen: seen.done({"receipt": "none"}),
        lambda seen: receipt_of(seen, NOBODYS),
        lambda seen: receipt_of(seen, kind="application/json"),
    ],
)
async def test_what_is_no_receipt_of_the_exchange_is_not_believed(step: Step) -> None:
    async with talking(step) as (_, client, _):
        with pytest.raises(ReplyUntrusted):
            await client.receipt(EXCHANGE, timeout=0)
