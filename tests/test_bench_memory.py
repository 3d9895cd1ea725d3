"""The benchmark of memory: it counts what it says, fails above the bar, and refuses what proves nothing."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from gsb.bench import memory
from gsb.bench.served import IN_MEMORY, Server
from gsb.bench.store import filesystem


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("most", "status"), [(memory.MOST, 0), (-1_000.0, 1)])
async def test_a_tenth_and_all_are_compared_and_too_much_growth_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, most: float, status: int
) -> None:
    if filesystem(tmp_path) in IN_MEMORY:
        pytest.skip("temporary files lie in memory here")
    monkeypatch.setattr(memory, "MOST", most)
    assert await memory.main(tmp_path, 1_000) == status
    said = capsys.readouterr()
    looks = [
        (int(count.replace(",", "")), float(mib))
        for count, mib in re.findall(r"([0-9,]+) exchanges +([0-9.]+) MiB", said.out)
    ]
    (few, before), (many, after) = looks
    assert (few, many) == (100, 1_000)
    (grown,) = re.findall(r"grown by +(-?[0-9.]+) MiB", said.out)
    assert float(grown) == pytest.approx(after - before, abs=0.11)
    assert len(said.err.splitlines()) == 10
    assert left_in(tmp_path) == []


@pytest.mark.slow
async def test_the_resident_memory_is_the_server_s(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        said = tmp_path / "said"
        resident = Server("", process, said).resident()
        assert 0 < resident < 32 * memory.MIB
        assert resident % 4_096 == 0
    finally:
        process.kill()
        await process.wait()


@pytest.mark.skipif(filesystem(Path("/dev/shm")) not in IN_MEMORY, reason="there is no such file system here")
async def test_a_folder_in_memory_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert await memory.main(Path("/dev/shm"), 1_000) == 2
    assert "durable" in capsys.readouterr().err
