"""Erasure: what goes, what stays provable, who may, and that whom it was about is left nowhere."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from gsb.client import BusProblem
from gsb.evidence.checkpoint import Signer, Verifier
from gsb.evidence.log import Files
from gsb.evidence.verify import LogWrong, verify_evidence, verify_log, verify_receipt
from gsb.sdk import Broken
from gsb.store.seal import SECRET, Seal, read_key
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ, REPEATABLE, answering, puppet, puppet_deployment, raising
from tests.support.command import gsb as command
from tests.support.deployment import PERSON
from tests.support.node import InProcess, node_in_process
from tests.support.reading import published

ADA = PERSON_BODY["id"]
BASIS = "Data Protection Act 2019, section 17(1)"
REASON = "request 2026/77 of the person"
SALT = "c2FsdC1zYWx0LXNhbHQtc2FsdA"
NOBODYS = "01a0c450-6c00-71b6-b1a8-e21f6124ae04"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[InProcess]:
    async with node_in_process(tmp_path, puppet_deployment(tmp_path)) as node:
        puppet().reset()
        yield node
        puppet().reset()


async def done(node: InProcess, service: str = READ, person: str = ADA, key: str | None = None) -> str:
    """An exchange about this person that has ended."""
    body = PERSON_BODY if service == READ else NOTE
    puppet().acts = answering(PERSON if service == READ else NOTE)
    async with node.client() as client:
        result = await client.call(service, {**body, "id": person}, purpose="payroll", idempotency_key=key)
    assert result.exchange is not None
    return result.exchange


async def erase(node: InProcess, operator: str = "elsa", **said: Any) -> Any:
    body = {"reason": REASON, "legal_basis": BASIS, **said}
    async with node.operator(operator) as client:
        return (await client.admin("POST", "/admin/erase", body)).body


async def evidence_of(node: InProcess, exchange: str) -> bytes:
    """What an inspector gets."""
    async with node.operator("ines") as client:
        return orjson.dumps((await client.admin("GET", f"/admin/exchanges/{exchange}/evidence?reason=audit")).body)


async def receipt(node: InProcess, exchange: str, entry: str | None = None) -> bytes:
    async with node.client() as client:
        return await client.receipt(exchange, entry)


async def log_key(node: InProcess) -> Verifier:
    origin = (await published(node)).split(b"\n")[0].decode()
    return Signer(origin, node.node.bus.catalogue.log_key).verifier


async def timeline(node: InProcess, exchange: str) -> list[dict[str, Any]]:
    async with node.client() as client:
        line: list[dict[str, Any]] = (await client.exchange(exchange)).body["timeline"]
    return line


# --- what goes and what stays


async def test_bodies_and_evidence_go_and_every_proof_stays(node: InProcess) -> None:
    exchange, verifier = await done(node, ONCE, key="k-1"), await log_key(node)
    accepted, outcome = [each["entry"] for each in await timeline(node, exchange)]
    before = {entry: await receipt(node, exchange, entry) for entry in (accepted, outcome)}
    evidence = await evidence_of(node, exchange)
    proven = {entry: verify_receipt(text, verifier) for entry, text in before.items()}
    request = orjson.loads(verify_evidence(evidence, proven[accepted].entry))["request"]
    assert request.count(".") == 2  # the request's own signature

    assert await erase(node, exchanges=[exchange]) == {"erased": [exchange], "unfinished": [], "unknown": []}

    for entry, text in before.items():  # those that were kept, and those that are asked for now
        assert verify_receipt(text, verifier).entry == proven[entry].entry
        assert verify_receipt(await receipt(node, exchange, entry), verifier).entry == proven[entry].entry
    left = await evidence_of(node, exchange)
    for entry in proven.values():
        with pytest.raises(LogWrong):
            verify_evidence(left, entry.entry)
    kinds = [each["kind"] for each in await timeline(node, exchange)]
    assert kinds == ["accepted", "outcome", "erased"]
    last = verify_receipt(await receipt(node, exchange), verifier)
    said = orjson.loads(last.entry)
    assert (said["operator"], said["legal_basis"], said["exchange"]) == ("elsa", BASIS, exchange)
    assert (said["agency"], said["service"], said["state"]) == ("payroll", ONCE, "done")
    assert orjson.loads(verify_evidence(left, last.entry))["reason"] == REASON
    folder = node.deployment.log_folder / verifier.name.rpartition("/")[2]
    assert verify_log(Files(folder).read, verifier).checkpoint.size >= last.index


async def test_how_it_ended_is_still_told_and_nothing_acts_again(node: InProcess) -> None:
    exchange = await done(node, ONCE, key="k-1")
    await erase(node, exchanges=[exchange])
    async with node.client() as client:
        with pytest.raises(BusProblem) as gone:
            await client.call(ONCE, NOTE, purpose="payroll", idempotency_key="k-1")
        assert (gone.value.status, gone.value.code, gone.value.state, gone.value.effect) == (
            *(410, "reply_gone"),
            *("done", "done"),
        )
        shown = (await client.exchange(exchange)).body
    assert (shown["state"], shown["effect"]) == ("done", "done")
    with pytest.raises(BusProblem) as body:
        async with node.operator("ines") as inspector:
            await inspector.admin("GET", f"/admin/exchanges/{exchange}/body?reason=audit")
    assert body.value.code == "reply_gone"


async def test_what_was_erased_is_erased_and_gets_no_second_entry(node: InProcess) -> None:
    exchange = await done(node)
    for _ in range(2):
        assert (await erase(node, exchanges=[exchange, exchange]))["erased"] == [exchange]
    assert [each["kind"] for each in await timeline(node, exchange)] == ["accepted", "outcome", "erased"]


async def test_what_is_not_final_and_what_nobody_knows_is_told(node: InProcess) -> None:
    final = await done(node)
    puppet().acts = raising(Broken("nonsense"))
    async with node.client() as client:
        accepted = await client.call(READ, PERSON_BODY, purpose="payroll", respond_async=True)
    assert accepted.exchange is not None
    told = await erase(node, exchanges=[NOBODYS, accepted.exchange, final])
    assert told == {"erased": [final], "unfinished": [accepted.exchange], "unknown": [NOBODYS]}
    async with node.operator("ines") as inspector:
        kept = await inspector.admin("GET", f"/admin/exchanges/{accepted.exchange}/body?reason=audit")
    assert kept.body["request"] == PERSON_BODY


async def test_many_are_erased_in_pieces(node: InProcess) -> None:
    puppet().acts = answering(PERSON)
    async with node.client() as client:
        calls = (client.call(READ, PERSON_BODY, purpose="payroll") for _ in range(120))
        exchanges = [result.exchange for result in await asyncio.gather(*calls)]
    told = await erase(node, subject=ADA, salt=SALT)
    assert (sorted(told["erased"]), told["unfinished"], told["unknown"]) == (sorted(map(str, exchanges)), [], [])


# --- by subject


async def test_everything_about_a_person_goes_in_every_service_and_nothing_else(node: InProcess) -> None:
    about = [await done(node), await done(node, REPEATABLE, key="k-1"), await done(node, ONCE, key="k-2")]
    other = await done(node, READ, "P-0002")
    told = await erase(node, subject=ADA, salt=SALT)
    assert (sorted(told["erased"]), told["unfinished"], told["unknown"]) == (sorted(about), [], [])
    async with node.operator("ines") as inspector:
        kept = await inspector.admin("GET", f"/admin/exchanges/{other}/body?reason=audit")
    assert kept.body["request"]["id"] == "P-0002"
    # Nothing leads to it any more, so that asking again finds nothing, and says so.
    assert await erase(node, subject=ADA, salt=SALT) == {"erased": [], "unfinished": [], "unknown": []}


async def test_whom_it_was_about_is_left_nowhere(node: InProcess, caplog: pytest.LogCaptureFixture) -> None:
    """Not in the clear, and not sealed either: the proof of the act would outlive what it erased."""
    caplog.set_level(logging.DEBUG)
    subject = "P-0077"
    exchange = await done(node, READ, subject)
    body = {"reason": REASON, "legal_basis": BASIS, "subject": subject, "salt": SALT}
    async with node.operator("elsa") as eraser:
        await eraser.admin("POST", "/admin/erase", body)
    secrets = await opened(node)
    acts = [each for each in secrets if REASON.encode() in each]
    assert len(acts) == 2  # the act, and the exchange's entry
    assert [each for each in secrets if subject.encode() in each] == []
    # Each holds the operator's signature, and so a digest of the body: but nobody knows the salt any more.
    digest = base64.b64encode(hashlib.sha256(orjson.dumps(body)).digest())
    request = base64.urlsafe_b64decode(orjson.loads(acts[0])["request"].split(".")[1] + "==")
    assert digest in request
    assert not any(SALT.encode() in each for each in secrets)
    files = [*node.deployment.folder.glob("store.db*"), *node.deployment.log_folder.rglob("*")]
    written = b"".join(path.read_bytes() for path in files if path.is_file())
    assert len(written) > 10_000
    assert not any(value.encode() in written for value in (subject, SALT, REASON))
    assert subject not in str([record.__dict__ for record in caplog.records])
    assert [each["kind"] for each in await timeline(node, exchange)][-1] == "erased"


async def opened(node: InProcess) -> list[bytes]:
    """Everything that entries still commit to, opened with the store's own key; of what is erased nothing is left."""
    seal = Seal(read_key(node.deployment.folder / "store.key"))
    with closing(sqlite3.connect(f"file:{node.deployment.folder / 'store.db'}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT leaf, bytes FROM secret JOIN entry USING (row)").fetchall()
    return [seal.open(sealed, SECRET, leaf)[32:] for leaf, sealed in rows if any(sealed)]


# --- who may, and how


@pytest.mark.parametrize("operator", ["olive", "otto", "ines", "aude"])
async def test_only_erasers_erase_and_only_inspectors_look(node: InProcess, operator: str) -> None:
    exchange = await done(node)
    with pytest.raises(BusProblem) as refused:
        await erase(node, operator, exchanges=[exchange])
    assert (refused.value.code, refused.value.result.body["role"]) == ("role_missing", "eraser")
    if operator != "ines":
        async with node.operator(operator) as client:
            with pytest.raises(BusProblem) as refused:
                await client.admin("GET", f"/admin/exchanges/{exchange}/evidence?reason=audit")
        assert (refused.value.code, refused.value.result.body["role"]) == ("role_missing", "inspector")
    assert [each["kind"] for each in await timeline(node, exchange)] == ["accepted", "outcome"]


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({}, ""),
        ({"exchanges": [NOBODYS], "subject": ADA, "salt": SALT}, ""),
        ({"subject": ADA}, ""),
        ({"exchanges": [NOBODYS], "salt": SALT}, ""),
        ({"subject": ADA, "salt": "short"}, "/salt"),
        ({"subject": "", "salt": SALT}, "/subject"),
        ({"subject": ADA, "salt": SALT, "legal_basis": f"wish of {ADA.lower()}"}, ""),
        ({"exchanges": []}, "/exchanges"),
        ({"exchanges": ["nonsense"]}, "/exchanges/0"),
        ({"exchanges": [NOBODYS] * 501}, "/exchanges"),
        ({"exchanges": [NOBODYS], "legal_basis": "law"}, "/legal_basis"),
        ({"exchanges": [NOBODYS], "legal_basis": "two\nlines"}, "/legal_basis"),
        ({"exchanges": [NOBODYS], "legal_basis": None}, "/legal_basis"),
        ({"exchanges": [NOBODYS], "everything": True}, "/everything"),
    ],
)
async def test_an_act_that_is_not_clear_is_refused_without_a_value(
    node: InProcess, wrong: dict[str, Any], pointer: str
) -> None:
    with pytest.raises(BusProblem) as refused:
        await erase(node, **wrong)
    assert (refused.value.code, [each.pointer for each in refused.value.pointers]) == ("act_invalid", [pointer])
    assert ADA not in orjson.dumps(refused.value.result.body).decode()


async def test_an_act_without_a_reason_is_refused(node: InProcess) -> None:
    with pytest.raises(BusProblem) as refused:
        await erase(node, exchanges=[NOBODYS], reason="  ")
    assert refused.value.code == "reason_missing"


async def test_the_act_is_proved_also_when_there_was_nothing_to_erase(node: InProcess) -> None:
    await erase(node, subject="nobody at all", salt=SALT)
    contents = await contents_of_log(node, lambda said: said.get("act") == "erase")
    (act,) = [each for each in contents if each.get("act") == "erase"]
    assert (act["kind"], act["operator"], act["legal_basis"]) == ("act", "elsa", BASIS)
    assert "exchange" not in act


async def contents_of_log(node: InProcess, awaited: Any) -> list[dict[str, Any]]:
    store = node.node.bus.store
    async with asyncio.timeout(90):
        while True:
            (state,) = await store.logs()
            said = [orjson.loads(each) for each in await store.entries(state.origin, 0, 10_000)]
            if any(awaited(each) for each in said):
                return said
            await asyncio.sleep(0.05)


async def test_what_an_inspector_gets_opens_the_commitment_and_leaves_an_entry(node: InProcess) -> None:
    exchange = await done(node)
    evidence = orjson.loads(await evidence_of(node, exchange))
    assert evidence["exchange"] == exchange
    outcome = evidence["entries"][-1]
    salt, proof = (base64.urlsafe_b64decode(outcome[name] + "==") for name in ("salt", "evidence"))
    entry = orjson.loads(verify_receipt(await receipt(node, exchange), await log_key(node)).entry)
    commit = base64.urlsafe_b64encode(hmac.digest(salt, proof, "sha256")).decode().rstrip("=")
    assert commit == entry["commit"]
    async with node.client() as client:
        reply = await client.reply(exchange)
    # What the system answered, and what was left of it for the caller.
    said = orjson.loads(proof)
    assert said["reply"] == hashlib.sha256(orjson.dumps(PERSON)).hexdigest()
    assert said["released"] == hashlib.sha256(orjson.dumps(reply.body)).hexdigest() != said["reply"]
    acts = await contents_of_log(node, lambda said: said.get("act") == "evidence")
    assert [each["operator"] for each in acts if each.get("act") == "evidence"] == ["ines"]


# --- the command


gsb = partial(command, operator="elsa")


async def test_the_command_erases_exchanges(node: InProcess) -> None:
    exchange = await done(node)
    law = ("--legal-basis", BASIS, "--reason", REASON)
    code, said, wrong = await gsb(node, "erase", "--exchange", exchange, *law)
    assert (code, said, wrong) == (0, f"{exchange}  erased\n", "")
    code, said, _ = await gsb(node, "erase", "--exchange", exchange, "--exchange", NOBODYS, *law, "--json")
    assert (code, orjson.loads(said)) == (1, {"erased": [exchange], "unfinished": [], "unknown": [NOBODYS]})
    code, said, _ = await gsb(node, "erase", "--exchange", NOBODYS, *law)
    assert (code, said) == (1, f"{NOBODYS}  not known, or deleted at its age\n")


async def test_the_command_takes_a_subject_from_its_input(node: InProcess) -> None:
    exchange = await done(node)
    law = ("--legal-basis", BASIS, "--reason", REASON)
    code, said, wrong = await gsb(node, "erase", "--subject", "-", *law, said=f"{ADA}\n".encode())
    assert (code, said, wrong) == (0, f"{exchange}  erased\n", "")
    code, said, _ = await gsb(node, "erase", "--subject", ADA, *law)
    assert (code, said) == (0, "there is no exchange about this subject\n")


@pytest.mark.parametrize("words", [[], ["--subject", "-"], ["--subject", "x", "--exchange", NOBODYS]])
async def test_the_command_wants_to_know_what(node: InProcess, words: list[str]) -> None:
    code, _, wrong = await gsb(node, "erase", *words, "--legal-basis", BASIS, "--reason", REASON)
    assert (code, len(wrong.splitlines())) == (2, 1)


async def test_the_command_prints_evidence_for_whoever_verifies(node: InProcess, tmp_path: Path) -> None:
    exchange, verifier = await done(node), await log_key(node)
    code, said, wrong = await gsb(node, "exchanges", "evidence", exchange, "--reason", "audit", operator="ines")
    assert (code, wrong) == (0, "")
    (tmp_path / "evidence").write_text(said, "utf-8")
    (tmp_path / "receipt").write_bytes(await receipt(node, exchange))
    files = (str(tmp_path / "receipt"), "--evidence", str(tmp_path / "evidence"))
    code, said, wrong = await gsb(node, "receipt", "verify", *files, "--key", verifier.vkey)
    assert code == 0, wrong
    assert "commits to these" in wrong
