"""Turns of agencies among what was read from a system's topic: what one has piled up does not stand before another's.

That holds for what was read, which ``gsb.broker.kafka.intake`` bounds; what still lies in a partition keeps its place.
Only memory; a crash loses it, and Kafka hands it out again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple


class Waiting(NamedTuple):
    """One exchange that was read and not yet given to a worker."""

    partition: int
    position: int
    exchange: str
    agency: str
    trace: str | None = None


class Turns:
    def __init__(self) -> None:
        self._queues: dict[str, deque[Waiting]] = {}
        """By agency; the one whose turn it is stands in front, and none is empty."""
        self._exchanges: set[str] = set()

    def put(self, waiting: Waiting) -> bool:
        """False when the exchange waits already: it was dispatched again meanwhile, and once is enough."""
        if waiting.exchange in self._exchanges:
            return False
        self._exchanges.add(waiting.exchange)
        self._queues.setdefault(waiting.agency, deque()).append(waiting)
        return True

    def take(self) -> Waiting | None:
        """The oldest of the agency whose turn it is, which then goes to the end of the round."""
        if not self._queues:
            return None
        agency = next(iter(self._queues))
        queue = self._queues.pop(agency)
        waiting = queue.popleft()
        self._exchanges.discard(waiting.exchange)
        if queue:
            self._queues[agency] = queue
        return waiting

    def keep(self, wanted: Callable[[Waiting], bool]) -> None:
        """Forget all that is not wanted any more."""
        kept = [each for queue in self._queues.values() for each in queue if wanted(each)]
        self._queues.clear()
        self._exchanges.clear()
        for each in kept:
            self.put(each)
