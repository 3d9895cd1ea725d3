"""The administrative acts, on the operations port: signed by an operator, with a role and a reason, each an entry.

What an exchange's time line says is for observers; bodies are for inspectors alone.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gsb import handout, strictjson
from gsb.admit import declared_json
from gsb.bus import Bus
from gsb.config import Role
from gsb.errors import (
    ActInvalid,
    ClosedByOperator,
    ExchangeUnknown,
    Fault,
    OperatorRequired,
    ReasonMissing,
    ReplyGone,
    ReplyUnreadable,
    RoleMissing,
    StateConflict,
)
from gsb.evidence.entry import Fact, make_entry
from gsb.model import JSON_TYPE, PROBLEM_TYPE, Answer, Call, Effect, Exchange, Outcome, Record, Signed, State, Took
from gsb.problem import document
from gsb.schema import pointer_of
from gsb.store.contract import CursorUnfit, Query, Ruling
from gsb.web.callers import for_caller

PAGE = 500
REPLAY_EXPIRES = 3_600.0
Model = TypeVar("Model", bound=BaseModel)


RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def seconds(text: Any) -> float:
    """A time (RFC 3339, section 5.6) in seconds since the epoch."""
    if not isinstance(text, str) or not RFC3339.fullmatch(text):
        raise ValueError("must be a time such as 2026-03-01T09:00:00Z")
    return datetime.fromisoformat(text.upper()).timestamp()


Moment = Annotated[float, BeforeValidator(seconds)]

log = logging.getLogger("gsb.exchange")


class Parameters(BaseModel):
    """What an act is told; nothing that it does not know."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Look(Parameters):
    """Query of ``GET /admin/exchanges/{id}`` and of its ``body``."""

    reason: str = ""


class Filter(Parameters):
    """Query of ``GET /admin/exchanges``."""

    reason: str = ""
    agency: str | None = None
    service: str | None = None
    state: list[State] = []
    code: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    business_key: str | None = None
    cursor: str | None = None
    limit: int = Field(default=50, ge=1, le=PAGE)


class Ending(Parameters):
    """Body of ``resolve`` and ``close``: how the exchange ended, as far as the operator could find out."""

    reason: str = ""
    state: Literal["done", "failed"]
    effect: Took


class Replay(Parameters):
    """Body of ``replay``: try again, for so many seconds."""

    reason: str = ""
    expires_in: float = Field(default=REPLAY_EXPIRES, gt=0, le=30 * 86_400, strict=True)


class Revocation(Parameters):
    """Body of ``POST /admin/keys/revoke``: the id of a key of an agency or operator."""

    reason: str = ""
    key: str = Field(min_length=1, max_length=100)


@dataclass(frozen=True, slots=True)
class Act:
    """An administrative act, allowed and with its reason."""

    operator: Signed
    name: str
    reason: str

    def entry_facts(self, exchange: str | None = None) -> dict[str, Fact]:
        return {"operator": self.operator.issuer, "key": self.operator.key_id, "act": self.name, "exchange": exchange}

    def evidence(self, parameters: Mapping[str, object]) -> dict[str, object]:
        return {"request": self.operator.jws, "reason": self.reason, "parameters": parameters}


async def search(bus: Bus, call: Call) -> Answer:
    """``GET /admin/exchanges``: newest first; ``next`` is the query's ``cursor`` for the page after."""

    async def act(signed: Signed) -> Answer:
        wanted = parsed(Filter, query_of(call))
        allowed = allow(bus, signed, "search", "observer", wanted.reason)
        try:
            page = await bus.store.search(as_query(wanted))
        except CursorUnfit:
            raise ActInvalid(faults=[Fault("/cursor", "is none that a page of this bus has named")]) from None
        await bus.store.note(make_entry("act", bus.clock(), allowed.entry_facts(), allowed.evidence({})))
        body = {"exchanges": [shown(bus, exchange) for exchange in page.exchanges], "next": page.next}
        return Answer(200, orjson.dumps(body), JSON_TYPE)

    return await for_caller(bus, call, act, [bus.catalogue.gsb.bus.operations_url])


def as_query(wanted: Filter) -> Query:
    return Query(
        agency=wanted.agency,
        service=wanted.service,
        states=frozenset(wanted.state),
        code=wanted.code,
        since=wanted.since,
        until=wanted.until,
        business=wanted.business_key,
        cursor=wanted.cursor,
        limit=wanted.limit,
    )


async def show(bus: Bus, call: Call, exchange: str) -> Answer:
    """``GET /admin/exchanges/{id}``"""

    async def act(signed: Signed) -> Answer:
        wanted = parsed(Look, query_of(call))
        allowed = allow(bus, signed, "show", "observer", wanted.reason)
        known = await existing(bus, exchange)
        await bus.store.note(make_entry("act", bus.clock(), allowed.entry_facts(exchange), allowed.evidence({})))
        return Answer(200, orjson.dumps(shown(bus, known)), JSON_TYPE)

    return await for_caller(bus, call, act, [bus.catalogue.gsb.bus.operations_url])


async def body(bus: Bus, call: Call, exchange: str) -> Answer:
    """``GET /admin/exchanges/{id}/body``: what was asked and answered, each byte for byte inside one JSON object."""

    async def act(signed: Signed) -> Answer:
        wanted = parsed(Look, query_of(call))
        allowed = allow(bus, signed, "inspect", "inspector", wanted.reason)
        known = await existing(bus, exchange)
        record = await request_of(bus, known)
        facts = {**allowed.entry_facts(exchange), "agency": known.agency, "service": known.service}
        await bus.store.note(make_entry("act", bus.clock(), facts, allowed.evidence({})))
        bodies = {"exchange": known.id, "state": known.state, "request": orjson.Fragment(record.body)}
        return Answer(200, orjson.dumps(bodies | {"reply": answered(known.outcome)}), JSON_TYPE)

    return await for_caller(bus, call, act, [bus.catalogue.gsb.bus.operations_url])


async def request_of(bus: Bus, known: Exchange) -> Record:
    """What was asked. Raises ReplyGone or ReplyUnreadable where that, or what was answered, is not to be had."""
    try:
        record = await bus.store.record(known.id)
    except ReplyUnreadable:
        raise ReplyUnreadable(extra=handout.facts(known)) from None
    if record is None or known.gone:
        raise ReplyGone(extra=handout.facts(known))
    if known.unreadable:
        raise ReplyUnreadable(extra=handout.facts(known))
    return record


def answered(outcome: Outcome | None) -> dict[str, Any] | None:
    """The outcome with its body; None while there is none."""
    if outcome is None:
        return None
    said = orjson.Fragment(outcome.body) if outcome.body else None
    return {"status": outcome.status, "content_type": outcome.content_type, "body": said}


async def resolve(bus: Bus, call: Call, exchange: str) -> Answer:
    """``POST /admin/exchanges/{id}/resolve``: end an unknown one."""
    return await end(bus, call, exchange, "resolve", State.UNKNOWN)


async def close(bus: Bus, call: Call, exchange: str) -> Answer:
    """``POST /admin/exchanges/{id}/close``: end a held one."""
    return await end(bus, call, exchange, "close", State.HELD)


async def end(bus: Bus, call: Call, exchange: str, name: str, of: State) -> Answer:
    async def act(signed: Signed) -> Answer:
        ending = parsed(Ending, strictjson.loads(call.body))
        allowed = allow(bus, signed, name, "operator", ending.reason)
        known = await existing(bus, exchange)
        if ending.state == "done" and ending.effect == "none" and known.effect is not Effect.NONE:
            raise ActInvalid(faults=[Fault("/effect", "a write that is done has taken effect")])
        if ending.effect == "done" and known.effect is Effect.NONE:
            raise ActInvalid(faults=[Fault("/effect", "a read takes no effect")])
        return await rule(bus, allowed, known, Ruling(frozenset({of}), State(ending.state), ended(bus, known, ending)))

    declared_json(call)
    return await for_caller(bus, call, act, [bus.catalogue.gsb.bus.operations_url])


async def replay(bus: Bus, call: Call, exchange: str) -> Answer:
    """``POST /admin/exchanges/{id}/replay``: try a held one again, with a new expiry."""

    async def act(signed: Signed) -> Answer:
        wanted = parsed(Replay, strictjson.loads(call.body))
        allowed = allow(bus, signed, "replay", "operator", wanted.reason)
        known = await existing(bus, exchange)
        ruling = Ruling(frozenset({State.HELD}), State.ACCEPTED, expires_in=wanted.expires_in)
        answer = await rule(bus, allowed, known, ruling)
        await bus.broker.dispatch(known.system, exchange, known.agency)
        return answer

    declared_json(call)
    return await for_caller(bus, call, act, [bus.catalogue.gsb.bus.operations_url])


async def revoke(bus: Bus, call: Call) -> Answer:
    """``POST /admin/keys/revoke``: from a second after the answer no node accepts the key, or begins an exchange that
    it signed. For ever; repeating it does no harm."""

    async def act(signed: Signed) -> Answer:
        wanted = parsed(Revocation, strictjson.loads(call.body))
        allowed = allow(bus, signed, "revoke", "operator", wanted.reason)
        if (owner := bus.key_owner(wanted.key)) is None:
            raise ActInvalid(faults=[Fault("/key", "is no key of an agency or operator")])
        facts: dict[str, Fact] = {**allowed.entry_facts(), "revoked": wanted.key, "owner": owner}
        await bus.store.revoke(wanted.key, make_entry("act", bus.clock(), facts, allowed.evidence({})))
        log.warning("key revoked", extra={"facts": {"key": wanted.key, "owner": owner, "operator": signed.issuer}})
        return Answer(200, orjson.dumps({"key": wanted.key, "owner": owner}), JSON_TYPE)

    declared_json(call)
    return await for_caller(bus, call, act, [bus.catalogue.gsb.bus.operations_url])


async def rule(bus: Bus, act: Act, known: Exchange, ruling: Ruling) -> Answer:
    """Apply the ruling and its entry in one commit; 409 when the exchange has moved on."""
    outcome = ruling.outcome
    facts: dict[str, Fact] = {
        "agency": known.agency,
        "service": known.service,
        "state": ruling.to,
        "effect": outcome.effect if outcome else None,
    }
    entry = make_entry("act", bus.clock(), {**act.entry_facts(known.id), **facts}, act.evidence({}))
    if not await bus.store.resolve(known.id, ruling, entry):
        raise StateConflict(extra={"exchange": known.id, "state": known.state})
    if outcome is not None:
        bus.metrics.service(known.service).ended(outcome.state, bus.clock() - known.accepted_at)
        told = {"exchange": known.id, **facts, "code": outcome.code, "operator": act.operator.issuer}
        log.info("exchange ended", extra={"facts": told})
    await bus.broker.wake(known.id)
    return Answer(200, orjson.dumps(shown(bus, await existing(bus, known.id))), JSON_TYPE)


def ended(bus: Bus, known: Exchange, ending: Ending) -> Outcome:
    if ending.state == "done":
        # There is no reply of the core system to hand out, so there is no body: 204.
        return Outcome(State.DONE, ending.effect, 204, None, b"", None)
    problem = ClosedByOperator(extra={"exchange": known.id, "state": ending.state, "effect": ending.effect})
    body = orjson.dumps(document(problem, bus.base_url, f"urn:uuid:{known.id}"))
    return Outcome(State.FAILED, ending.effect, problem.status, problem.code, body, PROBLEM_TYPE)


def allow(bus: Bus, signed: Signed, name: str, role: Role, reason: str) -> Act:
    operator = bus.catalogue.operators.get(signed.issuer)
    if operator is None:
        raise OperatorRequired
    # An operator may also look: whoever ends an exchange must be able to see it. Its bodies are another matter.
    if not ({role, "operator"} if role == "observer" else {role}) & {*operator.roles}:
        raise RoleMissing(extra={"role": role})
    if not 4 <= len(reason.strip()) <= 500:
        raise ReasonMissing
    return Act(signed, name, reason.strip())


async def existing(bus: Bus, exchange: str) -> Exchange:
    known = await bus.store.exchange(exchange)
    if known is None:
        raise ExchangeUnknown
    return known


def shown(bus: Bus, exchange: Exchange) -> dict[str, Any]:
    return handout.described(bus, exchange) | {"agency": exchange.agency}


def query_of(call: Call) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in parse_qsl(call.target.partition("?")[2], keep_blank_values=True):
        if name == "state":
            values.setdefault(name, []).append(value)
        elif name in values:
            raise ActInvalid(faults=[Fault("", f"{name} stands twice")])
        else:
            values[name] = value
    return values


def parsed(model: type[Model], values: Any) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = [Fault(pointer_of(list(found["loc"])), found["msg"]) for found in error.errors()]
        raise ActInvalid(faults=faults) from error
