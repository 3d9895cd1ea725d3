"""The Merkle tree of the log: its growing right edge, its roots, its proofs, and the check of them.

Pure: hashes come from whoever calls, tiles through a function that reads them. Making a proof trusts the tiles;
checking one trusts nothing but the root. A proof that does not lead to the root is ``ProofWrong``; any other
exception is the reader's own, or a defect of this module.

Source: RFC 6962, section 2.1 (the tree and its proofs), and RFC 9162, sections 2.1.3.2 and 2.1.4.2 (checking them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from itertools import chain, islice

from gsb.evidence.tiles import HASH, HEIGHT, WIDTH, Tile, widths

EMPTY = sha256(b"").digest()
"""The root of the empty tree."""

ReadTile = Callable[[int, int, int], Sequence[bytes]]
"""``read(level, number, width)``: the first ``width`` (1 to 256) hashes of a tile.

Where the partial tile is gone the full one serves as well: the reader cuts it to the width that was asked for.
"""
Full = tuple[Tile, list[bytes]]
"""A tile and the hashes that it holds."""


class ProofWrong(ValueError):
    """A proof that does not prove what it should."""


def leaf_hash(content: bytes) -> bytes:
    """RFC 6962, section 2.1: the hash of a leaf."""
    return sha256(b"\x00" + content).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962, section 2.1: the hash of a node over the hashes of its two subtrees."""
    return sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1: the root over leaf hashes.

    Or over the roots of equally large full trees, of which the last alone may be smaller or incomplete. Each round
    halves the hashes and lifts the odd one: the same tree as the recursive definition, in one pass a height.
    """
    if not hashes:
        return EMPTY
    while len(hashes) > 1:
        # Written out and not by node_hash: the call would cost as much as the hash.
        pairs = [
            sha256(b"\x01" + left + right).digest() for left, right in zip(hashes[::2], hashes[1::2], strict=False)
        ]
        hashes = [*pairs, hashes[-1]] if len(hashes) % 2 else pairs
    return hashes[0]


class Tree:
    """The right edge of a growing log: of each level the hashes of its partial tile, and nothing else.

    That is at most 255 hashes a level, and enough to append and to know the root.
    """

    def __init__(self) -> None:
        """The empty tree."""
        self.size = 0
        self.tails: list[list[bytes]] = []

    @classmethod
    def of(cls, size: int, read: ReadTile) -> Tree:
        """The tree of a log of this size, from its partial tiles; its ``root()`` tells whether they are the right ones.

        Raises ValueError if a tile does not have the width that was asked for.
        """
        tree = cls()
        tree.size = size
        for level, width in enumerate(widths(size)):
            number = size >> HEIGHT * (level + 1)
            tree.tails.append(_whole(read, Tile(level, number, width)) if width else [])
        return tree

    def append(self, leaf: bytes) -> list[Full]:
        """Append one leaf hash; as ``extend``."""
        return self.extend([leaf])

    def extend(self, leaves: Iterable[bytes]) -> list[Full]:
        """Append leaf hashes. Returns the tiles that this filled, in the order in which they became full.

        What is partial afterwards stands in ``tails``: together they are what ``tiles.growth`` names.
        """
        coming, filled = iter(leaves), list[Full]()
        while part := list(islice(coming, WIDTH - self.size % WIDTH)):
            self.size += len(part)
            self._fill(part, filled)
        return filled

    def _fill(self, hashes: list[bytes], filled: list[Full]) -> None:
        level = 0
        while True:
            if level == len(self.tails):
                self.tails.append([])
            tail = self.tails[level]
            tail += hashes
            if len(tail) < WIDTH:
                return
            number = (self.size >> HEIGHT * (level + 1)) - 1
            filled.append((Tile(level, number), tail))
            self.tails[level] = []
            hashes = [root_of(tail)]
            level += 1

    def root(self) -> bytes:
        """The root of the tree as it is now."""
        edge: list[bytes] = []
        for tail in self.tails:
            hashes = tail + edge
            edge = [root_of(hashes)] if hashes else []
        return root_of(edge)


def tree_root(size: int, read: ReadTile) -> bytes:
    """The root of a log of this size, from its partial tiles."""
    return Tree.of(size, read).root()


def inclusion(index: int, size: int, read: ReadTile) -> list[bytes]:
    """RFC 6962, section 2.1.1: the proof that the leaf at ``index`` is in the tree of ``size``, its sibling first.

    It reads each tile once, at most two a level. Raises ValueError unless ``0 <= index < size``.
    """
    if not 0 <= index < size:
        raise ValueError(f"a log of {size} entries has no index {index}")
    tiles = _Tiles(size, read)
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(tiles.root(middle, end))
            end = middle
        else:
            path.append(tiles.root(start, middle))
            start = middle
    return path[::-1]


def consistency(old: int, new: int, read: ReadTile) -> list[bytes]:
    """RFC 6962, section 2.1.2: the proof that the tree of ``new`` leaves begins with that of ``old`` leaves.

    It is empty for equal sizes, and from the empty tree, with which everything is consistent. Raises ValueError
    unless ``0 <= old <= new``.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a log of {new} entries does not extend one of {old}")
    if old in (0, new):
        return []
    tiles = _Tiles(new, read)
    path: list[bytes] = []
    start, end = 0, new
    while old < end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(tiles.root(middle, end))
            end = middle
        else:
            path.append(tiles.root(start, middle))
            start = middle
    # Who checks knows the old root itself; any other subtree in which the old tree ends must be told.
    if start:
        path.append(tiles.root(start, end))
    return path[::-1]


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """RFC 9162, section 2.1.3.2. Raises ProofWrong unless the leaf hash stands at ``index`` below the root."""
    if not 0 <= index < size:
        raise ProofWrong(f"a log of {size} entries has no index {index}")
    _are_hashes(chain([leaf, root], proof))
    first, last, found = index, size - 1, leaf
    for other in proof:
        if not last:
            raise ProofWrong("the proof of inclusion is too long")
        if first & 1 or first == last:
            found = node_hash(other, found)
            # The right edge has no sibling of its own height there: go up to where it is one.
            up = _zeros(first)
            first, last = first >> up, last >> up
        else:
            found = node_hash(found, other)
        first, last = first >> 1, last >> 1
    if last:
        raise ProofWrong("the proof of inclusion is too short")
    if found != root:
        raise ProofWrong(f"the entry does not stand at index {index} of the log with this root")


def check_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """RFC 9162, section 2.1.4.2. Raises ProofWrong unless the tree of the new root begins with that of the old one."""
    if not 0 <= old <= new:
        raise ProofWrong(f"a log of {new} entries does not extend one of {old}")
    _are_hashes(chain([old_root, new_root], proof))
    if old in (0, new):
        if proof:
            raise ProofWrong("the proof of consistency is too long")
        if (old == new and old_root != new_root) or (not old and old_root != EMPTY):
            raise ProofWrong(f"two logs of {old} entries have different roots")
        return
    _check_extension(old, old_root, new, new_root, proof)


def _check_extension(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Of a log that is neither empty nor as long as the new one."""
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    if not path:
        raise ProofWrong("the proof of consistency is too short")
    up = _zeros(~(old - 1))
    first, last = (old - 1) >> up, (new - 1) >> up
    before = after = path[0]
    for other in path[1:]:
        if not last:
            raise ProofWrong("the proof of consistency is too long")
        if first & 1 or first == last:
            before, after = node_hash(other, before), node_hash(other, after)
            up = _zeros(first)
            first, last = first >> up, last >> up
        else:
            after = node_hash(after, other)
        first, last = first >> 1, last >> 1
    if last:
        raise ProofWrong("the proof of consistency is too short")
    if before != old_root or after != new_root:
        raise ProofWrong(f"the log of {new} entries does not begin with the {old} entries of the older root")


class _Tiles:
    """The tiles of a log of one size, each read once."""

    def __init__(self, size: int, read: ReadTile) -> None:
        self.size = size
        self.read = read
        self.known: dict[tuple[int, int], list[bytes]] = {}

    def tile(self, level: int, number: int) -> list[bytes]:
        found = self.known.get((level, number))
        if found is None:
            width = min(WIDTH, (self.size >> HEIGHT * level) - number * WIDTH)
            found = self.known[level, number] = _whole(self.read, Tile(level, number, width))
        return found

    def root(self, start: int, end: int) -> bytes:
        """The root over the leaves from ``start`` to before ``end``, a subtree of the log's tree.

        So ``start`` is a multiple of a power of two that is not below their number. Read from the highest tile that
        knows them; below it only what is not yet a full tile, at the right edge of the log.
        """
        edge: list[bytes] = []
        level = 0
        while end - start >= WIDTH:
            hashes = self.tile(level, end >> HEIGHT)[: end % WIDTH] + edge if end % WIDTH else edge
            edge = [root_of(hashes)] if hashes else []
            start, end, level = start >> HEIGHT, end >> HEIGHT, level + 1
        at = start % WIDTH
        return root_of(self.tile(level, start >> HEIGHT)[at : at + end - start] + edge)


def _whole(read: ReadTile, tile: Tile) -> list[bytes]:
    found = list(read(*tile))
    if len(found) != tile.width:
        raise ValueError(f"{tile.path} has {len(found)} hashes instead of {tile.width}")
    return found


def _split(count: int) -> int:
    """The largest power of two below ``count`` (at least 2)."""
    return 1 << (count - 1).bit_length() - 1


def _zeros(number: int) -> int:
    """How often a number can be halved; 0 has nothing to halve."""
    return (number & -number).bit_length() - 1 if number else 0


def _are_hashes(values: Iterable[bytes]) -> None:
    """A node's two hashes can be cut elsewhere and hash to the same; only their length tells."""
    if any(len(value) != HASH for value in values):
        raise ProofWrong(f"a hash in a proof does not have {HASH} bytes")
