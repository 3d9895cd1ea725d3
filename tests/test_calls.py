"""Composite services on a real node: what a step may, what it sends, what a repeat finds, and what is then said."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from gsb.calls import honest
from gsb.catalogue import ConfigInvalid, build
from gsb.client import BusProblem
from gsb.model import Reply, Request
from gsb.sdk import Broken, Refused, Unavailable
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ
from tests.support.deployment import Deployment, closed, standard
from tests.support.node import InProcess, node_in_process
from tests.support.theatre import REQUEST, empty_stage

RUN = "run/payroll/v1"
MARK = "registry/mark/v1"
AGENCY = "tax-agency"
Play = Callable[[Request], Awaitable[Reply]]


def composed(root: Path) -> Deployment:
    """The tax agency's ``run/payroll/v1``, made of the registry's services under an agreement of its own."""
    deployment = standard(root)
    deployment.files["systems/registry.toml"]["adapter"] = "puppet"
    deployment.files[f"services/{READ}.toml"]["settings"] = {}
    key = deployment.key_file(AGENCY)
    deployment.system("run", agency=AGENCY, adapter="stage", calls={"key": str(key)}, timeout=60.0)
    deployment.gsb["adapters"]["allow"] = ["puppet", "stage"]
    anything = {"type": "object"}
    deployment.service(RUN, effect="repeatable", request=closed({}, {}), reply=anything | {"examples": [{}]})
    grants = [{"service": name, "purpose": "payroll", "fields": ["/id"]} for name in (READ, MARK, ONCE)]
    deployment.agreement("a-steps", consumer=AGENCY, grants=grants)
    grant = {"service": RUN, "purpose": "payroll", "fields": [""]}
    deployment.agreement("a-run", provider=AGENCY, grants=[grant])
    return deployment


@pytest.fixture
def stage() -> Any:
    return empty_stage()


@pytest.fixture
def puppet() -> Any:
    puppet = import_module("gsb_adapter_puppet").Puppet
    puppet.reset()
    puppet.requests.clear()
    return puppet


@asynccontextmanager
async def played(root: Path, stage: Any, play: Callable[[Any, Request], Awaitable[Reply]]) -> AsyncIterator[InProcess]:
    """A node whose composite service does what ``play`` does with the adapter's ``call``."""
    async with node_in_process(root, composed(root)) as node:
        stage.plays["handle"] = lambda request: play(stage.newest[0].context.call, request)
        yield node


async def asked(node: InProcess, **more: Any) -> Any:
    async with node.client() as client:
        return await client.call(RUN, {}, purpose="payroll", timeout=60.0, **more)


async def test_a_step_is_an_exchange_of_the_providing_agency_under_its_own_agreement(
    tmp_path: Path, stage: Any, puppet: Any
) -> None:
    async def play(call: Any, request: Request) -> Reply:
        return Reply(await call(request, MARK, NOTE, step="mark", purpose="payroll"))

    async with played(tmp_path, stage, play) as node:
        result = await asked(node, sub="clerk-7", case="C-1", idempotency_key="run-1")
        assert result.body == {"id": NOTE["id"]}, "its agreement grants no more of the registry's reply"
        (step,) = puppet.requests
        assert (step.agency, step.service, step.purpose) == (AGENCY, MARK, "payroll")
        assert (step.sub, step.case) == ("clerk-7", "C-1")
        store = node.node.bus.store
        parent, inner = await store.exchange(result.exchange), await store.exchange(step.exchange)
    assert parent is not None
    assert inner is not None
    assert (inner.agency, inner.agreement, parent.agreement) == (AGENCY, "a-steps", "a-run")
    assert inner.id != parent.id


async def test_a_repeat_of_the_exchange_repeats_no_step(tmp_path: Path, stage: Any, puppet: Any) -> None:
    tries = []

    async def play(call: Any, request: Request) -> Reply:
        marked = await call(request, MARK, NOTE, step="mark", purpose="payroll")
        noted = await call(request, ONCE, NOTE, step="note", purpose="payroll")
        tries.append(request.exchange)
        if len(tries) == 1:
            raise Unavailable("in the middle", sent=False)
        return Reply({"marked": marked, "noted": noted})

    async with played(tmp_path, stage, play) as node:
        result = await asked(node)
    assert result.body == {"marked": {"id": NOTE["id"]}, "noted": {"id": NOTE["id"]}}
    assert len(tries) == 2
    assert len(set(tries)) == 1
    assert [each.service for each in puppet.requests] == [MARK, ONCE]


async def test_the_same_service_in_two_steps_is_two_exchanges(tmp_path: Path, stage: Any, puppet: Any) -> None:
    async def play(call: Any, request: Request) -> Reply:
        steps = (call(request, ONCE, NOTE, step=f"note-{number}", purpose="payroll") for number in range(3))
        return Reply({"notes": await asyncio.gather(*steps)})

    async with played(tmp_path, stage, play) as node:
        assert len((await asked(node)).body["notes"]) == 3
    assert len({each.exchange for each in puppet.requests}) == 3


async def test_a_refused_step_tells_its_code_and_a_step_without_an_agreement_is_broken(
    tmp_path: Path, stage: Any, puppet: Any
) -> None:
    codes = []

    async def refuse(request: Request) -> Reply:
        raise Refused("closed")

    async def play(call: Any, request: Request) -> Reply:
        with pytest.raises(Refused) as refused:
            await call(request, READ, PERSON_BODY, step="read", purpose="payroll")
        with pytest.raises(Broken) as broken:
            await call(request, READ, PERSON_BODY, step="other", purpose="curiosity")
        with pytest.raises(ValueError, match="step"):
            await call(request, READ, PERSON_BODY, step="a/b", purpose="payroll")
        codes.append((refused.value.code, broken.value.detail))
        return Reply({})

    puppet.acts = refuse
    async with played(tmp_path, stage, play) as node:
        # The puppet's manifest declares no code, so the bus takes its refusal for a mistake of the adapter.
        node.node.bus.runtime._lines["registry"].codes = {"closed": "Closed"}
        await asked(node)
    assert codes == [("closed", "step other: 403 purpose_not_granted")]


async def test_a_step_without_an_outcome_may_have_been_sent(tmp_path: Path, stage: Any, puppet: Any) -> None:
    seen: list[Unavailable] = []

    async def hang(request: Request) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    async def play(call: Any, request: Request) -> Reply:
        soon = dataclasses.replace(request, deadline=asyncio.get_running_loop().time() + 4.0)
        with pytest.raises(Unavailable) as raised:
            await call(soon, ONCE, NOTE, step="note", purpose="payroll")
        seen.append(raised.value)
        return Reply({})

    puppet.acts = hang
    async with played(tmp_path, stage, play) as node:
        await asked(node)
    assert [(each.sent, each.detail) for each in seen] == [(True, "step note: has no outcome yet")]


async def test_that_nothing_took_effect_is_not_said_after_a_step_that_did(
    tmp_path: Path, stage: Any, puppet: Any
) -> None:
    async def play(call: Any, request: Request) -> Reply:
        await call(request, MARK, NOTE, step="mark", purpose="payroll")
        raise Refused("closed")

    async with played(tmp_path, stage, play) as node:
        node.node.bus.runtime._lines["run"].codes = {"closed": "Closed"}
        exchange = (await asked(node, respond_async=True)).exchange
        states = []
        for _ in range(4_500):
            standing = await node.node.bus.store.exchange(exchange)
            states.append(standing and standing.state)
            if states[-1] == "held":
                break
            await asyncio.sleep(0.02)
    assert states[-1] == "held", "which only an operator ends"


async def test_after_steps_that_changed_nothing_it_may_be_said(tmp_path: Path, stage: Any, puppet: Any) -> None:
    async def play(call: Any, request: Request) -> Reply:
        await call(request, READ, PERSON_BODY, step="read", purpose="payroll")
        raise Refused("closed")

    puppet.acts = answering_person
    async with played(tmp_path, stage, play) as node:
        node.node.bus.runtime._lines["run"].codes = {"closed": "Closed"}
        with pytest.raises(BusProblem) as problem:
            await asked(node)
    assert (problem.value.state, problem.value.effect) == ("refused", "none")


async def answering_person(request: Request) -> Reply:
    money = {"amount": "1.00", "currency": "XOF"}
    return Reply({"id": "P-0001", "name": "Ada", "salary": money, "phones": []})


async def test_a_system_without_the_table_calls_nothing(tmp_path: Path, stage: Any, puppet: Any) -> None:
    deployment = composed(tmp_path)
    del deployment.files["systems/run.toml"]["calls"]
    async with node_in_process(tmp_path, deployment):
        with pytest.raises(Broken, match="may call no services"):
            await stage.newest[0].context.call(REQUEST, MARK, NOTE, step="mark", purpose="payroll")
    assert puppet.requests == []


async def test_an_unavailable_that_says_unsent_after_a_step_is_corrected() -> None:
    async def handle(request: Request) -> Reply:
        raise Unavailable("x", sent=False, after=3.0)

    with pytest.raises(Unavailable) as raised:
        await honest(handle)(REQUEST)
    assert raised.value.sent is False, "there was no step"


# --- the table


@pytest.mark.parametrize(
    ("calls", "where", "text"),
    [
        ({"key": "none.jwk"}, "calls.key", "cannot be read"),
        ({"key": "keys/hrmis-agency-es256.pub.jwk.json"}, "calls.key", "public key"),
        ({"key": "keys/bus.jwk.json"}, "calls.key", "no key of tax-agency that is in force"),
        ({"url": "https://elsewhere.example"}, "calls.url", "none of the bus's base URLs"),
        ({"kye": "x"}, "calls.kye", "is not known"),
    ],
)
def test_what_is_wrong_with_it_is_a_finding(tmp_path: Path, calls: dict[str, Any], where: str, text: str) -> None:
    deployment = composed(tmp_path)
    deployment.files["systems/run.toml"]["calls"] |= calls
    with pytest.raises(ConfigInvalid) as invalid:
        build(deployment.write())
    assert [(each.file, each.where) for each in invalid.value.findings if text in each.message] == [
        ("systems/run.toml", where)
    ]


def test_a_revoked_key_signs_no_calls(tmp_path: Path) -> None:
    deployment = composed(tmp_path)
    deployment.files[f"agencies/{AGENCY}.toml"]["keys"][0]["state"] = "revoked"
    with pytest.raises(ConfigInvalid) as invalid:
        build(deployment.write())
    assert ("systems/run.toml", "calls.key") in [(each.file, each.where) for each in invalid.value.findings]
