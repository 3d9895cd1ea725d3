"""The file of a backup: what is sealed, and behind it the bus's signature over it and over what is inside.

It is a plain tar file with two members, ``backup.age`` and ``backup.jws``, so that it can be opened without the bus,
with ``tar`` and ``age`` alone. Whoever has the bus's public key can tell whether it is whole and whose it is; what is
inside only the holder of an identity (``gsb.backup.sealed``). While it grows it has another name, and it gets its own
when it is durable, never over another file. A crash leaves ``.NAME.new``, which nobody takes for a backup and the next
attempt writes over.

Formats: POSIX.1-2017 pax (ustar headers), RFC 7515.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from gsb import compact
from gsb.errors import Problem
from gsb.jwk import PrivateKey, PublicKey

TYPE = "gsb-backup+jwt"
"""The ``typ`` of a backup's signature, so that none is ever taken for a request or a reply."""
SEALED, SIGNATURE = "backup.age", "backup.jws"
CHUNK = 1024 * 1024
"""Bytes that are in memory at once."""
Tell = Callable[[str, int, int], None]
"""Is told of what, and how much of how much is done by now."""

_BLOCK = tarfile.BLOCKSIZE
_HEX = re.compile("[0-9a-f]{64}")


class BackupUnfit(Exception):
    """A backup that is not to be trusted, or cannot be used here; one sentence says why, and shows no secret."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What the bus has signed of a backup."""

    iss: str
    """The bus."""
    iat: int
    """When it was made, in seconds since the epoch."""
    gsb: str
    """The version of the program that made it."""
    store: str
    """Kind and layout of the store in it: ``sqlite 3``."""
    log: str
    """Origin, size and root of the open log in it."""
    size: int
    """Bytes of ``backup.age``."""
    sealed: str
    """SHA-256 of ``backup.age``, in hex."""
    members: str
    """SHA-256 of the list of its members with theirs (``MANIFEST``), in hex."""


class Sink:
    """Where the sealed bytes go; counts and hashes them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self.size = file, hashlib.sha256(), 0
        self.wrong: OSError | None = None
        """What kept it from taking more; who seals into it tells no more than its text."""

    def write(self, data: bytes) -> int:
        try:
            self._file.write(data)
        except OSError as error:
            self.wrong = error
            raise
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


class Growing:
    """A backup that is being written."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        # The header needs the size, which is known in the end.
        file.seek(_BLOCK)
        self.sink = Sink(file)

    def finish(self, key: PrivateKey, claims: Claims) -> None:
        """Sign it, make it durable, and give it its name. Raises OSError, FileExistsError among them."""
        signature = compact.sign(key, TYPE, asdict(claims)).encode()
        self._file.write(_padding(self.sink.size))
        self._file.write(_header(SIGNATURE, len(signature), claims.iat) + signature + _padding(len(signature)))
        self._file.write(bytes(2 * _BLOCK))
        self._file.seek(0)
        self._file.write(_header(SEALED, self.sink.size, claims.iat))
        self._file.flush()
        os.fsync(self._file.fileno())
        # Unlike a renaming this replaces nothing.
        os.link(_unfinished(self._path), self._path)
        _unfinished(self._path).unlink()
        sync_folder(self._path.parent)


@contextmanager
def growing(path: Path) -> Iterator[Growing]:
    """A new backup, of which nothing remains unless it is finished. Raises OSError."""
    unfinished = _unfinished(path)
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(unfinished, flags, 0o600), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"another process is making {path}") from None
        try:
            file.truncate(0)
            yield Growing(path, file)
        finally:
            with suppress(FileNotFoundError):
                unfinished.unlink()


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _header(name: str, size: int, at: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, at, 0o600
    # Of one block whatever the size, since GNU's form of large numbers needs no second one.
    return member.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


# --- reading


class Part:
    """Some bytes of a file that is open, from its place on."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._left = file, size
        file.seek(start)

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        self._left -= len(data)
        return data


@dataclass(frozen=True, slots=True)
class Envelope:
    """A backup whose signature and sealed bytes are verified. The file stays open, so it stays that file."""

    claims: Claims
    _file: BinaryIO

    def sealed(self) -> Part:
        return Part(self._file, _BLOCK, self.claims.size)


@contextmanager
def opened(path: Path, keys: Mapping[str, PublicKey], tell: Tell) -> Iterator[Envelope]:
    """A backup by the public keys of its bus. Raises BackupUnfit and OSError."""
    with path.open("rb") as file:
        claims = _verified(_signature(file, path.stat().st_size), keys)
        digest, part, done = hashlib.sha256(), Part(file, _BLOCK, claims.size), 0
        while chunk := part.read(CHUNK):
            digest.update(chunk)
            tell("reading", done := done + len(chunk), claims.size)
        if (done, digest.hexdigest()) != (claims.size, claims.sealed):
            raise BackupUnfit("what is sealed is not what the bus has signed: the file was changed, or is damaged")
        yield Envelope(claims, file)


def _signature(file: BinaryIO, whole: int) -> str:
    """The signature, if the file is of exactly the form in which ``Growing`` writes it."""
    sealed = _size(file.read(_BLOCK), SEALED)
    start = _BLOCK + sealed + -sealed % _BLOCK
    file.seek(start)
    size = _size(file.read(_BLOCK), SIGNATURE)
    data = file.read(min(size, compact.HEADER_LIMIT))
    end = start + _BLOCK + size + -size % _BLOCK + 2 * _BLOCK
    file.seek(_BLOCK + sealed)
    between = file.read(-sealed % _BLOCK)
    file.seek(start + _BLOCK + size)
    if len(data) != size or end != whole or any(between) or any(file.read()):
        raise BackupUnfit("is no backup, or not a whole one")
    return data.decode("ascii", "replace")


def _size(block: bytes, name: str) -> int:
    try:
        member = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except (tarfile.HeaderError, ValueError):
        raise BackupUnfit("is no backup, or not a whole one") from None
    if member.name != name or not member.isreg() or _header(name, member.size, int(member.mtime)) != block:
        raise BackupUnfit("is no backup, or not a whole one")
    return member.size


def _verified(signature: str, keys: Mapping[str, PublicKey]) -> Claims:
    try:
        token = compact.parse(signature, TYPE)
    except Problem as error:
        raise BackupUnfit(f"has no signature of a bus: {error}") from None
    key = keys.get(token.kid)
    if key is None:
        raise BackupUnfit(f"is signed with the key {token.kid}, which is none of those that were given: another bus's?")
    if not key.verify(token.algorithm, token.message, token.signature):
        raise BackupUnfit("its signature is wrong")
    try:
        claims = Claims(**token.claims)
    except TypeError:
        raise BackupUnfit("is signed in a form that this version does not know") from None
    if not all(_HEX.fullmatch(each) for each in (claims.sealed, claims.members)):
        raise BackupUnfit("is signed in a form that this version does not know")
    return claims
