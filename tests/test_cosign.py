"""The recorder and its witnesses: real witnesses over real sockets, dead ones, slow ones, and ones that know better."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typer.testing import CliRunner

from gsb.cli.main import app
from gsb.evidence.checkpoint import Checkpoint, Signer, Verifier, cosignatures, open_checkpoint, parse_note
from gsb.jwk import read_ed25519
from gsb.resume import told
from gsb.store.contract import StoreUnfit
from tests.support.auditor import said
from tests.support.deployment import free_ports, standard
from tests.support.node import node_in_process
from tests.support.reading import missing
from tests.support.recording import NOW, Clock, Hands, recording
from tests.support.witness import Reached, witnessing


class Scene:
    """A deployment with witnesses at fixed ports, each of which is there or not."""

    def __init__(self, root: Path, names: Sequence[str], **log: Any) -> None:
        self.root, self.deployment = root, standard(root)
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.clock = Clock()
        self.deployment.gsb["log"] |= {"cosignatures": len(names), "cosign_wait": 10.0, **log}
        self.there: dict[str, Reached] = {}
        self.stack = AsyncExitStack()

    @property
    def origin(self) -> str:
        return f"{self.deployment.bus_url.partition('://')[2]}/log"

    @asynccontextmanager
    async def witness(self, name: str) -> AsyncIterator[Reached]:
        key = read_ed25519((self.deployment.folder / "keys/log.jwk.json").read_bytes())[1]
        vkey = Signer(f"{self.origin}/2026", key).vkey
        logs = f'[[logs]]\norigin = "{self.origin}"\nyearly = true\nkeys = ["{vkey}"]\n'
        async with witnessing(self.root / name, logs, name=name, port=self.ports[name]) as there:
            yield there

    async def name_them(self) -> None:
        """Let the bus know the witnesses, whose keys are made when they first begin."""
        tables = []
        for name, port in self.ports.items():
            async with self.witness(name) as there:
                tables.append({"url": f"http://127.0.0.1:{port}", "key": there.verifier.vkey})
        self.deployment.gsb["log"]["witnesses"] = tables

    @asynccontextmanager
    async def recording(self, *, opened: bool = True) -> AsyncIterator[Hands]:
        async with recording(self.root, self.deployment, self.clock, opened=opened) as hands:
            try:
                yield hands
            finally:
                await hands.recorder.close()

    async def begin(self, name: str) -> Reached:
        self.there[name] = await self.stack.enter_async_context(self.witness(name))
        return self.there[name]


@asynccontextmanager
async def scene(root: Path, *names: str, there: bool = True, **log: Any) -> AsyncIterator[Scene]:
    """A scene in which the witnesses of these names are known, and ``there`` or not yet."""
    made = Scene(root, names, **log)
    await made.name_them()
    async with made.stack:
        for name in names if there else ():
            await made.begin(name)
        yield made


def note_of(hands: Hands, name: str = "2026") -> bytes:
    return (hands.folder(name) / "checkpoint").read_bytes()


def cosigners(hands: Hands, name: str = "2026") -> set[str]:
    """Whose cosignatures stand under the published checkpoint, verified, each once."""
    verifiers = [Verifier.of(table["key"]) for table in hands.deployment.gsb["log"]["witnesses"]]
    note = note_of(hands, name)
    open_checkpoint(note, hands.verifier(name))
    found = cosignatures(note, verifiers)
    assert len(parse_note(note).signatures) == 1 + len(found)
    return set(found)


async def until(hands: Hands, true: Any) -> None:
    async with asyncio.timeout(90):
        while not true():
            await hands.recorder.look()
            await asyncio.sleep(0.02)


# --- witnesses that are there


async def test_each_published_checkpoint_is_cosigned(tmp_path: Path) -> None:
    async with scene(tmp_path, "a.example", "b.example") as made, made.recording() as hands:
        for numbers in [(), (1,), range(2, 300)]:
            await hands.record(*numbers)
            assert cosigners(hands) == {"a.example", "b.example"}
        hands.contents()
        (state,) = await hands.store.logs()
        assert state.published_note == note_of(hands)
        for each in made.there.values():
            assert seen(each) == state.published


async def test_a_restated_checkpoint_is_cosigned_anew(tmp_path: Path) -> None:
    async with scene(tmp_path, "a.example") as made, made.recording() as hands:
        await hands.record(1)
        there = made.there["a.example"]
        before = note_of(hands)
        there.book._clock = lambda: NOW + 700
        made.clock.pass_(700)
        await hands.recorder.look()
        assert cosignatures(before, [there.verifier]) == {"a.example": int(NOW)}
        assert cosignatures(note_of(hands), [there.verifier]) == {"a.example": int(NOW) + 700}
        assert cosigners(hands) == {"a.example"}


async def test_a_recorder_that_begins_again_learns_what_its_witnesses_know(tmp_path: Path) -> None:
    async with scene(tmp_path, "a.example") as made:
        async with made.recording() as hands:
            await hands.record(*range(20))
        async with made.recording() as hands:
            await hands.record(21)
            assert cosigners(hands) == {"a.example"}


async def test_the_last_checkpoint_of_a_year_and_the_first_of_the_next_are_cosigned(tmp_path: Path) -> None:
    async with scene(tmp_path, "a.example", "late.example", there=False) as made:
        await made.begin("a.example")
        async with made.recording() as hands:
            await hands.record(1)
            made.clock.pass_(365 * 86_400)
            await until(hands, (hands.folder("2027") / "checkpoint").exists)
            assert (cosigners(hands), cosigners(hands, "2027")) == ({"a.example"}, {"a.example"})
        # A restart later the other witness is there: it has neither log's newest checkpoint yet.
        await made.begin("late.example")
        async with made.recording() as hands:
            both = {"a.example", "late.example"}
            await until(hands, lambda: cosigners(hands) == cosigners(hands, "2027") == both)


async def test_what_was_sequenced_and_cosigned_before_a_crash_is_published_after_it(tmp_path: Path) -> None:
    async with scene(tmp_path, "a.example") as made:
        async with made.recording() as hands:
            await hands.record(1)
            hands.recorder._publish_with = crash  # type: ignore[method-assign, assignment]
            with pytest.raises(Crash):
                await hands.record(2)
            (state,) = await hands.store.logs()
            assert seen(made.there["a.example"]) == state.size > state.published
        async with made.recording() as hands:
            await hands.recorder.look()
            assert cosigners(hands) == {"a.example"}
            assert [number for _, number in hands.log()] == [None, 1, 2]


class Crash(BaseException):
    """The process ends here."""


async def crash(*_: object) -> None:
    raise Crash


# --- witnesses that are not


async def test_nobody_waits_for_a_witness_that_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with scene(tmp_path, "a.example", "late.example", there=False) as made:
        await made.begin("a.example")
        async with made.recording() as hands:
            hands.wait_for_ever()
            async with asyncio.timeout(90):
                for number in range(5):
                    await hands.record(number)
                    assert cosigners(hands) == {"a.example"}
            size = open_checkpoint(note_of(hands), hands.verifier()).size
            await made.begin("late.example")
            await until(hands, lambda: cosigners(hands) == {"a.example", "late.example"})
            assert open_checkpoint(note_of(hands), hands.verifier()).size == size
        text = hands.bus.metrics.text({}, {}).decode()
        assert 'gsb_witness_failures_total{reason="unreachable",witness="a.example"} 0.0' in text
        assert 'gsb_witness_failures_total{reason="unreachable",witness="late.example"} 0.0' not in text
    told = [record.message for record in caplog.records if "late.example" in record.message]
    assert len(told) == 2, told
    assert "is asked again, and nothing waits for it" in told[0]
    assert told[1] == "the witness late.example cosigns again"


async def test_a_witness_that_hangs_costs_one_wait(tmp_path: Path) -> None:
    async with scene(tmp_path, "slow.example", there=False, cosign_wait=0.3) as made:
        hanging = asyncio.Event()

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await hanging.wait()
            writer.close()

        server = await asyncio.start_server(hang, "127.0.0.1", made.ports["slow.example"])
        async with made.recording(opened=False) as hands:
            await hands.recorder.open()
            await hands.record(0)
            hands.wait_for_ever()
            async with asyncio.timeout(90):
                for number in range(1, 10):
                    await hands.record(number)
            assert cosigners(hands) == set()
        hanging.set()
        server.close()
        await server.wait_closed()


async def test_the_node_is_not_ready_while_cosigning_has_stopped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = {"idle": 600, "cosigned_within": 700}
    async with scene(tmp_path, "a.example", there=False, **log) as made, made.recording() as hands:
        await hands.record(1)
        assert await hands.bus.unready() == []
        made.clock.pass_(690)
        await hands.recorder.measure()
        assert await hands.bus.unready() == []
        made.clock.pass_(20)
        await hands.recorder.measure()
        assert await hands.bus.unready() == ["witness"]
        assert b"gsb_witness_cosigned_age_seconds 710.0" in hands.bus.metrics.text({}, {})
        assert not hands.bus.behind, "who is admitted is proved all the same"
        await made.begin("a.example")
        await until(hands, lambda: cosigners(hands) == {"a.example"})
        assert await hands.bus.unready() == []
        assert b"gsb_witness_cosigned_age_seconds 0.0" in hands.bus.metrics.text({}, {})
    told = [record.message for record in caplog.records if "checkpoint" in record.message]
    assert told == [
        "no checkpoint has had 1 cosignatures for 710 s; the node is not ready until one has",
        "the log's checkpoints are cosigned again",
    ]


async def test_a_restart_does_not_hide_that_cosigning_has_stopped(tmp_path: Path) -> None:
    async with scene(tmp_path, "a.example", cosigned_within=700) as made:
        async with made.recording() as hands:
            await hands.record(1)
        await made.stack.aclose()
        made.clock.pass_(710)
        async with made.recording() as hands:
            await hands.recorder.look()
            assert await hands.bus.unready() == ["witness"]


async def test_a_running_node_tells_at_readyz_and_recovers(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(
            scene(tmp_path, "a.example", there=False, idle=1, cosigned_within=1.5),
        )
        node = await stack.enter_async_context(node_in_process(tmp_path, made.deployment))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        await missing(http, node.operations_url, ["witness"])
        await made.begin("a.example")
        await missing(http, node.operations_url, [])


# --- witnesses that have seen more than the store


async def test_a_store_behind_its_witnessed_checkpoint_does_not_start(tmp_path: Path) -> None:
    async with scene(tmp_path, "a.example") as made:
        async with made.recording() as hands:
            await hands.record(1)
        saved = save(made, tmp_path)
        async with made.recording() as hands:
            await hands.record(2)
        give_back(made, saved)
        async with made.recording(opened=False) as hands:
            with pytest.raises(StoreUnfit) as unfit:
                await hands.recorder.open()
    text = str(unfit.value)
    assert "a.example has cosigned 3 entries of the log" in text
    assert "the store has 2; it shows a checkpoint of 3 entries, signed with the log's own key" in text
    assert "gsb restore DIR" in text


async def test_a_store_that_was_lost_whole_is_not_begun_anew_unseen(tmp_path: Path) -> None:
    async with scene(tmp_path, "a.example") as made:
        saved = save(made, tmp_path)
        async with made.recording() as hands:
            await hands.record(1)
        give_back(made, saved)
        async with made.recording(opened=False) as hands:
            with pytest.raises(StoreUnfit, match="has cosigned 2 entries"):
                await hands.recorder.open()


async def test_a_rolled_back_store_that_could_not_ask_stops_as_soon_as_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path, "a.example", "b.example") as made:
        async with made.recording() as hands:
            await hands.record(1)
        saved = save(made, tmp_path)
        async with made.recording() as hands:
            await hands.record(2, 3)
        give_back(made, saved)
        await made.stack.aclose()
        async with made.recording() as hands:
            assert "witnesses could not be asked" in caplog.text
            await hands.record(4, 5, 6)  # other entries than those that were cosigned, and more
            assert not hands.bus.behind
            await made.begin("b.example")
            await until(hands, lambda: hands.bus.behind)
            published = note_of(hands)
            await hands.record(7)
            made.clock.pass_(700)
            await hands.recorder.look()
            assert note_of(hands) == published, "nothing is published any more"
            assert (await hands.store.logs())[0].size == 5, "and nothing signed"
            assert await hands.bus.unready() == ["recorder"]
    told = [record.message for record in caplog.records if "second history" in record.message]
    assert len(told) == 1
    assert "the witness b.example has cosigned other entries of the log" in told[0]
    assert "it shows a checkpoint of 4 entries, signed with the log's own key" in told[0]
    text = hands.bus.metrics.text({}, {}).decode()
    assert 'gsb_witness_failures_total{reason="contradiction",witness="b.example"} 1.0' in text


@pytest.mark.parametrize("entries_in_the_backup", [0, 3])
async def test_a_new_log_names_what_witnesses_have_cosigned(tmp_path: Path, entries_in_the_backup: int) -> None:
    async with scene(tmp_path, "a.example", "gone.example", there=False) as made:
        await made.begin("a.example")
        if entries_in_the_backup:
            async with made.recording() as hands:
                await hands.record(*range(1, entries_in_the_backup))
        saved = save(made, tmp_path)
        async with made.recording() as hands:
            await hands.record(100)
            cosigned = open_checkpoint(note_of(hands), hands.verifier())
        give_back(made, saved)
        async with made.recording(opened=False) as hands:
            with pytest.raises(StoreUnfit, match=f"has cosigned {cosigned.size} entries"):
                await hands.recorder.open()
        words = ["restore", str(made.deployment.folder), "--reason", "the machine was lost"]
        refused = await asyncio.to_thread(CliRunner().invoke, app, ["log", "begin", *words[1:]])
        assert (refused.exit_code, "gsb restore begins a new log too" in refused.stderr) == (2, True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("time.time", made.clock)  # in the year of the log, whatever year it is
            ran = await asyncio.to_thread(CliRunner().invoke, app, words)
        origin = f"{made.origin}/2026.2"
        assert (ran.exit_code, ran.stdout) == (0, "")
        assert f"the next start records to {origin}\n" in ran.stderr
        async with made.recording() as hands:
            await until(hands, (hands.folder("2026.2") / "checkpoint").exists)
            (first, *_) = said(hands.contents("2026.2"))
            assert first["witnessed"] == [told(cosigned)]
            assert cosigners(hands, "2026.2") == {"a.example"}
        # Nor does the next start ask whether the old one may be continued: it is not.
        async with made.recording() as hands:
            await hands.record(101)
            assert cosigners(hands, "2026.2") == {"a.example"}
            assert not hands.bus.behind


def seen(there: Reached) -> int:
    """The size that a witness has cosigned."""
    (note,) = there.book._newest.values()
    return Checkpoint.parse(note.text).size


def save(made: Scene, root: Path) -> Path:
    """A backup of store and log."""
    made.deployment.write()
    made.deployment.log_folder.mkdir(exist_ok=True)
    shutil.copytree(made.deployment.folder, root / "saved" / "deployment")
    shutil.copytree(made.deployment.log_folder, root / "saved" / "log")
    return root / "saved"


def give_back(made: Scene, saved: Path) -> None:
    """Restore both, as who restores a whole machine does."""
    for name, folder in (("deployment", made.deployment.folder), ("log", made.deployment.log_folder)):
        shutil.rmtree(folder)
        shutil.copytree(saved / name, folder)
