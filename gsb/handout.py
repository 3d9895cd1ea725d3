"""Handing out an exchange to its owner: its outcome while the agreement is in force, its state always.

An outcome leaves the bus only under the agreement that allowed it, only with the fields granted then and now, and
only until its retention is over.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from typing import Any

import orjson

from gsb.bus import Bus
from gsb.errors import AgreementEnded, Problem, ReplyGone, ReplyUnreadable
from gsb.model import JSON_TYPE, Answer, Exchange, Signed, State, timestamp
from gsb.policy import cut
from gsb.problem import problem_answer

log = logging.getLogger("gsb.exchange")

RETRY_AFTER = {State.HELD: 60, State.UNKNOWN: 60}
"""Seconds after which asking again makes sense; an operator is slower than a system."""


def pending(bus: Bus, exchange: Exchange) -> Answer:
    """202: where the outcome will be, and when to ask."""
    path = f"/exchanges/{exchange.id}"
    body = {"exchange": exchange.id, "state": exchange.state, "links": links(bus, exchange)}
    headers = {
        "Location": f"{bus.base_url}{path}/reply",
        "Retry-After": str(RETRY_AFTER.get(exchange.state, 1)),
    }
    return Answer(202, orjson.dumps(body), JSON_TYPE, headers, exchange)


def links(bus: Bus, exchange: Exchange) -> dict[str, str]:
    self_link = f"{bus.base_url}/exchanges/{exchange.id}"
    return {"self": self_link, "reply": f"{self_link}/reply", "receipt": f"{self_link}/receipt"}


async def outcome(bus: Bus, signed: Signed, exchange: Exchange) -> Answer:
    """The answer that the exchange has earned so far: 202, or the status and body of its outcome.

    When its body is gone: 410 with state and effect but no body, and an entry; likewise 403 when the agreement that
    granted it is not in force any more, and 500 when the body is damaged.
    """
    if exchange.outcome is None:
        return pending(bus, exchange)
    ended = exchange.outcome
    grant = bus.catalogue.policy.grant(exchange.agreement, exchange.agency, exchange.service, exchange.purpose)
    if exchange.gone:
        return await _refused(bus, signed, exchange, ReplyGone(extra=facts(exchange)))
    if grant is None or not grant.in_force(bus.clock()):
        return await _refused(bus, signed, exchange, AgreementEnded(extra=facts(exchange)))
    if exchange.unreadable:
        log.warning("a stored reply cannot be read", extra={"facts": {"exchange": exchange.id}})
        return await _refused(bus, signed, exchange, ReplyUnreadable(extra=facts(exchange)))
    body = ended.body
    if ended.state is State.DONE and body and ended.agreement_digest != grant.agreement_digest:
        body = orjson.dumps(cut(orjson.loads(body), grant.fields))
    return Answer(ended.status, body, ended.content_type if body else None, {}, exchange)


async def _refused(bus: Bus, signed: Signed, exchange: Exchange, refusal: Problem) -> Answer:
    await bus.refusals.prove(signed, exchange.service, refusal, spent=True)
    return problem_answer(refusal, bus.base_url, f"urn:uuid:{exchange.id}", exchange)


def facts(exchange: Exchange) -> dict[str, Any]:
    """What is told of an exchange whose body is not."""
    effect = exchange.outcome.effect if exchange.outcome else None
    return {"exchange": exchange.id, "state": exchange.state, "effect": effect}


def described(bus: Bus, exchange: Exchange) -> dict[str, Any]:
    """The exchange without its body: what its owner and an operator may always see."""
    shown: dict[str, Any] = {
        "exchange": exchange.id,
        "service": exchange.service,
        "purpose": exchange.purpose,
        "agreement": exchange.agreement,
        "state": exchange.state,
        "accepted": timestamp(exchange.accepted_at),
        "expires": timestamp(exchange.expires_at),
        "attempts": exchange.attempt,
        "timeline": [_moment(entry.content, entry.leaf) for entry in exchange.entries],
        "links": links(bus, exchange),
    }
    if exchange.outcome is not None:
        shown |= {"effect": exchange.outcome.effect, "code": exchange.outcome.code}
    elif exchange.reason is not None:
        shown["reason"] = exchange.reason
        if exchange.state is State.WAITING and exchange.due_at is not None:
            shown["next"] = timestamp(exchange.due_at)
    return shown


def _moment(content: bytes, leaf: bytes) -> Mapping[str, Any]:
    entry = orjson.loads(content)
    named = {name: entry[name] for name in ("at", "kind", "act", "state", "code", "reason") if name in entry}
    return named | {"entry": leaf_text(leaf)}


def leaf_text(leaf: bytes) -> str:
    """A leaf hash as it stands in replies: base64url without padding."""
    return base64.urlsafe_b64encode(leaf).rstrip(b"=").decode()
