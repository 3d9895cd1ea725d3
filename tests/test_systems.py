"""How core systems are installed, started, stopped and found again; and the deployment that has all the real ones."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.government.prepare import prepare
from config.systems import base
from config.systems.base import Command, NotInstalled, NotStarted, Place, run, unprivileged
from config.systems.catalogue import NAMES, named, systems
from config.systems.running import Copy, _began, is_free, running
from gsb.catalogue import build
from tests.support.deployment import free_ports
from tests.support.needs import needs
from tests.support.pages import Pages

ROOT = Path(__file__).parents[1]


# --- one copy


async def test_a_copy_keeps_its_data_when_it_is_killed_and_started_again(tmp_path: Path) -> None:
    system = Pages()
    async with running(system, tmp_path) as copy:
        assert await system.check(copy.place) == "the page says laid"
        (copy.place.folder / "page").write_text("changed", "ascii")
        await copy.kill()
        assert copy.pid is None
        assert is_free(copy.port)
        await copy.start()
        assert await system.check(copy.place) == "the page says changed"
        await copy.stop()
        await copy.stop()
        await copy.start()
    assert copy.pid is None
    assert system.seeded == 1


async def test_one_that_forgets_is_seeded_after_each_start(tmp_path: Path) -> None:
    system = Pages()
    system.forgets = True
    async with running(system, tmp_path) as copy:
        await copy.kill()
        await copy.start()
    assert system.seeded == 2


async def test_one_that_does_not_heed_sigterm_is_killed_with_its_workers(tmp_path: Path) -> None:
    async with running(Pages(mood="stays"), tmp_path) as copy:
        worker = int((copy.place.folder / "worker").read_text("ascii"))
        os.kill(worker, 0)
    await until(lambda: not _began(worker))


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(4_500):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it does not come")


async def test_one_that_ends_says_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(NotStarted, match=r"Pages, of the tests ended by itself; the end of .*\n  the disk is full"):
        async with running(Pages(mood="ends"), tmp_path):
            raise AssertionError("it runs")


async def test_one_that_does_not_become_ready_is_stopped(tmp_path: Path) -> None:
    system = Pages()
    system.ready_within = 0.0
    with pytest.raises(NotStarted, match="is not ready"):
        async with running(system, tmp_path):
            raise AssertionError("it is ready")


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    class Gone(Pages):
        def command(self, place: Place) -> Command:
            return [tmp_path / "nothing"]

    with pytest.raises(NotStarted, match=r"Pages, of the tests cannot be started: .*/nothing: No such file"):
        async with running(Gone(), tmp_path):
            raise AssertionError("it runs")


async def test_an_id_that_another_process_has_by_now_is_nobodys(tmp_path: Path) -> None:
    copy = Copy(Pages(), Place(tmp_path, 1))
    for kept in (f"{os.getpid()} 1\n", "nonsense\n", "4194305 1\n"):
        (tmp_path / "pid").write_text(kept, "ascii")
        assert copy.pid is None
        await copy.stop()  # or the test would end here


# --- an installation


class Built(Pages):
    """Has golden data."""

    built = 0

    def build(self, folder: Path) -> None:
        assert list(folder.iterdir()) == []
        (folder / "data").write_text("golden", "ascii")
        self.built += 1


@pytest.fixture
def deps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(base, "DEPS", tmp_path / "deps")
    monkeypatch.setattr(base, "SYSTEMS", tmp_path)
    return tmp_path / "deps"


def test_golden_data_is_built_once_and_again_when_its_sources_change(deps: Path, tmp_path: Path) -> None:
    system = Built()
    assert str(system.missing()).endswith("make deps-test installs it")
    for _ in range(2):
        system.install()
        assert system.missing() is None
    assert (system.golden / "data").read_text("ascii") == "golden"
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "seed.txt").write_text("another", "ascii")
    assert system.missing() is not None
    system.install()
    assert (system.missing(), system.built) == (None, 2)


def test_an_interrupted_build_is_taken_up_again(deps: Path) -> None:
    class Interrupted(Built):
        def build(self, folder: Path) -> None:
            super().build(folder)
            if self.built == 1:
                raise NotInstalled("somebody pulled the plug")

    system = Interrupted()
    with pytest.raises(NotInstalled):
        system.install()
    assert system.missing() is not None
    system.install()
    assert system.missing() is None


def test_a_step_that_fails_tells_why() -> None:
    with pytest.raises(NotInstalled, match=r": no such host$"):
        run(Pages(), ["sh", "-c", "printf 'a\n\033[31mno such host\033[0m\n\033[0m\n'; exit 1"])
    with pytest.raises(NotInstalled, match=r": \[ERROR\] no such host$"):
        run(Pages(), ["sh", "-c", "printf 'looking\n[ERROR] no such host\n[ERROR] see the manual\nbye\n'; exit 1"])
    with pytest.raises(NotInstalled, match=r"Pages, of the tests: sh ended with 3: no such version$"):
        run(Pages(), ["sh", "-c", "echo looking; echo no such version >&2; exit 3"])
    with pytest.raises(NotInstalled, match=r": /nowhere: No such file"):
        run(Pages(), ["/nowhere"])


def test_a_program_that_refuses_root_gets_another_user_who_may_read_what_root_may(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("whispered", "ascii")
    secret.chmod(0o600)
    command = unprivileged([sys.executable, "-c", f"import os; print(os.getuid(), open({str(secret)!r}).read())"])
    user, read = run(Pages(), command).split()
    assert user != "0"
    assert read == "whispered"


# --- make systems, with systems of the tests' own


def called(folder: Path, port: int, *words: str) -> tuple[int, str]:
    """Exit code and what was said."""
    with started(folder, port, *words) as process:
        said, _ = process.communicate(timeout=300)
    return process.returncode, said


def started(folder: Path, port: int, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.pages", folder, str(port), *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def port() -> int:
    """Of the first; those after it are free too."""
    return next(port for port in free_ports(100) if all(is_free(port + number) for number in (1, 2, 3)))


@pytest.fixture
def folder(tmp_path: Path, port: int) -> Iterator[Path]:
    yield tmp_path / "systems"
    called(tmp_path / "systems", port, "stop")


@pytest.mark.slow
def test_who_fails_names_itself_and_the_others_stay(folder: Path, port: int) -> None:
    code, said = called(folder, port, "start", "pages", "absent", "ends", "lies")
    assert code == 1
    assert re.search(r"Pages, of the tests +is installed\n", said)
    assert re.search(r"Absent, of the tests +FAILED: its publisher has withdrawn it\n", said)
    assert re.search(rf"Pages, of the tests +127\.0\.0\.1:{port} +[0-9.]+ s  the page says laid\n", said)
    assert re.search(
        r"Ends, of the tests +FAILED: ended by itself; the end of .*output.log:\n  the disk is full\n", said
    )
    assert re.search(r"Lies, of the tests +FAILED: the page is not what it was\n", said)
    assert said.endswith("== 1 of 4 run; make systems-stop stops them\n")

    code, said = called(folder, port, "start")
    assert (code, said) == (2, "Cannot begin: Pages, of the tests runs already; make systems-stop stops what runs\n")
    code, said = called(folder, port, "stop")
    assert (code, said.split()) == (0, ["Pages,", "of", "the", "tests", "stopped"])
    assert called(folder, port, "stop") == (0, "== none runs\n")
    assert is_free(port)


@pytest.mark.slow
async def test_a_port_that_somebody_has_is_named_before_anything_starts(
    folder: Path, port: int, tmp_path: Path
) -> None:
    async with running(Pages(), tmp_path, port + 2):
        code, said = called(folder, port, "start")
    taken = f"127.0.0.1:{port + 2}, where Lies, of the tests would listen, is taken by another program"
    assert (code, said) == (2, f"Cannot begin: {taken}; end what listens there\n")
    assert is_free(port)


@pytest.mark.slow
def test_an_interrupt_stops_what_was_started(folder: Path, port: int) -> None:
    with started(folder, port, "start", "pages", "muses") as process:
        assert process.stdout is not None
        while "the page says laid" not in process.stdout.readline():
            assert process.poll() is None
        assert "another command" in called(folder, port, "stop")[1]
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 130
    assert said.endswith("\nStopped before the end; the next call takes it up again.\n")
    assert is_free(port)


def test_what_nobody_knows_is_refused(folder: Path, port: int) -> None:
    for words in ([], ["restart"], ["start", "nobody"]):
        code, said = called(folder, port, *words)
        assert code == 2
        assert said.startswith("usage: ")


# --- the real ones


def test_the_catalogue_names_every_system_that_there_is() -> None:
    ours = {"base", "catalogue", "run", "running"}
    paths = [path for path in (ROOT / "config" / "systems").iterdir() if path.suffix == ".py" or path.is_dir()]
    assert {path.stem for path in paths} - ours - {"__pycache__"} == set(NAMES)
    ports = [system.port for system in systems() if system.port]
    assert len(set(ports)) == len(ports)
    assert [system.name for system in systems()] == list(NAMES)


def test_whoever_comes_new_is_told_of_every_system() -> None:
    told = (ROOT / "config" / "systems" / "README.md").read_text("utf-8")
    rows = {f"| {system.title.partition(',')[0]} | {system.port or ''}".rstrip() for system in systems()}
    assert [row for row in rows if row not in told] == []


@pytest.mark.slow
def test_the_government_is_right_as_soon_as_all_is_laid(tmp_path: Path) -> None:
    config = tmp_path / "config" / "government"
    shutil.copytree(ROOT / "config" / "government", config, ignore=shutil.ignore_patterns("keys", "__pycache__"))
    (tmp_path / "schemas").symlink_to(ROOT / "schemas")
    prepare(config)
    for system in map(named, NAMES):
        lack = system.missing()
        needs(lack is None, lack or "")
        place = Place(tmp_path / "var" / "systems" / system.name, system.port)
        place.folder.mkdir(parents=True)
        system.lay(place)
    agencies = build(config).agencies
    assert "payroll-agency" in agencies
