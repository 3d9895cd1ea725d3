"""The sweeper: dispatches whatever is due in the store. Retries, lost messages, restarts and dead workers are all this.

It runs in every gateway. Two sweepers, or one that dies, do no harm: claiming moves each due time on, and ``begin``
lets only one worker have an exchange.
"""

from __future__ import annotations

import logging

from gsb.bus import Bus
from gsb.evidence.entry import Fact, make_entry
from gsb.model import State
from gsb.perform import perform
from gsb.store.contract import Attempt, Due

log = logging.getLogger("gsb.sweep")

BATCH = 500
INTERVAL = 1.0
"""Seconds between looks at the store when the last one found less than a batch."""
LAPSED = "lease_expired"


async def sweep(bus: Bus) -> int:
    """One look: claim what is due and send it on its way. Returns how many there were. Raises StoreUnavailable."""
    found = await bus.store.due(BATCH)
    bus.metrics.swept(len(found))
    for due in found:
        await _send_on(bus, due)
    return len(found)


async def _send_on(bus: Bus, due: Due) -> None:
    if due.lapsed is not None:
        await _lapse(bus, due.lapsed)
    elif due.system in bus.catalogue.systems:
        await bus.broker.dispatch(due.system, due.exchange, due.agency)
    else:
        # No worker listens for a system that left the configuration; such an exchange waits, and in the end expires.
        await perform(bus, due.exchange, due.system, due.agency)


async def _lapse(bus: Bus, attempt: Attempt) -> None:
    """A ``once`` whose worker went silent: nobody knows whether it took effect, so nobody may try it again."""
    exchange = await bus.store.exchange(attempt.exchange)
    if exchange is None:
        return
    facts: dict[str, Fact] = {
        "exchange": exchange.id,
        "agency": exchange.agency,
        "service": exchange.service,
        "purpose": exchange.purpose,
        "agreement": exchange.agreement,
        "attempt": attempt.number,
        "reason": LAPSED,
    }
    entry = make_entry(State.UNKNOWN, bus.clock(), facts, {})
    if await bus.store.hold(attempt, State.UNKNOWN, LAPSED, entry):
        bus.metrics.service(exchange.service).stalled(State.UNKNOWN)
        log.warning("exchange stands still", extra={"facts": {**facts, "state": State.UNKNOWN}})
        await bus.broker.wake(exchange.id)
