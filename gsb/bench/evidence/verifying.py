"""How many entries a second a whole log is verified at: by the bus's own command, and by the auditor's single file.

Both verify the same log on disk, the second in a process of its own, as an auditor runs it. A log that is not verified
is a defect, here or there, and no slow log.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gsb.bench.evidence.made import MadeLog, Told
from gsb.evidence import gsb_verify
from gsb.evidence.checkpoint import Signer
from gsb.evidence.log import Files
from gsb.evidence.verify import verify_log

ORIGIN = "bus.bench/log/2026"


@dataclass(frozen=True, slots=True)
class Verified:
    """Entries a second."""

    bus: float
    auditor: float


async def verifying(folder: Path, entries: int, told: Told) -> Verified:
    """Make a log of so many entries in an empty folder and verify it twice. Raises LogWrong, RuntimeError."""
    made = MadeLog(folder, Signer(ORIGIN, Ed25519PrivateKey.generate()), bundles=True)
    made.grow(entries, told)
    return Verified(entries / _by_the_bus(made, told), entries / await _by_the_auditor(made))


def _by_the_bus(made: MadeLog, told: Told) -> float:
    start = time.perf_counter()
    verify_log(
        Files(made.folder).read,
        made.signer.verifier,
        paths=gsb_verify.files_in(made.folder),
        progress=lambda done, size: told(done),
    )
    return time.perf_counter() - start


async def _by_the_auditor(made: MadeLog) -> float:
    start = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        gsb_verify.__file__,
        "log",
        str(made.folder),
        "--key",
        made.signer.vkey,
        stdout=asyncio.subprocess.DEVNULL,
    )
    if status := await process.wait():
        raise RuntimeError(f"gsb_verify.py exits with {status}")
    return time.perf_counter() - start
