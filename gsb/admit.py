"""Admission: from a call to an accepted exchange and its answer, ten steps in this order and no other.

Nothing acts before step 9, whose commit holds reservation, request and entry together: a crash before it leaves
nothing (the caller repeats), a crash after it leaves an exchange that the sweeper dispatches. Each step that can
fail raises its own problem; a refusal after authentication is itself proved by an entry.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import orjson

from gsb import handout, jws, strictjson
from gsb.bus import LOOK, Bus, Woken, jti_lives
from gsb.catalogue import ServiceInfo
from gsb.errors import (
    BodyInvalid,
    BodyTooLarge,
    Busy,
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    KeyRevoked,
    MediaTypeRefused,
    Problem,
    RecorderBehind,
    ServiceUnknown,
    StoreUnavailable,
    WritesWithheld,
)
from gsb.evidence.entry import make_entry
from gsb.jwk import PublicKey
from gsb.model import JSON_TYPE, Answer, Call, Decision, Effect, Exchange, Record, Signed, State, new_id
from gsb.policy import Grant
from gsb.store.contract import NewExchange, Reservation
from gsb.tracing import span

SERVICES = "/services/"
BEHIND_PAUSE = "5"
"""Seconds after which to ask again when the recorder is behind: a disk is not mended in one."""
SMALL = 4_096
"""Bytes of a body that need not be read a second time; in memory it may take twenty times as much."""


async def admit(bus: Bus, call: Call) -> Answer:
    """Answer a POST to a service. Raises Problem; ``call.signed`` is set as soon as the caller is known."""
    if bus.behind:
        raise RecorderBehind(headers={"Retry-After": BEHIND_PAUSE})
    service = find_service(bus, call.target)
    size_and_shape(bus, call, service)  # 1 size and shape
    signed = await authenticate(bus, call)  # 2 who signed
    try:
        jws.bind(signed, call, bus.catalogue.gsb.bus.base_urls)  # 3 bound to this request
        with bus.gate.call(signed.issuer):
            with span("accept"):
                async with bus.gate.turn(signed.issuer):
                    admitted = await accept(bus, call, signed, service)  # 4 to 9
            return await answer(bus, call, signed, admitted)  # 10 dispatch, then wait
    except Problem as refusal:
        # What was not even looked at has not spent its jti, so that a flood of it costs no commits.
        spent = call.spent or isinstance(refusal, Busy)
        await bus.refusals.prove(signed, service.id if service else None, refusal, spent=spent)
        raise


class Admitted(NamedTuple):
    """The exchange that a call is about: a new one, with its service and grant, or an earlier one with the same key."""

    exchange: str
    service: ServiceInfo | None = None
    grant: Grant | None = None
    """The grant whose budget this call has used."""
    new: NewExchange | None = None


async def accept(bus: Bus, call: Call, signed: Signed, service: ServiceInfo | None) -> Admitted:
    """What costs the bus more than to know who calls, and so is done in the agency's turn: steps 4 to 9."""
    fingerprint = fingerprint_of(call, signed)
    earlier = await bus.store.look(signed.issuer, signed.jti, signed.idempotency_key)  # 4 seen before
    if earlier is not None:
        same_content(earlier, fingerprint)
        await bus.store.spend(signed.issuer, signed.jti, jti_lives(signed, bus.clock()))
        return Admitted(earlier.exchange)
    if service is None:  # 5 which service
        raise ServiceUnknown
    if bus.withheld and service.effect is not Effect.NONE:
        raise WritesWithheld(headers={"Retry-After": BEHIND_PAUSE})
    grant = bus.catalogue.policy.decide(  # 6 granted
        signed.issuer, service.id, signed.purpose, signed.sub, signed.case, bus.clock()
    )
    if (drawn := bus.budgets.take(grant, bus.clock())) is not None:  # 7 rate
        await drawn
    try:
        value = request_fits(service, signed, call.body)  # 8 request schema
        new = new_exchange(bus, call, signed, service, grant, fingerprint, value)
        earlier = await bus.store.accept(new)  # 9 accept: one durable commit
        call.spent = True
        if earlier is not None:  # somebody else's call with the same key was faster
            same_content(earlier, fingerprint)
            return Admitted(earlier.exchange, grant=grant)
    except Problem as refusal:
        refusal.headers |= bus.budgets.fields(grant, bus.clock())
        raise
    bus.metrics.service(service.id).accepted.inc()
    return Admitted(new.id, service, grant, new)


def find_service(bus: Bus, target: str) -> ServiceInfo | None:
    """The service at this raw target. A query, an encoded or doubled slash make it another target: none."""
    return bus.catalogue.services.get(target.removeprefix(SERVICES)) if target.startswith(SERVICES) else None


def size_and_shape(bus: Bus, call: Call, service: ServiceInfo | None) -> None:
    limit = service.body if service else bus.catalogue.gsb.limits.body
    if len(call.body) > limit:
        raise BodyTooLarge(f"at most {limit} bytes")
    declared_json(call)


def declared_json(call: Call) -> None:
    if (call.content_type or "").partition(";")[0].strip().lower() != JSON_TYPE:
        raise MediaTypeRefused


async def authenticate(bus: Bus, call: Call) -> Signed:
    """Who signed, with a key in force now; remembered in the call so that the answer is signed for them.

    Also when that is StoreUnavailable, because nobody knows whether the key was revoked a moment ago.
    """
    doubt = None
    try:
        await bus.revocations.look()
    except StoreUnavailable as error:
        doubt = error
    now = bus.clock()

    def find_key(issuer: str, key_id: str) -> PublicKey:
        key = bus.find_key(issuer, key_id, now)
        if key_id in bus.revocations:
            raise KeyRevoked
        return key

    call.signed = jws.verify_request(call.signature, find_key, bus.catalogue.gsb.bus.id, now)
    if doubt is not None:
        raise doubt
    return call.signed


def fingerprint_of(call: Call, signed: Signed) -> bytes:
    """SHA-256 over what a repeat must equal: method, target, purpose, sub, case, body. Empty for a call without a key,
    which has no repeats."""
    if signed.idempotency_key is None:
        return b""
    # The body's digest stands for it: that it is the body's was checked when the call was bound.
    parts = (call.method, call.target, signed.purpose, signed.sub, signed.case, signed.content_digest)
    return hashlib.sha256(orjson.dumps(parts)).digest()


def same_content(reservation: Reservation, fingerprint: bytes) -> None:
    if reservation.fingerprint != fingerprint:
        raise IdempotencyKeyReused


def request_fits(service: ServiceInfo, signed: Signed, body: bytes) -> Any:
    """The body, read."""
    if service.effect is not Effect.NONE and signed.idempotency_key is None:
        raise IdempotencyKeyMissing
    value = strictjson.loads(body)
    if faults := service.request.faults(value):
        raise BodyInvalid(faults=faults)
    return value


def new_exchange(
    bus: Bus, call: Call, signed: Signed, service: ServiceInfo, grant: Grant, fingerprint: bytes, value: Any
) -> NewExchange:
    """``value``: the body, read. It is kept for performing while the exchange is fresh, if it is small."""
    now = bus.clock()
    kept = value if len(call.body) <= SMALL else None
    exchange = new_id(now)
    decision = Decision(grant.agreement, grant.agreement_digest, grant.purpose, grant.fields)
    entry = make_entry(
        "accepted",
        now,
        {
            "exchange": exchange,
            "agency": signed.issuer,
            "service": service.id,
            "purpose": grant.purpose,
            "agreement": grant.agreement,
            "agreement_digest": grant.agreement_digest,
            "fields": grant.fields,
            "key": signed.key_id,
        },
        # The JWS holds the body's digest, so it proves the body as well.
        {"request": signed.jws},
    )
    return NewExchange(
        id=exchange,
        agency=signed.issuer,
        service=service.id,
        effect=service.effect,
        expires_in=service.expires,
        jti=signed.jti,
        jti_lives=jti_lives(signed, now),
        key=signed.idempotency_key,
        fingerprint=fingerprint,
        record=Record(call.body, signed.key_id, decision, signed.sub, signed.case, call.traceparent, kept),
        entry=entry,
        business=service.business(value),
        subject=service.subject(value),
    )


async def answer(bus: Bus, call: Call, signed: Signed, admitted: Admitted) -> Answer:
    """Dispatch a new exchange, or none for a repeat; wait as long as the caller does; hand out what there is."""
    exchange, service, limits = admitted.exchange, admitted.service, bus.catalogue.gsb.limits
    wait = limits.wait if call.wait is None else min(call.wait, limits.wait_max)
    with bus.waiters.waiting(exchange) as woken:
        if service is not None:
            with span("dispatch", "producer"):
                await bus.broker.dispatch(service.system, exchange, signed.issuer)
        else:
            woken.set()  # a repeat may be final already: look at once
        if admitted.new is not None and not wait:
            known = just_accepted(bus, admitted.new)  # who does not wait is told what was committed, not read to again
        else:
            with span("wait"):
                known = await settled(bus, exchange, woken, wait)
    headers = preference_applied(call, wait)
    if service is None:
        headers["Idempotent-Replayed"] = "true"
    if admitted.grant is not None:
        headers |= bus.budgets.fields(admitted.grant, bus.clock())
    said = await handout.outcome(bus, signed, known)
    return said._replace(headers={**said.headers, **headers}) if headers else said


def just_accepted(bus: Bus, new: NewExchange) -> Exchange:
    """How an exchange stands when it was accepted."""
    now, decision = bus.clock(), new.record.decision
    return Exchange(
        new.id,
        new.agency,
        new.service,
        new.effect,
        State.ACCEPTED,
        decision.purpose,
        decision.agreement,
        accepted_at=now,
        expires_at=now + new.expires_in,
        attempt=0,
        reason=None,
        due_at=None,
        began_at=None,
        outcome=None,
        entries=(new.entry,),
    )


def preference_applied(call: Call, wait: float) -> dict[str, str]:
    """What became of the caller's preference (RFC 7240, section 3): the call waits at most ``wait`` seconds."""
    if call.wait is None:
        return {}
    return {"Preference-Applied": "respond-async" if call.wait == 0 else f"wait={wait:g}"}


async def settled(bus: Bus, exchange: str, woken: Woken, wait: float) -> Exchange:
    """The exchange once it is final, held or unknown, or after ``wait`` seconds however it stands."""
    loop = bus.waiters.looks.loop
    end = loop.time() + wait
    while True:
        left = max(end - loop.time(), 0)
        timer = bus.waiters.looks.call(woken.set) if left >= LOOK else loop.call_later(left, woken.set)
        try:
            await woken.wait()
        finally:
            timer.cancel()
        if woken.ended is not None:
            return woken.ended
        woken.clear()
        known = await bus.store.exchange(exchange)
        if known is None:
            raise StoreUnavailable  # an accepted exchange is never gone before its retention
        if known.outcome is not None or known.state in handout.RETRY_AFTER:
            return known
        if bus.leaving or loop.time() >= end:
            return known
