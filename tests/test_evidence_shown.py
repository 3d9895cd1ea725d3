"""What inspectors read of the evidence: why an exchange stands as it does, and what of it was erased or damaged."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from gsb.client import BusProblem
from gsb.jwk import from_base64url
from gsb.model import State
from gsb.sdk import Broken, Unavailable
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ, answering, puppet, puppet_deployment, raising
from tests.support.command import gsb
from tests.support.deployment import PERSON
from tests.support.node import InProcess, node_in_process

WORDS = "no such table: canary"
"""A core system's own words, which stand in the evidence alone."""


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[InProcess]:
    async with node_in_process(tmp_path, puppet_deployment(tmp_path)) as node:
        puppet().reset()
        yield node
        puppet().reset()


async def standing(node: InProcess, service: str, body: Any, state: State) -> str:
    """The id of an exchange that has come to stand so."""
    async with node.client() as client:
        taken = await client.call(service, body, purpose="payroll", respond_async=True)
    assert taken.exchange is not None
    bus = node.node.bus
    async with asyncio.timeout(90):
        with bus.waiters.waiting(taken.exchange) as woken:
            while True:
                known = await bus.store.exchange(taken.exchange)
                assert known is not None
                if known.state is state:
                    return taken.exchange
                await woken.wait()
                woken.clear()


async def shown(node: InProcess, exchange: str, operator: str = "ines") -> Any:
    async with node.operator(operator) as client:
        return (await client.admin("GET", f"/admin/exchanges/{exchange}/evidence?reason=why+does+it+stand")).body


@pytest.mark.parametrize(
    ("service", "body", "error", "state"),
    [
        (READ, PERSON_BODY, Broken(WORDS), State.HELD),
        (ONCE, NOTE, Unavailable(WORDS, sent=True), State.UNKNOWN),
    ],
)
async def test_why_it_stands_still_can_be_read(
    node: InProcess, service: str, body: Any, error: Exception, state: State
) -> None:
    puppet().acts = raising(error)
    exchange = await standing(node, service, body, state)
    told = await shown(node, exchange)
    assert (told["exchange"], told["state"], told["erased"]) == (exchange, state, [])
    accepted, stands = told["entries"]
    assert (accepted["kind"], stands["kind"]) == ("accepted", state)
    assert orjson.loads(from_base64url(stands["evidence"]))["detail"] == WORDS
    # For people, by the command.
    code, said, wrong = await gsb(
        node, "exchanges", "evidence", exchange, "--print", "--reason", "why does it stand?", operator="ines"
    )
    assert (code, wrong) == (0, "")
    first, last = orjson.loads(said)
    assert (first["kind"], last["kind"], last["at"]) == ("accepted", state, stands["at"])
    assert last["evidence"]["detail"] == WORDS
    assert first["evidence"].keys() == {"request"}


async def test_whoever_may_only_look_or_act_is_refused(node: InProcess) -> None:
    puppet().acts = raising(Broken(WORDS))
    exchange = await standing(node, READ, PERSON_BODY, State.HELD)
    for operator in ("olive", "otto"):
        with pytest.raises(BusProblem) as refused:
            await shown(node, exchange, operator)
        assert (refused.value.code, refused.value.result.body["role"]) == ("role_missing", "inspector")
        assert WORDS not in str(refused.value.result.body)


async def test_what_was_erased_is_said_to_be_so(node: InProcess) -> None:
    puppet().acts = answering(PERSON)
    exchange = await standing(node, READ, PERSON_BODY, State.DONE)
    async with node.operator("elsa") as client:
        body = {"reason": "request of the person", "legal_basis": "Data Act, s. 1", "exchanges": [exchange]}
        await client.admin("POST", "/admin/erase", body)
    told = await shown(node, exchange)
    assert [each["kind"] for each in told["erased"]] == ["accepted", "outcome"]
    assert all(each.keys() == {"leaf", "kind", "at"} for each in told["erased"])
    assert [each["kind"] for each in told["entries"]] == ["erased"]
    code, said, _ = await gsb(
        node, "exchanges", "evidence", exchange, "--print", "--reason", "what is left?", operator="ines"
    )
    assert code == 0
    assert [(each["kind"], "erased" in each) for each in orjson.loads(said)] == [
        ("accepted", True),
        ("outcome", True),
        ("erased", False),
    ]


async def test_damaged_evidence_is_told_from_a_store_in_trouble(node: InProcess) -> None:
    puppet().acts = answering(PERSON)
    exchange = await standing(node, READ, PERSON_BODY, State.DONE)
    with closing(sqlite3.connect(node.deployment.folder / "store.db", timeout=90)) as database, database:
        database.execute("UPDATE secret SET bytes = substr(bytes, 1, 40)")
    with pytest.raises(BusProblem) as refused:
        await shown(node, exchange)
    problem = refused.value.result.body
    assert (refused.value.code, problem["exchange"], problem["state"]) == ("reply_unreadable", exchange, "done")
