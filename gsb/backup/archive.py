"""What is inside a backup: a plain tar file, streamed, whose last member lists every other one with its SHA-256.

``backup.json`` comes first and says what the rest is; ``MANIFEST`` comes last, in the form of ``sha256sum``, and its
own digest is signed. What is read is written where the caller says, hashed on the way, and is to be believed only when
``unpack`` has returned. A crash leaves what was written until then; the caller knows where.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from gsb.backup.envelope import CHUNK, BackupUnfit, Tell

ABOUT, MANIFEST = "backup.json", "MANIFEST"


class Pack:
    """Adds members to what is being written; everything is in memory at most a chunk at a time."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._lines, self._at = out, list[str](), int(time.time())

    def add(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """A member of these bytes. Raises OSError."""
        self._header(name, len(data), mode)
        self._out.write(data)
        self._end(name, len(data), hashlib.sha256(data).hexdigest())

    def add_file(self, name: str, path: Path, mode: int, tell: Tell = lambda what, done, size: None) -> None:
        """A member that is a file, which must keep its length meanwhile. Raises OSError."""
        with path.open("rb") as file:
            size, done, digest = os.fstat(file.fileno()).st_size, 0, hashlib.sha256()
            self._header(name, size, mode)
            while chunk := file.read(min(CHUNK, size - done)):
                self._out.write(chunk)
                digest.update(chunk)
                tell(name, done := done + len(chunk), size)
        if done != size:
            raise OSError(f"{path} became shorter while it was read")
        self._end(name, size, digest.hexdigest())

    def finish(self) -> str:
        """Add the list of all; answers its digest."""
        data = "".join(self._lines).encode()
        self.add(MANIFEST, data)
        self._out.write(bytes(2 * tarfile.BLOCKSIZE))
        return hashlib.sha256(data).hexdigest()

    def _header(self, name: str, size: int, mode: int) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = size, self._at, mode
        self._out.write(member.tobuf(tarfile.PAX_FORMAT))

    def _end(self, name: str, size: int, digest: str) -> None:
        self._out.write(bytes(-size % tarfile.BLOCKSIZE))
        self._lines.append(f"{digest}  {name}\n")


Place = Callable[[str], Path]
"""Where a member is to be written, by its name; nothing may be there."""


def unpack(stream: BinaryIO, place: Place, listed: str, tell: Tell) -> None:
    """Write every member to its place, durably. ``listed`` is the digest of the list that was signed.

    Raises BackupUnfit, OSError, and tarfile.TarError.
    """
    lines, manifest, done = list[str](), None, 0
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            data = archive.extractfile(member)
            if data is None or not _plain(member.name) or manifest is not None:
                raise BackupUnfit(f"holds a member that no backup has: {member.name!r}")
            if member.name == MANIFEST:
                manifest = data.read()
                continue
            digest = _write(place(member.name), data, member.mode & 0o777)
            lines.append(f"{digest}  {member.name}\n")
            tell("unpacking", done := done + member.size, 0)
    while stream.read(CHUNK):  # to its end, so that age has judged all of it
        continue
    if manifest != "".join(lines).encode() or hashlib.sha256(manifest).hexdigest() != listed:
        raise BackupUnfit("its members are not those that the bus has signed")


def _plain(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and not {"..", "."} & set(parts)


def _write(path: Path, data: IO[bytes], mode: int) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
        for chunk in _chunks(data):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _chunks(data: IO[bytes]) -> Iterator[bytes]:
    while chunk := data.read(CHUNK):
        yield chunk
