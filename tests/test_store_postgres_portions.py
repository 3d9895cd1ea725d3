"""What is sealed on PostgreSQL leaves by the portion, and nothing leaves that is still needed: beside whoever reads and
writes, after a death in the middle, and when there is no portion for what arrives."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from gsb.model import Effect, State
from gsb.store.contract import DAY, NewExchange, Store
from gsb.store.postgres import sessions
from gsb.store.postgres.layout import portions
from gsb.store.postgres.layout.portions import LOOK, MARGIN, start_of
from tests.support.stores import AGES, DONE, PostgresMaker, accepted, begun, done, entry, new, state_of

ROOT = Path(__file__).parent.parent


async def tended(maker: PostgresMaker, seconds: float = LOOK) -> None:
    """So many seconds pass, and somebody comes by."""
    maker.clock.pass_(seconds)
    store = await maker.open()
    await store.spend("(test)", new().id, 1)
    await store.close()


async def known(maker: PostgresMaker) -> dict[int, float | None]:
    """When each portion began, counted in days."""
    found = await maker.rows("SELECT number, began_at FROM portion ORDER BY number")
    first = min(began for _, began in found if began is not None)
    return {number: None if began is None else (began - first) / DAY for number, began in found}


async def sealed(maker: PostgresMaker) -> dict[str, int]:
    """How many records lie in which table, as far as there are any."""
    found = await maker.rows("SELECT tableoid::regclass::text, count(*) FROM sealed GROUP BY 1 ORDER BY 1")
    return dict(tuple(each) for each in found)


async def readable(store: Store, made: NewExchange) -> None:
    assert await store.record(made.id) == made.record
    found = await store.exchange(made.id)
    assert found is not None
    assert not found.gone


async def test_a_day_has_a_portion_and_the_next_one_is_there_before_it_begins(maker: PostgresMaker) -> None:
    await tended(maker)
    assert await known(maker) == {0: 0, 1: None}
    await tended(maker, DAY / 2)
    assert await known(maker) == {0: 0, 1: None}
    store = await maker.open()
    await done(store)
    await store.close()
    assert await sealed(maker) == {"sealed_0": 2}
    await tended(maker, DAY / 2)
    assert await known(maker) == {0: 0, 1: 1, 2: None}
    store = await maker.open()
    await done(store)
    await store.close()
    assert await sealed(maker) == {"sealed_0": 2, "sealed_1": 2}


async def test_a_clock_that_is_set_back_is_not_waited_for(maker: PostgresMaker) -> None:
    await tended(maker)
    maker.clock.now -= 400 * DAY
    await tended(maker)
    await tended(maker, DAY)
    assert list(await known(maker)) == [0, 1, 2]


async def test_what_has_reached_its_age_leaves_whole_and_what_is_needed_stays(maker: PostgresMaker) -> None:
    await tended(maker)
    store = await maker.open()
    await asyncio.gather(*(done(store) for _ in range(100)))
    waiting, late = await accepted(store, expires_in=10**9), await accepted(store, expires_in=10**9)
    held = await accepted(store, Effect.REPEATABLE, expires_in=10**9)
    await store.hold((await begun(store, held.id)).attempt, State.HELD, "broken", entry())
    await store.close()
    await tended(maker, DAY)
    store = await maker.open()
    assert await store.finish((await begun(store, late.id)).attempt, DONE, entry())
    await store.close()
    assert await sealed(maker) == {"sealed_0": 203, "sealed_1": 1}
    await tended(maker, AGES.bodies - DAY / 2)
    assert await sealed(maker) == {"sealed_0": 203, "sealed_1": 1}
    await tended(maker, DAY / 2 + MARGIN - 2 * LOOK)
    assert await sealed(maker) == {"sealed_0": 203, "sealed_1": 1}
    await tended(maker, 2 * LOOK)
    assert await sealed(maker) == {"sealed_1": 1, "sealed_rest": 2}
    store = await maker.open()
    for one in (waiting, held):
        await readable(store, one)
    assert await store.finish((await begun(store, waiting.id)).attempt, DONE, entry())
    await readable(store, waiting)
    await store.close()
    for _ in range(5):
        await tended(maker, AGES.bodies)
    assert await sealed(maker) == {"sealed_rest": 1}
    assert len(await maker.rows("SELECT FROM exchange WHERE request IS NOT NULL")) == 1


async def test_what_ended_late_is_kept_for_its_age(maker: PostgresMaker) -> None:
    """Its portion goes before it does."""
    await tended(maker)
    store = await maker.open()
    late = await accepted(store, expires_in=10**9)
    await store.close()
    for _ in range(5):
        await tended(maker, DAY)
    store = await maker.open()
    assert await store.finish((await begun(store, late.id)).attempt, DONE, entry())
    await store.close()
    for _ in range(7):
        await tended(maker, DAY)
    assert await sealed(maker) == {"sealed_5": 1, "sealed_rest": 1}
    store = await maker.open()
    await readable(store, late)
    await store.close()
    for _ in range(5):
        await tended(maker, DAY)
    assert await sealed(maker) == {}


async def test_the_store_stays_flat(maker: PostgresMaker) -> None:
    sizes = []
    for _ in range(3 * int(AGES.bodies / DAY)):
        store = await maker.open()
        await asyncio.gather(*(done(store) for _ in range(5)))
        await store.close()
        await tended(maker, DAY)
        sizes.append(sum((await sealed(maker)).values()))
    assert len(await known(maker)) <= AGES.bodies / DAY + 4
    assert max(sizes[-10:]) == max(sizes[-20:-10])
    assert not (await sealed(maker)).get("sealed_rest")


async def test_without_a_portion_nothing_is_refused_and_a_later_one_takes_it_in(maker: PostgresMaker) -> None:
    await tended(maker)
    await maker.rows("SELECT setval('numbers', $1)", start_of(3) + 7)
    store = await maker.open()
    made = await done(store)
    await store.close()
    assert await sealed(maker) == {"sealed_rest": 2}
    for _ in range(3):
        await tended(maker, DAY)
    assert await sealed(maker) == {"sealed_3": 2}
    store = await maker.open()
    await readable(store, made)


async def test_portions_come_and_go_while_others_read_and_write(
    maker: PostgresMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a drop carries elsewhere is found at every moment."""
    # Who waits for a drop's lock waits on when the machine stands still; a drop's own waits stay as short as they are.
    monkeypatch.setitem(sessions._BOUNDS, "lock_timeout", "60s")
    stores = [await maker.open() for _ in range(2)]
    kept = [await accepted(stores[0], expires_in=10**9) for _ in range(5)]
    ended = asyncio.Event()

    async def work(store: Store) -> int:
        count = 0
        while not ended.is_set():
            made = await done(store)
            await readable(store, made)
            for one in kept:
                await readable(store, one)
            count += 1
        return count

    tasks = [asyncio.create_task(work(store)) for store in stores for _ in range(3)]
    db = await asyncpg.connect(maker.dsn, server_settings={"search_path": maker.schema})
    dropped, now = 0, maker.clock.now
    while dropped < 20:
        now += DAY
        # As if days passed for portions alone: nothing that is in them is old enough to be let go of.
        await _late(db)
        try:
            await portions.go_on(db, now)
            # Ten steps behind, so that what has its number is committed by then.
            dropped += await portions.drop_one(db, now - 10 * DAY)
        except asyncpg.LockNotAvailableError:
            continue
    ended.set()
    assert min(await asyncio.gather(*tasks)) > 0
    await db.close()
    for one in kept:
        assert await state_of(stores[0], one.id) is State.ACCEPTED
        await readable(stores[0], one)
    assert "sealed_rest" in await sealed(maker)


async def _late(db: asyncpg.Connection) -> None:
    """Have everything that has ended count as having ended late, so that its portion may not take it along."""
    await db.execute("UPDATE exchange SET finished_at = accepted_at + 4000 WHERE finished_at < accepted_at + 4000")


async def test_who_reads_for_long_delays_a_drop_and_no_call(maker: PostgresMaker) -> None:
    await tended(maker)
    store = await maker.open()
    await done(store)
    await tended(maker, DAY)
    reader = await asyncpg.connect(maker.dsn, server_settings={"search_path": maker.schema})
    async with reader.transaction():
        await reader.fetch("SELECT FROM sealed")
        await tended(maker, AGES.bodies + MARGIN)
        assert (await sealed(maker))["sealed_0"] == 2
        await done(store)
    await reader.close()
    await store.close()
    await tended(maker)
    assert "sealed_0" not in await sealed(maker)


DIES = """
import asyncio, os, signal, sys
import asyncpg
from gsb.store.postgres.layout import portions

async def die(db, number):
    os.kill(os.getpid(), signal.SIGKILL)

async def main(dsn, schema, before):
    portions.drop = die
    await portions.drop_one(await asyncpg.connect(dsn, server_settings={"search_path": schema}), float(before))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_death_in_the_middle_of_a_drop_leaves_everything_as_it_was(maker: PostgresMaker) -> None:
    await tended(maker)
    store = await maker.open()
    made, kept = await done(store), await accepted(store, expires_in=10**9)
    await store.close()
    await tended(maker, DAY)
    before = await sealed(maker)
    words = [sys.executable, "-c", DIES, maker.dsn, maker.schema, str(maker.clock.now)]
    process = await asyncio.to_thread(subprocess.run, words, cwd=ROOT, check=False)
    assert process.returncode == -signal.SIGKILL
    assert await sealed(maker) == before
    store = await maker.open()
    for one in (made, kept):
        await readable(store, one)
    await store.close()
    await tended(maker, AGES.bodies + MARGIN)
    assert await sealed(maker) == {"sealed_rest": 1}
