"""The benchmarks of neighbours: their deployment is right, they measure what they say, and the bar decides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gsb.bench.crowd import fairness, flood, place, strain
from gsb.bench.crowd.fairness import Compared, Plan, Turn
from gsb.bench.load import Target, load
from gsb.bench.place import READ, lay_out
from gsb.bench.served import IN_MEMORY, servers
from gsb.bench.store import filesystem

BRIEF = Plan(pairs=1, connections=8, seconds=0.5)


def turn(p99: float) -> Turn:
    return Turn(p99 / 2, p99, 100)


def on_disk(path: Path) -> Path:
    if filesystem(path) in IN_MEMORY:
        pytest.skip("temporary files lie in memory here")
    return path


def in_memory() -> Path:
    memory = Path("/dev/shm")
    if not memory.is_dir() or filesystem(memory) not in IN_MEMORY:
        pytest.skip("there is no folder in memory here")
    return memory


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def test_the_ratio_is_that_of_the_medians_so_that_one_spoilt_turn_decides_nothing() -> None:
    compared = Compared(READ, [turn(0.02), turn(0.9), turn(0.021)], [turn(0.0231), turn(0.023), turn(5)], [1, 2, 3])
    assert compared.ratio == pytest.approx(1.1)
    assert re.search(rf"{READ} +10.5 +21.0 ms +11.5 +23.1 ms +1.10 +2/s", str(compared))


async def test_every_system_of_the_deployment_answers_as_it_is_meant_to(tmp_path: Path) -> None:
    async with servers(on_disk(tmp_path)) as ours:
        place.add_neighbours(ours.place)
        await ours.node()
        quick = await load(Target(ours.place, ours.place.url, place.QUICK), in_flight=1, seconds=0.3)
        assert min(quick.times) > place.TAKES[place.QUICK]
        dead = Target(ours.place, ours.place.url, place.DEAD, whatever=True)
        assert min((await load(dead, in_flight=1, seconds=0.3)).times) >= place.WAIT
        async with flood.flooding(ours.place, READ, 4, 0.3, same=False) as running:
            assert running.rate == 0
        assert running.rate > 0


async def test_a_flood_that_cannot_begin_is_said_to(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="did not begin"):
        async with flood.flooding(lay_out(tmp_path), READ, 1, 0.1, same=False):
            raise AssertionError("it ran")


@pytest.mark.parametrize(("most", "code"), [(0.0, 1), (1e9, 0)])
async def test_the_bar_decides(
    tmp_path: Path, most: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fairness, "MOST", most)
    monkeypatch.setattr(fairness, "WARM_UP", 0.1)
    assert await fairness.main(on_disk(tmp_path), BRIEF) == code
    assert READ in capsys.readouterr().out
    assert left_in(tmp_path) == []


async def test_strain_is_measured_for_a_slow_and_a_dead_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(strain, "MOST", 0.0)
    assert await strain.main(on_disk(tmp_path), BRIEF) == 1
    said = capsys.readouterr().out
    assert place.SLOW in said
    assert place.DEAD in said


async def test_a_folder_in_memory_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    memory = in_memory()
    assert await fairness.main(memory, BRIEF) == 2
    assert await strain.main(memory, BRIEF) == 2
    assert "nothing written there is durable" in capsys.readouterr().err
