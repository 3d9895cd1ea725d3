"""What is not the caller's doing: core systems that fail, agreements that end, operators who close.

Each code that no bad input can bring about is brought about here for real: by the core system of the stage, another
catalogue, a clock that moves on. What is the bus's own trouble stands in ``troubles``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from gsb.model import State
from gsb.sdk import Broken, Refused, Unavailable
from tests.bad_input.case import ABOUT, Case, Step
from tests.bad_input.draft import Draft, body, header, put
from tests.bad_input.stage import (
    CLOSE,
    READ,
    REPLY,
    RULINGS,
    WRITE,
    Stage,
)
from tests.support.bus import puppet, raising

SYSTEMS_WORDS = "canary: row 7 of table persons"
"""What the core system says when it fails. Nobody but the evidence may hear it."""


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
