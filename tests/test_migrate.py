"""``gsb migrate``: what a stopped node on SQLite holds goes to PostgreSQL, all of it or nothing; the log stays one log.

The server is real, the deaths are SIGKILLs of a process of its own, at moments that are held fast.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from gsb import jwk
from gsb.catalogue import build
from gsb.cli.main import app
from gsb.errors import Replayed
from gsb.evidence.verify import verify_receipt
from gsb.foundation import store_of
from gsb.metrics import Metrics
from gsb.model import FINAL, Effect, State
from gsb.store.contract import Business, NewExchange, Query, Reservation, Store, StoreUnfit
from gsb.store.postgres.sessions import _BOUNDS
from gsb.store.seal import new_key
from gsb.store.sqlite import opened
from tests.support.deployment import SITE, Deployment, standard
from tests.support.node import GSB, running_node
from tests.support.recording import YEAR, Clock, recording
from tests.support.stores import PostgresMaker, accepted, begun, done, entry, new, unknown

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(SITE), os.environ.get("PYTHONPATH", "")])}


@dataclass
class Move:
    """A deployment with something in it, and where it is to go."""

    source: Path
    target: Path
    deployment: Deployment
    clock: Clock
    maker: PostgresMaker
    made: list[NewExchange]

    @property
    def database(self) -> Path:
        return self.source / "store.db"

    @property
    def words(self) -> list[str]:
        return ["migrate", str(self.source), str(self.target)]

    async def carry(self) -> Result:
        """In a thread: a command has an event loop of its own."""
        return await asyncio.to_thread(CliRunner().invoke, app, self.words)

    async def open(self, folder: Path) -> Store:
        store = store_of(build(folder), Metrics())
        await store.open()
        return store

    async def tables(self) -> list[str]:
        found = await self.maker.rows("SELECT tablename FROM pg_tables WHERE schemaname = $1", self.maker.schema)
        return [name for (name,) in found]

    def point(self, **store: str) -> None:
        """Write the target's deployment with this [store]."""
        self.deployment.folder, self.deployment.gsb["store"] = self.target, {"kind": "postgres"} | store
        self.deployment.write()


@pytest.fixture
async def move(tmp_path: Path, dsn: str) -> AsyncIterator[Move]:
    """Exchanges in every state, two logs of which the older is complete, and entries without a place."""
    deployment, clock = standard(tmp_path), Clock()
    async with recording(tmp_path, deployment, clock) as hands:
        made = await _filled(hands.store)
        await hands.record(1, 2)
        clock.pass_(366 * 86_400)
        await hands.recorder.look()
        await hands.record(3)
        made.append(await accepted(hands.store))
    maker = PostgresMaker(dsn, b"")
    source, target = deployment.folder, tmp_path / "target"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("store.db*"))
    (target / "dsn").write_text(dsn, "utf-8")
    found = Move(source, target, deployment, clock, maker, made)
    found.point(dsn="dsn", key="store.key", schema_name=maker.schema)
    yield found
    await maker.drop()


async def _filled(store: Store) -> list[NewExchange]:
    person: dict[str, Any] = {"business": Business("canary-employee", personal=True), "subject": "canary-person"}
    made = [await done(store, **person), await done(store, business=Business("clear", personal=False))]
    waiting, held, running = [await accepted(store, Effect.REPEATABLE, **person) for _ in range(3)]
    await store.postpone((await begun(store, waiting.id)).attempt, 1_000, "down", sent=True)
    await store.hold((await begun(store, held.id)).attempt, State.HELD, "broken", entry("held"))
    await begun(store, running.id)
    erased = await done(store, subject="canary-other")
    await store.erase({erased.id: entry("erased")})
    await store.note(entry("refused"), issuer="payroll", jti="spent-alone", jti_lives=10**6)
    return [*made, waiting, held, running, erased, (await unknown(store))[0], await accepted(store, Effect.NONE)]


async def told(store: Store, made: list[NewExchange]) -> list[Any]:
    """Everything that the contract tells of these exchanges, and of the logs."""
    seen: list[Any] = [await store.logs(), await store.backlog(), await store.standing()]
    for one in made:
        seen += [await store.exchange(one.id), await store.record(one.id), await store.evidence(one.id)]
        seen += [await store.entered(one.id), await store.look(one.agency, "another", one.key)]
    for query in (Query(), Query(subject="canary-person"), Query(business="canary-employee"), Query(business="clear")):
        seen.append((await store.search(query)).exchanges)
    for log in await store.logs():
        seen.append(list(await store.entries(log.origin, 0, 1_000)))
    waiting = await store.unsequenced(1_000)
    assert waiting is not None
    return [*seen, waiting.contents, waiting.leaves]


@pytest.mark.parametrize("another_key", [False, True])
async def test_everything_is_carried_and_the_log_stays_one_log(move: Move, another_key: bool) -> None:
    store = await move.open(move.source)
    before = await told(store, move.made)
    await store.close()
    if another_key:
        (move.target / "store.key").write_text(new_key(), "utf-8")
    result = await move.carry()
    assert result.exit_code == 0, result.output
    assert "9 exchanges, 10 requests and bodies, 9 keys, 10 jtis" in result.output
    assert "(2 accepted, 3 done, 1 held, 1 running, 1 unknown, 1 waiting)" in result.output
    assert result.output.count("as its checkpoint says") == 2
    # Opened twice: what is needed to read it lies in the store.
    for _ in range(2):
        store = await move.open(move.target)
        assert await told(store, move.made) == before
        await store.close()
    async with recording(move.target.parent, move.deployment, move.clock) as hands:
        await hands.record(4)
        assert [log.origin.rpartition("/")[2] for log in await hands.store.logs()] == [YEAR, "2027"]
        assert hands.log("2027")[-2:] == [("accepted", None), ("test", 4)]
        assert hands.log("2027")[:2] == [("log_begun", None), ("test", 3)]


async def test_a_source_that_takes_long_to_be_read_is_waited_for(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction of a node that is silent for so long is given up; to count a large file takes longer."""
    monkeypatch.setitem(_BOUNDS, "idle_in_transaction_session_timeout", "100ms")

    def slowly(table: str, _: int) -> None:
        if table == "log":
            time.sleep(0.5)

    monkeypatch.setattr("gsb.cli.cluster.migrate._progress", slowly)
    result = await move.carry()
    assert result.exit_code == 0, result.output


async def test_promises_go_on(move: Move) -> None:
    """No jti is good twice, no key begins a second exchange, and what was begun is finished."""
    assert (await move.carry()).exit_code == 0
    store = await move.open(move.target)
    for one in move.made:
        with pytest.raises(Replayed):
            await store.spend(one.agency, one.jti, 60)
        assert await store.accept(new(key=one.key)) == Reservation(one.id, one.fingerprint)
    with pytest.raises(Replayed):
        await store.spend("payroll", "spent-alone", 60)
    added = await accepted(store)
    found = await store.exchange(added.id)
    assert found is not None
    assert [each.leaf for each in found.entries] == [added.entry.leaf]
    due = {each.exchange for each in await store.due(100)}
    states = {one.id: await store.exchange(one.id) for one in move.made}
    for id_, exchange in states.items():
        assert exchange is not None
        if exchange.state in FINAL:
            assert id_ not in due
            continue
        begun_now = await store.begin(id_, 30)
        assert (begun_now is None) == (exchange.state in (State.HELD, State.RUNNING))
    await store.close()


async def test_writes_that_were_withheld_are_withheld_there_too(move: Move) -> None:
    store = await move.open(move.source)
    await store.withhold(entry("restored"))
    await store.close()
    assert (await move.carry()).exit_code == 0
    store = await move.open(move.target)
    assert await store.withheld()
    assert await store.admit_writes(entry("writes_admitted"))
    await store.close()


async def test_a_key_that_was_revoked_is_revoked_there_too(move: Move) -> None:
    store = await move.open(move.source)
    await store.revoke("a-key", entry("act"))
    await store.close()
    assert (await move.carry()).exit_code == 0
    store = await move.open(move.target)
    assert await store.revoked() == {"a-key"}
    await store.close()


async def test_the_source_does_not_start_again_unless_it_is_told_to(move: Move) -> None:
    assert (await move.carry()).exit_code == 0
    with pytest.raises(StoreUnfit, match="was carried to the schema test_"):
        await move.open(move.source)
    again = await move.carry()
    assert again.exit_code == 2
    assert "is not empty" in again.stderr
    assert "says that it was" in again.stderr
    opened.moved(move.database).unlink()
    await (await move.open(move.source)).close()


async def test_callers_notice_nothing(tmp_path: Path, dsn: str) -> None:
    """Nodes on either side of the move: the same key leads to the same outcome, and receipts are still given."""
    deployment, maker = standard(tmp_path), PostgresMaker(dsn, b"")
    note = {"id": "P-0001", "text": "moved"}
    async with running_node(tmp_path, deployment) as node, node.client() as client:
        first = await client.call("registry/note/v1", note, purpose="payroll", idempotency_key="k")
    source, target = deployment.folder, tmp_path / "target"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("store.db*"))
    (target / "dsn").write_text(dsn, "utf-8")
    move = Move(source, target, deployment, Clock(), maker, [])
    move.point(dsn="dsn", key="store.key", schema_name=maker.schema)
    assert (await move.carry()).exit_code == 0
    async with running_node(tmp_path, deployment) as node, node.client() as client:
        again = await client.call("registry/note/v1", note, purpose="payroll", idempotency_key="k")
        assert (again.exchange, again.body, again.replayed) == (first.exchange, first.body, True)
        receipt = await client.receipt(str(first.exchange))
        verify_receipt(receipt, deployment.log_verifier(str(datetime.now(UTC).year)))
    await maker.drop()


async def refused(move: Move, why: str) -> None:
    """It is refused in one line, the source is not marked, and the target holds nothing."""
    result = await move.carry()
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("gsb: ")]
    assert why in line
    assert not opened.moved(move.database).exists()
    assert await move.tables() == []


async def test_a_source_in_use_is_refused(move: Move) -> None:
    store = await move.open(move.source)
    await refused(move, "another process has this store open")
    await store.close()


async def test_what_is_not_the_same_bus_is_refused(move: Move) -> None:
    log_key = move.target / "keys" / "log.jwk.json"
    kept = log_key.read_bytes()
    log_key.write_bytes(jwk.generate("Ed25519"))
    await refused(move, "must have the same log")
    log_key.write_bytes(kept)
    move.deployment.gsb["bus"]["id"] = "another.test"
    move.point(dsn="dsn", key="store.key", schema_name=move.maker.schema)
    await refused(move, "FROM is the bus bus.test, TO is another.test")


async def test_only_from_sqlite_and_only_to_postgresql(move: Move) -> None:
    move.source, move.target = move.target, move.source
    result = await move.carry()
    assert result.exit_code == 2
    assert 'must have a [store] of kind "sqlite"' in result.stderr


async def test_another_key_than_the_source_was_sealed_with_is_refused(move: Move) -> None:
    (move.source / "store.key").write_text(new_key(), "utf-8")
    await refused(move, "sealed with another key")


async def test_where_there_is_no_store_there_is_nothing_to_carry(move: Move) -> None:
    move.database.rename(move.database.with_suffix(".away"))
    await refused(move, "there is no store")
    assert not move.database.exists()


async def test_an_entry_that_was_changed_is_not_carried(move: Move) -> None:
    """The root of its log is computed from what has arrived."""
    with sqlite3.connect(move.database) as db:
        db.execute("UPDATE entry SET content = ? WHERE row = 3", (b'{"kind":"another"}',))
    db.close()
    await refused(move, "do not make the tree that was signed")


async def test_records_that_do_not_open_are_carried_as_they_lie(move: Move) -> None:
    with sqlite3.connect(move.database) as db:
        db.execute("UPDATE sealed SET bytes = x'0102' WHERE row = 1")
    db.close()
    (move.target / "store.key").write_text(new_key(), "utf-8")
    result = await move.carry()
    assert result.exit_code == 0, result.output
    assert "1 records could not be opened" in result.stdout


async def test_a_death_in_the_middle_leaves_the_source_untouched_and_the_target_empty(move: Move) -> None:
    """Its standard error takes nothing, so it stands still where it tells of the first rows that it has carried."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, b"." * 65_536)
    os.set_blocking(write, True)
    process = await asyncio.create_subprocess_exec(GSB, *move.words, stderr=write, cwd=ROOT, env=ENVIRONMENT)
    try:
        async with asyncio.timeout(120):
            while True:
                if await move.maker.rows(_COPYING):
                    break
                await asyncio.sleep(0.01)
        assert process.returncode is None
    finally:
        process.kill()
        os.close(read)
        os.close(write)
        assert await process.wait() == -signal.SIGKILL
    assert await move.tables() == []
    await (await move.open(move.source)).close()
    assert (await move.carry()).exit_code == 0


_COPYING = "SELECT FROM pg_stat_activity WHERE application_name ~ '^gsb/' AND state = 'idle in transaction'"

DIES = """
import os, signal, sys
from gsb.cli import main
from gsb.store.sqlite import opened

mark = opened.mark_moved

def die(path, where):
    mark(path, where)
    os.kill(os.getpid(), signal.SIGKILL)

opened.mark_moved = die
main.main()
"""


async def test_a_death_between_the_mark_and_the_commit_is_gone_on_from(move: Move) -> None:
    """The only moment at which neither side would start: and then it only has to be run again."""
    command = [sys.executable, "-c", DIES, *move.words]
    process = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, env=ENVIRONMENT, check=False)
    assert process.returncode == -signal.SIGKILL
    assert opened.moved(move.database).exists()
    with pytest.raises(StoreUnfit, match="was carried to"):
        await move.open(move.source)
    assert await move.tables() == []
    assert (await move.carry()).exit_code == 0
    await (await move.open(move.target)).close()
