"""Evidence logs written for a test, without a bus; and the three verifiers, each asked in the same way.

The writer uses the bus's own tree and notes but no store and no recorder, and makes nothing durable. The Go verifier
is compiled once a session; a test that wants it and finds no Go, or not Go's packages, is skipped with one line.
"""

from __future__ import annotations

import atexit
import io
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gsb.evidence import gsb_verify, verify
from gsb.evidence.checkpoint import Checkpoint, Signer, Verifier, open_checkpoint
from gsb.evidence.entry import canonical, commitment
from gsb.evidence.log import Edge, Files
from gsb.evidence.merkle import inclusion
from gsb.evidence.proof import Receipt
from tests.support.needs import needs

ROOT = Path(__file__).parent.parent.parent
GO_PACKAGES = Path("/usr/share/gocode")
ORIGIN = "bus.example/log/2026"
SALT = bytes(range(32))


def evidence(index: int) -> bytes:
    """What the entry at this index commits to."""
    return canonical({"jws": f"header.payload-{index}.signature"})


def content(index: int) -> bytes:
    """The entry at this index, in the form of the bus's."""
    commit = commitment(SALT, evidence(index))
    return canonical({"v": 1, "kind": "accepted", "exchange": f"{index:032x}", "agency": "payroll", "commit": commit})


class WrittenLog:
    """A log in a folder that grows by ``grow`` and is signed after each growth."""

    def __init__(self, folder: Path, *, key: Ed25519PrivateKey | None = None, origin: str = ORIGIN) -> None:
        self.folder = folder
        self.signer = Signer(origin, key or Ed25519PrivateKey.generate())
        self.vkey = self.signer.vkey
        self._edge = Edge()
        folder.mkdir(parents=True)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    def grow(self, contents: Sequence[bytes], *, signed: bool = True) -> bytes:
        """Add entries, as one batch of a recorder. Returns the note of the new checkpoint."""
        for path, data in self._edge.extend(contents).items():
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(data)
        note = self.sign(self._edge.size, self._edge.root())
        if signed:
            self.checkpoint.write_bytes(note)
        return note

    def grow_to(self, size: int, *, signed: bool = True) -> bytes:
        return self.grow([content(index) for index in range(self._edge.size, size)], signed=signed)

    def sign(self, size: int, root: bytes) -> bytes:
        return self.signer.sign(Checkpoint(self.signer.verifier.name, size, root).text())

    def receipt(self, index: int) -> Receipt:
        """Of an entry that ``content`` made."""
        note = self.checkpoint.read_bytes()

        def read(level: int, number: int, width: int) -> list[bytes]:
            path = gsb_verify.tile_path(level, number, width)
            data = (self.folder / path).read_bytes()
            return [data[at : at + 32] for at in range(0, len(data), 32)]

        size = open_checkpoint(note, self.signer.verifier).size
        return Receipt(index, tuple(inclusion(index, size, read)), note, content(index))


# --- the verifiers


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of a log: the first bad entry and file, as far as it names them."""

    verified: bool
    index: int | None = None
    path: str | None = None
    said: str = ""


Verify = Callable[[Path, str, Path | None], Verdict]
"""``verify(folder, vkey, older)``: one of the three verifiers."""


def by_the_bus(folder: Path, vkey: str, older: Path | None = None) -> Verdict:
    paths = gsb_verify.files_in(folder)
    note = None if older is None else older.read_bytes()
    try:
        found = verify.verify_log(Files(folder).read, Verifier.of(vkey), older=note, paths=paths)
    except verify.LogWrong as wrong:
        return Verdict(False, wrong.index, wrong.path, str(wrong))
    return Verdict(True, said=str(found))


def by_the_auditor(folder: Path, vkey: str, older: Path | None = None) -> Verdict:
    more = [] if older is None else ["--from", str(older)]
    status, said, why = run_auditor(["log", str(folder), "--key", vkey, *more])
    return told(status, said, why)


def run_auditor(words: Sequence[str]) -> tuple[int, str, str]:
    """The single-file verifier's status, output and errors; without a process of its own, which costs 0.2 s."""
    out, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors):
        status = gsb_verify.main(list(words))
    return status, out.getvalue(), errors.getvalue()


def told(status: int, said: str, why: str) -> Verdict:
    """The verdict in what the single-file verifier printed."""
    if status == 0:
        return Verdict(True, said=said)
    found = re.fullmatch(r"NOT VERIFIED: (?:entry (\d+): )?([^:\n]+): [^\n]+\n", why)
    assert found is not None, why
    return Verdict(False, int(found[1]) if found[1] else None, found[2], why)


def by_go(folder: Path, vkey: str, older: Path | None = None) -> Verdict:
    command = [str(go_verifier()), str(folder), vkey, *([] if older is None else [str(older)])]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode in (0, 1), ran.stderr
    assert (ran.returncode == 0) == ran.stdout.startswith("verified: ")
    found = re.search(r"entry (\d+): ", ran.stderr)
    return Verdict(ran.returncode == 0, int(found[1]) if found else None, said=ran.stdout or ran.stderr)


VERIFIERS: dict[str, Verify] = {"bus": by_the_bus, "auditor": by_the_auditor, "go": by_go}
each_verifier = pytest.mark.parametrize("verifier", VERIFIERS)


@cache
def go_verifier() -> Path:
    """Our Go program on Go's own ``sumdb/tlog`` and ``sumdb/note``, compiled without any download."""
    go = shutil.which("go")
    here = go is not None and (GO_PACKAGES / "src/golang.org/x/mod/sumdb/tlog").is_dir()
    needs(here, "Go and golang-golang-x-mod-dev: run make deps-test")
    built = tempfile.mkdtemp(prefix="gsb-go-")
    atexit.register(shutil.rmtree, built, ignore_errors=True)
    program = Path(built, "verify")
    # Go keeps what it compiled of its own library, so that only the first session waits for that.
    settings = {"GO111MODULE": "off", "GOPATH": str(GO_PACKAGES), "GOFLAGS": "", "GOCACHE": str(ROOT / ".deps/go")}
    subprocess.run(
        ["go", "build", "-o", program, "."], cwd=ROOT / "tests/evidence", check=True, env=os.environ | settings
    )
    return program
