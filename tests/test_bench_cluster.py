"""The benchmark beyond one machine: it measures what it says on real servers, its exit code follows its bars, and it
leaves nothing behind."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from typer.testing import CliRunner

from gsb.bench.cluster import measure
from gsb.bench.cluster.measure import Compared, Plan
from gsb.bench.served import IN_MEMORY
from gsb.bench.store import filesystem
from gsb.cli.main import app
from tests.shares_contract import eventually
from tests.support.postgres import some_server
from tests.test_bench_sync import quotients

BRIEF = Plan(pairs=1, exchanges=16, in_flight=4, calls=2)


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with some_server() as found:
        yield found if "sslmode" in found else f"{found}{'&' if '?' in found else '?'}sslmode=disable"


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that whoever runs PostgreSQL can reach, unlike those of pytest."""
    found = Path(tempfile.mkdtemp(prefix="gsb-test-"))
    found.chmod(0o755)
    if filesystem(found) in IN_MEMORY:
        pytest.skip("temporary files lie in memory here")
    yield found
    shutil.rmtree(found)


def test_the_ratio_is_the_median_of_the_pairs_ratios() -> None:
    compared = Compared([90, 50, 80], [100, 200, 100])
    assert compared.ratio == 0.8
    assert re.fullmatch(r"work +80.0/s +100.0/s +0.80   at least 1", compared.told("work", 1, "/s", "at least 1"))


@pytest.mark.slow
async def test_everything_is_measured_and_nothing_is_left(
    dsn: str, kafka: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "LEAST", 0.0)
    monkeypatch.setattr(measure, "MOST", 10_000.0)
    monkeypatch.setattr(measure, "CORES", 1)
    monkeypatch.setattr(measure, "LEAST_OF_TWO", 0.0)
    assert await measure.main(folder, dsn, kafka, BRIEF) == 0
    said = capsys.readouterr().out
    assert re.match(r"[0-9]+ cores; ", said)
    for title, unit in (("asynchronous exchanges", "/s"), ("one synchronous, p50", "ms"), ("what workers do", "/s")):
        found = re.search(rf"(?m)^{title} +([0-9.,]+){unit} +([0-9.,]+){unit} +([0-9.]+) ", said)
        assert found is not None, said
        ours, theirs, ratio = (float(each.replace(",", "")) for each in found.groups())
        least, most = quotients(ours, theirs, 0.05)
        assert least - 0.006 < ratio < most + 0.006
    for step in ("admit 9 accept", "admit 10 dispatch", "perform 1 begin", "perform 5 finish", "store: commit"):
        assert re.search(rf"(?m)^{step} +[0-9.]+ +[0-9.]+$", said), step
    assert left_in(folder) == []
    # What a Kafka was told to delete has gone when its brokers have heard of it.
    await eventually(lambda: nothing_is_left_on(dsn, kafka), 60.0)


@pytest.mark.slow
async def test_what_is_under_its_bar_fails(
    dsn: str, kafka: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "LEAST", 10_000.0)
    monkeypatch.setattr(measure, "MOST", 10_000.0)
    monkeypatch.setattr(measure, "CORES", 10_000)
    assert await measure.main(folder, dsn, kafka, BRIEF) == 1
    assert "not judged" in capsys.readouterr().out


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def nothing_is_left_on(dsn: str, brokers: str) -> bool:
    """Of what a benchmark made on servers that others use too."""
    db = await asyncpg.connect(dsn)
    found = await db.fetch("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'bench')")
    await db.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    names = await admin.list_topics()
    await admin.close()
    return not found and not any(name.startswith("bench") for name in names)


def test_what_is_not_there_is_said_in_one_line(folder: Path) -> None:
    arguments = ["bench", "cluster", "--folder", str(folder), "--kafka", "127.0.0.1:1", "--postgres"]
    result = CliRunner().invoke(app, [*arguments, "postgresql://nobody@127.0.0.1:1/none?sslmode=disable"])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout.count("cores") <= 1


def test_too_few_exchanges_are_refused() -> None:
    result = CliRunner().invoke(app, ["bench", "cluster", "--exchanges", "64", "--in-flight", "64"])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


def test_an_address_that_is_none_is_said_in_one_line(folder: Path) -> None:
    dsn = "postgresql://nobody@127.0.0.1:1/none?sslmode=disable"
    options = ["--folder", str(folder), "--kafka", "nohost", "--postgres", dsn]
    result = CliRunner().invoke(app, ["bench", "cluster", *options])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("--kafka nohost: ")
