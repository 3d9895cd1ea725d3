"""The API description: OpenAPI 3.1 of what the reader may use, made from catalogue, grants and schemas.

To a signed caller each service it has a grant in force for, with the reply as the grant cuts it; to anybody the
services marked public, with the whole reply. It decides nothing and holds no state: it is made anew for each reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from gsb.bus import Bus
from gsb.errors import TABLE
from gsb.model import JSON_TYPE, Answer, Call, Effect, Signed
from gsb.policy import Grant, cut
from gsb.projection import granted as granted_schema
from gsb.projection import whole
from gsb.web import services
from gsb.web.callers import for_caller
from gsb.web.reference.shapes import EFFECTS, KEY, OUTCOME_HEADERS, Shape, codes_by_status, components, json_of, ref
from gsb.web.services import Offer

KEYS_TYPE = "application/jwk-set+json"
PROFILE = "1"
"""Version of the wire profile, and so of what is described."""
ANY = (400, 413, 415, 500, 503)
"""Statuses that any call may get."""
SIGNED = (*ANY, 401, 409)
"""Statuses that any signed call may get."""
OUTCOME = (403, 410, 422, 502, 504)
"""Statuses that an outcome may have when it is asked for again."""
ABOUT = (
    "Signed requests to government systems, by wire profile 1. Signed, this document describes what you may use, with "
    "replies as your agreements cut them; unsigned, the services that are described to everyone. Readers ignore "
    "members that they do not know. Every problem code stands under components/responses and has a page."
)


async def description(bus: Bus, call: Call) -> Answer:
    """``GET /openapi.json``"""
    if call.signature is None:
        return Answer(200, orjson.dumps(described(bus, services.offered(bus))), JSON_TYPE)

    async def act(signed: Signed) -> Answer:
        return Answer(200, orjson.dumps(described(bus, services.usable_by(bus, signed.issuer))), JSON_TYPE)

    return await for_caller(bus, call, act, bus.catalogue.gsb.bus.base_urls)


def described(bus: Bus, offers: Sequence[Offer]) -> Shape:
    """The OpenAPI document of these services and of the bus's own paths."""
    systems = sorted({offer.service.system for offer in offers})
    tags = [{"name": system, "description": bus.catalogue.systems[system].title} for system in systems]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Government Service Bus {bus.catalogue.gsb.bus.id}",
            "version": PROFILE,
            "description": ABOUT,
        },
        "servers": [{"url": url} for url in bus.catalogue.gsb.bus.base_urls],
        "tags": [*tags, {"name": "bus", "description": "The bus itself."}],
        "security": [{"signature": []}],
        "paths": {f"/services/{offer.service.id}": {"post": _service(bus, offer)} for offer in offers} | _own_paths(),
        "components": components(bus.base_url),
    }


# --- a service


def _service(bus: Bus, offer: Offer) -> Shape:
    service = offer.service
    return {
        "operationId": service.id.replace("/", "."),
        "tags": [service.system],
        "summary": service.title,
        "description": _text(bus, offer),
        "parameters": [
            _idempotency_key(required=service.effect is not Effect.NONE),
            ref("parameters", "Prefer"),
            ref("parameters", "Traceparent"),
        ],
        "requestBody": {
            "required": True,
            "content": {JSON_TYPE: {"schema": whole(service.request), "examples": _numbered(service.request.examples)}},
        },
        "responses": {
            "200": {
                "description": "Done: the reply, with nothing in it that is not granted.",
                "headers": dict(OUTCOME_HEADERS),
                "content": {JSON_TYPE: _reply(offer)},
            },
            "202": ref("responses", "Pending"),
            "204": ref("responses", "NoReply"),
            **_problems(*(status for status in codes_by_status() if status != 405)),
        },
        "x-effect": service.effect,
        "x-expires": service.expires,
        "x-body": service.body,
        "x-reasons": dict(_reasons(bus, offer)),
        **({"x-grants": [services.granted(grant) for grant in offer.grants]} if offer.grants else {}),
    }


def _text(bus: Bus, offer: Offer) -> str:
    service = offer.service
    provided = f"{EFFECTS[service.effect]} Provided by {bus.catalogue.agencies[service.provider].name}."
    limits = f"At most {service.body} bytes; nothing begins later than {service.expires:g} s after it was accepted."
    grants = "\n".join(_granted_text(grant) for grant in offer.grants)
    refused = "\n".join(f"- `system_refused`, reason `{reason}`: {title}" for reason, title in _reasons(bus, offer))
    return "\n\n".join(filter(None, (service.summary, f"{provided} {limits}", grants, refused)))


def _reasons(bus: Bus, offer: Offer) -> Iterable[tuple[str, str]]:
    """The reasons for which the core system may say no, as its adapter declares them."""
    return bus.runtime.codes(offer.service.system).items()


def _granted_text(grant: Grant) -> str:
    needs = [f"the claim `{name}` is required" for name in ("sub", "case") if getattr(grant, name)]
    rate = [f"{grant.rate.per_minute} a minute, {grant.rate.burst} at once"] if grant.rate else []
    return f"- purpose `{grant.purpose}`, " + "; ".join([f"agreement `{grant.agreement}`", *needs, *rate])


def _idempotency_key(*, required: bool) -> Shape:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": required,
        "description": "A key of your own for this exchange, signed as the claim idempotency_key. The same key with "
        "the same content gets the same outcome, and there is one effect.",
        "schema": {"type": "string", "pattern": KEY},
        "example": '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
    }


def _reply(offer: Offer) -> Shape:
    """The reply's media type: whole where nothing is granted, else one schema for each different set of fields."""
    reply = offer.service.reply
    if not offer.grants:
        return {"schema": whole(reply), "examples": _numbered(reply.examples)}
    purposes: dict[tuple[str, ...], list[str]] = {}
    for grant in offer.grants:
        purposes.setdefault(grant.fields, []).append(grant.purpose)
    cuts = [(granted_schema(reply, fields), fields, names) for fields, names in purposes.items()]
    if len(cuts) == 1:
        schema, fields, _ = cuts[0]
        return {"schema": schema, "examples": _numbered([cut(each, fields) for each in reply.examples])}
    return {
        "schema": {"anyOf": [schema | {"title": f"For {', '.join(names)}"} for schema, _, names in cuts]},
        "examples": {
            f"{names[0]}-{number}": {"summary": f"For {', '.join(names)}", "value": cut(each, fields)}
            for _, fields, names in cuts
            for number, each in enumerate(reply.examples, 1)
        },
    }


def _numbered(examples: Sequence[Any]) -> Shape:
    return {f"example-{number}": {"value": each} for number, each in enumerate(examples, 1)}


def _problems(*statuses: int) -> Shape:
    return {str(status): ref("responses", f"Problem{status}") for status in sorted(statuses)}


# --- the bus's own paths


ALWAYS: list[Shape] = [{"signature": []}]
PERHAPS: list[Shape] = [{}, {"signature": []}]
NEVER: list[Shape] = []
ANYTHING = json_of({})
PAGE = json_of({"type": "string"}, "text/html")
TEXT = json_of({"type": "string"}, "text/plain")


def _own_paths() -> Shape:
    code = {"name": "code", "in": "path", "required": True, "schema": {"type": "string", "enum": [*TABLE]}}
    exchange, listed, keys = (json_of(ref("schemas", name)) for name in ("Exchange", "Services", "Keys"))
    return {
        "/exchanges/{id}": {
            "parameters": [ref("parameters", "Exchange")],
            "get": _own("exchange", "How an exchange of yours stands", exchange, ALWAYS, *SIGNED, 404),
        },
        "/exchanges/{id}/reply": {"parameters": [ref("parameters", "Exchange")], "get": _outcome()},
        "/exchanges/{id}/receipt": {"parameters": [ref("parameters", "Exchange")], "get": _receipt()},
        "/services": {"get": _own("services", "The services that you may use", listed, PERHAPS, *SIGNED)},
        "/openapi.json": {"get": _own("description", "This document", ANYTHING, PERHAPS, *SIGNED)},
        "/docs": {"get": _own("documentation", "This document, for people", PAGE, PERHAPS, *SIGNED)},
        "/problems/{code}": {
            "parameters": [code],
            "get": _own("problem", "What a problem code means, for people", PAGE, NEVER, *ANY, 404),
        },
        "/.well-known/jwks.json": {
            "get": _own("keys", "The keys with which the bus signs", {KEYS_TYPE: keys[JSON_TYPE]}, NEVER, *ANY)
        },
        "/log/checkpoint": {"get": _checkpoint()},
    }


def _outcome() -> Shape:
    said = _own("outcome", "The outcome, as the POST would answer", ANYTHING, ALWAYS, *SIGNED, 404, *OUTCOME)
    said["responses"] |= {"202": ref("responses", "Pending"), "204": ref("responses", "NoReply")}
    return said | {"parameters": [ref("parameters", "Prefer")]}


def _receipt() -> Shape:
    said = _own("receipt", "The proof that an entry stands in the evidence log", TEXT, ALWAYS, *SIGNED, 404)
    said["description"] = "Of the last entry, or of the one that is asked for (c2sp.org/tlog-proof)."
    said["responses"]["202"] = ref("responses", "ReceiptPending")
    return said | {"parameters": [ref("parameters", "Entry"), ref("parameters", "Prefer")]}


def _checkpoint() -> Shape:
    said = _own("checkpoint", "The newest checkpoint of the evidence log, signed with the log's key", TEXT, NEVER, *ANY)
    said["responses"] |= {"304": {"description": "The one that If-None-Match names."}, **_problems(404)}
    return said


def _own(name: str, summary: str, content: Shape, security: list[Shape], *statuses: int) -> Shape:
    """An operation of the bus itself, which answers 200 with this content or a problem."""
    header = {
        "GSB-Signature": ref("headers", "Signature" if security is ALWAYS else "SignatureIfKnown"),
    }
    return {
        "operationId": name,
        "tags": ["bus"],
        "summary": summary,
        "security": security,
        "responses": {
            "200": {
                "description": f"{summary}.",
                "content": content,
                **({"headers": header} if security else {}),
            },
            **_problems(*statuses),
        },
    }
