"""The jtis that may not come again, in memory: one process owns the database, so looking for one costs no read.

They lie in buckets by the second at which they run out, and buckets are forgotten whole. Clocks are set, so a bucket
goes only when the clock has passed it and a steady one says that it was kept for longer than any signature is good:
a clock that was set ahead and back makes nothing forgotten. What would run out in a bucket that is gone is refused,
since nobody can tell it from a replay; that happens only after a clock was set back by most of a jti's life or more,
and only while it passes times again at which calls were taken before.
A crash means nothing: the database has every jti that is still remembered, though not which buckets are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

BUCKET = 16
"""Seconds of running out that are forgotten together."""
KEPT = 90.0
"""Seconds by the steady clock for which everything is kept at least: a signature is good for 80 at most."""
GONE = 20_000
"""Buckets that are known to be gone, at most: more than three days of them."""


@dataclass(slots=True)
class _Bucket:
    hashes: set[bytes] = field(default_factory=set)
    until: float = 0.0
    """Until when it is kept at least, by the steady clock."""


class Spent:
    """About 100 bytes for each call of the last two minutes or so.

    ``steady`` gives seconds that only grow. Read by the event loop while the writer adds: single operations on
    dictionaries and sets.
    """

    def __init__(self, steady: Callable[[], float]) -> None:
        self._steady = steady
        self._buckets: dict[int, _Bucket] = {}
        self._gone: dict[int, None] = {}

    def add(self, hashed: bytes, expires: float) -> None:
        """Remember it until ``expires``, whatever the clock does meanwhile."""
        place = int(expires) // BUCKET
        bucket = self._buckets.get(place)
        if bucket is None:
            bucket = self._buckets[place] = _Bucket()
        bucket.hashes.add(hashed)
        bucket.until = max(bucket.until, self._steady() + KEPT)

    def holds(self, hashed: bytes, now: float) -> bool:
        for place, bucket in list(self._buckets.items()):
            if hashed in bucket.hashes:
                return not _over(place, bucket, now, self._steady())
        return False

    def gone(self, expires: float) -> bool:
        """Whether something that ran out at about that time was forgotten, so that nobody knows what was spent.

        About, because the same signature runs out a moment earlier or later each time that it is looked at.
        """
        place, gone = int(expires) // BUCKET, self._gone
        return place in gone or place - 1 in gone or place + 1 in gone

    def forget(self, now: float) -> float:
        """Forget what is over. Returns the time before which nothing runs out that is still remembered."""
        steady = self._steady()
        for place in [place for place, bucket in self._buckets.items() if _over(place, bucket, now, steady)]:
            self._gone[place] = None
            del self._buckets[place]
        while len(self._gone) > GONE:
            del self._gone[next(iter(self._gone))]
        return float(min((place * BUCKET for place in self._buckets), default=now))


def _over(place: int, bucket: _Bucket, now: float, steady: float) -> bool:
    return (place + 1) * BUCKET <= now and bucket.until <= steady
