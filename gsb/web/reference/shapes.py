"""Shapes of what the bus itself says, as JSON Schemas and as the named parts of its API description.

Only what is the same for every reader and every deployment; services are described by ``openapi``. Tests hold these
shapes against what a running bus answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, get_args

from gsb.errors import TABLE, Origin, Problem
from gsb.model import FINAL, JSON_TYPE, PROBLEM_TYPE, Effect, State, Took
from gsb.problem import document

Shape = dict[str, Any]

UUID = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$"
KEY = r'^("[!#-\[\]-~]{1,128}"|[!#-\[\]-~]{1,128})$'
INSTANCE = "urn:uuid:0199a1b2-0000-7000-8000-000000000000"
"""Names no call: it stands in examples."""

EFFECTS = {
    Effect.NONE: "It is a read: performing it once more does nothing.",
    Effect.REPEATABLE: "It changes something; performing it once more does nothing more.",
    Effect.ONCE: "It changes something; performing it once more would act again.",
}
"""What a service's effect means, in a sentence."""

_TEXT: Shape = {"type": "string"}
_TIME: Shape = {"type": "string", "format": "date-time"}
_URL: Shape = {"type": "string", "format": "uri"}
_STATE: Shape = {
    "type": "string",
    "enum": [*State],
    "description": f"Final are {', '.join(state for state in State if state in FINAL)}.",
}
_TOOK: Shape = {"type": "string", "enum": [*get_args(Took)], "description": "Whether something took effect."}
_EXCHANGE: Shape = {"type": "string", "pattern": UUID, "description": "Id of the exchange, a UUIDv7."}


def obj(required: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None, **more: Any) -> Shape:
    """The schema of an object; further members may come, and readers ignore those that they do not know."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        **more,
    }


def array(items: Shape) -> Shape:
    return {"type": "array", "items": items}


def ref(kind: str, name: str) -> Shape:
    return {"$ref": f"#/components/{kind}/{name}"}


def json_of(schema: Shape, media_type: str = JSON_TYPE) -> Shape:
    return {media_type: {"schema": schema}}


_LINKS = obj({"self": _URL, "reply": _URL, "receipt": _URL})
_PROBLEM = obj(
    {
        "type": _URL | {"description": "A page that explains the code."},
        "title": _TEXT | {"description": "The same for every problem of this code."},
        "status": {"type": "integer"},
        "detail": _TEXT | {"description": "What happened here, for people. Never decide by it."},
        "instance": _URL | {"description": "Names this call; give it to the operator when you ask."},
        "code": {"type": "string", "enum": [*TABLE], "description": "The stable name: decide by it."},
        "origin": {"type": "string", "enum": [*get_args(Origin)], "description": "Whose it is to mend."},
    },
    {
        "errors": array(obj({"pointer": {"type": "string", "format": "json-pointer"}, "detail": _TEXT}))
        | {"description": "Where a body is wrong, every place at once."},
        "claim": _TEXT | {"description": "Which claim is missing or wrong."},
        "now": {"type": "integer", "description": "The bus's clock, in seconds since 1970-01-01 UTC."},
        "reason": _TEXT | {"description": "The core system's declared error code."},
        "role": _TEXT | {"description": "The role that is needed."},
        "agreement": _TEXT | {"description": "The agreement that decided."},
        "exchange": _EXCHANGE,
        "state": _STATE,
        "effect": _TOOK,
    },
    description="RFC 9457.",
)
_SHOWN = obj(
    {
        "exchange": _EXCHANGE,
        "service": _TEXT,
        "purpose": _TEXT,
        "agreement": _TEXT,
        "state": _STATE,
        "accepted": _TIME,
        "expires": _TIME | {"description": "Nothing begins after it."},
        "attempts": {"type": "integer", "minimum": 0},
        "timeline": array(
            obj(
                {"at": _TIME, "kind": _TEXT, "entry": _TEXT | {"description": "Leaf hash in the evidence log."}},
                {
                    "act": _TEXT | {"description": "What an operator did."},
                    "state": _STATE,
                    "code": _TEXT,
                    "reason": _TEXT,
                },
            )
        ),
        "links": _LINKS,
    },
    {
        "effect": _TOOK,
        "code": {"type": ["string", "null"], "description": "The problem's code if it did not end as done."},
        "reason": _TEXT | {"description": "Why it is waiting, held or unknown."},
        "next": _TIME | {"description": "When a waiting one is tried again."},
    },
)
_GRANT = obj(
    {
        "agreement": _TEXT,
        "purpose": _TEXT,
        "fields": array(_TEXT) | {"description": "Reply fields that you get; * stands for every item."},
        "rate": {
            "type": ["object", "null"],
            "required": ["per_minute", "burst"],
            "properties": {"per_minute": {"type": "integer"}, "burst": {"type": "integer"}},
        },
        "sub": {"type": "boolean", "description": "Whether the claim sub is required."},
        "case": {"type": "boolean", "description": "Whether the claim case is required."},
    }
)
_SERVICE = obj(
    {
        "service": _TEXT,
        "title": _TEXT,
        "summary": _TEXT,
        "provider": _TEXT,
        "effect": {"type": "string", "enum": [*Effect], "description": "What performing it once more would do."},
        "body": {"type": "integer", "description": "Bytes of a request body at most."},
        "expires": {"type": "number", "description": "Seconds after which nothing begins any more."},
    },
    {"grants": array(_GRANT) | {"description": "Yours, in force now; only in answers to signed calls."}},
)
_KEPT = obj(
    {name: {"type": "integer", "minimum": 1} for name in ("keys_days", "bodies_days", "exchanges_days")},
    description="Days after the outcome for which keys, bodies and what became of an exchange are kept.",
)
SCHEMAS: Mapping[str, Shape] = {
    "Problem": _PROBLEM,
    "Pending": obj({"exchange": _EXCHANGE, "state": _STATE, "links": _LINKS}),
    "ReceiptPending": obj({"exchange": _EXCHANGE, "state": _STATE, "links": _LINKS}),
    "Exchange": _SHOWN,
    "Services": obj({"services": array(_SERVICE), "kept": _KEPT}),
    "Keys": obj({"keys": array(obj({"kty": _TEXT, "kid": _TEXT}))}, description="A JWK Set (RFC 7517)."),
}

# --- headers, parameters, responses

_SECONDS: Shape = {"type": "integer", "minimum": 0}
HEADERS: Mapping[str, Shape] = {
    "Signature": {
        "description": "A compact JWS with typ gsb-res+jwt over the status, the body's digest and the hash of your "
        "request's JWS. Verify it before you believe anything.",
        "required": True,
        "schema": _TEXT,
    },
    "SignatureIfKnown": {
        "description": "As on every reply; missing where the bus did not recognise who calls.",
        "schema": _TEXT,
    },
    "RetryAfter": {"description": "Seconds after which to ask again.", "required": True, "schema": _SECONDS},
    "RateLimit": {
        "description": "What is left of the grant's budget: r calls at once, and no more before t seconds are over "
        "(draft-ietf-httpapi-ratelimit-headers). Missing where the grant has no rate.",
        "schema": _TEXT,
        "example": '"burst";r=49;t=1',
    },
    "RateLimitPolicy": {
        "description": "The grant's budget: more than q calls in w seconds may be refused, fewer never are for it.",
        "schema": _TEXT,
        "example": '"burst";q=50;w=5',
    },
    "Location": {"description": "Where the outcome will be.", "required": True, "schema": _URL},
    "PreferenceApplied": {"description": "What the bus did with Prefer (RFC 7240).", "schema": _TEXT},
    "IdempotentReplayed": {
        "description": "true where this is an earlier exchange under the same Idempotency-Key.",
        "schema": {"type": "string", "const": "true"},
    },
    "Authenticate": {"required": True, "schema": {"type": "string", "const": "GSB-Signature"}},
    "Allow": {"description": "The methods that this path takes.", "required": True, "schema": _TEXT},
}
PARAMETERS: Mapping[str, Shape] = {
    "Exchange": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "Id of one of your exchanges.",
        "schema": {"type": "string", "pattern": UUID},
    },
    "Entry": {
        "name": "entry",
        "in": "query",
        "description": "Hash of one of the exchange's entries, as its time line and signed replies name it.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"},
    },
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": "wait=N: answer after N whole seconds at the latest. respond-async: answer at once (RFC 7240).",
        "schema": _TEXT,
        "example": "wait=20",
    },
    "Traceparent": {
        "name": "traceparent",
        "in": "header",
        "description": "W3C Trace Context; goes on to the core system.",
        "schema": _TEXT,
    },
}
SECURITY: Shape = {
    "type": "apiKey",
    "in": "header",
    "name": "GSB-Signature",
    "description": "One compact JWS for each call (wire profile 1): header alg, kid, typ = gsb-req+jwt; claims iss, "
    "aud, iat, exp, jti, method, target_uri, content_digest, with a body content_type, with the header of that name "
    "idempotency_key, on services purpose, and sub and case where the grant says so. The page /docs explains it.",
}
_BUDGET = {
    "RateLimit": ref("headers", "RateLimit"),
    "RateLimit-Policy": ref("headers", "RateLimitPolicy"),
}
_SAID = {
    **_BUDGET,
    "GSB-Signature": ref("headers", "Signature"),
    "Preference-Applied": ref("headers", "PreferenceApplied"),
    "Idempotent-Replayed": ref("headers", "IdempotentReplayed"),
}
OUTCOME_HEADERS: Mapping[str, Shape] = _SAID
_PROBLEM_HEADERS: Mapping[int, Mapping[str, Shape]] = {
    401: {"WWW-Authenticate": ref("headers", "Authenticate")},
    405: {"Allow": ref("headers", "Allow")},
    429: {"Retry-After": ref("headers", "RetryAfter"), **_BUDGET},
    503: {"Retry-After": ref("headers", "RetryAfter")},
}


def codes_by_status() -> dict[int, list[type[Problem]]]:
    """Every problem of the table, by HTTP status."""
    found: dict[int, list[type[Problem]]] = {}
    for problem in TABLE.values():
        found.setdefault(problem.status, []).append(problem)
    return dict(sorted(found.items()))


@lru_cache(maxsize=8)
def components(base_url: str) -> Shape:
    """The named parts of the description; ``base_url`` stands in types of problems. Not to be changed: it is kept."""
    return {
        "schemas": dict(SCHEMAS),
        "headers": dict(HEADERS),
        "parameters": dict(PARAMETERS),
        "securitySchemes": {"signature": SECURITY},
        "responses": {
            "Pending": {
                "description": "Accepted and durable; there is no outcome yet. Ask for it at /exchanges/{id}/reply.",
                "headers": {
                    **_SAID,
                    "Location": ref("headers", "Location"),
                    "Retry-After": ref("headers", "RetryAfter"),
                },
                "content": json_of(ref("schemas", "Pending")),
                "links": {name: _at("$response.body#/exchange", name) for name in ("outcome", "exchange")},
            },
            "ReceiptPending": {
                "description": "The entry is durable; the next checkpoint will cover it. Ask again.",
                "headers": {
                    "GSB-Signature": ref("headers", "Signature"),
                    "Preference-Applied": ref("headers", "PreferenceApplied"),
                    "Retry-After": ref("headers", "RetryAfter"),
                },
                "content": json_of(ref("schemas", "ReceiptPending")),
            },
            "NoReply": {
                "description": "Done, as an operator found and recorded; there is no reply of the core system.",
                "headers": dict(_SAID),
            },
            **{
                f"Problem{status}": _problems(status, problems, base_url)
                for status, problems in codes_by_status().items()
            },
        },
    }


def _at(where: str, operation: str) -> Shape:
    """A link to an operation on the exchange whose id stands there."""
    return {"operationId": operation, "parameters": {"id": where}}


def _problems(status: int, problems: list[type[Problem]], base_url: str) -> Shape:
    """The response that says one of these problems."""
    lines = [f"- `{problem.code}`: {problem.title} {' '.join(problem.advice.split())}" for problem in problems]
    narrowed = {"status": {"const": status}, "code": {"enum": [problem.code for problem in problems]}}
    examples = {
        problem.code: {"summary": problem.title, "value": document(problem(), base_url, INSTANCE)}
        for problem in problems
    }
    said = json_of({"allOf": [ref("schemas", "Problem"), {"properties": narrowed}]}, PROBLEM_TYPE)
    said[PROBLEM_TYPE]["examples"] = examples
    return {
        "description": "\n".join(lines),
        "headers": {"GSB-Signature": ref("headers", "SignatureIfKnown"), **_PROBLEM_HEADERS.get(status, {})},
        "content": said,
    }
