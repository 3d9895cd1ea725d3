"""What services there are: to a signed caller those that it may use now, to anybody those marked public."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from gsb.bus import Bus
from gsb.catalogue import ServiceInfo
from gsb.model import JSON_TYPE, Answer, Call, Signed
from gsb.policy import Grant
from gsb.web.callers import for_caller


@dataclass(frozen=True, slots=True)
class Offer:
    """A service as one reader sees it: with the reader's grants in force, or with none where it is only described."""

    service: ServiceInfo
    grants: tuple[Grant, ...] = ()


async def listing(bus: Bus, call: Call) -> Answer:
    """``GET /services``"""
    if call.signature is None:
        return listed(bus, [described(offer.service) for offer in offered(bus)])

    async def act(signed: Signed) -> Answer:
        usable = [
            described(offer.service) | {"grants": [granted(grant) for grant in offer.grants]}
            for offer in usable_by(bus, signed.issuer)
        ]
        return listed(bus, usable)

    return await for_caller(bus, call, act, bus.catalogue.gsb.bus.base_urls)


def listed(bus: Bus, services: list[dict[str, Any]]) -> Answer:
    """The services, and for how long the bus keeps what callers may want again: promise 2 wants it published."""
    ages = bus.catalogue.gsb.retention
    kept = {"keys_days": ages.keys_days, "bodies_days": ages.bodies_days, "exchanges_days": ages.exchanges_days}
    return Answer(200, orjson.dumps({"services": services, "kept": kept}), JSON_TYPE)


def offered(bus: Bus) -> list[Offer]:
    """The services that are described to everyone."""
    services = sorted(bus.catalogue.services.items())
    return [Offer(service) for _, service in services if service.public]


def usable_by(bus: Bus, agency: str) -> list[Offer]:
    """The services that the agency has grants in force for."""
    now = bus.clock()
    by_service: dict[str, list[Grant]] = {}
    for grant in bus.catalogue.policy.grants_of(agency):
        if grant.in_force(now) and grant.service in bus.catalogue.services:
            by_service.setdefault(grant.service, []).append(grant)
    return [Offer(bus.catalogue.services[service], tuple(grants)) for service, grants in sorted(by_service.items())]


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
