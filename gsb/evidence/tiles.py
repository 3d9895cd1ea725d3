"""The names and forms of a log's files: hash tiles and entry bundles, and which of them a log of a size has.

Pure: it names and packs, it reads and writes nothing and hashes nothing (``merkle`` does). A log of any size is a
finite set of files that never change once they are full; whoever holds them and a checkpoint can prove everything.
A crash in here is a defect of this module: every path and every bundle is parsed or refused.

Source: c2sp.org/tlog-tiles, "Merkle Tree", "Partial Tiles" and "Log entries".
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

HEIGHT = 8
WIDTH = 1 << HEIGHT
"""Hashes of a full tile, and entries of a full bundle."""
HASH = 32
"""Bytes of a hash."""
ENTRY_LIMIT = 0xFFFF
"""Bytes of an entry: what its uint16 length can say."""

_LENGTH = struct.Struct(">H")
_PATH = re.compile(
    r"tile/(?P<level>entries|[0-9]|[1-5][0-9]|6[0-3])"
    r"/(?P<number>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


class Tile(NamedTuple):
    """The ``number``-th tile of a level: ``width`` (1 to 256) hashes, of the leaves at level 0, else of full tiles."""

    level: int
    number: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """Where it is served, below the log's prefix: ``tile/0/x001/x234/067.p/7``."""
        return f"tile/{self.level}/{_numbered(self.number, self.width)}"


class Bundle(NamedTuple):
    """The ``number``-th bundle of entries: those whose hashes stand in the level 0 tile of this number and width."""

    number: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """Where it is served, below the log's prefix: ``tile/entries/x001/x234/067.p/7``."""
        return f"tile/entries/{_numbered(self.number, self.width)}"


def tile_path(level: int, number: int, width: int = WIDTH) -> str:
    """The path of a tile; the suffix ``.p/<width>`` only where it is partial."""
    return Tile(level, number, width).path


def bundle_path(number: int, width: int = WIDTH) -> str:
    """The path of a bundle; the suffix ``.p/<width>`` only where it is partial."""
    return Bundle(number, width).path


def parse_path(path: str) -> Tile | Bundle:
    """What a path names. Raises ValueError unless it is the one way to write a tile's or a bundle's path."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise ValueError(f"{path!r} names neither a tile nor a bundle")
    number = int(match["number"].replace("x", "").replace("/", ""))
    width = int(match["width"] or WIDTH)
    found = Bundle(number, width) if match["level"] == "entries" else Tile(int(match["level"]), number, width)
    # Some numbers and widths can be written in more ways than one; exactly one of them is served.
    if width > WIDTH or found.path != path:
        raise ValueError(f"{path!r} is not how {found.path!r} is written")
    return found


def widths(size: int) -> list[int]:
    """Of a log of this size, by level: how many hashes stand in its partial tile (0: none). 70,000: 112, 17, 1."""
    found = []
    while size:
        found.append(size % WIDTH)
        size >>= HEIGHT
    return found


def growth(old: int, new: int) -> list[Tile | Bundle]:
    """What a log of size ``new`` has and one of size ``old`` has not: full and partial ones, bundles first.

    Raises ValueError if the log would shrink.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a log does not grow from {old} to {new}")
    bundles = [Bundle(number, width) for number, width in _grown(old, new)]
    tiles: list[Tile | Bundle] = []
    level = 0
    while new >> HEIGHT * level:
        shift = HEIGHT * level
        tiles += (Tile(level, number, width) for number, width in _grown(old >> shift, new >> shift))
        level += 1
    return [*bundles, *tiles]


def hashes(data: bytes, width: int = WIDTH) -> list[bytes]:
    """The hashes of a tile's file. Raises ValueError unless there are exactly ``width`` of them."""
    if len(data) != width * HASH:
        raise ValueError(f"a tile of {width} hashes has {width * HASH} bytes, not {len(data)}")
    return [data[at : at + HASH] for at in range(0, len(data), HASH)]


def pack(entries: Sequence[bytes]) -> bytes:
    """The file of a bundle. Raises ValueError unless it is 1 to 256 entries, each of at most 65,535 bytes."""
    if not 1 <= len(entries) <= WIDTH:
        raise ValueError(f"a bundle holds 1 to {WIDTH} entries, not {len(entries)}")
    return b"".join(_framed(entries))


def unpack(data: bytes) -> list[bytes]:
    """The entries of a bundle's file. Raises ValueError unless it holds 1 to 256 whole entries and nothing more."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + _LENGTH.size
        at = start + int.from_bytes(data[at:start], "big")
        if at > len(data):
            raise ValueError(f"a bundle ends inside its entry {len(found)}")
        found.append(data[start:at])
    if not 1 <= len(found) <= WIDTH:
        raise ValueError(f"a bundle holds 1 to {WIDTH} entries, not {len(found)}")
    return found


def _numbered(number: int, width: int) -> str:
    """c2sp.org/tlog-tiles: elements of three digits, all but the last with an x before them, then what is partial."""
    digits = f"{number:03}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    partial = "" if width == WIDTH else f".p/{width}"
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]]) + partial


def _grown(old: int, new: int) -> Iterator[tuple[int, int]]:
    """Number and width of what ``new`` hashes (or entries) fill and ``old`` do not."""
    full = new >> HEIGHT
    yield from ((number, WIDTH) for number in range(old >> HEIGHT, full))
    if new % WIDTH and new != old:
        yield full, new % WIDTH


def _framed(entries: Iterable[bytes]) -> Iterator[bytes]:
    for entry in entries:
        if len(entry) > ENTRY_LIMIT:
            raise ValueError(f"an entry of {len(entry)} bytes is longer than {ENTRY_LIMIT}")
        yield _LENGTH.pack(len(entry))
        yield entry
