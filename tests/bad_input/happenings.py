"""What is not the caller's doing: core systems that fail, agreements that end, operators who close, a bus in trouble.

Each code that no bad input can bring about is brought about here for real: by the core system of the stage, another
catalogue, a clock that moves on, a full disk. ``outcome_cases`` share the stage; each of ``TROUBLES`` has a node.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from gsb.model import Reply, Request, State
from gsb.sdk import Broken, Refused, Unavailable
from gsb.store.contract import Reservation
from gsb.store.sqlite import SqliteStore
from tests.bad_input.case import Case, Step
from tests.bad_input.draft import Draft, body, header, put, text_of
from tests.bad_input.judge import held
from tests.bad_input.stage import (
    ACT,
    BODY,
    CLOSE,
    LISTING,
    NOTE,
    READ,
    READING,
    REPLY,
    RULINGS,
    WRITE,
    Stage,
    deployment_of,
    furnish,
    stage_in,
)
from tests.bad_input.wire import say
from tests.support.bus import puppet, raising
from tests.support.damage import damage
from tests.support.deployment import BUS
from tests.support.node import RunningNode, running_node

SYSTEMS_WORDS = "canary: row 7 of table persons"
"""What the core system says when it fails. Nobody but the evidence may hear it."""
ABOUT: dict[str, Any] = {"exchange": ..., "state": ..., "effect": ...}
"""Members with which a problem speaks of an exchange; their values are held to the signed claims' elsewhere."""


def _acting(error: Exception) -> Step:
    async def step(stage: Stage, draft: Draft) -> None:
        puppet().acts = raising(error)

    return step


async def _reset(stage: Stage, draft: Draft) -> None:
    puppet().reset()


def _of(exchange: str, draft: Draft) -> None:
    """Have the draft, a GET of the reply, ask for this exchange."""
    draft.target = f"/exchanges/{exchange}/reply"


async def _waiting(stage: Stage) -> str:
    """An exchange that its system could not be asked about yet."""
    puppet().acts = raising(Unavailable(SYSTEMS_WORDS, sent=False))
    exchange = await stage.accepted(WRITE, _spare_key(stage))
    await stage.standing(exchange, State.WAITING)
    return exchange


def _spare_key(stage: Stage) -> Callable[[Draft], None]:
    return put(signer=stage.further_key("payroll", "spare"))


async def _out_of_time(stage: Stage, draft: Draft) -> None:
    exchange = await _waiting(stage)
    stage.clock.now += 7_200
    await stage.begin_again(exchange)
    await stage.standing(exchange, State.EXPIRED)
    _of(exchange, draft)
    draft.now = int(stage.clock.now)


async def _key_revoked_meanwhile(stage: Stage, draft: Draft) -> None:
    exchange = await _waiting(stage)
    table = stage.deployment.files["agencies/payroll.toml"]
    keys = [key | {"state": "revoked"} if "payroll-spare" in key["file"] else key for key in table["keys"]]
    with stage.catalogue("agencies/payroll.toml", keys=keys):
        await stage.begin_again(exchange)
        await stage.standing(exchange, State.FAILED)
    _of(exchange, draft)


async def _closed(stage: Stage, draft: Draft) -> None:
    puppet().acts = raising(Broken(SYSTEMS_WORDS))
    exchange = await stage.accepted(READ)
    await stage.standing(exchange, State.HELD)
    act = stage.draft(CLOSE)
    act.target = f"/admin/exchanges/{exchange}/close"
    body(RULINGS[CLOSE] | {"state": "failed", "effect": "none"})(act)
    heard = await stage.send(act)
    assert heard is not None
    assert heard.status == 200, heard.body
    _of(exchange, draft)


def _suspended() -> tuple[Step, Step]:
    """The agreement of a finished exchange is suspended, and taken up again."""
    entered: list[AbstractContextManager[None]] = []

    async def before(stage: Stage, draft: Draft) -> None:
        entered.append(stage.catalogue("agreements/a-1.toml", suspended=True))
        entered[-1].__enter__()

    async def after(stage: Stage, draft: Draft) -> None:
        entered.pop().__exit__(None, None, None)

    return before, after


def outcome_cases() -> Iterator[Case]:
    row = "outcomes"
    reason = {"reason": "not_found"}
    no = _acting(Refused("not_found", SYSTEMS_WORDS))
    for kind in (WRITE, READ):
        yield Case(
            row, "value", "the system says no", put(), "system_refused", kind,
            members=ABOUT | reason, exchange=("refused", "none"), before=no, after=_reset,
        )  # fmt: skip
    # The core system answers a read with the request, which is no person.
    nonsense = ("failed", "none")
    yield Case(row, "value", "nonsense", put(), "reply_invalid", READ, members=ABOUT, exchange=nonsense)
    yield Case(
        row, "value", "out of time", put(), "exchange_expired", REPLY,
        members=ABOUT, exchange=("expired", "none"), before=_out_of_time, after=_reset,
    )  # fmt: skip
    yield Case(
        row, "value", "its key was revoked", put(), "authority_withdrawn", REPLY,
        members=ABOUT, exchange=("failed", "none"), before=_key_revoked_meanwhile, after=_reset,
    )  # fmt: skip
    yield Case(
        row, "value", "an operator closed it", put(), "closed_by_operator", REPLY,
        members=ABOUT, exchange=("failed", "none"), before=_closed, after=_reset,
    )  # fmt: skip
    before, after = _suspended()
    yield Case(
        row, "value", "its agreement ended", put(), "agreement_ended", REPLY,
        members=ABOUT, exchange=("done", "done"), before=before, after=after,
    )  # fmt: skip
    yield Case(
        row, "right", "it is not known whether it took effect", header("Prefer", b"wait=60"), None, WRITE, 202,
        exchange=("unknown", None), before=_acting(Unavailable(SYSTEMS_WORDS, sent=True)), after=_reset,
    )  # fmt: skip
    yield Case(
        row, "right", "an adapter that breaks", header("Prefer", b"wait=60"), None, WRITE, 202,
        exchange=("unknown", None), before=_acting(RuntimeError(SYSTEMS_WORDS)), after=_reset,
    )  # fmt: skip


# --- a bus in trouble ---------------------------------------------------------------------------------------

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
    deployment.files["systems/registry.toml"]["timeout"] = 20
    async with stage_in(root, deployment) as stage:
        puppet().acts = slow = Slow(asyncio.Event(), asyncio.Event())
        asked = asyncio.create_task(stage.send(stage.draft(WRITE)))
        await slow.entered.wait()
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
        stopped = asyncio.create_task(node.stop())
        await asyncio.sleep(0)  # its first step says that it drains
        seen = {
            await _hear(stage, Case("bus", "value", "draining", put(), "draining", kind, signed=False))
            for kind in (WRITE, LISTING)
        }
        slow.leave.set()
        await asked
        await stopped
    return seen


async def too_old(root: Path) -> set[str]:
    """The bodies of an exchange have reached their age; the exchange and its key have not."""
    deployment = deployment_of(root)
    deployment.gsb["retention"] = {"bodies_days": 10}
    async with stage_in(root, deployment) as stage:
        asked = await furnish(stage)
        again = put(key=asked.key, body=asked.body)
        stage.clock.now += 11 * 86_400
        ended = ("done", "done")
        seen = {
            await _hear(stage, Case("bus", "value", "old", spoil, "reply_gone", kind, members=ABOUT, exchange=about))
            for spoil, kind, about in ((put(), REPLY, ended), (again, WRITE, ended), (put(), BODY, None))
        }
        shown = await stage.send(stage.draft(READING))
        assert shown is not None
        assert (shown.status, orjson.loads(shown.body)["effect"]) == (200, "done")
    return seen


async def damaged(root: Path) -> set[str]:
    """The stored reply of an exchange is damaged: how it ended is told, and nothing is done again."""
    async with stage_in(root) as stage:
        asked = await furnish(stage)
        again = put(key=asked.key, body=asked.body)
        damage(stage.deployment.folder / "store.db", "reply", stage.exchange)
        ended = ("done", "done")
        return {
            await _hear(
                stage, Case("bus", "value", "lost", spoil, "reply_unreadable", kind, members=ABOUT, exchange=at)
            )
            for spoil, kind, at in ((put(), REPLY, ended), (again, WRITE, ended), (put(), BODY, None))
        }


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
    async with asyncio.timeout(10), aiohttp.ClientSession() as session:
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
    "a full disk": a_full_disk,
}
