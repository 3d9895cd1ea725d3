"""A bus in trouble: busy, stopping, with a full disk, a damaged store or no key, and what its callers then hear.

Each of ``TROUBLES`` has a node of its own and says which codes were heard.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from gsb.evidence.entry import make_entry
from gsb.model import Reply, Request
from gsb.sources import KeySetTable
from gsb.store.contract import Reservation
from gsb.store.sqlite import SqliteStore
from tests.bad_input.case import ABOUT, Case
from tests.bad_input.draft import Draft, put, text_of
from tests.bad_input.judge import held
from tests.bad_input.stage import (
    ACT,
    BODY,
    LISTING,
    NOTE,
    READING,
    REPLY,
    WRITE,
    Stage,
    deployment_of,
    furnish,
    stage_in,
)
from tests.bad_input.wire import WITHIN, say
from tests.support.bus import puppet
from tests.support.damage import damage
from tests.support.deployment import BUS, CONSUMER
from tests.support.node import RunningNode, running_node

Trouble = Callable[[Path], Awaitable[set[str]]]


async def _hear(stage: Stage, case: Case) -> str:
    """One call now, held to the case; the code."""
    draft = stage.draft(case.kind)
    case.spoil(draft)
    token, data = draft.render()
    heard = await say(draft.port, data)
    assert heard is not None
    held(stage, case, draft, token, heard)
    return str(orjson.loads(heard.body)["code"])


@dataclass
class Slow:
    """A core system that does not answer before it is told to."""

    entered: asyncio.Event
    leave: asyncio.Event

    async def __call__(self, request: Request) -> Reply:
        self.entered.set()
        await self.leave.wait()
        return Reply(request.body)


@asynccontextmanager
async def _one_call_in_flight(root: Path, **limits: Any) -> AsyncIterator[tuple[Stage, Slow, asyncio.Task[Any]]]:
    deployment = deployment_of(root)
    deployment.gsb["limits"] |= limits
    async with stage_in(root, deployment) as stage:
        puppet().acts = slow = Slow(asyncio.Event(), asyncio.Event())
        asked = asyncio.create_task(stage.send(stage.draft(WRITE)))
        await asyncio.wait_for(slow.entered.wait(), WITHIN)
        try:
            yield stage, slow, asked
        finally:
            slow.leave.set()
            heard = await asked
        assert heard is not None
        assert heard.status == 200


async def too_many(root: Path) -> set[str]:
    async with _one_call_in_flight(root, in_flight=1) as (stage, _, _):
        return {
            await _hear(stage, Case("bus", "value", "busy", put(), "busy", kind, signed=False))
            for kind in (WRITE, LISTING)
        }


async def too_many_of_one(root: Path) -> set[str]:
    async with _one_call_in_flight(root, in_flight_agency=1) as (stage, _, _):
        return {await _hear(stage, Case("bus", "value", "busy", put(), "busy", kind)) for kind in (WRITE, LISTING)}


async def too_slow(root: Path) -> set[str]:
    deployment = deployment_of(root)
    deployment.gsb["limits"] |= {"header_within": 0.2, "body_within": 0.2}
    begun = put(message=lambda sent: sent[:20]), put(message=lambda sent: sent[:-1])
    async with stage_in(root, deployment) as stage:
        return {
            await _hear(stage, Case("bus", "value", "slow", spoil, "request_too_slow", signed=False)) for spoil in begun
        }


async def stopping(root: Path) -> set[str]:
    async with _one_call_in_flight(root) as (stage, slow, asked):
        node = stage.node.node
        node.failed.set()  # else those that are there may bring a last call each, and new ones are not taken
        stopped = asyncio.create_task(node.stop())
        await asyncio.sleep(0)  # its first step says that it takes nothing any more
        seen = {
            await _hear(stage, Case("bus", "value", "draining", put(), "draining", kind, signed=False))
            for kind in (WRITE, LISTING)
        }
        slow.leave.set()
        await asked
        await stopped
    return seen


def _without_its_reply(asked: Draft, code: str) -> Iterator[Case]:
    """What is told of an exchange that has ended: to its owner, to a repeat under its key, and to an inspector."""
    ended, again = ("done", "done"), put(key=asked.key, body=asked.body)
    yield Case("bus", "value", "its owner", put(), code, REPLY, members=ABOUT, exchange=ended)
    yield Case("bus", "value", "a repeat", again, code, WRITE, members=ABOUT, exchange=ended, replayed=True)
    yield Case("bus", "value", "an inspector", put(), code, BODY, members=ABOUT)


async def too_old(root: Path) -> set[str]:
    """The bodies of an exchange have reached their age; the exchange and its key have not."""
    deployment = deployment_of(root)
    deployment.gsb["retention"] = {"bodies_days": 10}
    async with stage_in(root, deployment) as stage:
        asked = await furnish(stage)
        stage.clock.now += 11 * 86_400
        seen = {await _hear(stage, case) for case in _without_its_reply(asked, "reply_gone")}
        shown = await stage.send(stage.draft(READING))
        assert shown is not None
        assert (shown.status, orjson.loads(shown.body)["effect"]) == (200, "done")
    return seen


async def damaged(root: Path) -> set[str]:
    """The stored reply of an exchange is damaged: how it ended is told, and nothing is done again."""
    async with stage_in(root) as stage:
        asked = await furnish(stage)
        damage(stage.deployment.folder / "store.db", "reply", stage.exchange)
        return {await _hear(stage, case) for case in _without_its_reply(asked, "reply_unreadable")}


class Mistaken(SqliteStore):
    """A store with a defect: the one kind of trouble that nobody foresaw."""

    wrong = False

    async def look(self, issuer: str, jti: str, key: str | None) -> Reservation | None:
        if Mistaken.wrong:
            raise LookupError(f"{jti} of {issuer} under {key}: canary")
        return await super().look(issuer, jti, key)


async def a_defect(root: Path) -> set[str]:
    async with stage_in(root, kind_of_store=Mistaken) as stage:
        await furnish(stage)
        Mistaken.wrong = True
        try:
            mistaken = Case("bus", "value", "a defect", put(), "internal_error", WRITE, signed=True)
            seen = {await _hear(stage, mistaken)}
            stage.log.taken()
        finally:
            Mistaken.wrong = False
    return seen


async def no_key(root: Path) -> set[str]:
    """The bus can say nothing in its own name, so it takes nothing, and says that."""
    async with stage_in(root) as stage:
        await furnish(stage)
        with stage.catalogue("gsb.toml"):
            stage.node.node.bus.catalogue.bus_keys._keys = ()
            return {
                await _hear(stage, Case("bus", "value", "no key", put(), "signing_unavailable", kind, signed=False))
                for kind in (WRITE, LISTING, REPLY, ACT)
            }


async def no_key_set(root: Path) -> set[str]:
    """The caller publishes its keys where they cannot be read: nobody can say whether one of them signed."""
    async with stage_in(root) as stage:
        await furnish(stage)
        table = KeySetTable(url="https://keys.test/jwks.json")
        with stage.catalogue(f"agencies/{CONSUMER}.toml", keys=[], jwks={"url": table.url}):
            published = stage.node.node.bus.published
            published.take_up({CONSUMER: table}, frozenset())
            assert [agency for agency, _ in published.due()] == [CONSUMER]  # from now on it is being read
            return {
                await _hear(stage, Case("bus", "value", "no key set", put(), "key_set_unavailable", kind, signed=False))
                for kind in (WRITE, LISTING, REPLY)
            }


async def a_full_disk(root: Path) -> set[str]:
    """In a process of its own, whose files may not grow for a while."""
    deployment = deployment_of(root)
    deployment.files["systems/registry.toml"]["adapter"] = "echo"
    deployment.gsb["adapters"]["allow"] = ["echo"]
    async with running_node(root, deployment) as node:
        assert await _say_to(node) == (200, None)
        await _recorded(node)
        limits = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
        status, code = await _say_to(node)
        assert status == 503
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, limits)
        assert await _say_to(node) == (200, None)
        await node.stop()
        assert "canary" not in "\n".join(node.log)
        assert code is not None
        return {code}


async def _recorded(node: RunningNode) -> None:
    """Wait until nothing is left to be recorded: the log is on the same disk, and another trouble."""
    async with asyncio.timeout(WITHIN), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{node.operations_url}/metrics") as answer:
                if "\ngsb_log_backlog_entries 0.0\n" in await answer.text():
                    return
            await asyncio.sleep(0.05)


async def _say_to(node: RunningNode) -> tuple[int, str | None]:
    deployment = node.deployment
    draft = Draft(
        port=deployment.port,
        base_url=deployment.bus_url,
        method="POST",
        target="/services/registry/note/v1",
        issuer="payroll",
        audience=BUS,
        signer=deployment.key("payroll"),
        now=int(time.time()),
        jti=f"canary-{time.monotonic_ns():032}",
        key=f"canary-{time.monotonic_ns()}",
        body=text_of(NOTE),
        headers={"Content-Type": [b"application/json"]},
        said={"purpose": "payroll"},
    )
    heard = await say(draft.port, draft.render()[1])
    assert heard is not None
    if heard.status < 400:
        return heard.status, None
    assert heard.one("content-type") == "application/problem+json"
    assert heard.one("gsb-signature") is not None
    assert (heard.one("retry-after") or "").isdigit()
    assert b"canary" not in heard.body
    return heard.status, str(orjson.loads(heard.body)["code"])


async def unproven(root: Path) -> set[str]:
    """Nothing new is admitted while the evidence log cannot be written; what is there can be read."""
    async with stage_in(root) as stage:
        await furnish(stage)
        folder, recorder = stage.node.deployment.log_folder, stage.node.node.recorder
        await recorder.look()
        aside = folder.rename(root / "aside")
        folder.write_text("no folder")
        await furnish(stage)
        await recorder.look()
        seen = {await _hear(stage, Case("bus", "value", "behind", put(), "recorder_behind", WRITE, signed=False))}
        heard = await stage.send(stage.draft(READING))
        assert heard is not None
        assert heard.status == 200
        folder.unlink()
        aside.rename(folder)
        await recorder.look()
        await furnish(stage)
    return seen


async def restored(root: Path) -> set[str]:
    """Writes wait for an operator's word; what does not act is answered."""
    async with stage_in(root) as stage:
        await furnish(stage)
        bus = stage.node.node.bus
        await bus.store.withhold(make_entry("restored", bus.clock(), {}, {}))
        bus.withheld = await bus.store.withheld()
        seen = {await _hear(stage, Case("bus", "value", "restored", put(), "writes_withheld", WRITE))}
        heard = await stage.send(stage.draft(READING))
        assert heard is not None
        assert heard.status == 200
        await bus.store.admit_writes(make_entry("writes_admitted", bus.clock(), {}, {}))
        await stage.node.node.recorder.measure()
        await furnish(stage)
    return seen


TROUBLES: dict[str, Trouble] = {
    "too many calls at once": too_many,
    "too many calls of one agency at once": too_many_of_one,
    "a request that does not come to its end": too_slow,
    "a node that stops": stopping,
    "an outcome that is too old": too_old,
    "a log that cannot be written": unproven,
    "an outcome that is damaged": damaged,
    "a defect of the bus": a_defect,
    "no key of its own in force": no_key,
    "keys of the caller that cannot be read": no_key_set,
    "a full disk": a_full_disk,
    "a store that was restored": restored,
}
