"""A store that is killed before or after a commit holds all of a verb or nothing: real processes, real kills.

Kept apart from ``tests.test_store_sqlite`` since each verb is tried in both ways in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gsb.errors import Replayed
from gsb.model import Effect, State
from gsb.store.contract import Attempt, Ruling, Store, ended
from gsb.store.sqlite import SqliteStore
from tests.store_contract_log import FIRST, SECOND, note, opened
from tests.support.stores import DONE, LEASE, accepted, begun, done, entry, new
from tests.test_store_sqlite import KEY, rows

ROOT = Path(__file__).parent.parent

VERBS = ("accept", "begin", "finish", "postpone", "hold", "resolve", "due", "note", "spend")
LOG_VERBS = ("begin_log", "sequence", "publish")
LEFT = """
    SELECT (SELECT count(*) FROM sealed WHERE bytes <> zeroblob(length(bytes))),
           (SELECT count(*) FROM secret WHERE bytes <> zeroblob(length(bytes))),
           (SELECT count(*) FROM exchange WHERE request IS NOT NULL OR reply IS NOT NULL OR subject IS NOT NULL)
"""
CHILD = """
import asyncio, json, os, signal, sys
from pathlib import Path
from gsb.store.sqlite import batch as sqlite_batch
from gsb.store.sqlite import writer as sqlite_writer
from gsb.store.sqlite import SqliteStore
from tests.test_store_kills import KEY, act, prepare

async def main(path, verb, when):
    store = SqliteStore(path, KEY)
    await store.open()
    prepared = await prepare(store, verb)
    print(json.dumps(prepared), flush=True)
    die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    if when == "before":
        write = sqlite_batch.Batch.write
        sqlite_batch.Batch.write = lambda batch: (write(batch), die())
    else:
        sqlite_batch.Batch.remember = die
    await act(store, verb, prepared)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
"""


async def prepare(store: Store, verb: str) -> str:
    """The exchange on which the verb will act; for a verb without one, a value of its own."""
    if verb in ("accept", "note", "spend"):
        return new().id
    if verb in LOG_VERBS:
        await opened(store)
        await store.note(entry())
        if verb == "publish":
            await act(store, "sequence", "")
        return ""
    if verb == "erase":
        return (await done(store, subject="canary-person")).id
    made = await accepted(store, Effect.REPEATABLE, expires_in=10**6)
    if verb in ("finish", "postpone", "hold", "resolve"):
        await begun(store, made.id)
    if verb == "resolve":
        assert await store.hold(Attempt(made.id, 1), State.HELD, "broken", entry())
    if verb == "due":
        assert await store.postpone((await begun(store, made.id)).attempt, 0, "soon", sent=False)
    return made.id


async def act(store: Store, verb: str, name: str) -> None:
    attempt = Attempt(name, 1)
    ruling = Ruling(frozenset({State.HELD}), State.FAILED, ended(State.FAILED, "none", 502))
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "accept": lambda: store.accept(new(id=name)),
        "begin": lambda: store.begin(name, LEASE),
        "finish": lambda: store.finish(attempt, DONE, entry()),
        "postpone": lambda: store.postpone(attempt, 60, "down", sent=True),
        "hold": lambda: store.hold(attempt, State.HELD, "broken", entry()),
        "resolve": lambda: store.resolve(name, ruling, entry()),
        "due": lambda: store.due(10),
        "note": lambda: store.note(entry(), issuer="payroll", jti=name, jti_lives=10**6),
        "spend": lambda: store.spend("payroll", name, 10**6),
        "begin_log": lambda: store.begin_log(SECOND, entry(), after=FIRST, ended=entry()),
        "sequence": lambda: sequence(store),
        "publish": lambda: store.publish(FIRST, 2, note(FIRST, 2)),
        "erase": lambda: store.erase({name: entry()}),
    }
    await calls[verb]()


async def sequence(store: Store) -> None:
    given = await store.unsequenced(10)
    assert given is not None
    await store.sequence(given, note(FIRST, 2))


async def trace(store: Store, path: Path, verb: str, name: str) -> object:
    """What tells whether the verb took place."""
    if verb in ("note", "spend"):
        count = rows(path, "SELECT count(*) FROM entry")
        try:
            await store.look("payroll", name, None)
        except Replayed:
            return "spent", count
        return "free", count
    if verb == "due":
        return rows(path, "SELECT nudges FROM exchange")
    if verb in LOG_VERBS:
        logs = [replace(log, published_at=None) for log in await store.logs()]
        return logs, len(await store.entries(FIRST, 0, 10)), rows(path, "SELECT count(*) FROM entry")
    if verb == "erase":
        return rows(path, LEFT), [one.secret is None for one in await store.evidence(name)]
    found = await store.exchange(name)
    return None if found is None else (found.state, found.attempt, len(found.entries))


@asynccontextmanager
async def opened_store(path: Path) -> AsyncIterator[Store]:
    store = SqliteStore(path, KEY)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def killed(path: Path, verb: str, when: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", CHILD, str(path), verb, when]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("verb", [*VERBS, *LOG_VERBS, "erase"])
async def test_a_kill_leaves_all_of_a_verb_or_nothing(tmp_path: Path, verb: str) -> None:
    seen = {}
    for when in ("before", "after"):
        path = tmp_path / when
        child = await asyncio.to_thread(killed, path, verb, when)
        assert child.returncode == -signal.SIGKILL, child.stderr.decode()
        name = json.loads(child.stdout)
        async with opened_store(path) as store:
            seen[when] = await trace(store, path, verb, name)
    path = tmp_path / "control"
    async with opened_store(path) as control:
        name = await prepare(control, verb)
        assert seen["before"] == await trace(control, path, verb, name)
        await act(control, verb, name)
        assert seen["after"] == await trace(control, path, verb, name)
        assert seen["before"] != seen["after"]
