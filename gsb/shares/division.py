"""How the slots of one core system are divided among the nodes that call it.

Each node decides for itself, from what all have written down: it takes nothing that another holds, and gives up what it
does not use as soon as another wants it. So whatever order they look in, the sum is never above what the system bears,
and after two looks of each the division is fair. Pure: whoever uses it reads and writes in one atomic step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gsb.shares.contract import Need, Slots

TURN = 5.0
"""Seconds for which a node keeps its slot while there are fewer slots than nodes that want one. A slot changes hands
between two looks, so with short turns it would be unused too often."""
RENEW = 3.0
"""Seconds for which nothing is written down while nothing changes."""


class Held(NamedTuple):
    """What one node holds of a system. Times are the store's."""

    slots: int
    hungry: bool
    until: float
    """When its slots are given to others, unless it says more before."""
    since: float
    """Since when it has had a slot, or has had none."""


def divide(now: float, node: str, need: Need, holders: Mapping[str, Held]) -> tuple[Slots, Mapping[str, Held]]:
    """What the node has, and what is to be written down: ``holders`` itself if that need not change."""
    others = {name: held for name, held in holders.items() if name != node and held.until > now}
    before = holders.get(node, Held(0, need.hungry, now, now))
    free = need.concurrency - sum(held.slots for held in others.values())
    limit = max(min(_fair(now, node, need, {**others, node: before}), free), 0)
    # What runs occupies its slot until it ends, whoever should have it.
    slots = max(limit, need.busy)
    since = before.since if (before.slots > 0) == (slots > 0) else now
    held = Held(slots, need.hungry, now + need.seconds, since)
    if before._replace(until=held.until) == held and before.until > held.until - RENEW:
        return Slots(limit, before.until - now), holders
    return Slots(limit, need.seconds), {**others, node: held}


def _fair(now: float, node: str, need: Need, known: Mapping[str, Held]) -> int:
    hungry = [name for name, held in known.items() if held.hungry and name != node]
    if not need.hungry:
        # Somebody wants what is not used here; if nobody does, everybody has a part ready for what may come.
        return need.busy if hungry else max(need.busy, _part(need.concurrency, sorted(known), node))
    wanting = sorted([*hungry, node], key=lambda name: _place(now, name, known[name]))
    calm = sum(held.slots for name, held in known.items() if name not in wanting)
    return _part(need.concurrency - calm, wanting, node)


def _part(slots: int, names: list[str], node: str) -> int:
    """An even part; what is left over goes to the first."""
    each, left = divmod(max(slots, 0), len(names))
    return each + (names.index(node) < left)


def _place(now: float, name: str, held: Held) -> tuple[int, float, str]:
    """In what order nodes get what cannot be divided: who has a slot keeps it for a turn, then it goes to whoever has
    waited longest."""
    if not held.slots:
        return 1, held.since, name
    return (0, 0.0, name) if now - held.since < TURN else (2, 0.0, name)
