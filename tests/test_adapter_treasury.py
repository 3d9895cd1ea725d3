"""The treasury's adapter on a real OpenSSH, with a bank that reads and writes by other people's programs."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from config.systems.bank import conduct
from config.systems.running import Copy
from gsb.sdk import Broken, Refused, Reply, Request, Unavailable
from gsb_adapters.treasury.orders import ordered, read_order
from tests.support.adapters import request
from tests.support.banking import (
    ACCOUNT,
    BALANCE,
    BALANCES,
    CLOSED,
    NAME,
    OPEN,
    ORDER,
    REQUEST,
    STATUS,
    Site,
    left,
    message,
    money,
    ordering,
)
from tests.support.breaking import Cutting
from tests.support.real import real
from tests.support.sockets import listening


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Copy, Copy]]:
    """Both run for all tests, which only empty the bank's account between them."""
    folder, stack = tmp_path_factory.mktemp("treasury"), AsyncExitStack()

    async def start() -> tuple[Copy, Copy]:
        sshd = await stack.enter_async_context(real("sshd", folder))
        return sshd, await stack.enter_async_context(real("bank", folder))

    with asyncio.Runner() as runner:
        try:
            yield runner.run(start())
        finally:
            runner.run(stack.aclose())


@pytest.fixture
async def site(systems: tuple[Copy, Copy]) -> AsyncIterator[Site]:
    sshd, bank = systems
    site = Site(sshd, bank, sshd.place.folder / "bank")
    conduct(bank.place)
    await site.quiet()
    shutil.rmtree(site.account / "bus", ignore_errors=True)
    for path in [path for folder in ("inbox", "archive", "outbox") for path in site.files(folder)]:
        path.unlink(missing_ok=True)
    async with site.another() as site.adapter:
        await site.adapter.check()
        yield site


def told(status: dict[str, Any]) -> list[tuple[str, str | None]]:
    return [(each["state"], each.get("reason")) for each in status["payments"]]


# --- what a bank says


async def test_what_the_bank_says_of_each_payment_is_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    cases: list[tuple[dict[str, Any], str, str, list[tuple[str, str | None]]]] = [
        ({}, "settled", "201.20", [("settled", None), ("settled", None)]),
        ({"closed": [CLOSED]}, "mixed", "101.10", [("rejected", "AC04"), ("settled", None)]),
        ({"refuse": "AM04"}, "rejected", "0.00", [("rejected", "AM04"), ("rejected", "AM04")]),
        ({"book": False}, "accepted", "0.00", [("accepted", None), ("accepted", None)]),
        ({"back": [OPEN]}, "mixed", "100.10", [("settled", None), ("returned", "AC06")]),
    ]
    for how, state, settled, payments in cases:
        site.bank_is(**how)
        asked = ordering()
        reply = await site.adapter.handle(asked)
        assert reply.body == {"order": message(asked), "reference": "PAY-1", "payments": 2, "total": money("201.20")}
        status = await site.until(asked, state=state, settled=money(settled))
        assert (told(status), status["total"]) == (payments, money("201.20"))
        assert (status["unmatched"], status["unassigned"]) == ([], 0)
        assert len(site.taken(asked)) == 1
    assert site.files("bus/unmatched") == []
    assert NAME not in caplog.text
    assert OPEN not in caplog.text


async def test_an_answer_that_fits_no_payment_never_counts_as_success(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    whys = {
        "order": None,
        "payment": "unknown_payment",
        "amount": "amount_differs",
        "currency": "currency_differs",
        "direction": "direction_differs",
        "account": "account_differs",
    }
    for count, (odd, why) in enumerate(whys.items(), 1):
        site.bank_is(odd=odd)
        asked = ordering()
        await site.adapter.handle(asked)
        status = await site.until(asked, state="accepted", unassigned=count)
        assert status["settled"] == money("0.00")
        assert [each["why"] for each in status["unmatched"]] == ([] if why is None else [why])
    assert len(site.files("bus/unmatched")) == len(whys)
    warned = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warned) == len(whys)
    assert all("unmatched" in each for each in warned)


async def test_a_bank_that_answers_late_leaves_everything_pending(site: Site) -> None:
    site.bank_is(shut=True)
    asked = ordering()
    await site.adapter.handle(asked)
    status = await site.status(asked)
    assert (status["state"], told(status)) == ("pending", [("pending", None)] * 2)
    site.bank_is()
    await site.until(asked, state="settled")


async def test_a_bank_that_is_killed_at_work_pays_each_order_once(site: Site) -> None:
    orders = [ordering() for _ in range(6)]
    for number, asked in enumerate(orders):
        await site.adapter.handle(asked)
        if number == 2:
            await site.bank.kill()
    await site.bank.start()
    for asked in orders:
        status = await site.until(asked, state="settled")
        assert (status["unmatched"], status["unassigned"]) == ([], 0)
        assert len(site.taken(asked)) == 1


@pytest.mark.slow
async def test_a_thousand_payments_are_one_ordering(site: Site) -> None:
    asked = ordering(1_000)
    assert list(REQUEST.faults(asked.body)) == []
    assert list(REQUEST.faults(ordering(1_001).body)) != []
    reply = await site.adapter.handle(asked)
    status = await site.until(asked, state="settled")
    assert status["settled"] == reply.body["total"] == asked.body["total"]
    assert site.taken(asked) == [[each["end_to_end_id"] for each in asked.body["payments"]]]


# --- an order is sent once


async def test_a_repeat_is_recognised_wherever_the_order_is(site: Site) -> None:
    site.bank_is(shut=True)
    asked = ordering()
    assert await site.adapter.find(asked) is None
    first = await site.adapter.handle(asked)

    async def again() -> None:
        assert (await site.adapter.handle(asked)).body == first.body
        found = await site.adapter.find(asked)
        assert found is not None
        assert found.body == first.body

    await again()
    sent = site.account / "bus/sent" / message(asked)
    sent.unlink()  # as if the bus had been killed before it noted that
    await again()
    site.bank_is()
    await site.quiet()
    await again()
    await asyncio.to_thread(sent.touch)
    (site.account / "archive" / f"{message(asked)}.xml").unlink()
    await again()
    await site.quiet()
    assert len(site.taken(asked)) == 1
    assert await site.adapter.find(request(STATUS, {"order": message(asked)})) is None


async def test_of_many_who_send_the_same_order_one_does(site: Site) -> None:
    asked = ordering()
    replies = await asyncio.gather(*(site.adapter.handle(asked) for _ in range(6)))
    assert len({json.dumps(each.body) for each in replies}) == 1
    await site.until(asked, state="settled")
    assert len(site.taken(asked)) == 1


@pytest.mark.slow
async def test_an_order_that_breaks_off_anywhere_and_is_repeated_is_sent_once(site: Site) -> None:
    came: list[bool | None] = []
    for most in range(2_500, 20_000, 500):
        asked, sent = ordering(), None
        async with listening(Cutting(site.sshd.port, most)) as listener, site.another(port=listener.port) as adapter:
            try:
                await adapter.handle(asked)
            except Unavailable as error:
                sent = error.sent
        found = await site.adapter.find(asked)
        assert found is None or sent is not False
        await site.adapter.handle(asked)
        await site.quiet()
        assert len(site.taken(asked)) == 1
        came.append(sent)
        if came[-2:] == [None, None]:
            break
    assert {None, False, True} <= set(came)


async def test_what_is_sent_depends_on_nothing_but_the_exchange(site: Site) -> None:
    site.bank_is(shut=True)
    asked = ordering()
    await site.adapter.handle(asked)
    (inbox,) = site.files("inbox")
    (kept,) = site.files("bus/orders")
    content = inbox.read_bytes()
    assert content == kept.read_bytes()
    for path in (inbox, kept, site.account / "bus/sent" / message(asked)):
        path.unlink()
    await site.adapter.handle(asked)
    assert inbox.read_bytes() == content
    assert read_order(content) == ordered(asked)
    assert content.isascii() is False
    assert b"<!DOCTYPE" not in content


async def test_agencies_see_and_spend_only_what_is_theirs(site: Site) -> None:
    asked = ordering()
    await site.adapter.handle(asked)
    for unknown in (
        site.status(asked, agency="customs"),
        site.adapter.handle(request(STATUS, {"order": "0" * 32})),
    ):
        with pytest.raises(Refused) as raised:
            await unknown
        assert raised.value.code == "not_found"
    with pytest.raises(Refused) as raised:
        await site.adapter.handle(request(ORDER, asked.body, agency="customs"))
    assert raised.value.code == "account_unknown"


async def test_an_account_without_its_folders_is_told_when_it_is_checked(site: Site) -> None:
    for name in ("inbox", "archive", "outbox"):
        async with site.another(**{name: "nowhere"}) as adapter:
            with pytest.raises(Broken, match="no folder nowhere"):
                await adapter.check()


# --- the bank's files


async def test_answers_count_once_however_often_and_by_whomever_they_are_read(site: Site) -> None:
    site.bank_is(shut=True)
    asked = ordering()
    await site.adapter.handle(asked)
    site.bank_is()
    await site.quiet()
    answers = {path.name: path.read_bytes() for path in site.files("outbox")}
    assert len(answers) == 2
    replies: list[dict[str, Any]] = await asyncio.gather(*(site.status(asked) for _ in range(6)))
    assert all(each["unmatched"] == [] and each["unassigned"] == 0 for each in replies)
    assert len(site.files("bus/read")) == 2
    assert site.files("outbox") == []
    before = await site.status(asked)
    assert (before["state"], before["settled"]) == ("settled", money("201.20"))
    # As if a worker had been killed after it noted them, before it moved them away; or the bank had sent them again.
    for name, content in answers.items():
        (site.account / "outbox" / name).write_bytes(content)
    assert await site.status(asked) == before
    assert site.files("outbox") == []
    # The same message with other words is another matter, and so is a second booking.
    camt = next(name for name in answers if name.startswith("camt"))
    changed = answers[camt].replace(b"E-0001", b"E-0000")
    (site.account / "outbox" / camt).write_bytes(changed)
    assert await site.status(asked) == before | {"unassigned": 1}
    (site.account / "outbox" / camt).write_bytes(answers[camt].replace(b"MsgId>N-", b"MsgId>NX"))
    after = await site.status(asked)
    assert (after["settled"], [each["why"] for each in after["unmatched"]]) == (money("201.20"), ["booked_again"])


async def test_what_cannot_be_read_waits_for_a_person_and_stops_nothing(site: Site) -> None:
    site.bank_is(shut=True)
    asked = ordering()
    await site.adapter.handle(asked)
    site.bank_is()
    await site.quiet()
    outbox = site.account / "outbox"
    (camt,) = (path for path in site.files("outbox") if path.name.startswith("camt"))
    (pain,) = (path for path in site.files("outbox") if path.name.startswith("pain"))
    whole, report = camt.read_bytes(), pain.read_bytes()
    odd = {
        "half.xml": whole[:-100],
        "empty.xml": b"",
        "doctype.xml": b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + whole,
        "another.xml": b"<Document><Else/></Document>",
        "status.xml": report.replace(b"ACSP", b"WHAT"),
        "path.xml": report.replace(b"OrgnlMsgId>" + message(asked).encode(), b"OrgnlMsgId>../../inbox/x"),
        "count.xml": report.replace(b"NbOfTxs>2", b"NbOfTxs>3").replace(b"S-", b"SX"),
        "amount.xml": whole.replace(b"101.10", b"NaN?").replace(b"N-", b"NX"),
        "unnamed.xml": whole.replace(b"MsgId>N-", b"MsgId>").replace(message(asked).encode(), b""),
        "x" * 255: b"long",
    }
    strange = (bytes(outbox) + b"/\xff\xfe.xml").decode("utf-8", "surrogateescape")
    for path, content in [*((outbox / name, each) for name, each in odd.items()), (Path(strange), b"")]:
        left(path, content)
    (outbox / ".half.xml.tmp").write_bytes(whole[:100])
    (outbox / "folder").mkdir()
    status = await site.until(asked, unassigned=len(odd) + 1)
    assert (status["state"], status["settled"]) == ("settled", money("201.20"))
    assert [each["why"] for each in status["unmatched"]] == ["count_differs"]
    assert [path.name for path in site.files("outbox")] == [".half.xml.tmp"]


async def test_what_stands_in_the_account_is_told_only_if_it_adds_up(site: Site) -> None:
    async def paid() -> Request:
        asked = ordering()
        await site.adapter.handle(asked)
        await site.until(asked, state="settled")
        return asked

    async def balance(day: str, **how: Any) -> dict[str, Any]:
        site.bank_is(day=day, **how)
        await site.until(asked, unassigned=int("odd" in how))
        for _ in range(1_000):
            if any(day in path.name for path in site.files("outbox") + site.files("bus")):
                break
            await asyncio.sleep(0.05)
        reply = await site.adapter.handle(request(BALANCE, {"account": ACCOUNT}))
        assert list(BALANCES.faults(reply.body)) == []
        return dict(reply.body)

    asked = await paid()
    await balance("2026-09-27")  # what was paid until here, by other tests too, is in an earlier statement
    asked = await paid()
    first = await balance("2026-09-28")
    assert (first["day"], first["entries"]) == ("2026-09-28", 1)
    amounts = [Decimal(first[name]["amount"]) for name in ("opening", "closing")]
    assert amounts[0] - amounts[1] == Decimal("201.20")
    second = await balance("2026-09-29")
    assert (second["opening"], second["closing"], second["entries"]) == (first["closing"], first["closing"], 0)
    assert await balance("2026-09-30", odd="sum") == second
    (put_aside,) = site.files("bus/unmatched")
    assert "2026-09-30" in put_aside.name
    for agency, account, code in (("customs", ACCOUNT, "account_unknown"), ("payroll", OPEN, "account_unknown")):
        with pytest.raises(Refused) as raised:
            await site.adapter.handle(request(BALANCE, {"account": account}, agency=agency))
        assert raised.value.code == code
    shutil.rmtree(site.account / "bus/balances")
    with pytest.raises(Refused) as raised:
        await site.adapter.handle(request(BALANCE, {"account": ACCOUNT}))
    assert raised.value.code == "no_statement"


async def test_one_call_reads_no_more_answers_than_it_may(site: Site) -> None:
    site.bank_is(shut=True)
    asked = ordering()
    await site.adapter.handle(asked)
    for number in range(5):
        left(site.account / f"outbox/{number}.xml", b"nothing")
    async with site.another(most_files=2) as adapter:
        seen = []
        for _ in range(3):
            reply: Reply = await adapter.handle(request(STATUS, {"order": message(asked)}))
            seen.append((reply.body["unassigned"], len(site.files("outbox"))))
    assert seen == [(2, 3), (4, 1), (5, 0)]


async def test_the_bank_itself_keeps_to_the_schema(site: Site) -> None:
    site.bank_is(shut=True)
    asked = ordering()
    await site.adapter.handle(asked)
    (path,) = site.files("inbox")
    content = path.read_bytes()
    wrong = {
        "FF01": content.replace(b"<PmtMtd>TRF</PmtMtd>", b""),
        "AM10": content.replace(b"<CtrlSum>201.20", b"<CtrlSum>201.21"),
        "AC01": content.replace(OPEN.encode(), b"XA36000000000000000001"),
    }
    for number, (reason, changed) in enumerate(wrong.items()):
        assert changed != content
        name = f"{number:032}"
        site.put(name, changed.replace(message(asked).encode(), name.encode()))
        site.bank_is()
        await site.quiet()
        assert reason.encode() in (site.account / f"outbox/pain002-{name}.xml").read_bytes()
    site.put("again", content)
    await site.quiet()
    assert b"AM05" in (site.account / f"outbox/pain002-{message(asked)}-again.xml").read_bytes()
    assert site.taken(asked) == [["E-0000", "E-0001"], []]
