"""RFC 6962, section 2.1, as it is written there: what trees and proofs are, for tests to hold ours to.

Slow and plain on purpose: three recursive definitions over a list of leaf hashes, and a reader of tiles made from
them. ``Sparse`` is the same over a log too large to list, of which nearly all leaves are equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache

WIDTH = 256


def leaf(number: int) -> bytes:
    """Leaf hashes for tests, all different."""
    return hashlib.sha256(b"\x00" + b"entry %d" % number).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(count: int) -> int:
    """The largest power of two smaller than ``count``."""
    half = 1
    while half * 2 < count:
        half *= 2
    return half


class Oracle:
    """The tree over these leaf hashes, of any size up to their number."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = leaves
        self.root = cache(self._root)
        self.reads: list[tuple[int, int, int]] = []

    def _root(self, start: int, end: int) -> bytes:
        """MTH(D[start:end])."""
        if start == end:
            return hashlib.sha256(b"").digest()
        if end - start == 1:
            return self.leaves[start]
        middle = start + split(end - start)
        return node(self.root(start, middle), self.root(middle, end))

    def path(self, index: int, start: int, end: int) -> list[bytes]:
        """PATH(index, D[start:end]), the index counted from the start of the whole tree."""
        if end - start == 1:
            return []
        middle = start + split(end - start)
        if index < middle:
            return [*self.path(index, start, middle), self.root(middle, end)]
        return [*self.path(index, middle, end), self.root(start, middle)]

    def proof(self, old: int, new: int) -> list[bytes]:
        """PROOF(old, D[0:new]) for 0 < old < new."""
        return self.subproof(old, 0, new, complete=True)

    def subproof(self, old: int, start: int, end: int, *, complete: bool) -> list[bytes]:
        """SUBPROOF(old, D[start:end], complete), ``old`` counted from the start of the whole tree."""
        if old == end:
            return [] if complete else [self.root(start, end)]
        middle = start + split(end - start)
        if old <= middle:
            return [*self.subproof(old, start, middle, complete=complete), self.root(middle, end)]
        return [*self.subproof(old, middle, end, complete=False), self.root(start, middle)]

    def read(self, level: int, number: int, width: int) -> list[bytes]:
        """c2sp.org/tlog-tiles: hash i of a tile is MTH(D[(n * 256 + i) * 256**l : (n * 256 + i + 1) * 256**l])."""
        self.reads.append((level, number, width))
        span = WIDTH**level
        places = range(number * WIDTH, number * WIDTH + width)
        assert 1 <= width <= WIDTH
        assert (places[-1] + 1) * span <= len(self.leaves)
        return [self.root(place * span, (place + 1) * span) for place in places]


class Sparse(Oracle):
    """A log of ``size`` leaves, all equal but for those at the few places that are named."""

    def __init__(self, size: int, places: Iterable[int]) -> None:
        super().__init__(range(size))  # type: ignore[arg-type] # only its length is asked for: every leaf is made here
        self.places = sorted(set(places))
        self.alike = cache(self._alike)

    def _alike(self, count: int) -> bytes:
        """The root over so many equal leaves."""
        if count == 1:
            return hashlib.sha256(b"\x00").digest()
        half = split(count)
        return node(self.alike(half), self.alike(count - half))

    def _root(self, start: int, end: int) -> bytes:
        if not any(start <= place < end for place in self.places):
            return self.alike(end - start) if start < end else super()._root(start, end)
        if end - start == 1:
            return leaf(start)
        middle = start + split(end - start)
        return node(self.root(start, middle), self.root(middle, end))
