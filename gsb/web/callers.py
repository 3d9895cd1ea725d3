"""Signed calls other than those to services: who calls, with a fresh jti, for this very request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gsb import jws
from gsb.admit import authenticate
from gsb.bus import Bus, jti_lives
from gsb.errors import Busy, Problem
from gsb.model import Answer, Call, Signed


async def for_caller(bus: Bus, call: Call, act: Callable[[Signed], Awaitable[Answer]], base_urls: list[str]) -> Answer:
    """Do ``act`` for the caller once the call is authentic and its jti is spent; a refusal becomes an entry."""
    signed = await authenticate(bus, call)
    spent = False
    try:
        jws.bind(signed, call, base_urls)
        with bus.gate.call(signed.issuer):
            async with bus.gate.turn(signed.issuer):
                await bus.store.spend(signed.issuer, signed.jti, jti_lives(signed, bus.clock()))
            spent = True
            return await act(signed)
    except Problem as refusal:
        await bus.refusals.prove(signed, None, refusal, spent=spent or isinstance(refusal, Busy))
        raise
