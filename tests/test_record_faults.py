"""Whatever the disk or the store does at whatever moment, the log afterwards verifies, extends what was published, and
holds every entry that was acknowledged.

Errors and deaths are brought about at each single call of the system, by strace in a recorder of its own process; and
at each step in this one, both where it failed before it landed and where it failed although it landed.
``GSB_FAULTS=all`` tries every call; without it a few of each are tried.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest

from gsb.admit import BEHIND_PAUSE
from gsb.client import BusProblem
from gsb.errors import StoreUnavailable
from gsb.evidence.checkpoint import Signer
from gsb.evidence.log import CHECKPOINT, Files
from gsb.evidence.merkle import leaf_hash
from gsb.model import Entry
from gsb.store.contract import Store
from tests.support.auditor import checkpoint_of, contents_of, root_after, said
from tests.support.bus import NOTE, ONCE, PERSON_BODY, READ
from tests.support.deployment import Deployment, standard
from tests.support.needs import needs
from tests.support.node import ROOT, InProcess, node_in_process
from tests.support.recording import Hands, recording

# --- by strace, in a process of its own

SYSCALLS = ("openat", "mkdir", "mkdirat", "rename", "renameat", "unlink", "unlinkat", "write", "pwrite64", "fsync",
            "fdatasync", "close")  # fmt: skip
"""What a recorder does to the disk: by itself, and in SQLite. No machine has all of them."""
KINDS = {"EIO": "error=EIO", "KILL": "signal=KILL"}
ALL = os.environ.get("GSB_FAULTS") == "all"
COUNTS = ("3", "2", "70")
"""Entries before each look. The log has 250 before, so a bundle and a tile become full."""
WITHIN = 180.0


@dataclass(frozen=True)
class Ended:
    """What a traced recorder left behind."""

    acknowledged: list[bytes]
    """Leaves of entries that it said were committed."""
    trace: str
    status: int


class Base:
    """A deployment with a log of 250 entries, to which it can be set back."""

    def __init__(self, root: Path) -> None:
        self.root, self.deployment = root, standard(root)
        self._saved = root / "saved"

    async def make(self) -> None:
        async with recording(self.root, self.deployment) as hands:
            await hands.record(*range(249))
        shutil.copytree(self.deployment.folder, self._saved / "deployment")
        shutil.copytree(self.deployment.log_folder, self._saved / "log")

    def set_back(self) -> None:
        for name, folder in (("deployment", self.deployment.folder), ("log", self.deployment.log_folder)):
            shutil.rmtree(folder)
            shutil.copytree(self._saved / name, folder)


async def traced(deployment: Deployment, inject: str, trace: Path) -> Ended:
    """A recorder under strace, which begins to look when everything that it imports is there."""
    command = [sys.executable, "-m", "tests.support.recording", str(deployment.folder), *COUNTS]
    piped = asyncio.subprocess.PIPE
    recorder = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdin=piped, stdout=piped, stderr=asyncio.subprocess.DEVNULL
    )
    assert recorder.stdout is not None
    assert recorder.stdin is not None
    names = ",".join(f"?{name}" for name in SYSCALLS)
    options = ["-f", "-o", str(trace), "-e", f"trace={names}", *(["-e", f"inject={inject}"] if inject else [])]
    try:
        async with asyncio.timeout(WITHIN):
            assert await recorder.stdout.readline() == b"ready\n"
            strace = await asyncio.create_subprocess_exec("strace", *options, "-p", str(recorder.pid), stderr=piped)
            assert strace.stderr is not None
            assert b"attached" in await strace.stderr.readline()
            recorder.stdin.write(b"\n")
            told, _ = await recorder.communicate()
            await strace.wait()
    except TimeoutError:
        pytest.fail(f"{inject}: the recorder does not come to its end\n{read(trace)[-3_000:]}")
    finally:
        if recorder.returncode is None:
            recorder.kill()
    leaves = [bytes.fromhex(line) for line in told.decode().splitlines() if line]
    return Ended(leaves, read(trace), recorder.returncode or 0)


def read(trace: Path) -> str:
    return trace.read_text("utf-8")


async def holds(base: Base, ended: Ended, what: str = "") -> None:
    """What must be true of the log once a recorder has looked again."""
    async with recording(base.root, base.deployment) as hands:
        published = checkpoint_of(hands.folder(), hands.verifier())
        await hands.record(-1)
        contents = hands.contents()
        assert len(contents) > published.size >= 250, what
        assert root_after(contents, published.size) == published.root, what
        missing = set(ended.acknowledged) - {leaf_hash(content) for content in contents}
        assert missing == set(), what
        assert len(set(contents)) == len(contents), what
        assert hands.bus.behind is False, what


def calls(trace: str) -> Counter[str]:
    """How often each call of the system was made, by the thread that made it most: what strace counts."""
    by_thread = Counter(re.findall(r"(?m)^(\d+) +(\w+)\(", trace))
    counted: Counter[str] = Counter()
    for (_, name), count in by_thread.items():
        counted[name] = max(counted[name], count)
    return counted


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_any_call_of_the_system_may_fail_or_be_the_last(tmp_path: Path, kind: str) -> None:
    needs(shutil.which("strace") is not None, "strace is missing: make deps-test")
    base, trace = Base(tmp_path), tmp_path / "trace"
    await base.make()
    whole = await traced(base.deployment, "", trace)
    assert (whole.status, len(whole.acknowledged)) == (0, 75), whole.trace[-2_000:]
    await holds(base, whole)
    counted = calls(whole.trace)
    assert {"openat", "write", "fsync", "fdatasync", "close"} <= counted.keys()
    assert counted.keys() & {"rename", "renameat"}
    assert counted.keys() & {"mkdir", "mkdirat"}
    tried = Counter[str]()
    for name, number in chosen(counted):
        base.set_back()
        ended = await traced(base.deployment, f"{name}:{KINDS[kind]}:when={number}", trace)
        tried["met"] += "INJECTED" in ended.trace or ended.status == -9
        await holds(base, ended, f"{kind} at {name} {number}")
    # Calls differ a little from run to run; nearly all that were asked for must have been met.
    assert tried["met"] >= 0.9 * len(chosen(counted)), tried


def chosen(counted: Mapping[str, int]) -> list[tuple[str, int]]:
    """The calls to be tried: all of them, or of each kind one, another one each day."""
    if ALL:
        return [(name, number + 1) for name, count in sorted(counted.items()) for number in range(count)]
    return [(name, 1 + date.today().toordinal() % count) for name, count in sorted(counted.items())]


# --- in this process, step by step

STEPS = ["sequence", "tile/entries/000", "tile/entries/001.p/5", "tile/0/000", "tile/0/001.p/5", "tile/1/000.p/1"]
STEPS += [CHECKPOINT, "publish"]
"""What recording eleven entries after 250 does, in this order."""


class Failing:
    """A store that fails once at a verb: before it has done anything, or although it has."""

    def __init__(self, store: Store, steps: Steps) -> None:
        self._store, self._steps = store, steps

    def __getattr__(self, verb: str) -> Any:
        call = getattr(self._store, verb)
        if verb not in ("sequence", "publish"):
            return call

        async def step(*given: Any) -> Any:
            self._steps.before(verb, StoreUnavailable())
            answer = await call(*given)
            self._steps.after(verb, StoreUnavailable())
            return answer

        return step


class Steps:
    """Lets one step fail, once, and remembers all."""

    def __init__(self, fails: str, *, landed: bool) -> None:
        self._fails, self._landed = fails, landed
        self.seen: list[str] = []

    def before(self, step: str, error: Exception) -> None:
        self.seen.append(step)
        if step == self._fails and not self._landed:
            self._fails = ""
            raise error

    def after(self, step: str, error: Exception) -> None:
        if step == self._fails and self._landed:
            self._fails = ""
            raise error


def failing_files(steps: Steps) -> Callable[[Files, Mapping[str, bytes], Callable[[], None]], None]:
    """``Files.write`` file by file."""
    write = Files.write

    def step(files: Files, contents: Mapping[str, bytes], ready: Callable[[], None]) -> None:
        for path, data in contents.items():
            steps.before(path, OSError(errno.EIO, "the disk"))
            write(files, {path: data}, ready)
            steps.after(path, OSError(errno.EIO, "the disk"))

    return step


@pytest.mark.parametrize("after_a_crash", [False, True])
@pytest.mark.parametrize("landed", [False, True])
@pytest.mark.parametrize("fails", STEPS)
async def test_each_step_may_fail_before_it_landed_and_although_it_landed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str, landed: bool, after_a_crash: bool
) -> None:
    deployment, steps = standard(tmp_path), Steps(fails, landed=landed)
    async with recording(tmp_path, deployment) as hands:
        await hands.record(*range(249))
        before = hands.contents()
    async with recording(tmp_path, deployment, wrap=lambda store: cast(Store, Failing(store, steps))) as hands:
        entered = await hands.enter(*range(11))
        with monkeypatch.context() as broken:
            broken.setattr(Files, "write", failing_files(steps))
            await hands.recorder.look()
            assert steps.seen == STEPS[: STEPS.index(fails) + 1]
            assert hands.bus.behind == (fails not in ("sequence", "publish"))
            # Whatever is on the disk now, what is published there holds.
            assert len(hands.contents()) in (250, 261)
            if not after_a_crash:
                await hands.recorder.look()
                await recorded(hands, before, entered)
    if after_a_crash:
        async with recording(tmp_path, deployment) as hands:
            await hands.recorder.look()
            await recorded(hands, before, entered)


async def recorded(hands: Hands, before: list[bytes], entered: list[Entry]) -> None:
    contents = hands.contents()
    assert contents[:250] == before
    assert sorted(contents[250:]) == sorted(entry.content for entry in entered)
    assert hands.bus.behind is False
    assert (await hands.store.backlog()).entries == 0


# --- a node whose disk fails


async def test_a_node_admits_nothing_while_its_log_cannot_be_written(tmp_path: Path) -> None:
    async with node_in_process(tmp_path) as node, node.client() as client:
        folder = node.deployment.log_folder
        assert (await client.call(READ, PERSON_BODY, purpose="payroll")).status == 200
        # With nothing left to be recorded, the disk is not noticed before the next call was admitted.
        await node.node.recorder.look()
        aside = folder.rename(tmp_path / "aside")
        folder.write_text("no folder")
        # What was admitted before anybody could know is kept, and proved later.
        done = await client.call(ONCE, NOTE, purpose="payroll", idempotency_key="k")
        await until(node, ["recorder"])
        with pytest.raises(BusProblem) as refused:
            await client.call(READ, PERSON_BODY, purpose="payroll", timeout=float(BEHIND_PAUSE))
        assert (refused.value.code, refused.value.result.retry_after) == ("recorder_behind", 5)
        assert (await client.exchange(str(done.exchange))).state == "done"
        folder.unlink()
        aside.rename(folder)
        await until(node, [])
        assert (await client.call(READ, PERSON_BODY, purpose="payroll")).status == 200
    catalogue = node.node.bus.catalogue
    (year,) = folder.iterdir()
    signer = Signer(f"{catalogue.gsb.log_origin}/{year.name}", catalogue.log_key)
    kinds = [each["kind"] for each in said(contents_of(year, signer.verifier))]
    assert kinds == ["log_begun", *["accepted", "outcome"] * 3]


async def until(node: InProcess, missing: list[str]) -> None:
    """Wait until this is what keeps the node from its work."""
    async with asyncio.timeout(WITHIN), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{node.operations_url}/readyz") as answer:
                if (await answer.json())["missing"] == missing:
                    return
            await asyncio.sleep(0.05)
