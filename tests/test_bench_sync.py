"""The benchmark of the whole bus: it measures what it says, fails below the bar, and refuses what proves nothing."""

from __future__ import annotations

import asyncio
import re
from math import inf
from pathlib import Path

import pytest
from aiohttp import web

from gsb.bench import sync
from gsb.bench.load import AnswerWrong, Target, load
from gsb.bench.place import READ, WRITE, lay_out
from gsb.bench.served import IN_MEMORY, Turn
from gsb.bench.steps import STEPS, Watch
from gsb.bench.store import filesystem
from gsb.check import check
from tests.support.deployment import free_ports

INSTALL = "install the bus with the extra bench"
BRIEF = sync.Plan(pairs=1, in_flight=4, seconds=0.3)


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def turn(rate: float) -> Turn:
    return Turn(rate, 1 / rate, 0.01)


def test_the_ratio_is_the_median_of_the_pairs_ratios() -> None:
    compared = sync.Compared(READ, [turn(90), turn(50), turn(80)], [turn(100), turn(200), turn(100)])
    assert compared.ratio == 0.8
    assert re.search(rf"{READ} +80/s +100/s +0.80 ", str(compared))


def quotients(ours: float, theirs: float, half: float) -> tuple[float, float]:
    """Between which the quotient lies of two numbers that were rounded by at most that much: rates may be low here."""
    return (ours - half) / (theirs + half), (ours + half) / (theirs - half) if theirs > half else inf


@pytest.mark.slow
async def test_both_are_measured_and_the_worse_ratio_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if filesystem(tmp_path) in IN_MEMORY:
        pytest.skip("temporary files lie in memory here")
    monkeypatch.setattr(sync, "LEAST", 0.0)
    assert await sync.main(tmp_path, BRIEF) == 0
    said = capsys.readouterr().out
    for service in (READ, WRITE):
        bus, floor, ratio = re.findall(rf"{service} +([0-9,]+)/s +([0-9,]+)/s +([0-9.]+)", said)[0]
        least, most = quotients(float(bus.replace(",", "")), float(floor.replace(",", "")), 0.5)
        assert least - 0.006 < float(ratio) < most + 0.006
    assert left_in(tmp_path) == []


async def test_a_ratio_below_the_bar_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if filesystem(tmp_path) in IN_MEMORY:
        pytest.skip("temporary files lie in memory here")
    monkeypatch.setattr(sync, "LEAST", 100.0)
    monkeypatch.setattr(sync, "WARM_UP", 0.1)
    assert await sync.main(tmp_path, BRIEF) == 1


@pytest.mark.slow
async def test_the_profile_has_a_time_for_every_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if filesystem(tmp_path) in IN_MEMORY:
        pytest.skip("temporary files lie in memory here")
    assert await sync.profile(tmp_path, BRIEF) == 0
    said = capsys.readouterr().out
    for name, _, _ in STEPS:
        times = re.findall(rf"^{re.escape(name)} +([0-9.]+) +([0-9.]+)$", said, re.MULTILINE)
        assert len(times) == 2, name
        assert all(0 < float(own) <= float(way) for own, way in times), name


@pytest.mark.skipif(filesystem(Path("/dev/shm")) not in IN_MEMORY, reason="there is no such file system here")
async def test_a_folder_in_memory_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert await sync.main(Path("/dev/shm"), BRIEF) == 2
    assert await sync.floor_alone(Path("/dev/shm"), BRIEF) == 2
    assert await sync.profile(Path("/dev/shm"), BRIEF) == 2
    assert "durable" in capsys.readouterr().err


async def test_without_the_library_of_the_floor_nothing_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if filesystem(tmp_path) in IN_MEMORY:
        pytest.skip("temporary files lie in memory here")
    monkeypatch.setattr(sync, "find_spec", lambda name: None)
    assert await sync.main(tmp_path, BRIEF) == 2
    assert await sync.floor_alone(tmp_path, BRIEF) == 2
    assert (
        capsys.readouterr().err.splitlines() == [f"the floor signs with PyJWT, which is not installed: {INSTALL}"] * 2
    )


async def test_the_deployment_is_right_but_for_its_adapter_which_nobody_else_has(tmp_path: Path) -> None:
    (found,) = check(lay_out(tmp_path).folder)
    assert (found.file, found.where) == ("gsb.toml", "adapters.allow.0")


async def test_a_run_lasts_until_its_first_answer_however_late_it_comes(tmp_path: Path) -> None:
    """On a machine that is busy with other things nothing else could be said of it."""
    takes = 0.2

    async def late(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(takes)
        return web.Response(body=b"{}")

    (port,) = free_ports(1)
    runner = web.ServerRunner(web.Server(late))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        target = Target(lay_out(tmp_path), f"http://127.0.0.1:{port}", READ, whatever=True)
        counted = await load(target, in_flight=2, seconds=takes / 10)
    finally:
        await runner.cleanup()
    assert counted.answers == len(counted.times) >= 1
    assert counted.seconds >= min(counted.times) >= takes


@pytest.mark.parametrize("status", [200, 503])
async def test_an_answer_that_is_not_the_bus_s_ends_the_run(tmp_path: Path, status: int) -> None:
    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        return web.Response(status=status, body=b"{}")

    (port,) = free_ports(1)
    runner = web.ServerRunner(web.Server(refuse))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        with pytest.raises(AnswerWrong):
            await load(Target(lay_out(tmp_path), f"http://127.0.0.1:{port}", READ), in_flight=2, seconds=5)
    finally:
        await runner.cleanup()


async def test_a_step_s_own_time_is_without_what_it_waits_for_and_without_the_steps_inside_it() -> None:
    now = 0.0

    def work(seconds: float) -> None:
        nonlocal now
        now += seconds

    async def outer() -> None:
        work(1)
        inner(2)
        await asyncio.sleep(0)
        work(4)

    async def other() -> None:
        work(8)

    watch = Watch(lambda: now)
    inner = watch.around("inner", work)
    await asyncio.gather(watch.around("outer", outer)(), other())
    assert (watch.steps["outer"].own, watch.steps["outer"].way) == (5, 15)
    assert (watch.steps["inner"].own, watch.steps["inner"].way) == (2, 2)


async def test_what_a_watched_step_raises_and_is_told_reaches_whom_it_did_before() -> None:
    begun = asyncio.Event()

    async def step() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise LookupError from None

    task = asyncio.ensure_future(Watch().around("step", step)())
    await begun.wait()
    task.cancel()
    with pytest.raises(LookupError):
        await task
