"""A key that an operator has revoked: for which moment a node knows it, and what it does when it cannot know."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from gsb.backends import SqliteTable
from gsb.catalogue import Catalogue
from gsb.cli.main import app
from gsb.client import BusProblem, Client
from gsb.errors import KeyRevoked, StoreUnavailable
from gsb.model import State
from gsb.revocations import FRESH, Revocations
from gsb.store.seal import read_key
from gsb.store.sqlite import SqliteStore
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ, REPEATABLE, Hands, bus_of, puppet, puppet_deployment
from tests.support.command import gsb
from tests.support.deployment import agency_key, standard
from tests.support.node import InProcess, node_in_process
from tests.support.reloading import acts
from tests.support.stores import Clock, entry
from tests.test_perform import SENT

KID = agency_key("payroll").kid
WITHIN = 5.0
"""Seconds after which a revocation counts everywhere."""


class Asked(SqliteStore):
    """Counts how often it is asked, and does not answer while it is ``away``."""

    asked = 0
    away = False

    async def revoked(self) -> frozenset[str]:
        self.asked += 1
        await asyncio.sleep(0)  # as a database in another process, which lets others go on
        if self.away:
            raise StoreUnavailable
        return await super().revoked()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Asked]:
    store = Asked(tmp_path / "store.db", bytes(32))
    await store.open()
    yield store
    await store.close()


# --- for which moment a node knows it


async def test_what_was_read_counts_for_a_second_and_is_then_read_again(store: Asked) -> None:
    clock = Clock()
    known = Revocations(store, clock.steady)
    await known.look()
    await store.revoke(KID, entry("act"))
    clock.pass_(FRESH - 0.001)
    await known.look()
    assert (KID in known, store.asked) == (False, 1)
    clock.pass_(0.001)
    await known.look()
    assert (KID in known, store.asked) == (True, 2)


async def test_many_calls_at_once_read_it_once(store: Asked) -> None:
    known = Revocations(store, Clock().steady)
    await asyncio.gather(*(known.look() for _ in range(50)))
    assert store.asked == 1


async def test_a_reading_that_began_too_early_is_not_relied_on(store: Asked) -> None:
    clock = Clock()
    known = Revocations(store, clock.steady)
    first = asyncio.create_task(known.look())
    await asyncio.sleep(0)  # the call has begun to read,
    await asyncio.sleep(0)
    clock.pass_(FRESH)  # and what it reads comes late
    await asyncio.gather(first, known.look())
    assert store.asked == 2


async def test_what_cannot_be_read_is_told_to_each_and_read_by_the_next(store: Asked) -> None:
    known = Revocations(store, Clock().steady)
    store.away = True
    found = await asyncio.gather(*(known.look() for _ in range(5)), return_exceptions=True)
    assert [type(each) for each in found] == [StoreUnavailable] * 5
    assert store.asked == 1
    store.away = False
    await known.look()
    assert KID not in known


# --- what it stops


@pytest.fixture
async def hands(tmp_path: Path) -> AsyncIterator[Hands]:
    async with bus_of(puppet_deployment(tmp_path)) as hands:
        puppet().reset()
        yield hands
        puppet().reset()


async def revoke(hands: Hands) -> None:
    """An operator at another node does it, and more than a second passes."""
    await hands.bus.store.revoke(KID, entry("act"))
    hands.bus.revocations = Revocations(hands.bus.store)


async def test_it_stops_what_has_not_begun_and_leaves_what_was_sent_unknown(hands: Hands) -> None:
    fresh, read = await hands.accept(ONCE, NOTE), await hands.accept(READ, PERSON_BODY)
    tried = await hands.accept(REPEATABLE, NOTE)
    puppet().acts = SENT
    await hands.perform(tried)
    puppet().reset()
    await revoke(hands)
    for exchange in (fresh, read):
        after = await hands.perform(exchange)
        assert after.outcome is not None
        assert (after.outcome.code, after.outcome.effect) == ("authority_withdrawn", "none")
    assert ((await hands.perform(tried)).state, puppet().requests) == (State.UNKNOWN, [])
    with pytest.raises(KeyRevoked):
        await hands.send(ONCE, NOTE, key="another")


# --- an operator's act


async def test_an_operator_revokes_a_key_for_ever(tmp_path: Path) -> None:
    async with node_in_process(tmp_path) as node:
        async with node.client() as client:
            done = await client.call(ONCE, NOTE, purpose="payroll")
        code, said, _ = await gsb(node, "key", "revoke", KID, "--reason", "its laptop was stolen")
        assert (code, said) == (0, f"{KID} of payroll is revoked\n")
        revoked_at = time.monotonic()
        refused, last = await until_refused(node)
        assert refused.requests == 1
        assert last - revoked_at < WITHIN
        async with node.client() as client:
            with pytest.raises(BusProblem, match="revoked"):
                await client.reply(done.exchange or "")
        async with node.client("audit-office") as other:
            assert (await other.services()).status == 200
        assert (await gsb(node, "key", "revoke", KID, "--reason", "once more"))[0] == 0
    first, second = [act for act in acts(node.deployment.folder) if act["act"] == "revoke"]
    assert (first["operator"], first["revoked"], first["owner"]) == ("olive", KID, "payroll")
    assert second["revoked"] == KID
    async with node_in_process(tmp_path, node.deployment) as node:
        refused, _ = await until_refused(node)
        assert refused.code == "key_revoked"


async def until_refused(node: InProcess) -> tuple[BusProblem, float]:
    """Ask again and again; the first refusal, and when the last call had begun that was answered: it may have taken as
    long as the machine was busy with other things."""
    began = [time.monotonic()]
    async with node.client() as client:
        with pytest.raises(BusProblem) as raised:
            await endlessly(client, began)
    assert raised.value.code == "key_revoked"
    return raised.value, began[-2]


async def endlessly(client: Client, began: list[float]) -> None:
    async with asyncio.timeout(60):
        while True:
            began.append(time.monotonic())
            await client.services()


async def test_what_is_no_key_of_anybody_is_not_revoked(tmp_path: Path) -> None:
    async with node_in_process(tmp_path) as node:
        bus_key = node.deployment.bus_key().kid
        for kid in ("-" * 43, bus_key):
            code, _, wrong = await gsb(node, "key", "revoke", kid, "--reason", "a mistake")
            assert (code, "act_invalid" in wrong, "/key" in wrong) == (3, True, True)
        code, _, wrong = await gsb(node, "key", "revoke", KID, "--reason", "a mistake", operator="otto")
        assert (code, "role_missing" in wrong) == (3, True)
        assert await node.node.bus.store.revoked() == frozenset()


async def test_a_node_that_cannot_know_accepts_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gsb.client.LEAST", 60.0)  # for a single call there is time on any machine

    def make_store(catalogue: Catalogue) -> Asked:
        table = catalogue.gsb.store
        assert isinstance(table, SqliteTable)
        return Asked(table.path, read_key(table.key))

    async with node_in_process(tmp_path, make_store=make_store) as node:
        store = node.node.bus.store
        assert isinstance(store, Asked)
        store.away = True
        async with node.client() as client:
            with pytest.raises(BusProblem) as raised:
                await client.call(ONCE, NOTE, purpose="payroll", timeout=0.0)
        assert (raised.value.code, raised.value.signed) == ("store_unavailable", True)
        store.away = False
        async with node.client() as client:
            assert (await client.call(ONCE, NOTE, purpose="payroll")).status == 200


# --- what stands in the files


def test_the_keys_of_a_deployment_are_listed(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    for agency, life in (("payroll", {"state": "revoked"}), ("tax-agency", {"state": "announced"})):
        deployment.files[f"agencies/{agency}.toml"]["keys"][0] |= life
    words = ["key", "list", str(deployment.write())]
    listed = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    told = {each["owner"]: each for each in orjson.loads(listed.stdout)}
    assert told["(the bus)"]["key"] == deployment.bus_key().kid
    assert told["(the bus)"]["counts"] == "counts, and signs"
    assert (told["payroll"]["key"], told["payroll"]["counts"]) == (KID, "revoked")
    assert (told["tax-agency"]["counts"], told["olive"]["counts"]) == ("announced", "counts")
    shown = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert KID in next(line for line in shown.splitlines() if "revoked" in line)
