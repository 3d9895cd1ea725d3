"""Many nodes on one PostgreSQL: each key, lease and place is given once, whoever asks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from gsb.errors import Replayed, StoreUnavailable
from gsb.model import Effect, State
from gsb.store.contract import Begun, Query, StoreUnfit
from gsb.store.postgres import PostgresStore, sessions
from gsb.store.postgres.aging import Jtis
from gsb.store.postgres.batch import FRESH, Batch, BeginAndRead
from gsb.store.postgres.schema import ENTER
from gsb.store.postgres.sessions import database_clock
from tests.store_contract_log import FIRST, SECOND, opened, placed
from tests.support.stores import DONE, LEASE, PostgresMaker, accepted, begun, done, entry, ids, new, state_of

KEY = bytes(range(32))
ROOT = Path(__file__).parent.parent
NODES = 3
WITHIN = 60.0
"""Seconds for whatever must happen, on a machine that is busy with other things."""


@pytest.fixture
async def nodes(maker: PostgresMaker) -> list[PostgresStore]:
    return [await maker.open() for _ in range(NODES)]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for another node's lock waits on when the machine stands still, where that is not what is tested."""
    monkeypatch.setitem(sessions._BOUNDS, "lock_timeout", "60s")


# --- nodes beside each other ------------------------------------------------------------------------------


async def test_of_accepts_of_one_key_at_many_nodes_one_makes_an_exchange(nodes: list[PostgresStore]) -> None:
    made = [[new(key=f"key-{number}") for _ in nodes] for number in range(60)]
    answers = await asyncio.gather(
        *(node.accept(one) for same in made for node, one in zip(nodes, same, strict=True)),
    )
    for number, same in enumerate(made):
        of_key = answers[number * NODES : (number + 1) * NODES]
        (first,) = [one for one, answer in zip(same, of_key, strict=True) if answer is None]
        assert {answer.exchange for answer in of_key if answer is not None} == {first.id}
    assert len(await ids(nodes[0], Query(limit=200))) == len(made)


async def test_a_jti_is_taken_once_at_whatever_node(nodes: list[PostgresStore]) -> None:
    jtis = [f"jti-{number}" for number in range(60)]
    answers = await asyncio.gather(
        *(node.spend("payroll", jti, 140) for jti in jtis for node in nodes), return_exceptions=True
    )
    assert answers.count(None) == len(jtis)
    assert sum(isinstance(answer, Replayed) for answer in answers) == len(jtis) * (NODES - 1)
    for node in nodes:
        with pytest.raises(Replayed):
            await node.look("payroll", jtis[0], None)


@pytest.mark.parametrize("effect", Effect)
async def test_of_begins_at_many_nodes_one_gets_the_lease(nodes: list[PostgresStore], effect: Effect) -> None:
    made = [await accepted(nodes[0], effect) for _ in range(20)]
    got = await asyncio.gather(*(node.begin(one.id, LEASE) for one in made for node in nodes))
    assert sum(each is not None for each in got) == len(made)
    for each in got:
        assert each is None or each.record in [one.record for one in made]
    for node in nodes:
        assert await state_of(node, made[0].id) is State.RUNNING
        assert await node.begin(made[0].id, LEASE) is None


RUNS = "UPDATE exchange SET state = 'running', attempt = 1, lease_until = due_at + 60, due_at = due_at + 60"


@pytest.mark.parametrize(("end", "gets"), [("COMMIT", False), ("ROLLBACK", True)])
async def test_whoever_comes_while_another_node_takes_a_lease_waits_and_sees_what_comes_of_it(
    maker: PostgresMaker, end: str, gets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is to wait for as long as this test takes to see that it does.
    monkeypatch.setitem(sessions._BOUNDS, "lock_timeout", "0")
    store = maker.make(statement=WITHIN)
    await store.open()
    made = await accepted(store)
    async with _hanging(maker) as db:
        await db.execute(RUNS)
        call = asyncio.create_task(store.begin(made.id, LEASE))
        await _waits_for_a_lock(maker)
        await db.execute(end)
        assert (await call is not None) is gets
    found = await store.exchange(made.id)
    assert found is not None
    assert (found.state, found.attempt) == (State.RUNNING, 1)


@pytest.mark.parametrize("late", [0.0, 2 * FRESH])
async def test_what_was_read_too_long_ago_is_not_decided_on(maker: PostgresMaker, late: float) -> None:
    """A node that was halted between reading and writing would give a lease that is over."""
    store = await maker.open()
    made = await accepted(store)
    db = await store.sessions.connect()
    try:
        asks = [BeginAndRead(made.id, LEASE, read=True)]
        batch = Batch(db, Jtis(time.monotonic), lambda now: now - late, kept=1.0)
        await batch.read(asks)
        batch._read_at -= late
        assert asks[0].decide(batch) is not None
        assert await batch.write_if_unchanged(asks) is (late == 0.0)
    finally:
        await db.close()
    assert await state_of(store, made.id) is (State.ACCEPTED if late else State.RUNNING)


async def _waits_for_a_lock(maker: PostgresMaker) -> None:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(WITHIN):
        while True:
            if await maker.rows(waiting):
                return
            await asyncio.sleep(0.01)


async def test_of_finishes_at_many_nodes_one_wins(nodes: list[PostgresStore]) -> None:
    made = await accepted(nodes[0])
    attempt = (await begun(nodes[1], made.id)).attempt
    won = await asyncio.gather(*(node.finish(attempt, DONE, entry()) for node in nodes * 5))
    assert won.count(True) == 1
    assert len(await nodes[2].entered(made.id)) == 2


async def test_what_is_due_is_handed_out_once_at_whatever_node(
    nodes: list[PostgresStore], maker: PostgresMaker
) -> None:
    made = {(await accepted(nodes[0], expires_in=1_000.0)).id for _ in range(40)}
    maker.clock.pass_(60)
    claimed = [due.exchange for found in await asyncio.gather(*(node.due(10) for node in nodes * 3)) for due in found]
    claimed += [due.exchange for due in await nodes[0].due(100)]
    assert sorted(claimed) == sorted(made)


async def test_entries_of_many_nodes_get_each_one_place_while_they_commit(nodes: list[PostgresStore]) -> None:
    recorder = nodes[0]
    first = await opened(recorder)
    busy = asyncio.gather(*(done(node, Effect.NONE) for node in nodes for _ in range(40)))
    found: list[bytes] = []
    while not busy.done():
        found += [content for _, content in await placed(recorder, 7)]
        await asyncio.sleep(0)
    made = await busy
    found += [content for _, content in await placed(recorder)]
    assert found[0] == first.content
    assert len(found) == len(set(found)) == 1 + 2 * len(made)
    assert list(await nodes[1].entries(FIRST, 0, 1_000)) == found
    for one in made:
        indexes = [each.index for each in await nodes[2].entered(one.id)]
        assert None not in indexes
        assert indexes == sorted(indexes, key=lambda index: index or 0)
    assert (await recorder.backlog()).entries == len(found)


async def test_of_recorders_at_many_nodes_one_wins(nodes: list[PostgresStore]) -> None:
    first = await opened(nodes[0])
    for _ in range(5):
        await nodes[0].note(entry())
    given = [await node.unsequenced(limit) for node, limit in zip(nodes, (2, 3, 4), strict=True)]
    answers = await asyncio.gather(
        *(node.sequence(one, b"note") for node, one in zip(nodes, given, strict=True) if one is not None),
        return_exceptions=True,
    )
    assert answers.count(None) == 1
    assert next(iter(await nodes[1].entries(FIRST, 0, 10))) == first.content
    assert len(await nodes[1].entries(FIRST, 0, 10)) == 2 + answers.index(None)


async def test_an_entry_that_is_committed_late_is_sequenced_later_and_never_skipped(maker: PostgresMaker) -> None:
    """Its number is lower than those of entries that have their places already, or that ended the log."""
    store = await maker.open()
    await opened(store)
    late = [entry("note", late=str(number)) for number in range(2)]
    others = [await _uncommitted(maker, one.leaf, one.content) for one in late]
    soon = entry("note", late="no")
    await store.note(soon)
    assert [content for _, content in await placed(store)][1:] == [soon.content]
    await _commit(others[0])
    assert await placed(store) == [(FIRST, late[0].content)]
    ended, begun_ = entry("log_ended"), entry("log_begun")
    await store.begin_log(SECOND, begun_, after=FIRST, ended=ended)
    assert await placed(store) == [(FIRST, ended.content), (SECOND, begun_.content)]
    await _commit(others[1])
    assert (await store.backlog()).entries == 6
    assert await placed(store) == [(SECOND, late[1].content)]


async def _uncommitted(maker: PostgresMaker, leaf: bytes, content: bytes) -> asyncpg.Connection:
    """A node in the middle of a transaction that has added an entry."""
    db = await asyncpg.connect(maker.dsn, server_settings={"search_path": maker.schema})
    await db.execute("BEGIN")
    await db.execute(ENTER, [leaf], [content], [None], [b"secret"])
    return db


async def _commit(db: asyncpg.Connection) -> None:
    await db.execute("COMMIT")
    await db.close()


PROCESS = """
import asyncio, sys
from gsb.store.postgres import PostgresStore, sessions
from tests.support.stores import DONE, LEASE, entry, new

sessions._BOUNDS["lock_timeout"] = "60s"

async def work(dsn, schema, name):
    store = PostgresStore(dsn, bytes(range(32)), schema=schema, statement=60)
    await store.open()
    won = 0
    for number in range(60):
        reserved = await store.accept(new(key=f"key-{number}"))
        owner = reserved.exchange if reserved else None
        won += owner is None
        if owner is not None and (got := await store.begin(owner, LEASE)) is not None:
            assert await store.finish(got.attempt, DONE, entry("outcome", by=name))
    await store.close()
    print(won)

asyncio.run(work(*sys.argv[1:]))
"""


async def test_processes_share_a_database(maker: PostgresMaker) -> None:
    """Started at once on an empty schema: one lays it out; each key makes one exchange, each exchange one outcome."""
    command = [sys.executable, "-c", PROCESS, maker.dsn, maker.schema]
    processes = [
        await asyncio.create_subprocess_exec(*command, str(number), stdout=subprocess.PIPE, cwd=ROOT)
        for number in range(NODES)
    ]
    told = [(await each.communicate())[0] for each in processes]
    assert [each.returncode for each in processes] == [0] * NODES
    assert sum(map(int, told)) == 60
    store = await maker.open()
    await opened(store)
    found = await placed(store)
    outcomes = await maker.rows("SELECT count(*) FROM exchange WHERE state = 'done'")
    assert len(found) == 1 + 60 + outcomes[0][0]
    assert outcomes[0][0] > 0


async def test_a_node_that_hangs_keeps_others_waiting_for_seconds_only(
    maker: PostgresMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It has locked an exchange and says nothing more: the server gives it up, and nobody waits longer than a bound."""
    monkeypatch.setitem(sessions._BOUNDS, "lock_timeout", "200ms")
    store = await maker.open()
    made, other = await accepted(store), await accepted(store)
    lock = "SELECT 1 FROM exchange WHERE id = $1 FOR UPDATE"
    async with _hanging(maker) as db:
        await db.execute(lock, made.id)
        answers = await asyncio.gather(*(store.begin(one.id, LEASE) for one in (made, other)), return_exceptions=True)
    assert isinstance(answers[0], StoreUnavailable)
    assert isinstance(answers[1], Begun)
    # That another node hangs is no defect of this one.
    (told,) = caplog.records
    assert (told.levelname, told.exc_info) == ("WARNING", None)
    assert "another node" in told.message
    monkeypatch.setitem(sessions._BOUNDS, "lock_timeout", "60s")
    patient = await maker.open()
    async with _hanging(maker) as db:
        await db.execute(lock, made.id)
        # From now on it is silent: before it has the lock it may be for as long as the machine stands still.
        await db.execute("SET LOCAL idle_in_transaction_session_timeout = '300ms'")
        assert (await begun(patient, made.id)).attempt.number == 1


@asynccontextmanager
async def _hanging(maker: PostgresMaker) -> AsyncIterator[asyncpg.Connection]:
    """A connection in the middle of a transaction."""
    db = await asyncpg.connect(maker.dsn, server_settings={"search_path": maker.schema})
    await db.execute("BEGIN")
    try:
        yield db
    finally:
        db.terminate()


async def test_the_clock_is_the_databases(maker: PostgresMaker) -> None:
    store = PostgresStore(maker.dsn, KEY, schema=maker.schema)
    await store.open()
    db = await asyncpg.connect(maker.dsn)
    before = await database_clock(db)
    made = await accepted(store)
    after = await database_clock(db)
    await db.close()
    found = await store.exchange(made.id)
    await store.close()
    assert found is not None
    assert before <= found.accepted_at <= after


# --- opening ------------------------------------------------------------------------------------------------


async def test_another_key_is_refused_and_changes_nothing(maker: PostgresMaker) -> None:
    store = await maker.open()
    made = await accepted(store)
    with pytest.raises(StoreUnfit, match="another key"):
        await PostgresStore(maker.dsn, bytes(32), schema=maker.schema).open()
    assert await state_of(store, made.id) is State.ACCEPTED


async def test_what_is_not_a_store_is_refused(maker: PostgresMaker) -> None:
    await maker.rows(f"CREATE SCHEMA {maker.schema}")
    await maker.rows("CREATE TABLE theirs(a integer)")
    with pytest.raises(StoreUnfit, match="not a store of the bus"):
        await maker.open()
    with pytest.raises(StoreUnfit, match="cannot be opened"):
        await PostgresStore("postgresql:///?host=/nowhere", KEY).open()
    with pytest.raises(ValueError, match="not the name"):
        PostgresStore(maker.dsn, KEY, schema="gsb; drop")
