"""How far one partition may be committed: up to the lowest position that was handed out and is not finished.

So nothing is lost because something after it was finished first. Only memory: a crash hands out again whatever was not
committed, and ``begin`` makes that harmless.
"""

from __future__ import annotations


class Positions:
    """Of one partition, while it belongs to this node."""

    def __init__(self) -> None:
        self._open: set[int] = set()
        self.next: int | None = None
        """Where reading goes on; None before anything was read."""
        self.committed: int | None = None
        """What Kafka was last told."""

    def __len__(self) -> int:
        """How many are handed out and not finished."""
        return len(self._open)

    def read(self, position: int) -> None:
        """It was read; without ``begin`` it needs no finish."""
        self.next = position + 1

    def begin(self, position: int) -> None:
        self._open.add(position)

    def finish(self, position: int) -> None:
        """In any order, and as often as one likes."""
        self._open.discard(position)

    @property
    def safe(self) -> int | None:
        """What may be committed: everything before it is finished. None when that is known already."""
        lowest = min(self._open, default=self.next)
        return None if lowest == self.committed else lowest
