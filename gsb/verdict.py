"""Verdicts: what becomes of an exchange after its adapter answered, failed or could not be asked.

Decisions only, no I/O: promise 2 as a table. The rule behind each line: a write that may have reached the core
system is never tried again by the bus itself unless the service says that a repeat does nothing more.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import orjson

from gsb.bus import Bus
from gsb.catalogue import ServiceInfo
from gsb.errors import ExchangeExpired, Fault, Problem, ReplyInvalid, SystemRefused
from gsb.model import JSON_TYPE, PROBLEM_TYPE, Effect, Outcome, Record, State, Took
from gsb.policy import cut, released
from gsb.problem import document
from gsb.runtime import Answered
from gsb.sdk.errors import AdapterError, Broken, Refused, Unavailable
from gsb.store.contract import Begun

BACK_OFF_LIMIT = 300.0
REPLY_LIMIT = 10 * 1024 * 1024
"""Bytes of a reply as JSON, before it is cut: what no body on the bus exceeds, so that every client reads it."""
_random = random.SystemRandom()


class Postpone(NamedTuple):
    """Try again in ``delay`` seconds."""

    delay: float
    reason: str
    sent: bool


class Hold(NamedTuple):
    """Only an operator, or a find, can help. ``detail`` may be the system's own words: evidence."""

    state: Literal[State.HELD, State.UNKNOWN]
    reason: str
    detail: str = ""


class Finish(NamedTuple):
    """It has ended; ``evidence`` proves how."""

    outcome: Outcome
    evidence: Mapping[str, object]


Verdict = Postpone | Hold | Finish


def ended_early(bus: Bus, begun: Begun, problem: Problem) -> Verdict:
    """It may not begin any more. What may have reached the system in an earlier attempt is unknown, not undone."""
    if begun.maybe_sent:
        return Hold(State.UNKNOWN, problem.code)
    state = State.EXPIRED if isinstance(problem, ExchangeExpired) else State.FAILED
    return Finish(problem_outcome(bus, begun, problem, state, "none"), {})


def later(bus: Bus, begun: Begun, reason: str) -> Postpone:
    return Postpone(back_off(bus, begun, None), reason, sent=False)


def back_off(bus: Bus, begun: Begun, wish: float | None) -> float:
    """Seconds until the next attempt: doubling with jitter, or longer if the system wishes, but no longer than 300
    seconds; at expiry at the latest."""
    doubled = min(2.0 ** min(begun.attempt.number, 10), BACK_OFF_LIMIT)
    delay = max(min(wish or 0.0, BACK_OFF_LIMIT), doubled * _random.uniform(0.5, 1.0))
    return max(min(delay, begun.exchange.expires_at - bus.clock()), 0.0)


def after_error(bus: Bus, begun: Begun, error: AdapterError) -> Verdict:
    """The table of promise 2: what an adapter's error means for each effect."""
    once = begun.exchange.effect is Effect.ONCE
    match error:
        case Refused():
            # The declared code goes to the caller; the system's own words go to the evidence.
            problem = SystemRefused(extra={"reason": error.code})
            outcome = problem_outcome(bus, begun, problem, State.REFUSED, "none")
            return Finish(outcome, {"reason": error.code, "detail": error.detail})
        case Unavailable(sent=sent) if not (once and sent):
            return Postpone(back_off(bus, begun, error.after), "system_unavailable", sent=sent)
        case Broken() if not once:
            return Hold(State.HELD, "system_broken", error.detail)
        case Broken():
            return Hold(State.UNKNOWN, "system_broken", error.detail)
        case _:
            return Hold(State.UNKNOWN, "system_unavailable", error.detail)


def after_reply(bus: Bus, begun: Begun, service: ServiceInfo, record: Record, reply: Answered) -> Verdict:
    """Steps 3 and 4: only a reply that fits leaves the bus, and of it only what was granted then and now."""
    evidence: dict[str, object] = {"reply": digest(reply.whole), "note": reply.note}
    if faults := reply_faults(service, reply):
        found = [f"{fault.pointer}: {fault.detail}" for fault in faults]
        evidence["faults"] = found
        if service.effect is Effect.NONE:
            return Finish(problem_outcome(bus, begun, ReplyInvalid(), State.FAILED, "none"), evidence)
        return Hold(State.UNKNOWN, "reply_invalid", "; ".join(found))
    outcome = granted_outcome(bus, begun, service, record, reply)
    if outcome.body is not reply.whole:
        evidence["released"] = digest(outcome.body)
    return Finish(outcome, evidence)


def reply_faults(service: ServiceInfo, reply: Answered) -> Sequence[Fault]:
    if len(reply.whole) > REPLY_LIMIT:
        return [Fault("", f"{len(reply.whole)} bytes, more than {REPLY_LIMIT}")]
    return service.reply.faults(reply.body)


def granted_outcome(bus: Bus, begun: Begun, service: ServiceInfo, record: Record, reply: Answered) -> Outcome:
    """A reply of which nothing is cut goes out as it is."""
    decision = record.decision
    body = cut(reply.body, decision.fields)
    digest_now = decision.agreement_digest
    grant = bus.catalogue.policy.grant(decision.agreement, begun.exchange.agency, service.id, decision.purpose)
    fields = decision.fields
    if grant is not None and grant.agreement_digest != decision.agreement_digest:
        body, fields, digest_now = cut(body, grant.fields), grant.fields, grant.agreement_digest
    effect: Took = "none" if service.effect is Effect.NONE else "done"
    told = reply.whole if body is reply.body else orjson.dumps(body)
    return Outcome(State.DONE, effect, 200, None, told, JSON_TYPE, released(body, fields), digest_now)


def problem_outcome(bus: Bus, begun: Begun, problem: Problem, state: State, effect: Took) -> Outcome:
    """A final outcome whose body is the problem document that the caller gets."""
    exchange = begun.exchange.id
    problem.extra |= {"exchange": exchange, "state": state, "effect": effect}
    body = orjson.dumps(document(problem, bus.base_url, f"urn:uuid:{exchange}"))
    return Outcome(state, effect, problem.status, problem.code, body, PROBLEM_TYPE)


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
