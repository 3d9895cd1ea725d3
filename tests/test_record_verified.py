"""The log that the recorder writes, judged by three verifiers: the bus's, the auditor's file, and Go's own packages.

At the sizes at which tiles begin, become full and are joined, each extending the one before; and after a node's deaths.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gsb.evidence.log import CHECKPOINT
from tests.kills.campaign import campaign
from tests.support.logs import VERIFIERS, by_go, each_verifier, go_verifier
from tests.support.recording import recording

SIZES = [1, 255, 256, 257, 65_535, 65_536, 65_537]
AT_ONCE = 4_096
"""Entries that are committed together."""


@each_verifier
async def test_the_log_of_a_recorder_is_verified_at_every_size(verifier: str, tmp_path: Path) -> None:
    if verifier == "go":
        go_verifier()  # told before the work, if it is not there
    async with recording(tmp_path) as hands:
        await hands.recorder.look()
        written, older = 1, None  # the first entry of a log says that it begins
        for size in SIZES:
            while written < size:
                more = min(AT_ONCE, size - written)
                await hands.record(*range(written, written + more))
                written += more
            found = await asyncio.to_thread(VERIFIERS[verifier], hands.folder(), hands.verifier().vkey, older)
            assert found.verified, found.said
            note = (hands.folder() / CHECKPOINT).read_bytes()
            assert note.splitlines()[1] == str(size).encode()
            older = tmp_path / f"older-{size}"
            older.write_bytes(note)


@pytest.mark.slow
async def test_go_verifies_the_log_of_a_node_after_each_of_its_deaths(tmp_path: Path) -> None:
    go_verifier()
    async with campaign(tmp_path) as battle:
        older = None
        for point in (None, "sequence.after:1", None, "publish.before:2"):
            await battle.kill(point)
            folder = next(battle.deployment.log_folder.iterdir())
            vkey = battle.deployment.log_verifier(folder.name).vkey
            found = await asyncio.to_thread(by_go, folder, vkey, older)
            assert found.verified, found.said
            older = tmp_path / f"older-{len(battle.deaths)}"
            older.write_bytes((folder / CHECKPOINT).read_bytes())
        assert battle.findings == []
