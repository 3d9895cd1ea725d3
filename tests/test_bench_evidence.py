"""The bench of the evidence log measures what it says, each part is judged by its own bar, and nothing is left."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gsb.bench.evidence import measure
from gsb.bench.evidence.made import STEP, MadeLog, content
from gsb.bench.evidence.measure import Bars, Plan
from gsb.bench.evidence.pace import pace
from gsb.bench.evidence.receipts import receipts
from gsb.bench.evidence.verifying import ORIGIN, _by_the_auditor, verifying
from gsb.catalogue import build
from gsb.evidence.checkpoint import Signer, Verifier, open_checkpoint
from gsb.evidence.entry import canonical
from gsb.evidence.merkle import leaf_hash
from gsb.evidence.tiles import bundle_path, tile_path
from gsb.evidence.verify import LogWrong
from tests.support.auditor import contents_of, root_after, said
from tests.test_bench_store import benches, on_disk
from tests.test_bench_store import content as left_in

SMALL = Plan(entries=300, pairs=2, verified=700, largest=1_000, receipts=3)
EASY = Bars(recorded=0, share=0, verified=0, receipt=1e9)
IMPOSSIBLE = 1e15


def silent(_: int) -> None:
    pass


async def test_every_part_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await measure.main(on_disk(tmp_path), SMALL, EASY) == 0
    out = capsys.readouterr().out
    rates = re.findall(r"^(\S.*?) +([0-9,]+) entries/s", out, re.MULTILINE)
    assert [name for name, _ in rates] == ["recorder", "raw", "gsb log verify", "gsb_verify.py"]
    assert all(float(rate.replace(",", "")) > 0 for _, rate in rates)
    curve = re.findall(r"^ +([0-9,]+) entries +([0-9.]+) +([0-9.]+)$", out, re.MULTILINE)
    assert [size for size, _, _ in curve] == ["1", "10", "100", "1,000"]
    assert all(0 < float(p50) <= float(p99) for _, p50, p99 in curve)
    assert float(re.findall(r"largest, p50 +([0-9.]+) ms", out)[0]) == float(curve[-1][1])
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("bars", "status"),
    [
        (replace(EASY, recorded=IMPOSSIBLE, share=IMPOSSIBLE), 1),
        (replace(EASY, recorded=IMPOSSIBLE), 0),
        (replace(EASY, share=IMPOSSIBLE), 0),
        (replace(EASY, verified=IMPOSSIBLE), 1),
        (replace(EASY, receipt=0), 1),
    ],
)
async def test_each_bar_is_a_verdict_and_of_two_the_lower_one(tmp_path: Path, bars: Bars, status: int) -> None:
    assert await measure.main(on_disk(tmp_path), SMALL, bars) == status


def test_the_bars_are_those_promised() -> None:
    assert Bars() == Bars(recorded=10_000, share=0.5, verified=15_000, receipt=0.005)


async def test_a_file_system_in_memory_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    memory = Path("/dev/shm")
    before = benches(memory)
    assert await measure.main(memory, SMALL) == 2
    told = capsys.readouterr()
    assert (told.out, "tmpfs" in told.err, benches(memory)) == ("", True, before)


async def test_recorder_and_raw_write_the_same_entries(tmp_path: Path) -> None:
    done: list[int] = []
    paced = await pace(tmp_path, 300, 3, done.append)
    assert done == [300, 600, 900]
    assert paced.recorder > 0
    assert paced.raw > 0
    contents = [content(index) for index in range(900)]
    begun, *recorded = contents_of(*log_in(tmp_path))
    assert said([begun])[0]["kind"] == "log_begun"
    assert recorded == contents
    assert (tmp_path / "raw").read_bytes() == b"".join(leaf_hash(each) + each for each in contents)


def log_in(root: Path) -> tuple[Path, Verifier]:
    """The folder of the only log of this deployment, and who verifies it."""
    catalogue = build(root)
    (folder,) = (root / "log").iterdir()
    return folder, Signer(f"{catalogue.gsb.log_origin}/{folder.name}", catalogue.log_key).verifier


async def test_what_is_not_published_is_not_measured(tmp_path: Path) -> None:
    def harm(_: int) -> None:
        (folder,) = (tmp_path / "log").iterdir()
        folder.rename(tmp_path / "aside")
        folder.write_text("no folder")

    with pytest.raises(RuntimeError, match="of 300 entries the recorder has published 0"):
        await pace(tmp_path, 300, 2, harm)


def test_entries_are_realistic() -> None:
    first, last = content(0), content(9_999_999)
    assert len(first) == len(last) == pytest.approx(500, abs=50)
    assert canonical(said([first])[0]) == first
    assert said([last])[0]["exchange"].endswith("-000009999999")


def made_log(folder: Path, *, bundles: bool = True) -> MadeLog:
    return MadeLog(folder, Signer(ORIGIN, Ed25519PrivateKey.generate()), bundles=bundles)


def test_a_log_made_quickly_is_a_log_at_each_of_its_sizes(tmp_path: Path) -> None:
    made, done = made_log(tmp_path), list[int]()
    for size in (10, 300, STEP + 300):
        made.grow(size, done.append)
        assert contents_of(tmp_path, made.signer.verifier) == [content(index) for index in range(size)]
    assert done == [10, 300, STEP, STEP + 300]


def test_a_log_of_hashes_alone_is_signed_like_the_whole(tmp_path: Path) -> None:
    made = made_log(tmp_path, bundles=False)
    made.grow(600, silent)
    checkpoint = open_checkpoint(made.note, made.signer.verifier)
    assert (checkpoint.size, checkpoint.root) == (600, root_after([content(index) for index in range(600)], 600))
    assert (tmp_path / tile_path(0, 2, 88)).exists()
    assert not (tmp_path / "tile/entries").exists()


async def test_a_log_that_is_not_verified_is_not_measured(tmp_path: Path) -> None:
    def harm(_: int) -> None:
        bundle = tmp_path / bundle_path(1)
        if bundle.exists():
            bundle.write_bytes(bundle.read_bytes().replace(b"payroll", b"payrole"))

    with pytest.raises(LogWrong, match="entry 256: tile/entries/001: does not agree"):
        await verifying(tmp_path, 600, harm)
    made = made_log(tmp_path / "another")
    made.grow(600, silent)
    made.signer = Signer(ORIGIN, Ed25519PrivateKey.generate())
    with pytest.raises(RuntimeError, match=r"gsb_verify\.py exits with 1"):
        await _by_the_auditor(made)


async def test_the_logs_for_receipts_are_one_log_that_grows(tmp_path: Path) -> None:
    sizes: list[int] = []
    curve = await receipts(tmp_path, 40_000, 2, sizes.append)
    assert [point.size for point in curve] == [40, 400, 4_000, 40_000]
    assert sizes == [40, 400, 4_000, STEP, 2 * STEP, 40_000]
    folder, verifier = log_in(tmp_path)
    assert open_checkpoint((folder / "checkpoint").read_bytes(), verifier).size == 40_000
