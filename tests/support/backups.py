"""A deployment that can be backed up and laid on another machine, the keys for that, and the commands.

kept = Kept(tmp_path)                       # a deployment whose log lies beside its folder
await kept.backup()                         # gsb backup, in a process of its own
other = await kept.restored()               # gsb restore --from, into another folder
"""

from __future__ import annotations

import asyncio
import copy
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson
from typer.testing import CliRunner

from gsb.backup.sealed import new_identity
from gsb.cli.main import app
from tests.support.deployment import SITE, Deployment, standard
from tests.support.node import GSB

ROOT = Path(__file__).parents[2]
REASON = "canary: the machine was lost"
DIES = """
import os, signal, sys
from gsb.backup import envelope, lay, make, postgres
from gsb.cli import main

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

where, name = sys.argv.pop(1).split(":")
setattr({"envelope": envelope.Growing, "lay": lay.Laying, "make": make, "moves": lay}[where], name, die)
main.main()
"""
"""A program that is killed at a step: its first word, ``lay:finish``."""


class Said(NamedTuple):
    code: int
    out: str
    wrong: str


async def run(*words: str | Path) -> Said:
    """A command of this program, in a thread: it has an event loop of its own."""
    done = await asyncio.to_thread(CliRunner().invoke, app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Said(done.exit_code, done.stdout, done.stderr)


async def process(*words: str | Path, program: Sequence[str | Path] = (GSB,)) -> Said:
    """A command in a process of its own."""
    paths = os.pathsep.join([str(ROOT), str(SITE)])
    pipe = asyncio.subprocess.PIPE
    started = await asyncio.create_subprocess_exec(
        *map(str, (sys.executable, *program, *words)),
        env={**os.environ, "PYTHONPATH": paths},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
    )
    async with asyncio.timeout(120):
        out, wrong = await started.communicate()
    return Said(started.returncode or 0, out.decode(), wrong.decode())


class Kept:
    """A deployment and everything that its backups need."""

    def __init__(self, root: Path, deployment: Deployment | None = None) -> None:
        self.root = root
        self.deployment = deployment or standard(root / "here")
        self.deployment.gsb["log"]["path"] = "../log"
        self.file = root / "one.gsb-backup"
        self.unfinished = ""
        self.identity, self.other_identity = root / "identity", root / "other-identity"
        secret, self.recipient = new_identity()
        self.identity.write_text(secret, "ascii")
        self.other_identity.write_text(new_identity()[0], "ascii")
        self.bus_keys = root / "bus.pub.jwk.json"
        self.bus_keys.write_bytes(orjson.dumps(self.deployment.bus_key().public.jwk))

    @property
    def there(self) -> Path:
        """The deployment's folder on the other machine."""
        return self.root / "there" / "deployment"

    async def backup(self, file: Path | None = None, *more: str | Path) -> Said:
        return await run("backup", self.deployment.folder, file or self.file, "--to", self.recipient, *more)

    async def verify(self, file: Path | None = None, *more: str | Path) -> Said:
        return await run("verify-backup", file or self.file, "--bus-keys", self.bus_keys, *more)

    def words(self, folder: Path | None = None) -> list[str | Path]:
        """Of a restore."""
        words: list[str | Path] = ["restore", folder or self.there, "--from", self.file, "--identity", self.identity]
        return [*words, "--bus-keys", self.bus_keys, "--reason", REASON]

    async def restored(self, *more: str | Path) -> Deployment:
        """The deployment on the other machine, on which there is nothing else."""
        self.there.parent.mkdir(exist_ok=True)
        said = await run(*self.words(), *more)
        assert said.code == 0, said.wrong
        return self.other()

    def other(self) -> Deployment:
        other = copy.copy(self.deployment)
        other.folder, other.log_folder = self.there, self.there.parent / "log"
        return other


def contents(folder: Path) -> Mapping[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
