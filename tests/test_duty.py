"""One recorder at a time: who is stopped in the middle and goes on, or dies, never forks the log or leaves it torn."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from gsb.catalogue import build
from gsb.duty import LEASE, Duty
from gsb.errors import StoreUnavailable
from gsb.evidence.log import CHECKPOINT, Files
from gsb.evidence.merkle import Tree, leaf_hash
from gsb.foundation import store_of
from gsb.metrics import Metrics
from gsb.record import Recorder
from gsb.resume import Ground, checkpoint_of
from gsb.shares.contract import Fence
from gsb.shares.local import LocalShares
from gsb.store.contract import Store
from tests.support.auditor import contents_of
from tests.support.cluster import Member, cluster
from tests.support.deployment import SITE
from tests.support.node import GSB
from tests.support.pausing import STEPS
from tests.support.recording import Clock, Hands, numbered, recording
from tests.test_cosign import scene

WITHIN = 120.0
"""Seconds for whatever must happen, on a machine that is busy with other things."""
NO_KAFKA = "127.0.0.1:9"
"""Recorders need none."""


# --- the lease


class Flaky(LocalShares):
    """Fails when it is told to."""

    fails = False

    async def lease(self, name: str, node: str, seconds: float) -> Fence | None:
        if self.fails:
            raise StoreUnavailable
        return await super().lease(name, node, seconds)


async def test_one_node_has_the_duty_and_another_takes_over_when_it_is_silent() -> None:
    clock = Clock()
    shares = Flaky(clock)
    first, second = (Duty(shares, name, clock.steady) for name in ("first", "second"))
    await first.take()
    await second.take()
    assert (first.held(), second.held()) == (True, False)
    number = first.fence()
    clock.pass_(LEASE - 0.1)
    await first.take()
    await second.take()
    assert (first.fence(), second.fence()) == (number, None)
    clock.pass_(LEASE)
    assert not first.held(), "it knows by its own clock, and asks nobody"
    await second.take()
    await first.take()
    assert (first.held(), second.held()) == (False, True)
    assert (second.fence() or 0) > (number or 0)


async def test_what_is_held_ends_in_time_when_the_store_cannot_be_asked() -> None:
    clock = Clock()
    shares = Flaky(clock)
    node = Duty(shares, "node", clock.steady)
    await node.take()
    shares.fails = True
    clock.pass_(LEASE / 2)
    with pytest.raises(StoreUnavailable):
        await node.take()
    assert node.held()
    clock.pass_(LEASE / 2)
    assert not node.held()
    await node.leave()


async def test_who_leaves_is_followed_at_once_and_who_returns_has_another_fence() -> None:
    clock = Clock()
    shares = LocalShares(clock)
    first, second = (Duty(shares, name, clock.steady) for name in ("first", "second"))
    await first.take()
    number = first.fence()
    await first.leave()
    assert not first.held()
    await second.take()
    assert second.held()
    await second.leave()
    await first.take()
    assert first.fence() not in (None, number)


# --- real recorders


@dataclass
class Watched:
    """Two recorders over one store, and every checkpoint that either of them has let anybody see."""

    nodes: list[Member]
    order: Path
    store: Store
    ground: Ground
    seen: dict[int, set[bytes]] = field(default_factory=dict)
    entered: int = 0

    async def enter(self, count: int) -> None:
        numbers = range(self.entered, self.entered + count)
        self.entered += count
        await asyncio.gather(*(self.store.note(numbered(number, 1_700_000_000.0)) for number in numbers))

    async def look(self) -> None:
        """Remember what stands in the store and in the log's folder."""
        for state in await self.store.logs():
            file = self.files(state.origin).read(CHECKPOINT) or b""
            for note in filter(None, (state.checkpoint, state.published_note, file)):
                checkpoint = checkpoint_of(note)
                assert checkpoint is not None
                self.seen.setdefault(checkpoint.size, set()).add(checkpoint.root)

    def files(self, origin: str) -> Files:
        return self.ground.folder.files(origin)

    async def until(self, there: Callable[[], Awaitable[bool]], what: str) -> None:
        try:
            async with asyncio.timeout(WITHIN):
                while True:
                    await self.look()
                    if await there():
                        return
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(what + "\n" + "\n".join(line for node in self.nodes for line in node.log)) from None

    async def published(self) -> bool:
        """Whether everything is, and the folder says the same as the store."""
        (state,) = await self.store.logs()
        done = (await self.store.backlog()).entries == 0 and state.size == state.published
        return done and self.files(state.origin).read(CHECKPOINT) == state.published_note

    async def at_work(self) -> None:
        """Returns when one of them says that it is, and the other that it stands by."""

        async def one() -> bool:
            return sum([(await node.numbers())["gsb_recorder_at_work"] for node in self.nodes]) == 1

        await self.until(one, "there is not one at work")

    async def struck(self, how: Callable[[Member], bool], step: str) -> Member:
        """Whom it happened to."""

        async def one() -> bool:
            return any(how(node) for node in self.nodes)

        await self.until(one, f"it happened to nobody at {step}")
        return next(node for node in self.nodes if how(node))

    async def verify(self) -> None:
        """The log as it lies there, and every checkpoint that anybody saw: of one history."""
        (state,) = await self.store.logs()
        folder = self.nodes[0].deployment.log_folder / state.origin.rpartition("/")[2]
        contents = contents_of(folder, self.ground.signer(state.origin).verifier)
        assert contents == list(await self.store.entries(state.origin, 0, state.published))
        leaves = [leaf_hash(each) for each in contents]
        tree = Tree()
        for size, leaf in enumerate([b"", *leaves]):
            if size:
                tree.extend([leaf])
            assert self.seen.get(size, {tree.root()}) == {tree.root()}, f"two histories of {size} entries"


@asynccontextmanager
async def watched(tmp_path: Path, dsn: str, lease: float | None = None) -> AsyncIterator[Watched]:
    """``lease``: seconds of their duty, if it is not to be short."""
    order = tmp_path / "order"
    serve: list[str | Path] = [sys.executable, "-m", "tests.support.pausing", order]
    if lease is not None:
        serve.append(f"--lease={lease}")
    async with cluster(tmp_path, dsn, ["recorder"] * 2, brokers=NO_KAFKA, serve=serve) as nodes:
        catalogue = build(nodes[0].deployment.folder)
        store = store_of(catalogue, Metrics())
        await store.open()
        try:
            yield Watched(nodes, order, store, Ground.of(catalogue, store))
        finally:
            await store.close()


def stopped(node: Member) -> bool:
    stat = Path(f"/proc/{node.pid}/stat").read_text("ascii")
    return stat.rpartition(")")[2].split()[0] == "T"


@pytest.mark.slow
async def test_a_recorder_that_stops_anywhere_and_goes_on_later_harms_nothing(tmp_path: Path, dsn: str) -> None:
    async with watched(tmp_path, dsn) as it:
        for step in STEPS:
            it.order.write_text(f"{step} SIGSTOP", "utf-8")
            await it.enter(3)
            first = await it.struck(stopped, step)
            await it.enter(2)
            await it.until(it.published, f"nobody took over from who stopped at {step}")
            await it.enter(300)
            await it.until(it.published, f"who took over from who stopped at {step} did not go on")
            os.kill(first.pid, signal.SIGCONT)
            await it.at_work()
            if step == "checkpoint":

                async def is_mended(first: Member = first) -> bool:
                    told = any("the checkpoint's file was another" in line for node in it.nodes for line in node.log)
                    # If the other was silent meanwhile, the first has the duty again, and has taken the log up anew.
                    return told or (await first.numbers())["gsb_recorder_at_work"] == 1

                await it.until(is_mended, "an older checkpoint stays over a newer one")
            await it.enter(2)
            await it.until(it.published, f"who stopped at {step} is in the way")
            await it.verify()


async def test_no_log_is_begun_beside_a_recorder_at_work(tmp_path: Path, dsn: str) -> None:
    # Whoever is silent for longer than its lease is not at work.
    async with watched(tmp_path, dsn, lease=120.0) as it:
        await it.at_work()
        folder, environment = it.nodes[0].deployment.folder, {**os.environ, "PYTHONPATH": str(SITE)}
        begin = await asyncio.create_subprocess_exec(
            GSB, "log", "begin", folder, "--reason", "a restore", stderr=asyncio.subprocess.PIPE, env=environment
        )
        _, said = await begin.communicate()
        assert (begin.returncode, said.decode()) == (
            2,
            "gsb: no log was begun: a recorder is at work; stop every node first\n",
        )
        assert len(await it.store.logs()) == 1


@pytest.mark.slow
async def test_a_recorder_that_dies_anywhere_is_followed_by_the_other(tmp_path: Path, dsn: str) -> None:
    async with watched(tmp_path, dsn) as it:
        for step in ("unsigned", "sequenced", "tile", "publish"):
            it.order.write_text(f"{step} SIGKILL", "utf-8")
            await it.enter(3)
            first = await it.struck(lambda node: not node.running, step)
            assert await first.ended() == -signal.SIGKILL, step
            await it.enter(2)
            await it.until(it.published, f"nobody took over from who died at {step}")
            await first.start()
            await it.at_work()
            await it.verify()


async def test_a_recorder_that_was_relieved_takes_no_witness_that_knows_more_for_a_contradiction(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fences: dict[str, int | None] = {"first": 1, "second": None}
    async with scene(tmp_path, "a.example", there=False) as made, made.recording(opened=False) as hands:
        first, second = (Recorder(hands.bus, made.clock.steady, partial(fences.get, name)) for name in fences)
        async with closing(first), closing(second):
            await first.open()
            await second.open()
            await hands.enter(1)
            await first.turn()  # nobody answers, and it asks again and again
            fences |= {"first": None, "second": 2}
            await hands.enter(2, 3)
            await made.begin("a.example")
            await second.turn()
            await asyncio.wait_for(contradicted(hands), WITHIN)
            assert "second history" not in caplog.text
            assert not hands.bus.behind
            fences |= {"first": 3, "second": None}
            await hands.enter(4)
            await second.turn()
            await first.turn()
            assert [number for _, number in hands.log()] == [None, 1, 2, 3, 4]


@asynccontextmanager
async def closing(recorder: Recorder) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await recorder.close()


async def contradicted(hands: Hands) -> None:
    """Returns when some recorder has heard of a witness that it knows more."""
    told = 'gsb_witness_failures_total{reason="contradiction",witness="a.example"} 1.0'
    while True:
        if told in hands.bus.metrics.text({}, {}).decode():
            return
        await asyncio.sleep(0.05)


async def test_who_is_relieved_while_it_takes_the_log_up_stands_by(tmp_path: Path) -> None:
    """To make a long log's files again may take longer than a lease."""
    async with recording(tmp_path) as hands:
        await hands.record(1)
        hands.clock.pass_(365 * 86_400)
        await hands.record(2)
        shutil.rmtree(hands.folder())
        fences: list[int | None] = [None, 1, 1]
        slow = Recorder(hands.bus, hands.clock.steady, lambda: fences.pop() if len(fences) > 1 else fences[0])
        async with closing(slow):
            await slow.open()
            assert not (hands.folder() / CHECKPOINT).exists()
            await slow.turn()
            fences[0] = 2
            await slow.turn()
            assert hands.log() == [("log_begun", None), ("test", 1), ("test", 2), ("log_ended", None)]
