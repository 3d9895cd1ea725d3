"""Administrative acts: who may, why they say they do it, what it does, and the entry that it leaves.

Through the command line where there is one, since that is what an operator has: ``gsb exchanges`` and
``gsb dead-letters`` against a node in a process of its own.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gsb.admit import settled
from gsb.client import BusProblem
from gsb.errors import StoreUnavailable
from gsb.model import State
from gsb.sdk import Broken, Unavailable
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ, answering, puppet, puppet_deployment, raising
from tests.support.command import gsb
from tests.support.deployment import PERSON
from tests.support.node import InProcess, node_in_process


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[InProcess]:
    async with node_in_process(tmp_path, puppet_deployment(tmp_path)) as node:
        puppet().reset()
        yield node
        puppet().reset()


def acts(node: InProcess) -> list[dict[str, Any]]:
    with sqlite3.connect(f"file:{node.deployment.folder / 'store.db'}?mode=ro", uri=True) as database:
        found = [orjson.loads(row[0]) for row in database.execute("SELECT content FROM entry ORDER BY row")]
    database.close()
    return [each for each in found if each["kind"] == "act"]


async def unknown(node: InProcess) -> str:
    puppet().acts = raising(Unavailable("cut off", sent=True))
    async with node.client() as client:
        accepted = await client.call(ONCE, NOTE, purpose="payroll", respond_async=True)
        assert accepted.exchange is not None
    return await standing(node, accepted.exchange, State.UNKNOWN)


async def held(node: InProcess) -> str:
    puppet().acts = raising(Broken("nonsense"))
    async with node.client() as client:
        accepted = await client.call(READ, PERSON_BODY, purpose="payroll", respond_async=True)
        assert accepted.exchange is not None
    return await standing(node, accepted.exchange, State.HELD)


async def standing(node: InProcess, exchange: str, state: State) -> str:
    """The exchange, once it stands still in this state."""
    with node.node.bus.waiters.waiting(exchange) as woken:
        woken.set()
        known = await settled(node.node.bus, exchange, woken, 90)
    assert known.state is state
    return exchange


async def test_an_unknown_exchange_is_resolved_once_and_its_owner_hears_it(node: InProcess) -> None:
    exchange = await unknown(node)
    code, said, _ = await gsb(node, "exchanges", "list", "--state", "unknown", "--reason", "morning round", "--json")
    assert code == 0
    (listed,) = orjson.loads(said)["exchanges"]
    assert (listed["exchange"], listed["reason"]) == (exchange, "system_unavailable")
    words = ["exchanges", "resolve", exchange, "--state", "done", "--effect", "done", "--reason", "seen in the ledger"]
    code, said, _ = await gsb(node, *words)
    assert code == 0
    assert "done" in said
    assert "None" not in said
    async with node.client() as client:
        ended = await client.follow(exchange)
        assert (ended.status, ended.state, ended.effect, ended.body) == (204, "done", "done", None)
    code, _, wrong = await gsb(node, *words)
    assert code == 3
    assert wrong.startswith("gsb: state_conflict (409)")
    assert len(wrong.splitlines()) == 1
    assert [each["act"] for each in acts(node)] == ["search", "resolve"]
    assert acts(node)[-1]["operator"] == "olive"
    assert b"ledger" not in orjson.dumps(acts(node))  # a reason may name people: it is evidence


async def test_an_exchange_resolved_as_failed_says_whether_it_took_effect(node: InProcess) -> None:
    exchange = await unknown(node)
    words = ["--state", "failed", "--effect", "none", "--reason", "not in the ledger"]
    code, said, _ = await gsb(node, "exchanges", "resolve", exchange, *words)
    assert (code, said.splitlines()[-1].split()[1:]) == (0, ["act", "resolve", "failed"])
    async with node.client() as client:
        with pytest.raises(BusProblem) as ended:
            await client.follow(exchange)
    assert (ended.value.code, ended.value.state, ended.value.effect) == ("closed_by_operator", "failed", "none")


async def test_a_dead_letter_is_replayed(node: InProcess) -> None:
    exchange = await held(node)
    code, said, _ = await gsb(node, "dead-letters", "list", "--reason", "morning round")
    assert code == 0
    assert exchange in said
    puppet().acts = answering(PERSON)
    code, said, _ = await gsb(node, "dead-letters", "replay", exchange, "--reason", "the register is mended")
    assert code == 0
    async with node.client() as client:
        ended = await client.follow(exchange)
        assert (ended.status, ended.body["name"]) == (200, "Ada")
    code, said, _ = await gsb(node, "dead-letters", "list", "--reason", "morning round")
    assert (code, said.strip()) == (0, "nothing is held")


async def test_a_dead_letter_is_closed_and_shown(node: InProcess) -> None:
    exchange = await held(node)
    words = ["--state", "failed", "--effect", "none", "--reason", "the register is gone"]
    assert (await gsb(node, "dead-letters", "close", exchange, *words))[0] == 0
    code, said, _ = await gsb(node, "dead-letters", "show", exchange, "--reason", "look again")
    assert code == 0
    assert "failed" in said
    assert "system_broken" in said
    code, _, wrong = await gsb(node, "dead-letters", "replay", exchange, "--reason", "try again")
    assert (code, wrong.split()[1]) == (3, "state_conflict")


@pytest.mark.parametrize(
    ("words", "operator", "code"),
    [
        (["list", "--reason", "ok?"], "olive", "reason_missing"),
        (["list", "--reason", "good reason", "--state", "nowhere"], "olive", "act_invalid"),
        (["show", "01a0c450-6c00-71b6-b1a8-e21f6124ae04", "--reason", "good reason"], "olive", "exchange_unknown"),
        (["resolve", "ID", "--state", "done", "--effect", "done", "--reason", "good reason"], "otto", "role_missing"),
        (["resolve", "ID", "--state", "done", "--effect", "none", "--reason", "good reason"], "olive", "act_invalid"),
        (["resolve", "ID", "--state", "gone", "--effect", "none", "--reason", "good reason"], "olive", "act_invalid"),
        (["list", "--reason", "good reason"], "payroll", "operator_required"),
    ],
)
async def test_an_act_that_is_not_allowed_or_not_clear_is_refused(
    node: InProcess, words: list[str], operator: str, code: str
) -> None:
    exchange = await unknown(node) if "ID" in words else ""
    words = [exchange if word == "ID" else word for word in words]
    status, said, wrong = await gsb(node, "exchanges", *words, operator=operator)
    assert (status, said) == (3, "")
    assert wrong.startswith(f"gsb: {code} (")
    assert acts(node) == []


async def test_looking_into_a_body_needs_the_role_and_is_an_entry(node: InProcess) -> None:
    puppet().acts = answering(PERSON)
    async with node.client() as client:
        result = await client.call(READ, PERSON_BODY, purpose="payroll")
    words = ["exchanges", "show", str(result.exchange), "--body", "--reason", "a complaint about a payslip"]
    for operator in ("olive", "otto"):
        status, said, wrong = await gsb(node, *words, operator=operator)
        assert (status, said) == (3, "")
        assert wrong.startswith("gsb: role_missing (403)")
    assert acts(node) == []
    status, said, _ = await gsb(node, *words, operator="ines")
    assert status == 0
    shown = orjson.loads(said)
    assert shown["request"] == PERSON_BODY
    assert shown["reply"] == {"status": 200, "content_type": "application/json", "body": result.body}
    (act,) = acts(node)
    assert (act["act"], act["operator"], act["exchange"]) == ("inspect", "ines", result.exchange)
    assert (act["agency"], act["service"]) == ("payroll", READ)
    assert (await gsb(node, *words[:3], "--reason", "another look", operator="ines"))[0] == 3  # no observer


async def test_a_body_without_an_outcome_is_shown_as_far_as_there_is_one(node: InProcess) -> None:
    exchange = await unknown(node)
    words = ["exchanges", "show", exchange, "--body", "--reason", "did it take effect?"]
    status, said, _ = await gsb(node, *words, operator="ines")
    assert status == 0
    assert orjson.loads(said) == {"exchange": exchange, "state": "unknown", "request": NOTE, "reply": None}
    ending = ["--state", "done", "--effect", "done", "--reason", "seen in the ledger"]
    assert (await gsb(node, "exchanges", "resolve", exchange, *ending))[0] == 0
    status, said, _ = await gsb(node, *words, operator="ines")
    assert orjson.loads(said)["reply"] == {"status": 204, "content_type": None, "body": None}


async def test_nothing_of_a_body_is_said_before_its_entry_is_durable(
    node: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    puppet().acts = answering(PERSON)
    async with node.client() as client:
        result = await client.call(READ, PERSON_BODY, purpose="payroll")

    async def full(*_: Any, **__: Any) -> None:
        raise StoreUnavailable

    monkeypatch.setattr(node.node.bus.store, "note", full)
    async with node.operator("ines") as client:
        with pytest.raises(BusProblem) as refused:
            await client.admin("GET", f"/admin/exchanges/{result.exchange}/body?reason=a+complaint")
    assert refused.value.code == "store_unavailable"
    assert refused.value.result.body.keys().isdisjoint({"request", "reply"})


async def test_exchanges_are_found_by_their_business_key(tmp_path: Path) -> None:
    deployment = puppet_deployment(tmp_path)
    for service, pointer in ((ONCE, "/id"), (READ, "/id")):
        deployment.files[f"services/{service}.toml"]["business_key"] = pointer
    async with node_in_process(tmp_path, deployment) as node:
        puppet().reset()
        async with node.client() as client:
            puppet().acts = answering(PERSON)
            read = await client.call(READ, PERSON_BODY, purpose="payroll")
            puppet().acts = answering(NOTE)
            written = await client.call(ONCE, NOTE, purpose="payroll")
            await client.call(ONCE, NOTE | {"id": "P-0002"}, purpose="payroll")
        words = ["exchanges", "list", "--reason", "a complaint of P-0001", "--business-key", "P-0001", "--json"]
        assert await listed(node, *words) == [written.exchange, read.exchange]
        assert await listed(node, *words, "--service", READ) == [read.exchange]
        assert await listed(node, *words, "--state", "failed") == []
        assert b"P-0001" not in orjson.dumps(acts(node))
        stored = node.deployment.folder.glob("store.db*")
        assert b"P-0001" not in b"".join(path.read_bytes() for path in stored)
    puppet().reset()


async def listed(node: InProcess, *words: str) -> list[str]:
    status, said, wrong = await gsb(node, *words)
    assert status == 0, wrong
    return [each["exchange"] for each in orjson.loads(said)["exchanges"]]


async def test_exchanges_are_listed_by_time_and_page_by_page(node: InProcess) -> None:
    puppet().acts = answering(PERSON)
    made: list[str] = []
    async with node.client() as client:
        for _ in range(3):
            made.insert(0, str((await client.call(READ, PERSON_BODY, purpose="payroll")).exchange))
        shown = [(await client.exchange(exchange)).body["accepted"] for exchange in made]
    words = ["exchanges", "list", "--reason", "morning round"]
    status, said, _ = await gsb(node, *words, "--limit", "2")
    assert status == 0
    assert made[0] in said
    cursor = re.search(r"^more: --cursor (\S+)$", said, re.MULTILINE)
    assert cursor is not None
    assert await listed(node, *words, "--json", "--cursor", cursor[1]) == made[2:]
    assert await listed(node, *words, "--json", "--since", shown[0].replace("Z", "+00:00")) == made[:1]
    # What is shown is cut to milliseconds, so the second may be later than it says.
    assert await listed(node, *words, "--json", "--until", shown[1]) in (made[2:], made[1:])
    assert await listed(node, *words, "--json", "--until", "2026-01-01T00:00:00Z") == []
    assert await listed(node, *words, "--json", "--code", "reply_invalid") == []
    status, _, wrong = await gsb(node, *words, "--cursor", cursor[1][::-1])
    assert (status, wrong.split()[1]) == (3, "act_invalid")
    assert "/cursor" in wrong


@pytest.mark.parametrize("text", ["../exchanges", "01a0c450", "held"])
async def test_what_is_no_id_is_told_before_anything_is_sent(node: InProcess, text: str) -> None:
    code, _, wrong = await gsb(node, "exchanges", "show", text, "--reason", "good reason")
    assert code == 2
    assert "is not the id of an exchange" in wrong
    assert acts(node) == []


async def test_an_operator_may_also_look(tmp_path: Path) -> None:
    deployment = puppet_deployment(tmp_path)
    deployment.operator("opal", ["operator"])
    async with node_in_process(tmp_path, deployment) as node:
        code, said, _ = await gsb(node, "exchanges", "list", "--reason", "a first look", operator="opal")
    assert (code, said.strip()) == (0, "no such exchange")


async def test_what_is_wrong_with_an_act_is_told_in_words_that_can_be_given(node: InProcess) -> None:
    words = ["resolve", await unknown(node), "--state", "gone", "--effect", "maybe", "--reason", "good reason"]
    _, _, wrong = await gsb(node, "exchanges", *words)
    assert wrong.splitlines()[1:] == [
        "  /state: Input should be 'done' or 'failed'",
        "  /effect: Input should be 'none' or 'done'",
    ]


async def test_an_operators_key_opens_nothing_else(node: InProcess) -> None:
    async with node.client("olive") as client:
        with pytest.raises(BusProblem) as refused:
            await client.call(READ, PERSON_BODY, purpose="payroll")
    assert refused.value.code == "grant_missing"
