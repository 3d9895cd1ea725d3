"""What the adapter for financial management says of its effect, wherever in an exchange Tryton is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from config.systems.running import Copy
from gsb.model import Request
from gsb.sdk import AdapterError, Broken, HttpReply, Reply, Unavailable
from gsb_adapters.fmis import Fmis
from tests.support.adapters import opened, request
from tests.support.real import shared
from tests.support.tryton import number_of, settings
from tests.test_adapter_fmis import BODIES, WRITES, bill, payment

module_loop = pytest.mark.asyncio(loop_scope="module")
pytestmark = pytest.mark.slow
BEFORE = 8
"""Requests of a payment before the one that enters it: login, user, company, four searches, dialogue."""
TABLES = ("purchase_purchase", "account_invoice", "account_move")

tryton = shared("tryton")


def refused() -> HttpReply:
    """Nothing listens any more."""
    raise Unavailable("ClientConnectorError", sent=False)


def throttled() -> HttpReply:
    return HttpReply(429, {}, b"")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fmis(tryton: Copy) -> AsyncIterator[Fmis]:
    async with opened(Fmis, settings(tryton), {}, timeout=60) as adapter:
        yield adapter


async def gone(fmis: Fmis, asked: Request, number: int, fault: Callable[[], HttpReply]) -> Reply | AdapterError:
    """What comes of an exchange if Tryton carries out so many requests, and every one after them ends so."""
    whole, requests = fmis.context.http.exchange, count()

    async def exchange(*what: Any) -> HttpReply:
        return await whole(*what) if next(requests) < number else fault()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fmis.context.http, "exchange", exchange)
        try:
            return await fmis.handle(asked)
        except AdapterError as error:
            return error


def kept(tryton: Copy) -> list[int]:
    return [number_of(tryton.place.folder, table) for table in TABLES]


async def at_each_request(
    fmis: Fmis, tryton: Copy, fault: Callable[[], HttpReply], ask: Callable[[], Awaitable[Request]]
) -> list[bool]:
    """At each request of an exchange: whether the books had changed when Tryton was gone. Then it must say so."""
    found = list[bool]()
    while True:
        asked, before = await ask(), kept(tryton)
        came = await gone(fmis, asked, len(found), fault)
        if isinstance(came, Reply):
            return found
        assert isinstance(came, Unavailable)
        found.append(kept(tryton) != before)
        assert came.sent or not found[-1], f"it took effect, and after {len(found) - 1} requests it says it did not"


@module_loop
@pytest.mark.parametrize("service", WRITES)
async def test_what_left_a_document_is_never_said_not_to_be_sent(fmis: Fmis, tryton: Copy, service: str) -> None:
    async def ask() -> Request:
        return request(service, BODIES[service]())

    found = await at_each_request(fmis, tryton, refused, ask)
    assert not found[0]
    assert found[-1]


@module_loop
@pytest.mark.parametrize("fault", [refused, throttled])
async def test_a_payment_that_was_entered_is_never_said_not_to_be_sent(
    fmis: Fmis, tryton: Copy, fault: Callable[[], HttpReply]
) -> None:
    async def ask() -> Request:
        posted = (await fmis.handle(request("fmis/supplier-invoice/v1", bill("10.00")))).body
        return request("fmis/supplier-payment/v1", payment(posted["invoice"], "4.00"))

    found = await at_each_request(fmis, tryton, fault, ask)
    assert not found[0]
    assert found[-1]


def silent() -> HttpReply:
    raise Unavailable("ConnectionTimeoutError", sent=True)


def broken_down() -> HttpReply:
    return HttpReply(500, {}, b"<html>Oops</html>")


@module_loop
@pytest.mark.parametrize("fault", [silent, broken_down])
async def test_a_payment_is_tried_again_if_tryton_fails_before_it_is_entered(
    tryton: Copy, fault: Callable[[], HttpReply]
) -> None:
    """From the login on: what may not act twice must not be lost to a search that came to nothing."""
    async with opened(Fmis, settings(tryton), {}, timeout=60) as fmis:
        posted = (await fmis.handle(request("fmis/supplier-invoice/v1", bill("10.00")))).body
    asked, before = request("fmis/supplier-payment/v1", payment(posted["invoice"], "4.00")), kept(tryton)
    for number in range(BEFORE):
        async with opened(Fmis, settings(tryton), {}, timeout=60) as fmis:
            came = await gone(fmis, asked, number, fault)
            assert isinstance(came, Unavailable), (number, came)
            assert not came.sent, number
    assert kept(tryton) == before
    async with opened(Fmis, settings(tryton), {}, timeout=60) as fmis:
        came = await gone(fmis, asked, BEFORE, fault)
        assert getattr(came, "sent", True) is True  # the step that enters it
        assert isinstance(came, Broken if fault is broken_down else Unavailable)
        assert (await fmis.handle(asked)).body["outstanding"]["amount"] == "6.00"
