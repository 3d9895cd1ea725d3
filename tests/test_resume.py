"""Which log goes on: none that was published further than the store knows; the next year's; a new one if so ordered."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gsb import jwk
from gsb.catalogue import build
from gsb.evidence.checkpoint import Checkpoint, Cosigner, Signer
from gsb.evidence.log import CHECKPOINT, Folder
from gsb.resume import checkpoint_of, published, told
from gsb.store.contract import StoreUnfit
from gsb.telemetry import JsonLines
from tests.support.auditor import checkpoint_of as checkpoint_in_folder
from tests.support.auditor import said
from tests.support.deployment import SITE, Deployment, free_ports, standard
from tests.support.node import GSB
from tests.support.recording import YEAR, Clock, Hands, recording

NEXT = str(int(YEAR) + 1)


# --- a store that was rolled back


async def recorded(deployment: Deployment, root: Path, *numbers: int) -> Checkpoint:
    """Record these and say what is published then."""
    async with recording(root, deployment) as hands:
        await hands.record(*numbers)
        return checkpoint_in(hands, YEAR)


def stored(deployment: Deployment) -> list[Path]:
    return sorted(deployment.folder.glob("store.db*"))


def back_up(deployment: Deployment, to: Path) -> None:
    to.mkdir()
    for path in stored(deployment):
        shutil.copy(path, to)


def restore(deployment: Deployment, of: Path) -> None:
    for path in stored(deployment):
        path.unlink()
    for path in of.iterdir():
        shutil.copy(path, deployment.folder)


async def test_whoever_cannot_see_what_was_published_says_that_it_cannot_judge_the_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a worker on whose machine the folder of the log is not mounted."""
    async with recording(tmp_path) as hands:
        await hands.record(1)
        await hands.recorder.examine()
        assert caplog.messages == []
        hands.deployment.log_folder.rename(tmp_path / "elsewhere")
        await hands.recorder.examine()
    (warning,) = caplog.records
    assert "can be read at log.path" in warning.message
    assert str(hands.deployment.log_folder) in JsonLines().format(warning)


async def behind(deployment: Deployment, root: Path) -> str:
    await recorded(deployment, root, 1, 2)
    back_up(deployment, root / "backup")
    await recorded(deployment, root, 3, 4)
    restore(deployment, root / "backup")
    return "it has 3 entries in order, and 5 are published in"


async def behind_in_between(deployment: Deployment, root: Path) -> str:
    """The backup was made when entries had their places and were not published yet."""
    await recorded(deployment, root, 1, 2)
    async with recording(root, deployment) as hands:
        await hands.recorder.look()
        folder = hands.folder().rename(root / "aside")
        hands.folder().write_text("a disk that fails")
        await hands.record(3)
        hands.folder().unlink()
        folder.rename(hands.folder())
    back_up(deployment, root / "backup")
    await recorded(deployment, root, 4, 5)
    restore(deployment, root / "backup")
    return "it has 4 entries in order, and 6 are published in"


async def other_entries(deployment: Deployment, root: Path) -> str:
    await recorded(deployment, root, 1, 2)
    back_up(deployment, root / "backup")
    await recorded(deployment, root, 3, 4)
    folder = deployment.log_folder / YEAR
    shutil.copytree(folder, root / "published")
    restore(deployment, root / "backup")
    shutil.rmtree(folder)
    await recorded(deployment, root, 5, 6, 7)
    shutil.rmtree(folder)
    shutil.copytree(root / "published", folder)
    return "with 5 entries (the store has 6) its root is not the one in"


async def lost(deployment: Deployment, root: Path) -> str:
    await recorded(deployment, root, 1, 2)
    for path in stored(deployment):
        path.unlink()
    return "of which 3 entries are published in"


async def another_key(deployment: Deployment, root: Path) -> str:
    await recorded(deployment, root, 1, 2)
    (deployment.folder / "keys" / "log.jwk.json").write_bytes(jwk.generate("Ed25519"))
    return "log.key is not the key of the log"


async def behind_itself(deployment: Deployment, root: Path) -> str:
    """The signed checkpoint is of more entries than there are."""
    async with recording(root, deployment) as hands:
        await hands.record(1, 2)
        given = await hands.store.unsequenced(10)
        assert given is None
        await hands.enter(3)
        given = await hands.store.unsequenced(10)
        assert given is not None
        forged = Checkpoint(f"{hands.origin}/{YEAR}", 9, bytes(32)).text()
        await hands.store.sequence(given, Signer(f"{hands.origin}/{YEAR}", hands.bus.catalogue.log_key).sign(forged))
    return "9 entries are signed and it has 4"


Fault = Callable[[Deployment, Path], Awaitable[str]]
FAULTS: list[Fault] = [behind, behind_in_between, other_entries, lost, another_key, behind_itself]


def everything(deployment: Deployment) -> dict[Path, bytes]:
    """The files of all logs."""
    return {path: path.read_bytes() for path in deployment.log_folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_cannot_be_continued_does_not_start_and_touches_nothing(tmp_path: Path, fault: Fault) -> None:
    deployment = standard(tmp_path)
    words = await fault(deployment, tmp_path)
    before = everything(deployment)
    async with recording(tmp_path, deployment, opened=False) as hands:
        with pytest.raises(StoreUnfit) as refused:
            await hands.recorder.open()
    assert words in str(refused.value)
    assert f"gsb {'log begin' if fault is another_key else 'restore'} DIR --reason" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert everything(deployment) == before


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_new_log_names_what_it_does_not_continue(tmp_path: Path, fault: Fault) -> None:
    deployment = standard(tmp_path)
    await fault(deployment, tmp_path)
    before = everything(deployment)
    async with recording(tmp_path, deployment, opened=False) as hands:
        logs, found = await hands.store.logs(), published(Folder(deployment.log_folder))
        origin = await hands.begin_anew()
        assert origin == f"{hands.origin}/{YEAR}.2"
        await hands.recorder.open()
        await hands.record(100)
        first, *rest = said(hands.contents(f"{YEAR}.2"))
        assert (first["kind"], first["log"]) == ("log_begun", origin)
        assert first["published"] == [told(checkpoint) for checkpoint in found.values()]
        last = [checkpoint_of(state.checkpoint) for state in logs]
        assert [first["previous"]] == [told(each) for each in last if each] if logs else "previous" not in first
        assert rest[-1]["number"] == 100
        assert (await hands.store.backlog()).entries == 0
    # It stands beside the old one, whose files are what they were; and the next start goes on with it.
    assert {path: data for path, data in everything(deployment).items() if path in before} == before
    async with recording(tmp_path, deployment) as hands:
        await hands.record(101)
        assert said(hands.contents(f"{YEAR}.2"))[-1]["number"] == 101
        assert (await hands.store.logs())[-1].origin == origin


async def test_the_files_of_a_log_that_is_not_continued_are_not_made_again(tmp_path: Path) -> None:
    """The store would tell another story than they did."""
    deployment = standard(tmp_path)
    await other_entries(deployment, tmp_path)
    async with recording(tmp_path, deployment, opened=False) as hands:
        await hands.begin_anew()
    shutil.rmtree(deployment.log_folder / YEAR)
    async with recording(tmp_path, deployment) as hands:
        await hands.record(100)
        assert [path.name for path in deployment.log_folder.iterdir()] == [f"{YEAR}.2"]


async def test_a_log_that_ended_before_its_first_checkpoint_is_in_nobodys_way(tmp_path: Path) -> None:
    """Witnesses are offered nothing of it: there is no note that they could cosign."""
    deployment = standard(tmp_path)
    witness = Cosigner("witness.example", Ed25519PrivateKey.generate())
    deployment.gsb["log"] |= {
        "witnesses": [{"url": f"http://127.0.0.1:{free_ports(1)[0]}", "key": witness.vkey}],
        "cosign_wait": 0.0,
    }
    async with recording(tmp_path, deployment) as hands:
        hands.folder().write_text("a disk that fails")
        await hands.recorder.look()
        hands.folder().unlink()
        await hands.begin_anew()
        await hands.record(1)
        await hands.recorder.close()
        assert [kind for kind, _ in hands.log(f"{YEAR}.2")] == ["log_begun", "test"]


async def test_there_is_no_new_log_before_there_was_one(tmp_path: Path) -> None:
    async with recording(tmp_path, opened=False) as hands:
        with pytest.raises(StoreUnfit, match="there is no log yet"):
            await hands.begin_anew()


async def test_an_older_copy_of_the_files_is_caught_up_and_a_forged_one_is_not(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    first = await recorded(deployment, tmp_path, 1, 2)
    await recorded(deployment, tmp_path, 3, 4)
    file = deployment.log_folder / YEAR / CHECKPOINT
    signer = Signer(first.origin, build(deployment.folder).log_key)
    file.write_bytes(signer.sign(first.text()))
    assert (await recorded(deployment, tmp_path)).size == 5
    file.write_bytes(signer.sign(Checkpoint(first.origin, first.size, bytes(32)).text()))
    with pytest.raises(StoreUnfit, match="with 3 entries \\(the store has 5\\) its root is not the one"):
        await recorded(deployment, tmp_path)


async def test_a_node_says_in_one_line_why_it_does_not_start(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    await behind(deployment, tmp_path)
    command = [str(GSB), "serve", str(deployment.folder)]
    environment = os.environ | {"PYTHONPATH": str(SITE)}
    ended = await asyncio.to_thread(
        subprocess.run, command, check=False, capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 2
    # Whatever opened and closed before has said so in the log's own form.
    *_, line = ended.stderr.splitlines()
    assert line.startswith("gsb: cannot start: the store is behind what was published of the log ")


# --- rotation


async def test_a_year_ends_with_a_name_and_the_next_begins_with_one(tmp_path: Path) -> None:
    async with recording(tmp_path) as hands:
        await hands.record(1, 2)
        before = checkpoint_in(hands, YEAR)
        await hands.enter(3)
        hands.clock.now = moment(int(YEAR) + 1)
        await hands.record(4)
        old, new = f"{hands.origin}/{YEAR}", f"{hands.origin}/{NEXT}"
        closed = said(hands.contents(YEAR))
        assert [each.get("number") for each in closed] == [None, 1, 2, 3, 4, None]
        assert (closed[-1]["kind"], closed[-1]["log"], closed[-1]["next"]) == ("log_ended", old, new)
        (begun,) = said(hands.contents(NEXT))
        assert (begun["kind"], begun["log"], begun["previous"]) == ("log_begun", new, told(before))
        await hands.record(5)
        assert said(hands.contents(NEXT))[-1]["number"] == 5
        assert [(state.closed, state.published) for state in await hands.store.logs()] == [(True, 6), (False, 2)]
        # A clock that is set back opens no old log, and begins none.
        hands.clock.now = moment(int(YEAR))
        await hands.record(6)
        assert [each.get("number") for each in said(hands.contents(NEXT))] == [None, 5, 6]
        # Nor does it begin a second one for a year when it is set right again.
        hands.clock.now = moment(int(NEXT))
        await hands.record(7)
        assert len(await hands.store.logs()) == 2


async def test_a_log_that_is_called_otherwise_is_another_log(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    await recorded(deployment, tmp_path, 1)
    deployment.gsb["log"]["origin"] = "bus.example/evidence"
    async with recording(tmp_path, deployment) as hands:
        await hands.record(2)
        first, _ = await hands.store.logs()
        assert first.closed
        # The folder of the year is the old log's.
        assert said(hands.contents(f"{YEAR}.2"))[0]["log"] == f"bus.example/evidence/{YEAR}.2"


async def test_closed_logs_are_made_again_where_their_files_are_gone(tmp_path: Path) -> None:
    deployment, clock = standard(tmp_path), Clock()
    async with recording(tmp_path, deployment, clock) as hands:
        await hands.record(*range(300))
        clock.now = moment(int(NEXT))
        await hands.record()
        closed = hands.contents(YEAR)
    shutil.rmtree(deployment.log_folder / YEAR)
    async with recording(tmp_path, deployment, clock) as hands:
        assert hands.contents(YEAR) == closed


def checkpoint_in(hands: Hands, name: str) -> Checkpoint:
    return checkpoint_in_folder(hands.folder(name), hands.verifier(name))


def moment(year: int) -> float:
    """In that year, in seconds since the epoch."""
    return datetime(year, 3, 1, tzinfo=UTC).timestamp()
