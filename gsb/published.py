"""The keys that agencies publish at addresses of their own, as this node last read them; and when to read them again.

Look-ups and times only, no I/O: ``gsb.jwks`` reads. What the files of the deployment say goes before all that is here.
A set that could not be read counts for as long as its table says, then none of its keys does, until it is read again.
A crash loses all of it: it is read before the first call, or as soon as it can be.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from gsb.errors import KeySetUnavailable, KeyUnknown
from gsb.jwk import PublicKey
from gsb.sources import KeySetTable

SHORTEST, LONGEST = 60.0, 3_600.0
"""Seconds between two looks, whatever the server wishes."""
EARLY = 10.0
"""Seconds between two looks at least, however many keys are asked for that nobody knows."""
AGAIN = 10.0
"""Seconds until the next look after one that failed, doubled with each, up to the table's ``every``."""
PAUSE = "5"
"""Seconds after which to ask again while a set is not known."""
_random = random.SystemRandom()


@dataclass
class KeySet:
    """One agency's. Times are of a steady clock."""

    table: KeySetTable
    keys: Mapping[str, PublicKey] = field(default_factory=dict)
    etag: str | None = None
    read_at: float = float("-inf")
    """When its keys were last known to be these."""
    tried_at: float = float("-inf")
    due_at: float = float("-inf")
    failures: int = 0
    reading: bool = False

    def in_force(self, now: float) -> bool:
        return now < self.read_at + self.table.stale

    def confirmed(self, now: float, max_age: float | None) -> None:
        """It was read, or is still as it was."""
        self.read_at, self.failures = now, 0
        fresh = self.table.every if max_age is None else min(max(max_age, SHORTEST), LONGEST)
        # Spread, so that many nodes that started together do not go on asking together.
        self.due_at = now + fresh * _random.uniform(0.9, 1.0)

    def failed(self, now: float) -> None:
        self.failures += 1
        self.due_at = now + min(AGAIN * 2.0 ** min(self.failures - 1, 10), self.table.every) * _random.uniform(0.9, 1.0)


class Published:
    """All of them. ``steady`` gives seconds that only grow."""

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self.steady = steady
        self._sets: dict[str, KeySet] = {}
        self._taken: frozenset[str] = frozenset()
        self._asked: set[str] = set()
        self.woken = asyncio.Event()
        """Set when a set should be read before its time."""

    def take_up(self, tables: Mapping[str, KeySetTable], taken: frozenset[str]) -> None:
        """These agencies publish; ``taken`` are the ids of all keys that the files name, of whomever.

        A set whose table changed is forgotten at once, lest a key count that nobody publishes where it should be.
        """
        old, self._taken = self._sets, taken
        self._sets = {
            agency: old[agency] if agency in old and old[agency].table == table else KeySet(table)
            for agency, table in tables.items()
        }
        self.woken.set()

    def find(self, agency: str, kid: str) -> PublicKey:
        """A key that the files do not name as this agency's. Raises KeyUnknown, or KeySetUnavailable: nobody knows."""
        known = self._sets.get(agency)
        if known is None or kid in self._taken:
            raise KeyUnknown
        if not known.in_force(self.steady()):
            self._ask(agency)
            raise KeySetUnavailable(headers={"Retry-After": PAUSE})
        if (key := known.keys.get(kid)) is None:
            self._ask(agency)
            raise KeyUnknown
        return key

    def counts(self, agency: str, kid: str) -> bool:
        """Whether the agency publishes this key; it may do so all the same while that is not known here."""
        try:
            self.find(agency, kid)
        except (KeyUnknown, KeySetUnavailable):
            return False
        return True

    def owner(self, kid: str) -> str | None:
        """An agency that publishes this key; None when no one is known to."""
        return next((agency for agency, known in self._sets.items() if kid in known.keys), None)

    def _ask(self, agency: str) -> None:
        if agency not in self._asked:
            self._asked.add(agency)
            self.woken.set()

    def due(self) -> Iterator[tuple[str, KeySet]]:
        """Those to read now, which then count as being read."""
        now = self.steady()
        for agency, known in self._sets.items():
            early = agency in self._asked and now >= known.tried_at + EARLY
            if not known.reading and (now >= known.due_at or early):
                self._asked.discard(agency)
                known.reading, known.tried_at = True, now
                yield agency, known

    def ages(self) -> Mapping[str, float]:
        """Seconds since each was last known to be right, by agency; infinite before the first time."""
        now = self.steady()
        return {agency: now - known.read_at for agency, known in self._sets.items()}
