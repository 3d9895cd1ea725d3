"""What services there are: to a signed caller those that it may use now, to anybody those marked public."""

from __future__ import annotations

from typing import Any

import orjson

from gsb.bus import Bus
from gsb.catalogue import ServiceInfo
from gsb.model import JSON_TYPE, Answer, Call, Signed
from gsb.policy import Grant
from gsb.web.callers import for_caller


async def listing(bus: Bus, call: Call) -> Answer:
    """``GET /services``"""
    if call.signature is None:
        public = [described(service) for service in bus.catalogue.services.values() if service.public]
        return Answer(200, orjson.dumps({"services": public}), JSON_TYPE)

    async def act(signed: Signed) -> Answer:
        return Answer(200, orjson.dumps({"services": usable(bus, signed.issuer)}), JSON_TYPE)

    return await for_caller(bus, call, act, bus.catalogue.gsb.bus.base_urls)


def usable(bus: Bus, agency: str) -> list[dict[str, Any]]:
    """The services that the agency has grants in force for, each with its grants."""
    now = bus.clock()
    by_service: dict[str, list[Grant]] = {}
    for grant in bus.catalogue.policy.grants_of(agency):
        if grant.in_force(now) and grant.service in bus.catalogue.services:
            by_service.setdefault(grant.service, []).append(grant)
    return [
        described(bus.catalogue.services[service]) | {"grants": [granted(grant) for grant in grants]}
        for service, grants in sorted(by_service.items())
    ]


def described(service: ServiceInfo) -> dict[str, Any]:
    return {
        "service": service.id,
        "title": service.title,
        "summary": service.summary,
        "provider": service.provider,
        "effect": service.effect,
        "body": service.body,
        "expires": service.expires,
    }


def granted(grant: Grant) -> dict[str, Any]:
    rate = {"per_minute": grant.rate.per_minute, "burst": grant.rate.burst} if grant.rate else None
    return {
        "agreement": grant.agreement,
        "purpose": grant.purpose,
        "fields": grant.fields,
        "rate": rate,
        "sub": grant.sub,
        "case": grant.case,
    }
