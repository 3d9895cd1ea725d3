"""The idempotency rules, as the wire profile's table has them."""

from __future__ import annotations

from collections.abc import Iterator

from gsb.model import State
from gsb.sdk import Refused, Unavailable
from tests.bad_input.case import ABOUT, Case, Step
from tests.bad_input.draft import GONE, Draft, Spoil, body, claims, header, put
from tests.bad_input.rows_http import KEY
from tests.bad_input.stage import FORM, MARK, NOTE, NOWHERE, RATED, READ, SUBJECT, WRITE, Stage
from tests.support.bus import answering, puppet, raising
from tests.support.deployment import PERSON


async def _person(stage: Stage, draft: Draft) -> None:
    puppet().acts = answering(PERSON | {"id": SUBJECT})


async def _reset(stage: Stage, draft: Draft) -> None:
    puppet().reset()


def _after_one_of(kind: str, *spoils: Spoil) -> Step:
    """A call was answered under the key that the case's call has too; ``spoils`` are done to that earlier one."""

    async def before(stage: Stage, draft: Draft) -> None:
        earlier = stage.draft(kind)
        earlier.key = draft.key
        for spoil in spoils:
            spoil(earlier)
        await stage.send(earlier)

    return before


def idempotency_cases() -> Iterator[Case]:
    """Rows named as the page names them."""
    done = ("done", "done")
    yield Case("a new key", "right", "once", put(), None, WRITE, exchange=done)
    repeat = "a known key, same content, exchange final"
    yield Case(repeat, "right", "again", put(), None, WRITE, exchange=done, before=_after_one_of(WRITE), replayed=True)
    other = "a known key, other content"
    for what, kind, spoil in (
        ("the body", WRITE, body(NOTE | {"text": "canary, another"})),
        ("a space in the body", WRITE, put(body=b'{"id": "P-7777","text":"canary text"}')),
        ("the purpose", WRITE, claims(purpose="for-somebody")),
        ("sub", WRITE, claims(sub="canary, another")),
        ("no sub", WRITE, claims(sub=GONE)),
        ("case", WRITE, claims(case="canary, another")),
        ("the service", MARK, put()),
        ("a service that is not there", NOWHERE, put()),
    ):
        yield Case(other, "value", what, spoil, "idempotency_key_reused", kind, before=_after_one_of(WRITE))
    no_key = "no key, to a service that is not a read"
    for kind in (WRITE, MARK, FORM):
        yield Case(no_key, "missing", "left out", put(key=None), "idempotency_key_missing", kind)
    for kind in (WRITE, READ):
        differ = "header and claim that differ, or one without the other"
        yield Case(differ, "missing", "no header", header(KEY), "idempotency_key_mismatch", kind)
        yield Case(differ, "missing", "no claim", claims(idempotency_key=GONE), "idempotency_key_mismatch", kind)
        yield Case(differ, "value", "another", claims(idempotency_key="canary"), "idempotency_key_mismatch", kind)
    malformed = "a malformed key"
    yield Case(malformed, "value", "a space", header(KEY, b"can ary"), "idempotency_key_malformed", WRITE)
    same_jti = "the same `jti` again, whatever the key"
    yield Case(same_jti, "duplicated", "another key", put(), "replayed", WRITE, before=_same_jti)
    refused = "a key whose call was refused before it was accepted"
    mend = _after_one_of(WRITE, body(NOTE | {"id": "canary"}))
    yield Case(refused, "right", "mended", put(), None, WRITE, exchange=done, before=mend)
    yield Case(
        "no key, to a service that is not a read", "right", "to a read", put(key=None), None, READ,
        exchange=("done", "none"), before=_person, after=_reset,
    )  # fmt: skip
    told = {"agreement": ..., "violated-policies": ["burst"]}
    yield Case("rate", "value", "used up", put(), "rate_exceeded", RATED, members=told, before=_use_up)
    yield from _ended_cases()


def _ended_cases() -> Iterator[Case]:
    """The first outcome again, although the core system would do by now what it is asked."""
    row = "a key whose exchange ended `refused`, `failed` or `expired`"
    for state, code, kind, before, more in (
        ("refused", "system_refused", WRITE, _refused, {"reason": "not_found"}),
        ("failed", "reply_invalid", READ, _failed, {}),
        ("expired", "exchange_expired", WRITE, _expired, {}),
    ):
        yield Case(
            row, "right", state, put(key=f"canary-{state}"), code, kind, members=ABOUT | more,
            exchange=(state, "none"), before=before, after=_reset, replayed=True,
        )  # fmt: skip


async def _refused(stage: Stage, draft: Draft) -> None:
    puppet().acts = raising(Refused("not_found"))
    await _after_one_of(WRITE)(stage, draft)
    puppet().reset()


async def _failed(stage: Stage, draft: Draft) -> None:
    """What answers a read with the request is no person."""
    await _after_one_of(READ)(stage, draft)
    await _person(stage, draft)


async def _expired(stage: Stage, draft: Draft) -> None:
    puppet().acts = raising(Unavailable(sent=False))
    exchange = await stage.accepted(WRITE, put(key=draft.key))
    await stage.standing(exchange, State.WAITING)
    stage.clock.now += 7_200
    await stage.begin_again(exchange)
    await stage.standing(exchange, State.EXPIRED)
    draft.now = int(stage.clock.now)
    puppet().reset()


ELSEWHERE = {
    "a known key, same content, exchange not final": "tests/test_admit.py",
    "two calls with the same new key at once": "tests/test_admit.py",
}
"""Rows of the page that are no bad input, and where they are shown."""


async def _same_jti(stage: Stage, draft: Draft) -> None:
    earlier = stage.draft(WRITE)
    draft.jti = earlier.jti
    await stage.send(earlier)


async def _use_up(stage: Stage, draft: Draft) -> None:
    await stage.send(stage.draft(RATED))
