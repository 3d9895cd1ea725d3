"""The rules of how an adapter behaves while its system does well: replies, repeats, crowds, silence, leaving.

Each is a function of the subject that yields what breaks it, or raises ``NotApplicable``.
"""

from __future__ import annotations

import asyncio
import io
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from gsb.model import Effect
from gsb.plans import secret_files
from gsb.sdk.adapter import Adapter
from gsb.sdk.http import Http
from gsb.telemetry import JsonLines
from gsb.testing.cassette import Cassette, Played, Tape
from gsb.testing.faults import NotApplicable
from gsb.testing.peer import Barrier, Mood, Peer
from gsb.testing.subject import GRACE, Came, Subject, given_up
from gsb.watchdog import LIMIT, Blocked, Watchdog

CROWD = 4
ROUNDS = 3
CANARY = "canary-4d1f"
SHORTEST = 4
"""Characters of a value for which logs are searched; a shorter one stands there by chance."""


@asynccontextmanager
async def stage(subject: Subject) -> AsyncIterator[tuple[Adapter[Any, Any], Peer, Path]]:
    """The adapter, opened against the suite's own system, and the deployment's folder."""
    async with (
        subject.served() as (peer, folder),
        subject.opened(folder, subject.tables(peer.url), http=Http(GRACE), at=_time(subject)) as adapter,
    ):
        yield adapter, peer, folder


def _time(subject: Subject) -> float:
    return next((each.at for each in subject.cassettes.values()), 0.0)


async def _calm(subject: Subject, adapter: Adapter[Any, Any], peer: Peer, cassette: Cassette) -> Came:
    """A call that nothing hinders: it has all the time that a loaded machine may need."""
    peer.tape = Tape([cassette])
    return await subject.call(adapter, cassette.asked(), GRACE)


async def reply(subject: Subject) -> AsyncIterator[str]:
    """A reply that does not fit is no reply: the bus tells nobody, and a write becomes unknown."""
    for name, cassette in subject.cassettes.items():
        async with (
            subject.served() as (peer, folder),
            subject.opened(folder, subject.tables(peer.url), http=Http(GRACE), at=cassette.at) as adapter,
        ):
            for fault in _differs(subject, cassette, await _calm(subject, adapter, peer, cassette)):
                yield f"{name}.json: {fault}"
        for unknown in peer.tape.unknown:
            yield f"{name}.json: the adapter asked for {unknown}, which the cassette does not hold"


def _differs(subject: Subject, cassette: Cassette, came: Came) -> Iterator[str]:
    code = getattr(came.error, "code", None)
    if cassette.refused is not None:
        if code != cassette.refused:
            yield f"it should be refused with {cassette.refused}, and what comes is {came}"
        return
    if came.reply is None:
        yield f"what comes is {came}" + (f" with the code {code}" if code else "")
        return
    for fault in subject.schemas[f"{cassette.service}/reply"].faults(came.reply.body):
        yield f"the reply does not fit its schema: {fault.pointer or '/'}: {fault.detail}"
    if came.reply.body != cassette.reply:
        yield "the reply is not the one of the cassette"


async def cancelled(subject: Subject) -> AsyncIterator[str]:
    """The bus gives up calls whose time is over; one that goes on would act when nobody expects it any more."""
    async with stage(subject) as (adapter, peer, _):
        for example in subject.examples():
            peer.mood = Mood.SILENT
            peer.asked.clear()
            running = asyncio.ensure_future(adapter.handle(example.asked()))
            if subject.answers:
                waiting = asyncio.ensure_future(peer.asked.wait())
                await asyncio.wait({running, waiting}, timeout=GRACE, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
            else:
                await asyncio.sleep(0)
            came = await given_up(running)
            if not isinstance(came.error, asyncio.CancelledError):
                yield f"{example.service}: a call that was cancelled ends with {came}"
            peer.mood = Mood.PLAY
            if (came := await _calm(subject, adapter, peer, example)).reply is None:
                yield f"{example.service}: after a call that was cancelled, the next ends with {came}"


async def repeated(subject: Subject) -> AsyncIterator[str]:
    """A service that is declared repeatable is repeated whenever its outcome is not known: the system must be able to
    tell a repeat, and the caller must get the same reply."""
    repeatable = [each for each in subject.examples() if subject.effect(each) is Effect.REPEATABLE]
    if not repeatable:
        raise NotApplicable("no service of it is repeatable")
    async with stage(subject) as (adapter, peer, folder):
        for example in repeatable:
            came, writes, left = [], [], list[Mapping[str, Any]]()
            for _ in range(2):
                peer.seen.clear()
                came.append(await _calm(subject, adapter, peer, example))
                writes.append([seen for seen in peer.seen if seen.writes])
                left.append({**_databases(folder), **_files(folder)})
            if came[0].reply != came[1].reply:
                yield f"{example.service}: the second call ends with another reply ({came[0]}, then {came[1]})"
            if not set(writes[1]) <= set(writes[0]):
                yield f"{example.service}: the system cannot tell that the second call repeats the first"
            if left[0] != left[1]:
                yield f"{example.service}: the second call changes what the system holds once more"


def _databases(folder: Path) -> Mapping[str, list[str]]:
    """What the databases hold, as statements."""
    found = {}
    for path in folder.glob("*.sqlite"):
        with closing(sqlite3.connect(path)) as database:
            found[path.name] = list(database.iterdump())
    return found


def _files(folder: Path) -> Mapping[str, bytes]:
    """What the contract's own program holds."""
    paths = (path for path in (folder / "peer").rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


async def concurrency(subject: Subject) -> AsyncIterator[str]:
    """How many calls a system gets at once is the deployment's to say: an adapter makes neither more nor fewer."""
    async with stage(subject) as (adapter, peer, _):
        for example in subject.examples():
            await _calm(subject, adapter, peer, example)  # whatever is only done once, such as a login
            peer.barrier = Barrier(CROWD) if subject.contract.peer == "http" and example.calls else None
            crowd = [subject.call(adapter, example.asked(), GRACE) for _ in range(CROWD)]
            came = await asyncio.gather(*crowd)
            for each in came:
                if each.reply is None:
                    yield f"{example.service}: of {CROWD} calls at once one ends with {each}"
            barrier, peer.barrier = peer.barrier, None
            if barrier is not None and barrier.most != CROWD:
                yield f"{example.service}: of {CROWD} calls at once the system got {barrier.most}"


async def close(subject: Subject) -> AsyncIterator[str]:
    """An adapter is closed and opened anew at every change of its settings: whatever it leaves behind adds up."""
    before = _held()
    async with stage(subject) as (adapter, peer, _):
        for example in subject.examples():
            await _calm(subject, adapter, peer, example)
            peer.mood = Mood.CUT
            await subject.call(adapter, example.asked())
            peer.mood = Mood.PLAY
    for _ in range(100):
        left = {kind: found - before[kind] for kind, found in _held().items()}
        if not any(left.values()):
            return
        await asyncio.sleep(0.02)
    for kind, found in left.items():
        if found:
            yield f"{len(found)} {kind} are left after close: {', '.join(sorted(found))}"


def _held() -> dict[str, set[str]]:
    """What there is of what can be left behind. Threads of the loop's own pool end with the loop."""
    current = asyncio.current_task()
    threads = (each for each in threading.enumerate() if not each.name.startswith("asyncio_"))
    return {
        "tasks": {each.get_name() for each in asyncio.all_tasks() if each is not current},
        "threads": {f"{each.name} {each.ident}" for each in threads},
        "open files and sockets": set(_descriptors()),
    }


def _descriptors() -> Iterator[str]:
    for path in Path("/dev/fd").iterdir():
        with suppress(OSError):  # the listing's own
            yield f"{path.name} {path.readlink()}"


async def private(subject: Subject) -> AsyncIterator[str]:
    """Logs are kept long and read by many: no secret and nothing of a person may stand there, nor in any ``repr``."""
    async with stage(subject) as (adapter, peer, _):
        with _overheard() as heard:
            for cassette in subject.cassettes.values():
                request = replace(cassette.asked(), sub=f"{CANARY}-sub", case=f"{CANARY}-case")
                for mood in (Mood.PLAY, Mood.CUT, Mood.SAY):
                    peer.mood = mood
                    peer.said = Played(method="GET", path="/", status=500, answer_text=f"{CANARY}-said")
                    peer.tape = Tape([cassette])
                    await subject.call(adapter, request, GRACE if mood is Mood.PLAY else None)
        context = adapter.context
        shown = {
            "a log or on a standard stream": heard(),
            "the adapter's repr": repr(adapter),
            "its settings' repr": repr((context.settings, context.services)),
        }
        secrets = [
            path.read_text("utf-8", "replace").strip() for path in secret_files([context.settings, *_of(adapter)])
        ]
    needles = {"a secret": set(secrets), "a personal value": {CANARY, *_personal(subject)}}
    for where, text in shown.items():
        for what, values in needles.items():
            if any(len(value) >= SHORTEST and value in text for value in values):
                yield f"{what} stands in {where}"


def _of(adapter: Adapter[Any, Any]) -> Iterable[Any]:
    return adapter.context.services.values()


@contextmanager
def _overheard() -> Iterator[Callable[[], str]]:
    """Everything that is logged as a node logs it, and printed."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root, ours = logging.getLogger(), logging.getLogger("gsb")
    levels = root.level, ours.level
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.DEBUG)
    try:
        with redirect_stdout(stream), redirect_stderr(stream):
            yield stream.getvalue
    finally:
        root.removeHandler(handler)
        root.setLevel(levels[0])
        ours.setLevel(levels[1])


def _personal(subject: Subject) -> Iterator[str]:
    """The values in cassettes that schemas call personal."""
    for cassette in subject.cassettes.values():
        for side, body in (("request", cassette.request), ("reply", cassette.reply)):
            schema = subject.schemas[f"{cassette.service}/{side}"]
            for pointer in {*schema.personal, *filter(None, [schema.subject])}:
                yield from values_at(body, pointer.split("/")[1:])


def values_at(body: Any, path: list[str]) -> Iterator[str]:
    """The texts and numbers at or below this place, as texts; ``*`` stands for every item."""
    match body:
        case list():
            for each in body:
                yield from values_at(each, path[1:] if path[:1] == ["*"] else path)
        case dict() if path:
            name = path[0].replace("~1", "/").replace("~0", "~")
            if name in body:
                yield from values_at(body[name], path[1:])
        case {"amount": amount, "currency": str(), **rest} if not rest:
            yield from values_at(amount, [])  # money, whose currency is nobody's
        case dict():
            for each in body.values():
                yield from values_at(each, [])
        case str() | int() | float() if not isinstance(body, bool) and not path:
            yield str(body)


async def loop(subject: Subject) -> AsyncIterator[str]:
    """While an adapter keeps the event loop to itself, nobody else's exchange moves. What blocks belongs into
    ``context.in_thread``."""
    rounds: list[set[tuple[str, str]]] = []
    async with stage(subject) as (adapter, peer, _):
        for example in subject.examples():
            await _calm(subject, adapter, peer, example)  # whatever is only done once
        while len(rounds) < ROUNDS and (not rounds or rounds[-1]):
            told: list[Blocked] = []
            watchdog = Watchdog(told.append, tick=LIMIT / 10, every=0.0)
            watchdog.adapters = {subject.loaded.folder: subject.name}
            watchdog.start()
            for example in subject.examples():
                await _calm(subject, adapter, peer, example)
            watchdog.stop()
            rounds.append({(each.place.partition(":")[0], each.place.rpartition(":")[2]) for each in told})
    # A busy machine may hold up any code once; what blocks does so each time, at the same place.
    for file, function in sorted(set.intersection(*rounds)):
        yield f"{function} in {file} keeps the event loop for more than {LIMIT * 1000:.0f} ms"
