"""``make run SYSTEMS=all``, in a copy on free ports: what it prints, what it leaves behind, and how it ends.

It neither meets nor disturbs core systems that are up. Everything that it shows is judged by itself; here it is read.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from config.demo.children import NotStarted
from config.demo.report import Report
from config.government.play import systems
from config.systems import catalogue
from config.systems.base import Place
from config.systems.running import Copy
from tests.support.deployment import free_ports
from tests.support.needs import needs

ROOT = Path(__file__).parents[1]
WITHIN = 600.0
"""Seconds; a run takes far less, but not on every machine."""
LOOK = 0.1
LEAVES_WITHIN = 60.0
PEOPLE = 40
PROGRAM = """
import asyncio, sys
sys.path.insert(0, {root!r})
from config.systems import catalogue
for name, port in {ports!r}.items():
    catalogue.named(name).port = port
from config.demo.report import console
from config.demo.run import played
from config.government.play.run import play
sys.exit(asyncio.run(played(play, console())))
"""
"""The same as ``make run SYSTEMS=all`` starts, with other ports."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The deployment and the systems in a folder of its own, on free ports; what is installed is shared."""
    for name in catalogue.NAMES:
        lack = catalogue.named(name).missing()
        needs(lack is None, lack or "")
    ignored = shutil.ignore_patterns("keys", "__pycache__")
    shutil.copytree(ROOT / "config", tmp_path / "config", ignore=ignored)
    for name in ("schemas", ".deps"):
        (tmp_path / name).symlink_to(ROOT / name)
    listening = [catalogue.named(name) for name in catalogue.NAMES if catalogue.named(name).port]
    ports = dict(zip([8080, 8081, *(each.port for each in listening)], free_ports(len(listening) + 2), strict=True))
    government = tmp_path / "config/government"
    for path in [government / "gsb.toml", *(government / "systems").glob("*.toml")]:
        text = re.sub(r"\b\d{4}\b", lambda found: str(ports.get(int(found[0]), found[0])), path.read_text("utf-8"))
        path.write_text(text, "utf-8")
    program = PROGRAM.format(root=str(tmp_path), ports={each.name: ports[each.port] for each in listening})
    (tmp_path / "play.py").write_text(program, "utf-8")
    return tmp_path


def start(copy: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, copy / "play.py"],
        cwd=copy,
        env={**os.environ, "ONCE": "1", "PEOPLE": str(PEOPLE), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and output."""
    try:
        output, _ = process.communicate(timeout=WITHIN)
    finally:
        process.terminate()  # one that hangs still stops what it started
    return process.returncode, output


def left_running(copy: Path) -> list[str]:
    """Programs that work in this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_text("utf-8", "replace")
        except OSError:
            continue
        if str(copy) in line:
            found.append(line.replace("\0", " "))
    return found


def left_behind(copy: Path) -> list[str]:
    """Programs that stay in this folder; a PostgreSQL, which stops in order when it is left, is given the time."""
    until = time.monotonic() + LEAVES_WITHIN
    while (left := left_running(copy)) and time.monotonic() < until:
        time.sleep(LOOK)
    return left


@pytest.mark.slow
def test_everything_moves_and_every_receipt_is_verified(copy: Path) -> None:
    code, output = ended(start(copy))
    assert code == 0, output
    table = output[output.index("What moved where") : output.index("What happened")]
    for system in (copy / "config/government/systems").glob("*.toml"):
        assert f" {system.stem}/" in table, f"{system.stem} was not called"
    assert f"payroll of {PEOPLE} people" in table
    for outcome in ("settled", "paid"):
        assert re.search(rf"ok +what the .+ says? +{outcome}", output) is not None
    assert "steps came out as expected" in output
    assert left_behind(copy) == []


@pytest.mark.slow
def test_whoever_interrupts_it_finds_nothing_running(copy: Path) -> None:
    with start(copy) as process:
        assert process.stdout is not None
        assert "being started" in process.stdout.readline()
        while len(left_running(copy)) < 2:
            assert process.poll() is None
            time.sleep(LOOK)
        process.terminate()
        code, output = ended(process)
    assert (code, left_behind(copy)) == (130, []), output


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Copy:
    """The one core system there is: it starts in a moment."""
    system = catalogue.named("sshd")
    lack = system.missing()
    needs(lack is None, lack or "")
    monkeypatch.setattr(system, "port", free_ports(1)[0])
    monkeypatch.setattr(catalogue, "systems", lambda: [system])
    monkeypatch.setattr(systems, "DATA", tmp_path)
    return Copy(system, Place(tmp_path / system.name, system.port))


async def test_a_core_system_that_runs_is_used_and_stays(server: Copy) -> None:
    await server.begin()
    try:
        pid = server.pid
        async with AsyncExitStack() as stack:
            report = Report()
            found = await systems.brought(stack, report)
            assert found["sshd"].pid == pid
        assert server.pid == pid
        assert report.preparations[0][2] == "was running"
    finally:
        await server.stop()


async def test_a_core_system_that_does_not_run_is_started_and_stopped_again(server: Copy) -> None:
    async with AsyncExitStack() as stack:
        await systems.brought(stack, Report())
        assert server.pid is not None
    assert server.pid is None


async def test_a_port_that_is_taken_is_named(server: Copy) -> None:
    with socket.create_server((server.host, server.port)):
        async with AsyncExitStack() as stack:
            with pytest.raises(NotStarted, match=str(server.port)):
                await systems.brought(stack, Report())


@pytest.mark.parametrize(
    ("environment", "said"),
    [({"PEOPLE": "many"}, "PEOPLE is a number"), ({"BACKEND": "cluster"}, "leave BACKEND out")],
)
def test_what_cannot_begin_says_why_and_starts_nothing(copy: Path, environment: dict[str, str], said: str) -> None:
    code, output = ended(start(copy, **environment))
    assert (code, left_behind(copy)) == (2, [])
    assert said in output
    assert not (copy / "var/systems").exists()
