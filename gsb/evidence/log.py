"""A log's folder: files that are whole or not there, and the right edge from which the next ones are made.

It knows the layout (c2sp.org/tlog-tiles) and how to make a file durable; what is in the log, and when a checkpoint may
be published, others decide. Every file is derived from the store's entries and can be made again. A crash leaves files
with names that nobody reads (``.*.new``) and, since checkpoints are written last, tiles that no checkpoint covers.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from gsb.evidence.merkle import ReadTile, Tree, leaf_hash
from gsb.evidence.tiles import HASH, HEIGHT, WIDTH, Bundle, growth, hashes, pack, tile_path

CHECKPOINT = "checkpoint"


class Mark(NamedTuple):
    """Which file stands under a name."""

    inode: int
    changed_at: int
    size: int


class Files:
    """The files of one log, by their path in its folder. One process writes them, from one thread at a time; if another
    does too, each file is of one of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._suffix = secrets.token_hex(4)
        """What unfinished files of this process are called, so that no other writes to them."""
        self._durable: set[Path] = set()
        """Folders whose names are on the disk for certain, those above them too."""

    def read(self, path: str) -> bytes | None:
        """The file, or None when there is none. Raises OSError."""
        try:
            return (self._folder / path).read_bytes()
        except FileNotFoundError:
            return None

    def mark(self, path: str) -> Mark | None:
        """What differs as soon as another file stands in its place; None when there is none. Opens nothing."""
        try:
            status = (self._folder / path).stat()
        except FileNotFoundError:
            return None
        return Mark(status.st_ino, status.st_mtime_ns, status.st_size)

    def write(self, contents: Mapping[str, bytes], ready: Callable[[], None] = lambda: None) -> None:
        """Write the files, each under its name only when it is whole, and all of them durable on return. ``ready`` is
        called right before they get their names, and may raise what keeps them from it.

        Raises OSError; then each file is either the new one or the one before it, and all are to be written again: a
        file whose fsync failed is never trusted, since a second fsync of it may succeed although its bytes are lost.
        """
        try:
            self._write({self._folder / path: data for path, data in contents.items()}, ready)
        except OSError:
            # A folder may have gone, or lie on another disk now: the next attempt makes what is not there.
            self._durable.clear()
            raise

    def forget(self, paths: Iterable[str]) -> None:
        """Delete what stands in the place of a partial file for each of these full ones; nobody needs it any more."""
        for path in paths:
            shutil.rmtree(self._folder / f"{path}.p", ignore_errors=True)

    def _write(self, targets: Mapping[Path, bytes], ready: Callable[[], None]) -> None:
        for folder in {target.parent for target in targets}:
            self._make(folder)
        for target, data in targets.items():
            _write_new(self._unfinished(target), data)
        ready()
        for target in targets:
            self._unfinished(target).rename(target)
        for folder in {target.parent for target in targets}:
            _sync_folder(folder)

    def _unfinished(self, target: Path) -> Path:
        return target.with_name(f".{target.name}.{self._suffix}.new")

    def _make(self, folder: Path) -> None:
        """Let there be this folder, its name durable in the one above it, also when a crash came in between."""
        if folder in self._durable:
            return
        with suppress(FileExistsError):
            if folder != self._folder.parent:
                self._make(folder.parent)
                folder.mkdir()
        if folder != self._folder.parent:
            _sync_folder(folder.parent)
        self._durable.add(folder)


def _write_new(path: Path, data: bytes) -> None:
    """A file of its own, never one that is there already: see ``Files.write``."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Readable(Protocol):
    """Whatever has the files of a log."""

    def read(self, path: str) -> bytes | None:
        """The file, or None when there is none."""


def tiles_of(files: Readable) -> ReadTile:
    """Reads the hashes of a log's tiles; raises ValueError when one is missing or too short, and what ``read`` does."""

    def read(level: int, number: int, width: int) -> list[bytes]:
        data = files.read(tile_path(level, number, width))
        if data is None:
            data = (files.read(tile_path(level, number)) or b"")[: width * HASH]
        return hashes(data, width)

    return read


def cut_from(read: ReadTile, size: int) -> ReadTile:
    """Reads tiles of earlier sizes from those of this one: partial tiles of sizes in between may never have existed."""

    def cut(level: int, number: int, width: int) -> Sequence[bytes]:
        whole = min(WIDTH, (size >> HEIGHT * level) - number * WIDTH)
        return read(level, number, whole)[:width]

    return cut


class Edge:
    """The right edge of a log: all that is needed to add entries and to make the files that this changes."""

    def __init__(self, tree: Tree | None = None, tail: Sequence[bytes] = ()) -> None:
        """``tail``: contents of the entries after the last full bundle."""
        self._tree = tree or Tree()
        self._tail = list(tail)

    @classmethod
    def read(cls, files: Files, size: int, tail: Sequence[bytes]) -> Edge:
        """The edge of a log of this size from its tiles; ``root`` tells whether they are the right ones.

        Raises ValueError when one is missing or not as long as it must be, and OSError.
        """
        return cls(Tree.of(size, tiles_of(files)), tail)

    @property
    def size(self) -> int:
        return self._tree.size

    def root(self) -> bytes:
        """RFC 6962, section 2.1."""
        return self._tree.root()

    def extend(self, contents: Sequence[bytes]) -> dict[str, bytes]:
        """Add entries; the files that a log of the new size has and one of the old size has not, by their path."""
        old, entries = self.size, [*self._tail, *contents]
        filled = {tile: b"".join(held) for tile, held in self._tree.extend(map(leaf_hash, contents))}
        self._tail = entries[len(entries) - self.size % WIDTH :]
        changed = {}
        for grown in growth(old, self.size):
            if isinstance(grown, Bundle):
                at = (grown.number - old // WIDTH) * WIDTH
                changed[grown.path] = pack(entries[at : at + grown.width])
            else:
                changed[grown.path] = filled.get(grown) or b"".join(self._tree.tails[grown.level])
        return changed


class Folder:
    """The folder of a bus's logs: one in it for each log, called like the last part of its origin."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, Files] = {}

    def __str__(self) -> str:
        return str(self._path)

    def files(self, origin: str) -> Files:
        name = origin.rpartition("/")[2]
        return self._files.setdefault(name, Files(self._path / name))

    def taken(self, origin: str) -> bool:
        """Whether there is a folder for this log, whosever it is."""
        return (self._path / origin.rpartition("/")[2]).exists()

    def make(self) -> None:
        """Let there be the folder itself. Raises OSError."""
        self._path.mkdir(exist_ok=True)
        _sync_folder(self._path.parent)

    def published(self) -> Mapping[str, bytes]:
        """The checkpoint in each folder that has one, by the folder's name. Raises OSError."""
        if not self._path.is_dir():
            return {}
        found = ((each.name, Files(each).read(CHECKPOINT)) for each in sorted(self._path.iterdir()) if each.is_dir())
        return {name: note for name, note in found if note is not None}
