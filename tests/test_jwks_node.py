"""Key sets that agencies publish: when they are read, how long they count, what goes before them, and their proof."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import orjson
import pytest

from gsb import jwk
from gsb import published as pacing
from gsb.catalogue import ConfigInvalid, build
from gsb.client import BusProblem, Client, OutcomePending, Unreachable
from gsb.doctor import Found, Grade, examine
from gsb.errors import KeySetUnavailable, KeyUnknown
from gsb.jwk import PublicKey
from gsb.published import Published
from gsb.sources import KeySetTable
from tests.support.bus import PERSON_BODY, READ, Clock
from tests.support.deployment import CONSUMER, Deployment, standard
from tests.support.keyserver import KeyServer, jwk_set, key_server
from tests.support.node import InProcess, node_in_process
from tests.support.reloading import acts

WITHIN = 90.0
TABLE = KeySetTable(url="https://keys.test/jwks.json")


def new() -> jwk.PrivateKey:
    return jwk.read_private(jwk.generate("ES256"))


OURS, NEXT = new(), new()


# --- when


def sets(clock: Clock, *agencies: str) -> Published:
    made = Published(clock)
    made.take_up(dict.fromkeys(agencies, TABLE), frozenset({"taken"}))
    return made


def fill(published: Published, **keys: PublicKey) -> None:
    for _, known in published.due():
        known.keys, known.reading = keys, False
        known.confirmed(published.steady(), None)


def test_a_set_counts_until_it_is_too_old() -> None:
    clock = Clock()
    published = sets(clock, "a")
    with pytest.raises(KeySetUnavailable) as unavailable:
        published.find("a", "k")
    assert (unavailable.value.status, unavailable.value.headers) == (503, {"Retry-After": "5"})
    fill(published, k=OURS.public)
    clock.now += TABLE.stale - 0.001
    assert published.find("a", "k") is OURS.public
    assert published.counts("a", "k")
    clock.now += 0.001
    with pytest.raises(KeySetUnavailable):
        published.find("a", "k")
    assert not published.counts("a", "k")
    assert published.ages() == {"a": TABLE.stale}


@pytest.mark.parametrize(("agency", "kid"), [("b", "k"), ("a", "other"), ("a", "taken")])
def test_nobody_elses_key_is_found(agency: str, kid: str) -> None:
    published = sets(Clock(), "a")
    fill(published, k=OURS.public, taken=OURS.public)
    with pytest.raises(KeyUnknown):
        published.find(agency, kid)


def test_keys_that_nobody_knows_have_the_set_read_early_and_no_more_often_than_that() -> None:
    clock = Clock()
    published = sets(clock, "a", "b")
    fill(published, k=OURS.public)
    reads = 0
    for number in range(1_000):
        clock.now += 0.05  # fifty seconds in all
        with pytest.raises(KeyUnknown):
            published.find("a", f"invented-{number}")
        for agency, known in published.due():
            reads += 1
            assert agency == "a"
            known.reading = False
    assert 1 < reads <= 50 / pacing.EARLY


@pytest.mark.parametrize(
    ("max_age", "lower", "upper"), [(None, 270, 300), (0, 54, 60), (120, 108, 120), (1e9, 3240, 3600)]
)
def test_the_server_says_when_to_look_again_within_bounds(max_age: float | None, lower: int, upper: int) -> None:
    clock = Clock()
    published = sets(clock, "a")
    ((_, known),) = published.due()
    known.confirmed(clock.now, max_age)
    assert lower <= known.due_at - clock.now <= upper


def test_failures_are_tried_again_by_growing_pauses() -> None:
    clock = Clock()
    ((_, known),) = sets(clock, "a").due()
    pauses = []
    for _ in range(12):
        known.failed(clock.now)
        pauses.append(known.due_at - clock.now)
    assert 9 <= pauses[0] <= 10 < 18 <= pauses[1] <= 20
    assert all(270 <= pause <= 300 for pause in pauses[6:])


def test_a_set_that_is_published_elsewhere_is_another_one() -> None:
    published = sets(Clock(), "a", "b")
    fill(published, k=OURS.public)
    published.take_up({"a": TABLE, "b": TABLE.model_copy(update={"url": "https://else.test"})}, frozenset())
    assert published.find("a", "k") is OURS.public
    with pytest.raises(KeySetUnavailable):
        published.find("b", "k")
    published.take_up({}, frozenset())
    with pytest.raises(KeyUnknown):
        published.find("a", "k")


# --- a node


def publishing(tmp_path: Path, server: KeyServer, **more: Any) -> Deployment:
    """The consumer's keys are those that it publishes, and no others."""
    deployment = standard(tmp_path)
    deployment.agency(CONSUMER, keys=[], jwks=server.table(**more))
    return deployment


def client(node: InProcess, key: jwk.PrivateKey) -> Client:
    return node.client(key=key)


async def call(node: InProcess, key: jwk.PrivateKey) -> str:
    """What becomes of a call that is signed with this key. To come again in five seconds is an answer too; that there
    was none is not, since the machine may have stood still."""
    async with asyncio.timeout(WITHIN), client(node, key) as caller:
        while True:
            try:
                return str((await caller.call(READ, PERSON_BODY, purpose="payroll", timeout=4)).state)
            except BusProblem as problem:
                return str(problem.code)
            except (Unreachable, OutcomePending):
                continue


async def becomes(expected: str, node: InProcess, key: jwk.PrivateKey) -> None:
    async with asyncio.timeout(WITHIN):
        for pause in itertools.repeat(0.05):
            if await call(node, key) == expected:
                return
            await asyncio.sleep(pause)


async def test_a_published_key_signs_from_the_first_call_on_and_an_entry_says_which_it_was(tmp_path: Path) -> None:
    async with (
        key_server(tmp_path, jwk_set(OURS.public)) as server,
        node_in_process(tmp_path, publishing(tmp_path, server)) as node,
    ):
        assert await call(node, OURS) == "done"
        (act,) = acts(node.deployment.folder)
        assert (act["act"], act["agency"], act["keys"], act["before"]) == ("key_set", CONSUMER, [OURS.kid], [])
        assert act["node"] == node.node.bus.node
        assert b"gsb_key_set_age_seconds" in node.node.bus.metrics.text({}, {})
        node.node.bus.published._sets[CONSUMER].due_at = 0.0
        server.seen.clear()
        await asyncio.wait_for(server.seen.wait(), WITHIN)
    assert len(acts(node.deployment.folder)) == 1  # read again, and the same


async def test_the_next_key_is_taken_up_early_and_the_last_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacing, "EARLY", 0.1)
    async with key_server(tmp_path, jwk_set(OURS.public)) as server:
        async with node_in_process(tmp_path, publishing(tmp_path, server)) as node:
            assert await call(node, OURS) == "done"
            assert await call(node, NEXT) == "key_unknown"
            server.body = jwk_set(OURS.public, NEXT.public)
            await becomes("done", node, NEXT)
            assert await call(node, OURS) == "done"
            server.body = jwk_set(NEXT.public)
            assert await call(node, new()) == "key_unknown"
            async with asyncio.timeout(WITHIN):
                for pause in itertools.repeat(0.05):
                    if not node.node.bus.published.counts(CONSUMER, OURS.kid):
                        break
                    await asyncio.sleep(pause)
            assert await call(node, OURS) == "key_unknown"
            assert await call(node, NEXT) == "done"
            assert node.node.bus.key_revoked(CONSUMER, NEXT.kid, 0.0) is False
            assert node.node.bus.key_revoked(CONSUMER, OURS.kid, 0.0) is None
        told = [(set(act["before"]), set(act["keys"])) for act in acts(node.deployment.folder)]
        both = {OURS.kid, NEXT.kid}
        assert told == [(set(), {OURS.kid}), ({OURS.kid}, both), (both, {NEXT.kid})]


async def test_while_it_cannot_be_read_the_last_keys_count_and_then_none(tmp_path: Path) -> None:
    clock = Clock()
    async with (
        key_server(tmp_path, jwk_set(OURS.public)) as server,
        node_in_process(tmp_path, publishing(tmp_path, server)) as node,
    ):
        node.node.bus.published.steady = clock
        for known in node.node.bus.published._sets.values():
            known.confirmed(clock.now, None)
        server.status = 500
        clock.now += 86_399
        assert await call(node, OURS) == "done"
        clock.now += 1
        assert await call(node, OURS) == "key_set_unavailable"
        server.status = 200
        clock.now += 1_000
        await becomes("done", node, OURS)


async def test_a_node_that_cannot_reach_it_starts_and_goes_by_its_files(tmp_path: Path) -> None:
    async with key_server(tmp_path, jwk_set(OURS.public)) as server:
        deployment = publishing(tmp_path, server)
    deployment.agency(CONSUMER, jwks=server.table())
    async with node_in_process(tmp_path, deployment) as node:
        assert await call(node, deployment.key(CONSUMER)) == "done"
        assert await call(node, OURS) == "key_set_unavailable"
        async with key_server(tmp_path, jwk_set(OURS.public), server.port):
            node.node.bus.published._sets[CONSUMER].due_at = 0.0
            await becomes("done", node, OURS)


async def test_a_published_key_is_revoked_by_an_act_like_any_other(tmp_path: Path) -> None:
    async with (
        key_server(tmp_path, jwk_set(OURS.public)) as server,
        node_in_process(tmp_path, publishing(tmp_path, server)) as node,
        node.operator() as operator,
    ):
        assert await call(node, OURS) == "done"
        asked = {"key": OURS.kid, "reason": "the laptop was stolen"}
        assert (await operator.admin("POST", "/admin/keys/revoke", asked)).body["owner"] == CONSUMER
        await becomes("key_revoked", node, OURS)


async def test_what_a_file_says_of_a_key_goes_before(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    others = [deployment.bus_key(), deployment.key("audit-office")]
    async with key_server(tmp_path, jwk_set(OURS.public, *(key.public for key in others))) as server:
        deployment = publishing(tmp_path, server)
        async with node_in_process(tmp_path, deployment) as node:
            assert await call(node, OURS) == "done"
            for key in others:
                assert await call(node, key) == "key_unknown"
            (deployment.folder / "keys/ours.jwk.json").write_bytes(orjson.dumps(OURS.public.jwk))
            revoked = [{"file": "keys/ours.jwk.json", "state": "revoked"}]
            deployment.agency(CONSUMER, keys=revoked, jwks=server.table())
            deployment.write()
            assert await node.node.reloader.reload("signal")
            assert await call(node, OURS) == "key_revoked"
            assert node.node.bus.key_revoked(CONSUMER, OURS.kid, node.node.bus.clock()) is True
            deployment.agency(CONSUMER)
            deployment.write()
            assert await node.node.reloader.reload("signal")
            assert await call(node, OURS) == "key_unknown"


# --- what is wrong is said


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"url": "http://keys.test/"}, "agencies/payroll.toml: jwks.url: must be https:// and a host"),
        ({"url": "https:///keys"}, "agencies/payroll.toml: jwks.url: must be https:// and a host"),
        (
            {"url": "https://u:p@keys.test/"},
            "agencies/payroll.toml: jwks.url: has a user or a fragment, which is not sent",
        ),
        ({"ca": "no.pem"}, "agencies/payroll.toml: jwks.ca: cannot be read: "),
        ({"networks": ["everywhere"]}, "agencies/payroll.toml: jwks.networks.0: "),
    ],
)
def test_what_its_table_says_wrongly_is_a_finding(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    deployment = standard(tmp_path)
    deployment.agency(CONSUMER, jwks={"url": "https://keys.test/jwks.json"} | change)
    with pytest.raises(ConfigInvalid) as wrong:
        build(deployment.write())
    assert any(str(each).startswith(expected) for each in wrong.value.findings)


async def diagnosis(deployment: Deployment) -> Found:
    (found,) = [each async for each in examine(build(deployment.write())) if each.what == f"key set: {CONSUMER}"]
    return found


async def test_the_doctor_reads_it_too(tmp_path: Path) -> None:
    async with key_server(tmp_path, jwk_set(OURS.public)) as server:
        deployment = publishing(tmp_path, server)
        assert (await diagnosis(deployment)).grade is Grade.WELL
        server.body = orjson.dumps({"keys": [OURS.public.jwk, {"kty": "oct", "k": "AAAA"}]})
        assert (await diagnosis(deployment)).grade is Grade.WARNING
        server.status = 404
        found = await diagnosis(deployment)
    assert (found.grade, found.said) == (Grade.TROUBLE, f"{server.url} cannot be read: it answers 404")
