"""A log to be witnessed, in memory, and witnesses to ask: files for one, and one as a process of its own.

log = GrowingLog("bus.example/log/2026")
async with witness_process(tmp_path / "witness", knows(log)) as (there, process):
    at = await there.cosigned(log, 0, 5)
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gsb import jwk
from gsb.evidence.checkpoint import Checkpoint, Note, Signer, Verifier, parse_note, parse_signatures
from gsb.evidence.merkle import consistency, leaf_hash, root_of
from gsb.evidence.witness import ADD, Request, seen_path
from gsb.witness.book import Book
from gsb.witness.server import Service
from gsb.witness.settings import Settings, read_settings
from tests.support.deployment import free_ports

ROOT = Path(__file__).parents[2]
NAME = "witness.audit.example"
NOW = 1_790_000_000.0


@dataclass
class GrowingLog:
    """A log that can be of any size. Of two with one key and other seeds, the entries from ``forked`` on are others."""

    origin: str = "bus.example/log/2026"
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    seed: str = ""
    forked: int = 0

    def fork(self, at: int, seed: str = "other") -> GrowingLog:
        return GrowingLog(self.origin, self.key, seed, at)

    @property
    def vkey(self) -> str:
        return Signer(self.origin, self.key).vkey

    def leaf(self, index: int) -> bytes:
        return leaf_hash(f"{self.seed if index >= self.forked else ''}{index}".encode())

    def root(self, size: int) -> bytes:
        return root_of([self.leaf(index) for index in range(size)])

    def note(self, size: int) -> bytes:
        return Signer(self.origin, self.key).sign(Checkpoint(self.origin, size, self.root(size)).text())

    def read(self, level: int, number: int, width: int) -> list[bytes]:
        """One tile, as ``ReadTile``."""
        step = 256**level
        at = [(number * 256 + each) * step for each in range(width)]
        return [root_of([self.leaf(index) for index in range(start, start + step)]) for start in at]

    def request(self, old: int, new: int) -> bytes:
        proof = tuple(consistency(old, new, self.read)) if old <= new else ()
        return Request(old, proof, self.note(new)).encode()


def write_witness(folder: Path, logs: str, *, name: str = NAME, port: int = 0, more: str = "") -> Settings:
    """A witness's folder with a key of its own; one that is there keeps its key and its state."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (key := folder / "witness.jwk.json").exists():
        key.write_bytes(jwk.generate("Ed25519"))
    text = f'name = "{name}"\nkey = "witness.jwk.json"\nstate = "state"\n{more}\n[listen]\nport = {port}\n{logs}'
    (folder / "witness.toml").write_text(text)
    return read_settings(folder)


def knows(log: GrowingLog) -> str:
    return f'[[logs]]\norigin = "{log.origin}"\nkeys = ["{log.vkey}"]\n'


def knows_yearly(log: GrowingLog) -> str:
    return f'[[logs]]\norigin = "{log.origin.rpartition("/")[0]}"\nyearly = true\nkeys = ["{log.vkey}"]\n'


@dataclass
class Asked:
    """An answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass
class Witnessing:
    """A witness that can be asked."""

    settings: Settings
    url: str

    @property
    def verifier(self) -> Verifier:
        return self.settings.cosigner.verifier

    async def ask(self, body: bytes, path: str = f"/{ADD}", method: str = "POST") -> Asked:
        async with aiohttp.ClientSession() as http, http.request(method, self.url + path, data=body or None) as answer:
            return Asked(answer.status, await answer.read(), answer.headers)

    async def cosigned(self, log: GrowingLog, old: int, new: int) -> int:
        """Let it cosign; the time that it says, verified."""
        asked = await self.ask(log.request(old, new))
        assert asked.status == 200, asked.body
        note = Note(parse_note(log.note(new)).text, parse_signatures(asked.body.decode()))
        (at,) = self.verifier.times(note)
        return at

    async def seen(self, log: GrowingLog) -> Note | None:
        asked = await self.ask(b"", f"/{seen_path(log.origin)}", "GET")
        return parse_note(asked.body) if asked.status == 200 else None

    async def size(self, log: GrowingLog) -> int:
        note = await self.seen(log)
        return 0 if note is None else Checkpoint.parse(note.text).size


@dataclass
class Reached(Witnessing):
    """A witness whose book the test can reach into."""

    book: Book


@asynccontextmanager
async def witnessing(folder: Path, logs: str, *, name: str = NAME, port: int = 0) -> AsyncIterator[Reached]:
    """A witness in this event loop, at a time that stands still."""
    settings = write_witness(folder, logs, name=name)
    book = Book(settings.file.state, settings.logs, settings.cosigner, lambda: NOW)
    book.open()
    runner = web.ServerRunner(Service(book).server(), shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield Reached(settings, f"http://127.0.0.1:{runner.addresses[0][1]}", book)
    finally:
        await runner.cleanup()
        book.close()


@asynccontextmanager
async def witness_process(
    folder: Path, logs: str, program: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Witnessing, asyncio.subprocess.Process]]:
    """``gsb witness serve`` in a process of its own (or ``program``, told the witness's file), killed at the end."""
    settings = write_witness(folder, logs, port=free_ports(1)[0])
    command = program or (str(Path(sys.executable).parent / "gsb"), "witness", "serve", "--config")
    process = await asyncio.create_subprocess_exec(
        *command,
        str(folder / "witness.toml"),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(90):
            line = await process.stderr.readline()
        assert b'"started"' in line, line
        yield Witnessing(settings, f"http://127.0.0.1:{settings.file.listen.port}"), process
    finally:
        if process.returncode is None:
            process.kill()
        # What it still wrote is read too: a pipe that nobody reads is never closed.
        await process.communicate()
