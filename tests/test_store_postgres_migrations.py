"""The PostgreSQL store's layout is brought up to date while older programs work on it, and after a death at any point.

The older program is a process of its own, with the statements of its time: ``tests.support.old_layout``.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable

import asyncpg
import pytest

from gsb.model import State
from gsb.store.contract import StoreUnfit
from gsb.store.postgres.layout import migrations
from gsb.store.postgres.layout.tables import VERSION
from tests.support.layouts import ROOT, WAIT, before, program, shape, versions
from tests.support.old_layout import KEY
from tests.support.stores import PostgresMaker, accepted, done, state_of

STEPS = [step for each in migrations.MIGRATIONS.values() for step in (*each.expand, *each.contract)]


async def new_shape(maker: PostgresMaker) -> list[tuple[object, ...]]:
    other = PostgresMaker(maker.dsn, KEY)
    try:
        store = await other.open()
        await done(store)
        await store.close()
        return await shape(other)
    finally:
        await other.drop()


Later = Callable[[], None]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Makes this process the program of the version after this one, which changes nothing itself."""

    def become() -> None:
        monkeypatch.setattr(migrations, "VERSION", VERSION + 1)
        monkeypatch.setitem(migrations.MIGRATIONS, VERSION + 1, migrations.Migration((), ()))

    return become


async def test_a_layout_that_was_brought_up_to_date_is_that_of_a_new_store_once_it_is_contracted(
    maker: PostgresMaker, later: Later
) -> None:
    await before(maker)
    store = await maker.open()
    await done(store)
    await store.close()
    assert await versions(maker) == (VERSION, VERSION - 1)
    later()
    await (await maker.open()).close()
    assert await versions(maker) == (VERSION + 1, VERSION)
    assert await shape(maker) == await new_shape(maker)


async def test_a_newer_layout_is_used_as_long_as_it_allows_it(maker: PostgresMaker) -> None:
    store = await maker.open()
    await maker.rows("UPDATE layout SET version = $1, oldest = $2", VERSION + 1, VERSION)
    await accepted(await maker.open())
    await maker.rows("UPDATE layout SET oldest = $1", VERSION + 1)
    with pytest.raises(StoreUnfit, match="version"):
        await maker.open()
    await accepted(store)  # whoever is at work goes on


# --- older programs at work -----------------------------------------------------------------------------------


async def test_older_and_newer_programs_work_side_by_side_while_the_layout_changes(maker: PostgresMaker) -> None:
    async with program("first", maker) as old:
        await old.more()
        async with program("newest", maker) as new:
            await asyncio.gather(old.more(), new.more())
            assert await versions(maker) == (VERSION, 1)
        async with program("newest", maker) as again:
            await asyncio.gather(old.more(), again.more())
    async with program("newest", maker) as last:
        assert await versions(maker) == (VERSION, 1), "the way back is open"
    async with program("first", maker) as back:
        await back.more()
    every = [id_ for each in (old, new, again, last, back) for id_ in each.acknowledged]
    maker.clock.now = (await maker.rows("SELECT extract(epoch FROM now())::float8"))[0][0]
    store = await maker.open()
    for id_ in every:
        found = await store.exchange(id_)
        assert found is not None
        assert (found.state, found.outcome is not None and found.outcome.body) == (State.DONE, b'{"ok":true}')
        assert await store.record(id_) is not None


async def test_nothing_is_contracted_while_somebody_is_at_work_who_needs_it(maker: PostgresMaker, later: Later) -> None:
    async with program("first", maker) as old:
        await (await maker.open()).close()
        later()
        await (await maker.open()).close()
        assert await versions(maker) == (VERSION + 1, 1)
        await old.more()
    async with program("newest", maker) as neighbour:
        await (await maker.open()).close()
        assert await versions(maker) == (VERSION + 1, VERSION)
        await neighbour.more()


async def test_a_long_transaction_delays_the_change_and_stops_nobody(maker: PostgresMaker) -> None:
    await before(maker)
    reader = await asyncpg.connect(maker.dsn, server_settings={"search_path": maker.schema})
    async with program("first", maker) as old:
        async with reader.transaction():
            await reader.fetch("SELECT FROM sealed LIMIT 1")
            opening = asyncio.create_task(maker.open())
            # Another writer of the table queues behind whoever waits for it: there must be no such queue for long.
            await old.more(200)
            assert not opening.done()
        await accepted(await asyncio.wait_for(opening, WAIT))
        await old.more()
    await reader.close()


# --- deaths ---------------------------------------------------------------------------------------------------

DIES = """
import asyncio, os, signal, sys
from gsb.store.postgres import PostgresStore
from gsb.store.postgres.layout import migrations
from tests.support.old_layout import KEY

migrations.VERSION += 1
migrations.MIGRATIONS[migrations.VERSION] = migrations.Migration((), ())
place, when, dsn, schema = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
count, execute = 0, migrations._try

async def dying(db, step):
    global count
    count += 1
    if count > place and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    await execute(db, step)
    if count > place:
        os.kill(os.getpid(), signal.SIGKILL)

migrations._try = dying
asyncio.run(PostgresStore(dsn, KEY, schema=schema).open())
"""


def test_there_are_steps_to_die_at() -> None:
    assert len(STEPS) == 8


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("place", range(8))
async def test_a_death_at_any_step_leaves_work_for_the_next_start(
    maker: PostgresMaker, later: Later, place: int, when: str
) -> None:
    await before(maker)
    later()
    words = [sys.executable, "-c", DIES, str(place), when, maker.dsn, maker.schema]
    process = await asyncio.to_thread(subprocess.run, words, cwd=ROOT, check=False)
    assert process.returncode == -signal.SIGKILL
    store = await maker.open()
    made = await done(store)
    assert await state_of(store, made.id) is State.DONE
    await store.close()
    assert await shape(maker) == await new_shape(maker)


async def test_an_index_that_was_not_finished_is_made_again(maker: PostgresMaker, later: Later) -> None:
    """It is there, and of no use: the death comes while it waits for somebody's transaction."""
    await before(maker)
    later()
    writer = await asyncpg.connect(maker.dsn, server_settings={"search_path": maker.schema})
    words = [sys.executable, "-c", DIES, "99", "after", maker.dsn, maker.schema]
    async with writer.transaction():
        await writer.execute("LOCK TABLE exchange IN ROW EXCLUSIVE MODE")
        process = await asyncio.create_subprocess_exec(*words, cwd=ROOT)
        for _ in range(3_000):
            if invalid := await maker.rows("SELECT FROM pg_index WHERE NOT indisvalid"):
                break
            await asyncio.sleep(0.02)
        process.kill()
        await process.wait()
        assert invalid
    await writer.close()
    store = await maker.open()
    await done(store)
    await store.close()
    assert await shape(maker) == await new_shape(maker)
