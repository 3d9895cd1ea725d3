"""The recorder: what is committed stands in a published log, in order, and goes on from wherever it was left."""

from __future__ import annotations

import asyncio
import logging
import resource
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from gsb.admit import admit
from gsb.errors import RecorderBehind, StoreUnavailable
from gsb.evidence.checkpoint import Checkpoint, Signer
from gsb.evidence.log import CHECKPOINT, Files
from gsb.evidence.tiles import tile_path
from gsb.record import Recorder
from gsb.store.contract import Store, StoreUnfit
from gsb.store.logs import Unsequenced
from tests.support.auditor import paths_of, said
from tests.support.bus import NOTE, ONCE, bus_of
from tests.support.deployment import standard
from tests.support.recording import Hands, recording

BEGUN = ("log_begun", None)


def numbered(*numbers: int) -> list[tuple[str, Any]]:
    return [("test", number) for number in numbers]


async def test_what_is_committed_is_published_in_order(tmp_path: Path) -> None:
    async with recording(tmp_path) as hands:
        assert not hands.folder().exists()
        await hands.record()
        assert hands.log() == [BEGUN]
        for number in range(5):
            await hands.enter(number)
        await hands.recorder.look()
        assert hands.log() == [BEGUN, *numbered(*range(5))]
        (state,) = await hands.store.logs()
        assert (state.size, state.published, state.closed) == (6, 6, False)
        assert state.checkpoint == state.published_note == (hands.folder() / CHECKPOINT).read_bytes()
        assert (await hands.store.backlog()).entries == 0


async def test_many_entries_are_recorded_at_once(tmp_path: Path) -> None:
    async with recording(tmp_path) as hands:
        await hands.record(*range(4_400))
        contents = said(hands.contents())
        assert {each.get("number") for each in contents} == {None, *range(4_400)}
        assert len(contents) == 4_401
        assert "tile/0/017.p/49" in paths_of(hands.folder())
        await hands.record(*range(250))
        # Of what has become full no partial file is left.
        assert [path for path in paths_of(hands.folder()) if path.startswith("tile/0/017")] == ["tile/0/017"]


async def test_a_later_recorder_goes_on_from_the_files(tmp_path: Path) -> None:
    deployment, before = standard(tmp_path), list[bytes]()
    for size in (300, 600, 601, 1_024):
        async with recording(tmp_path, deployment) as hands:
            await hands.record(*range(size - max(len(before), 1)))
            contents = hands.contents()
            assert (len(contents), contents[: len(before)]) == (size, before)
            before = contents


async def test_the_checkpoint_is_published_again_when_it_is_old(tmp_path: Path) -> None:
    async with recording(tmp_path) as hands:
        await hands.record(1)
        assert not await republished(hands)
        hands.clock.pass_(599)
        assert not await republished(hands)
        hands.clock.pass_(1)
        assert await republished(hands)
        hands.clock.now -= 86_400
        assert not await republished(hands)


async def republished(hands: Hands) -> bool:
    before = (hands.folder() / CHECKPOINT).stat().st_ino
    await hands.recorder.look()
    return (hands.folder() / CHECKPOINT).stat().st_ino != before


# --- files that are missing, damaged or behind


@pytest.mark.parametrize("harm", ["all", "checkpoint", "tile", "short", "top", "older"])
async def test_files_are_made_again(tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    deployment = standard(tmp_path)
    async with recording(tmp_path, deployment) as hands:
        await hands.record(*range(600))
        older = copied(hands.folder(), tmp_path / "older")
        await hands.record(*range(300))
        before = hands.contents()
    folder = hands.folder()
    tile = folder / tile_path(0, 3, 133)
    match harm:
        case "all":
            shutil.rmtree(folder)
        case "checkpoint":
            (folder / CHECKPOINT).write_bytes(b"nonsense")
        case "tile":
            tile.write_bytes(bytes(133 * 32))
        case "short":
            tile.write_bytes(tile.read_bytes()[:-1])
        case "top":
            (folder / tile_path(1, 0, 3)).unlink()
        case "older":
            copied(older, folder)
    async with recording(tmp_path, deployment) as hands:
        await hands.recorder.look()
        assert hands.contents() == before
        await hands.record(-1)
        assert hands.contents()[:-1] == before
    told = [record for record in caplog.records if record.message == "the files of a log are made again"]
    assert len(told) == (harm != "checkpoint")


def copied(folder: Path, to: Path) -> Path:
    """What restoring a backup is."""
    shutil.rmtree(to, ignore_errors=True)
    return shutil.copytree(folder, to)


async def test_entries_that_are_not_those_signed_are_never_signed_again(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    async with recording(tmp_path, deployment) as hands:
        await hands.record(*range(10))
    with closing(sqlite3.connect(deployment.folder / "store.db")) as database, database:
        database.execute("UPDATE entry SET content = replace(content, 'test', 'tess') WHERE row = 5")
    shutil.rmtree(hands.folder())
    async with recording(tmp_path, deployment) as hands:
        with pytest.raises(StoreUnfit, match="11 entries of the evidence log do not make the tree that was signed"):
            await hands.recorder.look()


async def test_a_checkpoint_that_is_not_that_of_its_entries_is_not_published(tmp_path: Path) -> None:
    async with recording(tmp_path) as hands:
        await hands.record(1)
        before = (hands.folder() / CHECKPOINT).read_bytes()
        await hands.enter(2)
        given = await hands.store.unsequenced(10)
        assert given is not None
        signer = Signer(given.origin, hands.bus.catalogue.log_key)
        await hands.store.sequence(given, signer.sign(Checkpoint(given.origin, 3, bytes(32)).text()))
        with pytest.raises(StoreUnfit, match="3 entries of the evidence log do not make the tree that was signed"):
            await hands.recorder.look()
        assert (hands.folder() / CHECKPOINT).read_bytes() == before
        assert len(hands.contents()) == 2


# --- two recorders, and a store in trouble


async def test_a_recorder_that_loses_its_place_reads_the_log_anew(tmp_path: Path) -> None:
    async with recording(tmp_path) as hands:
        await hands.record(1)
        other = Recorder(hands.bus, hands.clock.steady)
        await other.open()
        await other.look()
        for number in range(2, 8):
            await hands.enter(number)
            # Both have looked at the log as it was; only one of them gives the places.
            await asyncio.gather(hands.recorder.look(), other.look())
        await hands.recorder.look()
        assert hands.log() == [BEGUN, *numbered(*range(1, 8))]


class Overtaken:
    """A store on which somebody else has always been faster: it sequences in between, with a checkpoint of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.faster: Any = None

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._store, verb)

    async def unsequenced(self, limit: int) -> Unsequenced | None:
        if (faster := self.faster) is not None:
            self.faster = None
            await faster()
        return await self._store.unsequenced(limit)


async def test_nothing_is_signed_on_an_edge_that_others_have_moved(tmp_path: Path) -> None:
    async with recording(tmp_path, wrap=lambda store: cast(Store, Overtaken(store))) as hands:
        await hands.record(1)
        other = Recorder(hands.bus, hands.clock.steady)
        await other.open()

        async def faster() -> None:
            await other.look()
            await hands.enter(3)

        await hands.enter(2)
        cast(Any, hands.store).faster = faster
        await hands.recorder.look()
        await hands.recorder.look()
        assert hands.log() == [BEGUN, *numbered(1, 2, 3)]


@pytest.mark.parametrize("verb", ["logs", "unsequenced", "sequence", "publish", "entries", "backlog"])
async def test_a_store_in_trouble_is_asked_again(tmp_path: Path, verb: str) -> None:
    class Ill:
        ill = False

        def __init__(self, store: Store) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            if self.ill and name == verb:
                raise StoreUnavailable
            return getattr(self._store, name)

    async with recording(tmp_path, wrap=lambda store: cast(Store, Ill(store))) as hands:
        await hands.record(1)
        Ill.ill = True
        await hands.record(2)
        Ill.ill = False
        await hands.recorder.look()
        assert hands.log() == [BEGUN, *numbered(1, 2)]


# --- what is unproven, and what becomes of admission


async def test_a_look_ends_although_entries_keep_coming(tmp_path: Path) -> None:
    async with recording(tmp_path) as hands, asyncio.timeout(90):
        await hands.enter(1)
        look, last = asyncio.create_task(hands.recorder.look()), 1
        while not look.done():
            await hands.enter(last := last + 1)
        await hands.recorder.look()
        assert [number for kind, number in hands.log() if number] == list(range(1, last + 1))


async def test_too_many_entries_stop_admission(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    deployment = standard(tmp_path)
    deployment.gsb["log"]["behind_entries"] = 3
    async with recording(tmp_path, deployment) as hands:
        await hands.record(1)
        await hands.enter(2, 3, 4)
        await hands.recorder.measure()
        assert await standing(hands) == []
        await hands.enter(5)
        await hands.recorder.measure()
        await hands.recorder.measure()
        assert await standing(hands) == ["recorder"]
        assert metrics(hands) == {"size": 2, "published_size": 2, "backlog_entries": 4, "backlog_seconds": 0}
        await hands.recorder.look()
        assert await standing(hands) == []
        assert metrics(hands) == {"size": 6, "published_size": 6, "backlog_entries": 0, "backlog_seconds": 0}
    behind, over = told(caplog)
    assert behind.startswith(
        "the evidence log is behind: 4 entries are not published, the oldest for 0 s; new exchanges"
    )
    assert over == "the evidence log keeps up again; new exchanges are admitted"


async def test_an_entry_that_waits_too_long_stops_admission_and_a_clock_that_is_set_does_not(tmp_path: Path) -> None:
    async with recording(tmp_path) as hands:
        await hands.record(1)
        await hands.enter(2)
        hands.clock.now += 86_400
        await hands.recorder.measure()
        assert await standing(hands) == []
        hands.clock.now -= 86_400
        hands.clock.pass_(30)
        await hands.recorder.measure()
        assert await standing(hands) == []
        hands.clock.pass_(1)
        await hands.recorder.measure()
        assert await standing(hands) == ["recorder"]
        assert metrics(hands)["backlog_seconds"] == 31
        await hands.recorder.look()
        assert await standing(hands) == []


async def test_a_disk_that_fails_stops_admission_until_it_can_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with recording(tmp_path) as hands:
        await hands.record(1)
        aside = hands.folder().rename(tmp_path / "aside")
        hands.folder().write_text("no folder")
        for number in (2, 3):
            await hands.record(number)
            assert await standing(hands) == ["recorder"]
        hands.folder().unlink()
        aside.rename(hands.folder())
        await hands.recorder.look()
        assert await standing(hands) == []
        assert hands.log() == [BEGUN, *numbered(1, 2, 3)]
    first, last = told(caplog)
    assert "cannot be written ([Errno 20] Not a directory" in first
    assert "make room for" in first
    assert "keeps up again" in last


async def test_folders_that_went_away_under_a_recorder_are_made_again(tmp_path: Path) -> None:
    """Such as by another disk in the place of the one that failed."""
    async with recording(tmp_path) as hands:
        await hands.record(1)
        shutil.rmtree(hands.folder())
        await hands.record(2)
        assert await standing(hands) == ["recorder"]
        await hands.recorder.look()
        assert await standing(hands) == []
        assert hands.log() == [BEGUN, *numbered(1, 2)]


async def test_without_descriptors_the_limits_count_and_not_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recording(tmp_path) as hands:
        await hands.record(1)
        await hands.enter(2)
        least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        write = Files.write

        def scarce(files: Files, contents: Mapping[str, bytes], ready: Callable[[], None]) -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, most))
            try:
                write(files, contents, ready)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (least, most))

        with monkeypatch.context() as full:
            full.setattr(Files, "write", scarce)
            await hands.recorder.look()
            assert await standing(hands) == []
            hands.clock.pass_(31)
            await hands.recorder.look()
            assert await standing(hands) == ["recorder"]
        await hands.recorder.look()
        assert await standing(hands) == []
        assert hands.log() == [BEGUN, *numbered(1, 2)]


async def standing(hands: Hands) -> list[str]:
    """What keeps the node from its work."""
    return await hands.bus.unready()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno > logging.INFO]


def metrics(hands: Hands) -> dict[str, float]:
    lines = [line.split() for line in hands.bus.metrics.text({}, {}).decode().splitlines()]
    return {line[0].removeprefix("gsb_log_"): float(line[1]) for line in lines if line[0].startswith("gsb_log_")}


async def test_nothing_new_is_admitted_while_the_log_is_behind(tmp_path: Path) -> None:
    async with bus_of(standard(tmp_path)) as hands:
        hands.bus.behind = True
        call = hands.call(ONCE, NOTE, key="k")
        with pytest.raises(RecorderBehind) as refused:
            await admit(hands.bus, call)
        assert refused.value.headers == {"Retry-After": "5"}
        assert call.signed is None
        hands.bus.behind = False
        assert (await hands.send(ONCE, NOTE, key="k")).status == 202
