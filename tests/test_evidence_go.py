"""Somebody else's verifier: a small Go program on Go's own packages for transparency logs, which have no code of ours.

It is asked together with the verifiers in Python in ``test_tampering.py``; here stands what it alone is to show.
"""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from gsb.evidence.tiles import bundle_path, unpack
from tests.support.logs import ROOT, WrittenLog, by_go, content, go_verifier


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> WrittenLog:
    log = WrittenLog(tmp_path_factory.mktemp("go") / "log")
    (log.folder.parent / "older").write_bytes(log.grow_to(1))
    log.grow_to(1000)
    return log


def test_it_uses_nothing_but_go_and_its_packages_for_logs() -> None:
    imported = set()
    for file in (ROOT / "tests/evidence").glob("*.go"):
        block = file.read_text("utf-8").partition("import (")[2].partition(")")[0]
        imported |= {line.strip(' \t"') for line in block.splitlines() if line.strip()}
    assert {name for name in imported if "." in name} == {"golang.org/x/mod/sumdb/note", "golang.org/x/mod/sumdb/tlog"}


@pytest.mark.parametrize("size", [*range(1, 18), 511, 512, 513, 769])
def test_it_verifies_a_log_that_grew_one_entry_at_a_time(size: int, tmp_path: Path) -> None:
    log = WrittenLog(tmp_path / "log")
    if size > 20:
        log.grow_to(size - 10)
    for grown in range(max(1, size - 9), size + 1):
        older = log.grow_to(grown)
        (tmp_path / f"older-{grown}").write_bytes(older)
    for grown in range(max(1, size - 9), size + 1):
        found = by_go(log.folder, log.vkey, tmp_path / f"older-{grown}")
        assert found.verified, found.said
    assert f"verified: {size} entries" in found.said


def test_it_names_the_entry_of_which_one_byte_was_flipped(log: WrittenLog) -> None:
    draw = random.Random(6962)
    for index in (0, 255, 256, 999, *(draw.randrange(1000) for _ in range(20))):
        file = log.folder / bundle_path(index // 256, min(256, 1000 - index // 256 * 256))
        data = file.read_bytes()
        before = sum(2 + len(entry) for entry in unpack(data)[: index % 256])
        at = before + 2 + draw.randrange(len(content(index)))
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :])
        found = by_go(log.folder, log.vkey)
        file.write_bytes(data)
        assert (found.verified, found.index) == (False, index)
    assert by_go(log.folder, log.vkey, log.folder.parent / "older").verified


def test_wrong_use_is_no_verdict(log: WrittenLog) -> None:
    ran = subprocess.run([go_verifier(), log.folder], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("usage: ")
