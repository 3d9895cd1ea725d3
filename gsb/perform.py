"""Performing: from a dispatched id to an outcome, six steps in this order and no other.

A crash before step 1's commit leaves the exchange as it was; one after it leaves a lease that runs out: a write that
must not act twice is then unknown, everything else is begun again. Nobody calls a core system without having begun.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import orjson

from gsb.bus import Bus
from gsb.catalogue import ServiceInfo
from gsb.errors import AuthorityWithdrawn, ExchangeExpired, StoreUnavailable
from gsb.evidence.entry import Fact, make_entry
from gsb.model import Entry, Exchange, Outcome, Record, Request, State
from gsb.sdk.errors import AdapterError
from gsb.store.contract import Begun
from gsb.telemetry import tell as tell_line
from gsb.telemetry import trace
from gsb.tracing import Fact as TraceFact
from gsb.tracing import span, working
from gsb.verdict import Finish, Hold, Postpone, Verdict, after_error, after_reply, ended_early, later

log = logging.getLogger("gsb.exchange")

LEASE_MARGIN = 20.0
"""Seconds by which a lease outlives its adapter's time-out, so that the outcome is written before it runs out."""
UNKNOWN_SYSTEM_LEASE = 30.0
BEGIN_RETRIES = (0.1, 0.4, 1.5, 3.0, 5.0, None)
"""Pauses, in seconds, between tries to begin."""
FINISH_RETRIES = (0.1, 0.4, 1.5, 3.0, *[5.0] * 719, None)
"""Pauses, in seconds, between tries to write what is known already: an hour, in which a full disk is noticed."""


async def perform(bus: Bus, exchange: str, system: str, agency: str, said: str | None = None) -> None:
    """Carry the agency's exchange as far as it can go now. Raises StoreUnavailable when an outcome could not be written
    for too long; then the lease decides. ``said``: the traceparent of the message that asked for it."""
    info = bus.catalogue.systems.get(system)
    lease = (info.timeout if info else UNKNOWN_SYSTEM_LEASE) + LEASE_MARGIN
    begun = await begin(bus, exchange, agency, lease)  # 1 begin
    if begun is None:
        return
    performing = bus.metrics.service(begun.exchange.service).performing
    performing.inc()
    try:
        with working(bus.tracer, "perform", begun.record.traceparent if begun.record else None, said) as work:
            verdict = await judge(bus, begun)  # 2 to 4 adapter, reply schema, granted fields
            if bus.tracer is not None:
                work.says(**said_of(begun, verdict))
            if verdict is not None and await settle(bus, begun, verdict):  # 5 finish
                await bus.broker.wake(exchange)  # 6 wake
    finally:
        performing.dec()


async def begin(bus: Bus, exchange: str, agency: str, lease: float) -> Begun | None:
    """None when there is nothing to begin. While the store is away it is tried again for a while: left to the sweeper,
    what met one trouble of the store after the other would wait for minutes."""
    for pause in BEGIN_RETRIES:
        try:
            async with bus.gate.turn(agency):
                await bus.revocations.look()
                return await bus.store.begin(exchange, lease)
        except StoreUnavailable:
            if pause is not None:
                await asyncio.sleep(pause)
    return None  # it stays due


def said_of(begun: Begun, verdict: Verdict | None) -> Mapping[str, TraceFact]:
    """What the span of a try says."""
    exchange = begun.exchange
    facts: dict[str, TraceFact] = {
        "exchange": exchange.id,
        "service": exchange.service,
        "agency": exchange.agency,
        "attempt": begun.attempt.number,
    }
    match verdict:
        case Finish(outcome=outcome):
            return facts | {"state": outcome.state, "code": outcome.code}
        case Hold(state=state, reason=reason):
            return facts | {"state": state, "code": reason}
        case Postpone(reason=reason):
            return facts | {"state": State.WAITING, "code": reason}
        case None:
            return facts


async def judge(bus: Bus, begun: Begun) -> Verdict | None:
    """What becomes of a begun exchange; None when nothing changes (a find that found nothing)."""
    exchange, record = begun.exchange, begun.record
    if begun.task == "expired":
        return ended_early(bus, begun, ExchangeExpired())
    if record is None:
        return None if begun.task == "find" else Hold(State.HELD, "record_unreadable")
    service = bus.catalogue.services.get(exchange.service)
    if service is None or service.effect is not exchange.effect:
        # One that became a write, or no longer is one, is not the service that was accepted: what is said and what is
        # safe to repeat would be wrong.
        return None if begun.task == "find" else later(bus, begun, "service_not_known_here")
    if begun.task == "find":
        return await find(bus, begun, service, record)
    if (blocked := authority(bus, begun, record)) is not None:
        return blocked
    try:
        reply = await bus.runtime.call(service, partial(request_of, begun, record, service))
    except AdapterError as error:
        return after_error(bus, begun, error)
    return after_reply(bus, begun, service, record, reply)


def request_of(begun: Begun, record: Record, service: ServiceInfo, deadline: float) -> Request:
    """What the adapter is asked; the runtime knows the deadline when the call really starts."""
    exchange = begun.exchange
    return Request(
        exchange=exchange.id,
        agency=exchange.agency,
        service=service.id,
        # It was read strictly when it was admitted.
        body=orjson.loads(record.body) if record.value is None else record.value,
        purpose=exchange.purpose,
        sub=record.sub,
        case=record.case,
        deadline=deadline,
    )


def authority(bus: Bus, begun: Begun, record: Record) -> Verdict | None:
    """None when the agreement is in force and the key not revoked; what this catalogue does not know must wait."""
    catalogue, exchange, now = bus.catalogue, begun.exchange, bus.clock()
    revoked = record.key_id in bus.revocations or bus.key_revoked(exchange.agency, record.key_id, now)
    if revoked is None or not catalogue.policy.knows(exchange.agreement):
        return later(bus, begun, "authority_not_known_here")
    grant = catalogue.policy.grant(exchange.agreement, exchange.agency, exchange.service, exchange.purpose)
    if revoked or grant is None or not grant.in_force(now):
        return ended_early(bus, begun, AuthorityWithdrawn())
    return None


async def find(bus: Bus, begun: Begun, service: ServiceInfo, record: Record) -> Verdict | None:
    """Ask the adapter whether an unknown exchange took effect. Finding nothing, or failing, proves nothing."""
    try:
        reply = await bus.runtime.find(service, partial(request_of, begun, record, service))
    except AdapterError:
        return None
    if reply is None:
        return None
    verdict = after_reply(bus, begun, service, record, reply)
    return verdict if isinstance(verdict, Finish) else None


async def settle(bus: Bus, begun: Begun, verdict: Verdict) -> bool:
    """Write the verdict; whether it was taken. What a core system did must not be lost to a trouble of the store, so
    writing is tried again. The lease may run out meanwhile; a write is then unknown until this ends it."""
    write, entry = writing(bus, begun, verdict)
    doubtful = False
    for pause in FINISH_RETRIES:
        try:
            with span("finish"):
                async with bus.gate.turn(begun.exchange.agency):
                    taken = await write() or (doubtful and await stands(bus, begun, entry))
                    if not taken and isinstance(verdict, Finish) and begun.task != "expired":
                        # Somebody else ended it meanwhile. This outcome changes nothing, but it happened, and is
                        # proved.
                        await bus.store.note(outcome_entry(bus, begun, verdict, kind="late"))
        except StoreUnavailable:
            if pause is None:
                raise
            doubtful = True
            await asyncio.sleep(pause)
            continue
        if taken:
            if isinstance(verdict, Finish) and entry is not None:
                bus.waiters.hand(as_ended(begun.exchange, verdict.outcome, entry))
            tell(bus, begun, verdict)
        return taken
    return False


def writing(bus: Bus, begun: Begun, verdict: Verdict) -> tuple[Callable[[], Awaitable[bool]], Entry | None]:
    """What writes the verdict, the same at every try, and the entry by which it is known again."""
    store, attempt = bus.store, begun.attempt
    match verdict:
        case Postpone(delay=delay, reason=reason, sent=sent):
            return partial(store.postpone, attempt, delay, reason, sent=sent), None
        case Hold(state=state, reason=reason, detail=detail):
            entry = exchange_entry(bus, begun, state, {"reason": reason}, {"detail": detail})
            return partial(store.hold, attempt, state, reason, entry), entry
        case Finish(outcome=outcome):
            entry = outcome_entry(bus, begun, verdict)
            return partial(store.finish, attempt, outcome, entry), entry


async def stands(bus: Bus, begun: Begun, entry: Entry | None) -> bool:
    """Whether the verdict was written by a try whose commit was not answered."""
    if entry is None:
        return False
    known = await bus.store.exchange(begun.exchange.id)
    return known is not None and any(each.leaf == entry.leaf for each in known.entries)


def as_ended(exchange: Exchange, outcome: Outcome, entry: Entry) -> Exchange:
    """The exchange as the store has it now; of its entries only the last, which is the one that replies name."""
    return exchange._replace(state=outcome.state, reason=None, due_at=None, outcome=outcome, entries=(entry,))


def outcome_entry(bus: Bus, begun: Begun, verdict: Finish, kind: str = "outcome") -> Entry:
    ended = verdict.outcome
    facts: dict[str, Fact] = {
        "state": ended.state,
        "effect": ended.effect,
        "code": ended.code,
        "fields": ended.fields or None,
        "agreement_digest": ended.agreement_digest or None,
    }
    return exchange_entry(bus, begun, kind, facts, verdict.evidence)


def exchange_entry(
    bus: Bus, begun: Begun, kind: str, facts: Mapping[str, Fact], evidence: Mapping[str, object]
) -> Entry:
    exchange = begun.exchange
    known: dict[str, Fact] = {
        "exchange": exchange.id,
        "agency": exchange.agency,
        "service": exchange.service,
        "purpose": exchange.purpose,
        "agreement": exchange.agreement,
        "attempt": begun.attempt.number,
        # Whoever gets only this entry's receipt can tell by whose key the exchange was asked for.
        "key": begun.record.key_id if begun.record is not None else None,
    }
    return make_entry(kind, bus.clock(), {**known, **facts}, evidence)


def tell(bus: Bus, begun: Begun, verdict: Verdict) -> None:
    """One log line and one count of an exchange that has ended or stands still; none for a try that is repeated."""
    exchange, meter = begun.exchange, bus.metrics.service(begun.exchange.service)
    seconds = max(bus.clock() - exchange.accepted_at, 0.0)  # the clock may have been set back
    facts: dict[str, object] = {
        "exchange": exchange.id,
        "agency": exchange.agency,
        "service": exchange.service,
        "attempt": begun.attempt.number,
        "milliseconds": round(seconds * 1000),
        "trace": trace.get(),
    }
    match verdict:
        case Finish(outcome=outcome):
            meter.ended(outcome.state, seconds)
            facts |= {"state": outcome.state, "effect": outcome.effect, "code": outcome.code}
            tell_line(log, logging.INFO, "exchange ended", facts)
        case Hold(state=state, reason=reason):
            meter.stalled(state)
            log.warning("exchange stands still", extra={"facts": facts | {"state": state, "reason": reason}})
        case Postpone(reason=reason, delay=delay):
            log.debug("exchange waits", extra={"facts": facts | {"reason": reason, "seconds": round(delay, 1)}})
