"""What a witness has cosigned: of each log the newest checkpoint, kept before it is told.

Judging and keeping are one step, one request at a time: else an older checkpoint, judged first, could be kept last, and
the log be rolled back (c2sp.org/tlog-witness prints that race). What is in memory counts, and changes only once the
disk has it; so a write that failed is as if it never was, even if it did land: no cosignature of it was told. A crash
leaves each log's file as it was, or with a checkpoint that nobody was told of, which binds the witness all the same.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gsb.evidence.checkpoint import Checkpoint, Cosigner, Note, NoteWrong, Signature, parse_note
from gsb.evidence.log import CHECKPOINT, Files
from gsb.evidence.witness import Known, Refused, Request, judge, opened, parse_request, seen_path

log = logging.getLogger("gsb.witness")

REFUSED = "refused"
"""The first request of a log that contradicted what was cosigned: whoever signed it cannot deny it."""


class StateUnfit(Exception):
    """The folder of the state cannot be used, and why."""


class Book:
    """The newest checkpoint of each log, in a folder that one process has. ``clock`` gives seconds since 1970."""

    def __init__(
        self, folder: Path, logs: Sequence[Known], cosigner: Cosigner, clock: Callable[[], float] = time.time
    ) -> None:
        self._folder, self._files = folder, Files(folder)
        self._logs, self._cosigner, self._clock = logs, cosigner, clock
        self._alone = asyncio.Lock()
        self._newest: dict[str, Note] = {}
        """By the path that shows it; on the disk for certain."""
        self._lock: int | None = None

    def open(self) -> None:
        """Take the folder and read it. Raises StateUnfit, also for what cannot be read: a witness that had forgotten
        would cosign a second history. Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._lock = _own(self._folder)
        try:
            self._read()
        except (StateUnfit, OSError):
            self.close()
            raise

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def seen(self, path: str) -> bytes | None:
        """The newest checkpoint that is shown at this path, with its cosignature, or None."""
        found = self._newest.get(path)
        return None if found is None else found.encode()

    async def add(self, body: bytes) -> Signature:
        """The cosignature of a request's checkpoint. Raises Refused, and OSError when it cannot be kept."""
        request = parse_request(body)
        note, checkpoint = opened(request, self._logs)
        async with self._alone:
            path = seen_path(checkpoint.origin)
            await self._judge(request, checkpoint, path, body)
            signature = self._cosigner.sign(note.text, int(self._clock()))
            note = note.add([signature])
            # Also when the size has not grown: what is told must be on the disk, and an earlier write may have failed.
            await asyncio.to_thread(self._files.write, {path: note.encode()})
            self._newest[path] = note
            return signature

    async def _judge(self, request: Request, checkpoint: Checkpoint, path: str, body: bytes) -> None:
        newest = self._newest.get(path)
        try:
            judge(request, checkpoint, None if newest is None else Checkpoint.parse(newest.text))
        except Refused as refused:
            if refused.status == 422:
                kept = await asyncio.to_thread(self._keep, path.replace(CHECKPOINT, REFUSED), body)
                facts = {"log": checkpoint.origin, "size": checkpoint.size, "why": str(refused), "kept": kept}
                log.error("a signed checkpoint does not extend what was cosigned", extra={"facts": facts})
            raise

    def _keep(self, path: str, body: bytes) -> str:
        """Where the first such request of the log is kept, and only that one: whoever can sign must not be able to fill
        the disk, or to replace the proof."""
        try:
            if self._files.read(path) is None:
                self._files.write({path: body})
        except OSError as error:
            return f"nowhere: {error}"
        return str(self._folder / path)

    def _read(self) -> None:
        for folder in sorted(each for each in self._folder.iterdir() if each.is_dir()):
            path = f"{folder.name}/{CHECKPOINT}"
            data = self._files.read(path)
            if data is None:
                continue  # a crash came before the first cosignature
            try:
                note = parse_note(data)
                origin = Checkpoint.parse(note.text).origin
            except NoteWrong as error:
                raise StateUnfit(f"{self._folder / path} is damaged ({error}); do not go on without it") from error
            if seen_path(origin) != path:
                raise StateUnfit(f"{self._folder / path} is of the log {origin}, which does not belong there")
            # What was read may have come from memory after a write that failed: let the disk have it before it counts.
            self._files.write({path: data})
            self._newest[path] = note


def _own(folder: Path) -> int:
    """A lock for as long as it stays open: two processes on one state would roll each other back."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StateUnfit(f"another process has the state {folder}") from None
    return lock
