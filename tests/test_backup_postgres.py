"""A backup of a store on PostgreSQL, laid into another database of a real server."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from gsb.model import State
from gsb.store.postgres.layout import portions
from gsb.store.postgres.sessions import Sessions
from tests.support.backups import DIES, Kept, process, run
from tests.support.postgres import Server, own_server
from tests.support.recording import Clock, recording
from tests.support.stores import DONE, accepted, done, state_of

DAY = 86_400.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with own_server() as running:
        yield running


async def database(server: Server, name: str) -> str:
    """The URI of a new, empty one."""
    db = await asyncpg.connect(server.dsn)
    await db.execute(f"DROP DATABASE IF EXISTS {name}")
    await db.execute(f"CREATE DATABASE {name}")
    await db.close()
    return urlunsplit(urlsplit(server.dsn)._replace(path=f"/{name}"))


class OnPostgres(Kept):
    """Two databases: the deployment's, and an empty one."""

    here: str
    elsewhere: str

    async def begin(self, server: Server) -> None:
        self.here, self.elsewhere = await database(server, "here"), await database(server, "elsewhere")
        self.deployment.gsb["store"] = {"kind": "postgres", "dsn": "dsn", "key": "store.key"}
        (self.deployment.folder / "dsn").write_text(self.here, "utf-8")
        (self.root / "dsn").write_text(self.elsewhere, "utf-8")
        self.there.parent.mkdir()


@pytest.fixture
async def kept(server: Server, tmp_path_factory: pytest.TempPathFactory) -> OnPostgres:
    made = OnPostgres(tmp_path_factory.mktemp("kept"))
    await made.begin(server)
    return made


async def rows(dsn: str, sql: str) -> list[tuple[Any, ...]]:
    db = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await db.fetch(sql)]
    finally:
        await db.close()


SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'gsb%' ORDER BY 1"
COUNTERS = "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'gsb' ORDER BY 1"
PORTIONS = "SELECT tableoid::regclass::text, count(*) FROM gsb.sealed GROUP BY 1 ORDER BY 1"


async def test_days_numbers_and_bodies_are_those_of_before(kept: OnPostgres) -> None:
    clock = Clock()
    clock.now = time.time()
    async with recording(kept.root, kept.deployment, clock) as hands:
        first = await done(hands.store)
        db = await Sessions(kept.here, "gsb").connect()
        for days in (0, 2, 4):
            await portions.go_on(db, clock.now + days * DAY)
        await db.close()
        later = await done(hands.store)
        unfinished = await accepted(hands.store)
        await hands.recorder.look()
        assert (await kept.backup()).code == 0
    before = await rows(kept.here, PORTIONS), await rows(kept.here, COUNTERS)
    assert len(before[0]) >= 2
    other = await kept.restored("--dsn", kept.root / "dsn")
    assert await rows(kept.elsewhere, SCHEMAS) == [("gsb",)]
    assert await rows(kept.elsewhere, PORTIONS) == before[0]
    numbers: dict[str, int] = dict(await rows(kept.elsewhere, COUNTERS))
    assert all(numbers[name] >= value for name, value in before[1])
    async with recording(kept.root, other, clock) as hands:
        for one in (first, later):
            found = await hands.store.exchange(one.id)
            assert found is not None
            assert found.outcome is not None
            assert found.outcome.body == DONE.body
        assert await state_of(hands.store, unfinished.id) is State.UNKNOWN
        # Numbers go on behind those that were given.
        await done(hands.store)
        await hands.recorder.look()


async def test_a_database_that_holds_a_store_is_left_as_it_is(kept: OnPostgres) -> None:
    async with recording(kept.root, kept.deployment) as hands:
        made = await done(hands.store)
        await hands.recorder.look()
        assert (await kept.backup()).code == 0
        said = await run(*kept.words())
        assert (said.code, said.wrong.count("\n"), "is not empty" in said.wrong) == (2, 1, True)
        assert await state_of(hands.store, made.id) is State.DONE
    assert await rows(kept.here, SCHEMAS) == [("gsb",)]
    assert not kept.there.exists()


@pytest.mark.parametrize("step", ["lay:settle", "lay:finish", "moves:_move"])
async def test_a_restore_that_died_leaves_no_store_that_a_node_finds(kept: OnPostgres, step: str) -> None:
    async with recording(kept.root, kept.deployment) as hands:
        unfinished = await accepted(hands.store)
        await hands.recorder.look()
        assert (await kept.backup()).code == 0
    words = [*kept.words(), "--dsn", kept.root / "dsn"]
    died = await process(step, *words, program=("-c", DIES))
    assert died.code == -signal.SIGKILL
    assert await rows(kept.elsewhere, SCHEMAS) == [("gsb_restoring",)]
    assert not kept.there.exists()
    other = await kept.restored("--dsn", kept.root / "dsn")
    assert await rows(kept.elsewhere, SCHEMAS) == [("gsb",)]
    async with recording(kept.root, other) as hands:
        assert await state_of(hands.store, unfinished.id) is State.UNKNOWN
        assert await hands.store.withheld()
