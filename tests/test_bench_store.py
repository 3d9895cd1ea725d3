"""The bench of the store measures both sides, judges by the ratio, and refuses a disk that is none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gsb.bench import store as bench
from gsb.store.sqlite import rows as sqlite_rows
from tests.test_bench_sync import quotients


def on_disk(folder: Path) -> Path:
    if bench.filesystem(folder.resolve()) in bench._IN_MEMORY:
        return Path(__file__).parent
    return folder


def content(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def benches(folder: Path) -> list[str]:
    """What benchmarks lay there; of other things in memory others make and take away some at any time."""
    return [name for name in content(folder) if name.startswith("gsb-bench-")]


async def test_it_prints_both_sides_and_the_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = await bench.main(on_disk(tmp_path), exchanges=200, in_flight=16, pairs=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["200", "store", "raw", "ratio"]
    store, raw, ratio = (float(line.split()[1].replace(",", "")) for line in lines[1:])
    least, most = quotients(store, raw, 0.5)
    assert least - 0.006 < ratio < most + 0.006
    assert code == (0 if ratio >= bench.LEAST else 1) or round(ratio, 2) == bench.LEAST
    assert not content(tmp_path)


@pytest.mark.parametrize(("least", "code"), [(0.0, 0), (1e9, 1)])
async def test_the_exit_code_is_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: float, code: int
) -> None:
    monkeypatch.setattr(bench, "LEAST", least)
    assert await bench.main(on_disk(tmp_path), exchanges=64, in_flight=8, pairs=1) == code


async def test_a_file_system_in_memory_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    memory = Path("/dev/shm")
    if bench.filesystem(memory) != "tmpfs":
        pytest.fail("this test needs a tmpfs at /dev/shm")
    before = benches(memory)
    assert await bench.main(memory, exchanges=64, in_flight=8, pairs=1) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "tmpfs" in said.err
    assert benches(memory) == before


async def test_raw_writes_the_same_rows(tmp_path: Path) -> None:
    await bench._store(tmp_path / "store.db", 100, 16)
    bench._raw(tmp_path / "raw.db", list(bench._groups(tmp_path / "store.db", 16)), 100)
    content = {
        "spent": "SELECT hash, expires FROM spent",
        "reservation": "SELECT hash FROM reservation",
        "sealed": "SELECT bytes FROM sealed",
        "entry": "SELECT leaf, content FROM entry",
        "exchange": f"SELECT {', '.join(set(sqlite_rows.COLUMNS) - {'row', 'request', 'reply'})} FROM exchange",
    }
    for table, sql in content.items():
        sides = []
        for name in ("store.db", "raw.db"):
            db = sqlite3.connect(tmp_path / name)
            sides.append(sorted(map(repr, db.execute(sql))))
            db.close()
        assert sides[0] == sides[1], table
        assert len(sides[0]) in (100, 200, 400)
