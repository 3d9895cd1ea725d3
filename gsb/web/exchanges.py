"""What an agency reads of its own exchanges. Another agency's id answers exactly like one that does not exist."""

from __future__ import annotations

import orjson

from gsb import handout
from gsb.admit import preference_applied, settled
from gsb.bus import Bus
from gsb.errors import ExchangeUnknown
from gsb.model import JSON_TYPE, Answer, Call, Exchange, Signed
from gsb.web.callers import for_caller


async def show(bus: Bus, call: Call, exchange: str) -> Answer:
    """``GET /exchanges/{id}``: state and time line."""

    async def act(signed: Signed) -> Answer:
        known = await own(bus, signed, exchange)
        return Answer(200, orjson.dumps(handout.described(bus, known)), JSON_TYPE, {}, known)

    return await for_caller(bus, call, act, bus.catalogue.gsb.bus.base_urls)


async def reply(bus: Bus, call: Call, exchange: str) -> Answer:
    """``GET /exchanges/{id}/reply``: the status and body that the POST would have had. Takes ``Prefer: wait=``."""

    async def act(signed: Signed) -> Answer:
        known = await own(bus, signed, exchange)
        wait = min(call.wait or 0, bus.catalogue.gsb.limits.wait_max)
        if known.outcome is None and wait:
            with bus.waiters.waiting(exchange) as woken:
                woken.set()  # it may have ended since it was read
                known = await settled(bus, exchange, woken, wait)
        said = await handout.outcome(bus, signed, known)
        return said._replace(headers={**said.headers, **preference_applied(call, wait)})

    return await for_caller(bus, call, act, bus.catalogue.gsb.bus.base_urls)


async def own(bus: Bus, signed: Signed, exchange: str) -> Exchange:
    known = await bus.store.exchange(exchange)
    if known is None or known.agency != signed.issuer:
        raise ExchangeUnknown
    return known
