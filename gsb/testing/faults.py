"""The rules of how an adapter fails when its system does, each tried against a real server that misbehaves so.

Each is a function of the subject that yields what breaks it, or raises ``NotApplicable``. What counts is what follows:
``Unavailable`` is tried again, ``Refused`` is final, ``Broken`` calls an operator, and a reply is believed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import product
from typing import Any, NamedTuple

from gsb.model import Effect
from gsb.sdk.adapter import Adapter
from gsb.sdk.errors import Broken, Unavailable
from gsb.sdk.http import Http
from gsb.testing.cassette import Cassette, Played, Tape
from gsb.testing.peer import WISH, Mood, Peer
from gsb.testing.subject import GRACE, Came, Subject, is_ours

ODD: dict[str, dict[str, Any]] = {
    "an HTML page": {"answer_text": "<html>It works!</html>"},
    "JSON that breaks off": {"answer_text": '{"a": '},
    "JSON of another shape": {"answer": ["garbage"]},
    "a JSON text": {"answer": "garbage"},
    "status 500 and a page": {"status": 500, "answer_text": "<html>Oops</html>"},
    "status 302": {"status": 302, "headers": {"Location": "http://127.0.0.1:9/"}},
}
"""Answers that are HTTP and make no sense."""
LATE = 0.8
"""Of what a program says, the part after which it fails: it has understood what it was asked by then."""


class NotApplicable(Exception):
    """The rule does not concern this adapter; the text says why."""


class Scene(NamedTuple):
    """The adapter, opened against the suite's own system."""

    subject: Subject
    adapter: Adapter[Any, Any]
    peer: Peer
    timeout: float
    said: Mapping[str, int]
    """How much a program that does well says in the example of each service, in bytes."""

    async def call(self, cassette: Cassette) -> Came:
        self.peer.tape = Tape([cassette])
        self.peer.said_bytes, self.peer.most = 0, int(LATE * self.said.get(cassette.service, 0))
        return await self.subject.call(self.adapter, cassette.asked(), self.timeout * 1.5)


@asynccontextmanager
async def scene(subject: Subject, *, up: bool = True, timeout: float = GRACE) -> AsyncIterator[Scene]:
    """Raises NotApplicable where the suite's system cannot stand in for the real one. The time is short only where the
    rule waits for its end: a busy machine must not look like a system that says nothing."""
    table = subject.contract
    if table.peer == "none":
        raise NotApplicable("it reaches nothing over a network that could fail so")
    said = await _said(subject) if table.peer == "program" else {}
    async with subject.served(raw=table.peer == "tcp") as (peer, folder):
        if not up:
            await peer.down()
        tables = subject.tables(peer.url, faulty=True)
        async with subject.opened(folder, tables, http=Http(timeout)) as adapter:
            yield Scene(subject, adapter, peer, timeout, said)


async def _said(subject: Subject) -> Mapping[str, int]:
    found = {}
    async with (
        subject.served() as (peer, folder),
        subject.opened(folder, subject.tables(peer.url), http=Http(GRACE)) as adapter,
    ):
        for example in subject.examples():
            peer.said_bytes = 0
            await subject.call(adapter, example.asked(), GRACE)
            found[example.service] = peer.said_bytes
    return found


async def down(subject: Subject) -> AsyncIterator[str]:
    """A system that is down is tried again later, and is used again as soon as it is back."""
    async with scene(subject, up=False) as at:
        for example in subject.examples():
            came = await at.call(example)
            if not (isinstance(came.error, Unavailable) and not came.error.sent):
                yield f"{example.service}: nothing listens, and what comes is {came}, not Unavailable(sent=False)"
        if subject.answers:
            await at.peer.up()
            for example in subject.examples():
                if (came := await at.call(example)).reply is None:
                    yield f"{example.service}: the system is back, and what comes is {came}"


async def slow(subject: Subject) -> AsyncIterator[str]:
    """A system that takes too long has not said anything yet: no answer may be made up, and no call may go on."""
    async with scene(subject, timeout=subject.contract.timeout) as at:
        moods = (Mood.SILENT, Mood.TRICKLE) if subject.contract.peer == "http" else (Mood.SILENT,)
        for mood in moods:
            at.peer.mood = mood
            for example in subject.examples():
                came = await at.call(example)
                if not (isinstance(came.error, Unavailable) or _cancelled(came)):
                    yield f"{example.service}: the system answers {mood.value}, and what comes is {came}"


async def garbage(subject: Subject) -> AsyncIterator[str]:
    """What makes no sense is nobody's reply: it is one of the three errors, and nothing else escapes."""
    async with scene(subject) as at:
        at.peer.mood = Mood.NOISE
        for example in subject.examples():
            for fault in _believed(subject, example, await at.call(example), "bytes that are no HTTP"):
                yield fault
        at.peer.mood = Mood.SAY
        for what, said in ODD.items() if subject.contract.peer == "http" else ():
            at.peer.said = Played(method="GET", path="/", **said)
            for example in subject.examples():
                for fault in _believed(subject, example, await at.call(example), what):
                    yield fault


async def half_closed(subject: Subject) -> AsyncIterator[str]:
    """An answer that breaks off is no answer, however good its beginning."""
    async with scene(subject) as at:
        at.peer.mood = Mood.HALF
        for example in subject.examples():
            at.peer.said = example.calls[-1] if example.calls else at.peer.said
            came = await at.call(example)
            if not (isinstance(came.error, (Unavailable, Broken)) or _cancelled(came)):
                yield f"{example.service}: the answer breaks off, and what comes is {came}"


async def throttled(subject: Subject) -> AsyncIterator[str]:
    """A system that asks for a pause gets it: ``Retry-After`` becomes ``Unavailable(after=)``."""
    if subject.contract.peer != "http":
        raise NotApplicable("it does not speak HTTP")
    async with scene(subject) as at:
        at.peer.mood = Mood.SAY
        at.peer.said = Played(method="GET", path="/", status=429, headers={"Retry-After": str(WISH)})
        for example in subject.examples():
            came = await at.call(example)
            if not (isinstance(came.error, Unavailable) and came.error.after == WISH):
                told = f" with after={came.error.after}" if isinstance(came.error, Unavailable) else ""
                yield f"{example.service}: 429 with Retry-After: {WISH}, and what comes is {came}{told}"


async def sent(subject: Subject) -> AsyncIterator[str]:
    """``sent=False`` lets the bus repeat what must not act twice, so it is said only if nothing that acts reached the
    system, whatever becomes of the calls after that."""
    for mood in (Mood.CUT, Mood.SILENT, Mood.HALF):
        async with scene(subject, timeout=subject.contract.timeout if mood is Mood.SILENT else GRACE) as at:
            at.peer.mood = mood
            for example in subject.examples():
                if await _denied(at, example):
                    got = f"the system got {at.peer.bytes} bytes and answered {mood.value}"
                    yield f"{example.service}: {got}, and it says sent=False"
    async for fault in _sent_before(subject):
        yield fault


async def _sent_before(subject: Subject) -> AsyncIterator[str]:
    """The same where the system fails in the middle of an exchange of several calls."""
    several = [each for each in subject.examples() if subject.effect(each) is not Effect.NONE and len(each.calls) > 1]
    for example in several:
        async with scene(subject) as at:
            for number, mood in product(range(1, len(example.calls)), (None, Mood.CUT)):
                at.peer.mood, at.peer.then, at.peer.plays = Mood.PLAY, mood, number
                denied = await _denied(at, example)
                if mood is None:
                    await at.peer.down()
                    await at.peer.up()
                if denied:
                    how = "is gone" if mood is None else f"answers {mood.value}"
                    acting = (
                        "" if any(call.acts for call in example.calls) else " (its example marks no call with acts)"
                    )
                    yield f"{example.service}: after {number} calls the system {how}, and it says sent=False{acting}"


async def _denied(at: Scene, example: Cassette) -> bool:
    """Whether it says that nothing was sent, although the system got what acts."""
    at.peer.bytes = 0
    at.peer.seen.clear()
    came = await at.call(example)
    return isinstance(came.error, Unavailable) and not came.error.sent and _acting(at, example)


def _acting(at: Scene, example: Cassette) -> bool:
    """Whether anything came in that acts: what the example marks, and whatever it does not know."""
    if not any(call.acts for call in example.calls):
        return at.peer.bytes > 0
    return any(
        all(call.acts for call in example.calls if (call.method, call.path) == seen[:2] and call.same(seen.content))
        for seen in at.peer.seen
    )


def _cancelled(came: Came) -> bool:
    """It ended because its time was over, which the bus takes for what it is."""
    return not came.stuck and came.reply is None and not isinstance(came.error, Exception)


def _believed(subject: Subject, example: Cassette, came: Came, what: str) -> list[str]:
    """A reply that does not fit its schema is stopped by the bus; one that fits is believed."""
    if came.reply is not None:
        faults = subject.schemas[f"{example.service}/reply"].faults(came.reply.body)
        return [] if faults else [f"{example.service}: the system answers {what}, and that becomes a reply"]
    if is_ours(came.error) or _cancelled(came):
        return []
    return [f"{example.service}: the system answers {what}, and what escapes is {came}"]
