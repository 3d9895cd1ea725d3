"""What seals a backup: the age format, for the public keys of whoever may restore it.

The machine that makes backups holds no key that opens them, so who takes it over reads none of the old ones. The format
is age's (age-encryption.org/v1: X25519, HKDF-SHA-256, ChaCha20-Poly1305 in chunks) and its code is pyrage's; here is
only how bytes get in and out. Nothing is kept; a crash means nothing.
"""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyrage
from pyrage.x25519 import Identity, Recipient

from gsb.backup.envelope import CHUNK, BackupUnfit, Part, Sink

IDENTITY = "AGE-SECRET-KEY-"
"""How a secret of age's begins."""


class KeyUnfit(ValueError):
    """Something that is no key of age's; the text never shows it."""


def new_identity() -> tuple[str, str]:
    """The file of a new identity, in the form of ``age-keygen``, and its recipient."""
    identity = Identity.generate()
    recipient = str(identity.to_public())
    return f"# public key: {recipient}\n{identity}\n", recipient


def recipients(given: str) -> list[Recipient]:
    """A recipient (``age1...``), or those in a file, one a line. Raises KeyUnfit and OSError."""
    if given.startswith(IDENTITY):
        raise KeyUnfit(
            f"what begins with {IDENTITY} opens backups: keep it to yourself, and give its public key, age1..."
        )
    try:
        lines = [given] if given.startswith("age1") else _lines(Path(given))
        found = [Recipient.from_str(line) for line in lines]
    except (FileNotFoundError, pyrage.RecipientError):
        raise KeyUnfit(f"{given}: is no recipient, which begins with age1, nor a file of such") from None
    if not found:
        raise KeyUnfit(f"{given}: holds no recipient")
    return found


def identities(path: Path) -> list[Identity]:
    """The identities in a file. Raises KeyUnfit and OSError."""
    try:
        found = [Identity.from_str(line) for line in _lines(path)]
    except pyrage.IdentityError:
        found = []
    if not found:
        raise KeyUnfit(f"{path}: holds no identity, a line that begins with {IDENTITY}")
    return found


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text("ascii").splitlines()]
    except UnicodeDecodeError:
        raise KeyUnfit(f"{path}: is no file of keys of age's") from None
    return [line for line in lines if line and not line.startswith("#")]


class _Beside(threading.Thread):
    """Runs age at one end of a pipe; ``wrong`` is what ended it."""

    def __init__(self, work: Callable[[BinaryIO], None], end: BinaryIO) -> None:
        super().__init__(name="age", daemon=True)
        self._work, self._end = work, end
        self.wrong: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            with self._end as end:
                self._work(end)
        except (pyrage.EncryptError, pyrage.DecryptError, OSError) as error:
            self.wrong = error


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    reader, writer = os.pipe()
    return os.fdopen(reader, "rb", buffering=CHUNK), os.fdopen(writer, "wb", buffering=CHUNK)


@contextmanager
def sealing(sink: Sink, to: Sequence[Recipient]) -> Iterator[BinaryIO]:
    """What is written here goes into the sink, sealed; all of it when this ends. Raises OSError."""
    reader, writer = _pipe()
    beside = _Beside(lambda end: pyrage.encrypt_io(end, sink, to), reader)
    try:
        with writer:
            yield writer
    except BrokenPipeError as error:
        beside.join()
        raise sink.wrong or OSError(f"cannot seal: {beside.wrong}") from error
    finally:
        beside.join()
    if beside.wrong is not None:
        raise sink.wrong or OSError(f"cannot seal: {beside.wrong}")


@contextmanager
def opening(sealed: Part, by: Sequence[Identity]) -> Iterator[BinaryIO]:
    """What was sealed, which is whole only when this ends. Raises BackupUnfit."""
    reader, writer = _pipe()
    beside = _Beside(lambda end: pyrage.decrypt_io(sealed, end, by), writer)
    try:
        with reader:
            yield reader
    except (tarfile.TarError, EOFError) as error:
        beside.join()
        raise _unopened(beside.wrong or error) from error
    finally:
        beside.join()
    if beside.wrong is not None:
        raise _unopened(beside.wrong)


def _unopened(error: Exception) -> BackupUnfit:
    if isinstance(error, pyrage.DecryptError):
        return BackupUnfit("is sealed for other keys than this identity")
    return BackupUnfit(f"cannot be opened: {error}")
