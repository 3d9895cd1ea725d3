"""Which idempotency keys may be reserved already: asked of memory before the database is.

Nearly every key is new, and to find nothing in a large table costs more than to write a row. A Bloom filter (B. H.
Bloom, 1970) answers "surely not" or "perhaps"; after "perhaps" the database decides, so a wrong one costs a read and
never an exchange. A key that runs out stays in it until the next start. A crash means nothing: it is filled anew from
the database, in pieces, and answers "perhaps" to everything until it is full.
"""

from __future__ import annotations

import sqlite3
from struct import Struct

SIZE = 4 * 1024 * 1024
"""Bytes, a power of two. With a million keys one in 6,000 new ones is taken for perhaps reserved, with ten million one
in four, and from there on it is as if there were no filter."""
PIECE = 1_000
"""Keys read at a time: about a millisecond."""
_places = Struct(">4I").unpack
"""Of a key's hash, which is as good as random, the four places at which it leaves a mark."""


class Reserved:
    """Changed by one thread, and read by any: a mark once made stays."""

    def __init__(self) -> None:
        self._marks = bytearray(SIZE)
        self._read: bytes | None = b""
        """The last hash that was read from the database; None when all are."""

    def add(self, hashed: bytes) -> None:
        """Before the commit that reserves the key: too early is harmless, too late is not."""
        for place in _places(hashed):
            self._marks[place >> 3 & SIZE - 1] |= 1 << (place & 7)

    def may_hold(self, hashed: bytes) -> bool:
        """False only if nobody has reserved the key."""
        if self._read is not None:
            return True
        marks = self._marks
        first, second, third, fourth = _places(hashed)
        return bool(
            marks[first >> 3 & SIZE - 1] >> (first & 7)
            & marks[second >> 3 & SIZE - 1] >> (second & 7)
            & marks[third >> 3 & SIZE - 1] >> (third & 7)
            & marks[fourth >> 3 & SIZE - 1] >> (fourth & 7)
            & 1
        )  # fmt: skip

    @property
    def full(self) -> bool:
        """Whether all that the database held at the start was read."""
        return self._read is None

    def read_on(self, db: sqlite3.Connection) -> None:
        """Take in the next piece of what was reserved before the start. Raises sqlite3.Error."""
        if self._read is None:
            return
        found = db.execute("SELECT hash FROM reservation WHERE hash > ? ORDER BY hash LIMIT ?", (self._read, PIECE))
        hashes = [hashed for (hashed,) in found]
        for hashed in hashes:
            self.add(hashed)
        self._read = hashes[-1] if len(hashes) == PIECE else None
