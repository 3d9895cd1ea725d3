"""``gsb restore``: a backup, or a standby that was promoted too early, does not start; and how to go on from it.

On SQLite and on a real PostgreSQL, which is given back a copy of its stopped self, or replaced by a standby.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from gsb.admit import BEHIND_PAUSE
from gsb.cli.main import app
from gsb.client import BusProblem
from gsb.model import Effect, State
from gsb.store.contract import NewExchange, Store, StoreUnfit
from tests.support.deployment import SITE, Deployment, standard
from tests.support.node import running_node
from tests.support.postgres import Server, own_server
from tests.support.recording import YEAR, Clock, Hands, recording
from tests.support.stores import DONE, accepted, begun, done, entry, unknown

ROOT = Path(__file__).parents[1]
REASON = "canary: the machine was lost"


class Backup:
    """A deployment on some store, and a way to bring back what it was."""

    def __init__(self, deployment: Deployment, server: Server | None) -> None:
        self.deployment, self._server = deployment, server
        self._saved = deployment.folder.parent / "saved"

    def take(self) -> None:
        """While nothing is open."""
        self._saved.mkdir()
        for path in self.deployment.folder.glob("store.db*"):
            shutil.copy(path, self._saved)

    def give_back(self) -> None:
        for path in self._saved.iterdir():
            shutil.copy(path, self.deployment.folder)


class Copied(Backup):
    """The files of a server that was stopped."""

    @property
    def server(self) -> Server:
        assert self._server is not None
        return self._server

    @property
    def data(self) -> Path:
        return self.server._folder / "data"

    @property
    def aside(self) -> Path:
        return self.server._folder / "aside"

    def take(self) -> None:
        self.server.stop()
        subprocess.run(["cp", "-a", self.data, self.aside], check=True)
        self.server.start()

    def give_back(self) -> None:
        self.server.stop(signal.SIGQUIT)
        shutil.rmtree(self.data)
        self.aside.rename(self.data)
        self.server.start()


class Promoted(Copied):
    """A standby that has followed for a while, and is promoted when its server is dead."""

    def take(self) -> None:
        words = self.server._as_user(self.server._bin / "pg_basebackup", "-d", self.server.dsn, "-D", self.aside)
        subprocess.run([*words, "-R", "-c", "fast"], check=True, cwd="/")

    def give_back(self) -> None:
        super().give_back()
        asyncio.run(self._promote())

    async def _promote(self) -> None:
        db = await asyncpg.connect(self.server.dsn)
        assert await db.fetchval("SELECT pg_is_in_recovery()")
        assert await db.fetchval("SELECT pg_promote()")
        await db.close()


Kind = Callable[[Deployment, Server | None], Backup]


@pytest.fixture(params=[Backup, Copied, Promoted])
async def backup(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backup]:
    kind: Kind = request.param
    deployment = standard(tmp_path)
    serving: AbstractContextManager[Server | None] = nullcontext() if kind is Backup else own_server()
    with serving as server:
        if server is not None:
            deployment.gsb["store"] = {"kind": "postgres", "dsn": "dsn", "key": "store.key"}
            (deployment.folder / "dsn").write_text(server.dsn, "utf-8")
        yield kind(deployment, server)


async def gsb(*words: str | Path) -> Result:
    """In a thread: a command has an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, [str(word) for word in words])


async def everything_undecided(store: Store) -> tuple[list[NewExchange], list[NewExchange]]:
    """Writes in every state before the last, and what a restore must leave as it is."""
    waiting, held, running, fresh = [await accepted(store, Effect.REPEATABLE) for _ in range(4)]
    await store.postpone((await begun(store, waiting.id)).attempt, 1_000, "down", sent=False)
    await store.hold((await begun(store, held.id)).attempt, State.HELD, "broken", entry())
    await begun(store, running.id)
    left = [await accepted(store, Effect.NONE), await done(store), (await unknown(store))[0]]
    return [waiting, held, running, fresh, await accepted(store)], left


async def rolled_back(backup: Backup, clock: Clock) -> tuple[list[NewExchange], list[NewExchange], list[NewExchange]]:
    """What was undecided when the backup was made, what was not, and what the backup does not know; the store is the
    backup's again, the log's files are not."""
    root = backup.deployment.folder.parent
    async with recording(root, backup.deployment, clock) as hands:
        undecided, left = await everything_undecided(hands.store)
        await hands.recorder.look()
    await asyncio.to_thread(backup.take)
    async with recording(root, backup.deployment, clock) as hands:
        assert await hands.store.finish((await begun(hands.store, undecided[-1].id)).attempt, DONE, entry())
        later = [await done(hands.store, agency="payroll") for _ in range(3)]
        await hands.recorder.look()
    await asyncio.to_thread(backup.give_back)
    return undecided, left, later


async def states(store: Store, made: list[NewExchange]) -> list[tuple[State, str | None]]:
    found = [await store.exchange(one.id) for one in made]
    return [(each.state, each.reason) for each in found if each is not None]


async def test_what_is_behind_does_not_start_and_goes_on_only_after_a_restore(backup: Backup) -> None:
    clock, folder = Clock(), backup.deployment.folder
    undecided, left, later = await rolled_back(backup, clock)
    async with recording(folder.parent, backup.deployment, clock, opened=False) as hands:
        with pytest.raises(StoreUnfit, match=r"is behind what was published .* gsb restore DIR"):
            await hands.recorder.open()
        before = await states(hands.store, left)
    refused = await gsb("log", "begin", folder, "--reason", REASON)
    assert (refused.exit_code, "gsb restore begins a new log too" in refused.stderr) == (2, True)
    done_now = await gsb("restore", folder, "--reason", REASON)
    assert done_now.exit_code == 0, done_now.output
    assert [line.split()[0] for line in done_now.stdout.splitlines()] == [one.id for one in later]
    assert "3 exchanges are named by the log's files alone" in done_now.stderr
    assert f"{len(undecided)} writes are unknown now" in done_now.stderr
    async with recording(folder.parent, backup.deployment, clock) as hands:
        await holds(hands, undecided, left, before)
    again = await gsb("restore", folder, "--reason", REASON)
    assert (again.exit_code, again.stdout) == (0, "")
    assert "0 writes are unknown now" in again.stderr


async def holds(
    hands: Hands, undecided: list[NewExchange], left: list[NewExchange], before: list[tuple[State, str | None]]
) -> None:
    assert await states(hands.store, undecided) == [(State.UNKNOWN, "restored")] * len(undecided)
    assert await states(hands.store, left) == before
    for one in undecided:
        assert (await begun(hands.store, one.id)).task == "find"
    assert (await begun(hands.store, left[0].id)).task == "run"
    assert await hands.store.withheld()
    await hands.recorder.look()
    # What went before has a clock of its own; the command that begins the new log has this machine's.
    year = str(datetime.now(UTC).year)
    new = f"{YEAR}.2" if year == YEAR else year
    assert [log.origin.rpartition("/")[2] for log in await hands.store.logs()] == [YEAR, new]
    kinds = [kind for kind, _ in hands.log(new)]
    assert kinds[0] == "log_begun"
    assert sorted(kinds[1:]) == sorted(["restored", *["unknown"] * len(undecided)])
    assert "canary" not in str(hands.contents(new))


async def test_writes_wait_for_an_operator_and_reads_do_not(backup: Backup) -> None:
    root, folder = backup.deployment.folder.parent, backup.deployment.folder
    on_postgres = not (folder / "dsn").exists()
    async with running_node(root, backup.deployment):
        beside = await gsb("restore", folder, "--reason", REASON)
        assert beside.exit_code == 2
        assert ("another process" if on_postgres else "stop all nodes first") in beside.stderr
    assert (await gsb("restore", folder, "--admit-writes", "--reason", REASON)).exit_code == 2
    assert (await gsb("restore", folder, "--reason", REASON)).exit_code == 0
    async with running_node(root, backup.deployment) as node, node.client() as client:
        with pytest.raises(BusProblem) as refused:
            await client.call(
                "registry/note/v1", {"id": "P-0001", "text": "x"}, purpose="payroll", timeout=float(BEHIND_PAUSE)
            )
        assert refused.value.code == "writes_withheld"
        assert (await client.call("registry/person/v1", {"id": "P-0001"}, purpose="payroll")).status == 200
        if not on_postgres:
            assert (await gsb("restore", folder, "--admit-writes", "--reason", REASON)).exit_code == 0
            # The node hears of it by itself, and the client asks again.
            await client.call("registry/note/v1", {"id": "P-0001", "text": "x"}, purpose="payroll")
            return
    assert (await gsb("restore", folder, "--admit-writes", "--reason", REASON)).exit_code == 0
    async with running_node(root, backup.deployment) as node, node.client() as client:
        await client.call("registry/note/v1", {"id": "P-0001", "text": "x"}, purpose="payroll")


DIES = """
import os, signal, sys
from gsb import restore
from gsb.cli import main

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(restore, sys.argv.pop(1), die)
main.main()
"""


@pytest.mark.parametrize("step", ["_doubt", "begin_anew"])
@pytest.mark.parametrize("backup", [Backup, Copied], indirect=True)
async def test_a_restore_that_died_is_run_again(backup: Backup, step: str) -> None:
    """Until it is through, nothing starts."""
    clock, folder = Clock(), backup.deployment.folder
    undecided, _, later = await rolled_back(backup, clock)
    words = [sys.executable, "-c", DIES, step, "restore", str(folder), "--reason", REASON]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(SITE)])}
    process = await asyncio.to_thread(subprocess.run, words, env=environment, check=False)
    assert process.returncode == -signal.SIGKILL
    async with recording(folder.parent, backup.deployment, clock, opened=False) as hands:
        with pytest.raises(StoreUnfit, match="is behind what was published"):
            await hands.recorder.open()
        assert await hands.store.withheld()
    again = await gsb("restore", folder, "--reason", REASON)
    assert again.exit_code == 0, again.output
    assert [line.split()[0] for line in again.stdout.splitlines()] == [one.id for one in later]
    async with recording(folder.parent, backup.deployment, clock) as hands:
        assert await states(hands.store, undecided) == [(State.UNKNOWN, "restored")] * len(undecided)


@pytest.mark.parametrize("backup", [Backup], indirect=True)
async def test_where_nothing_can_be_lost_nothing_is_withheld(backup: Backup) -> None:
    folder = backup.deployment.write()
    refused = await gsb("restore", folder, "--reason", REASON)
    assert refused.exit_code == 2
    assert "there is no log yet" in refused.stderr
    assert (await gsb("restore", folder, "--reason", "x")).exit_code == 2
    async with recording(folder.parent, backup.deployment, Clock()) as hands:
        assert not await hands.store.withheld()
