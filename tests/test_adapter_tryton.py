"""Sessions, passwords and errors of Tryton's JSON-RPC: against a real Tryton, and what one cannot be made to answer."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from config.systems.running import Copy
from config.systems.tryton import CREDENTIAL, DATABASE
from gsb.sdk import Broken, Clock, Refused, Unavailable
from gsb_adapters.fmis import Fmis
from tests.support.adapters import opened, request
from tests.support.real import shared
from tests.support.sockets import Listener, answering, http, listening, read_request
from tests.support.tryton import number_of, settings

module_loop = pytest.mark.asyncio(loop_scope="module")
ASKED = {"account": "6220", "fiscal_year": "2026", "amount": {"amount": "1.00", "currency": "XOF"}}


def asked() -> Any:
    return request("fmis/budget-availability/v1", ASKED)


class Time:
    """A steady clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def clock(self) -> Clock:
        return Clock(steady=lambda: self.now)


tryton = shared("tryton")


def attempts(tryton: Copy) -> int:
    return number_of(tryton.place.folder, "res_user_login_attempt")


# --- passwords


@pytest.mark.slow
@module_loop
async def test_a_wrong_password_is_tried_again_only_after_growing_pauses_or_when_its_file_changes(
    tryton: Copy, tmp_path: Path
) -> None:
    file, time, before = tmp_path / "password", Time(), attempts(tryton)
    file.write_text("wrong")
    async with opened(Fmis, settings(tryton, password=str(file)), {}, timeout=60, clock=time.clock()) as fmis:
        for number, pause in enumerate((60.0, 120.0), 1):
            with pytest.raises(Unavailable) as raised:
                await fmis.handle(asked())
            assert (raised.value.sent, raised.value.after) == (False, pause)
            time.now += pause - 1.0
            with pytest.raises(Unavailable) as raised:
                await fmis.handle(asked())
            assert (raised.value.sent, raised.value.after) == (False, 1.0)
            with pytest.raises(Unavailable):
                await fmis.check()
            assert attempts(tryton) == before + number
            time.now += 1.0
        file.write_text((tryton.place.folder / CREDENTIAL).read_text("ascii"))
        assert (await fmis.handle(asked())).body["sufficient"] is True


@pytest.mark.slow
@module_loop
async def test_many_calls_with_a_wrong_password_make_one_attempt(tryton: Copy, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong")
    before = attempts(tryton)
    async with opened(Fmis, settings(tryton, password=str(tmp_path / "password")), {}, timeout=60) as fmis:
        came = await asyncio.gather(*(fmis.handle(asked()) for _ in range(8)), return_exceptions=True)
    assert [type(each) for each in came] == [Unavailable] * 8
    assert attempts(tryton) == before + 1


@pytest.mark.parametrize("seconds", [300, 24 * 3600])
async def test_attempts_stay_below_what_locks_a_user_out(tmp_path: Path, seconds: int) -> None:
    """Tryton locks out after five attempts in five minutes."""
    (tmp_path / "password").write_text("wrong")
    time, tries = Time(), []
    async with (
        answering(http(b"", "401 Unauthorized")) as server,
        opened(Fmis, fake(server, tmp_path), {}, clock=time.clock()) as fmis,
    ):
        for _ in range(0, seconds, 10 if seconds == 300 else 600):
            seen = len(server.requests)
            with pytest.raises(Unavailable):
                await fmis.handle(asked())
            tries += [time.now] * (len(server.requests) - seen)
            time.now += 10 if seconds == 300 else 600
    assert 2 <= len(tries) <= (4 if seconds == 300 else 32)
    assert all(later - earlier >= 60 for earlier, later in pairwise(tries))


async def test_a_password_whose_file_is_gone_is_not_sent(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("right")
    async with answering(http(b"")) as server, opened(Fmis, fake(server, tmp_path), {}) as fmis:
        (tmp_path / "password").unlink()
        with pytest.raises(Unavailable) as raised:
            await fmis.handle(asked())
    assert (raised.value.sent, server.requests) == (False, [])


# --- sessions


@pytest.mark.slow
@module_loop
async def test_a_session_that_is_over_is_made_anew_once_for_all(tryton: Copy) -> None:
    async with opened(Fmis, settings(tryton), {}, timeout=60) as fmis:
        await fmis.handle(asked())
        with closing(sqlite3.connect(tryton.place.folder / f"{DATABASE}.sqlite", timeout=30)) as database, database:
            database.execute("DELETE FROM ir_session")
        came = await asyncio.gather(*(fmis.handle(asked()) for _ in range(6)))
        assert all(reply.body["sufficient"] for reply in came)
        assert number_of(tryton.place.folder, "ir_session") == 1


@pytest.mark.slow
@module_loop
async def test_a_session_too_old_for_a_payment_is_made_anew(tryton: Copy) -> None:
    line = {"account": "6220", "description": "Desks", "amount": {"amount": "10.00", "currency": "XOF"}}
    bill = {"supplier": "SUP-001", "reference": "old", "date": "2026-06-30", "lines": [line]}
    async with opened(Fmis, settings(tryton), {}, timeout=60) as fmis:
        posted = (await fmis.handle(request("fmis/supplier-invoice/v1", bill))).body
        with closing(sqlite3.connect(tryton.place.folder / f"{DATABASE}.sqlite", timeout=30)) as database, database:
            earlier = "strftime('%Y-%m-%d %H:%M:%f', create_date, '-10 minutes')"
            database.execute(f"UPDATE ir_session SET create_date = {earlier}, write_date = NULL")
        body = {"invoice": posted["invoice"], "date": "2026-07-03", "amount": posted["total"]}
        assert (await fmis.handle(request("fmis/supplier-payment/v1", body))).body["state"] == "paid"


# --- what it answers


def fake(server: Listener, folder: Path) -> dict[str, Any]:
    return {"url": server.url, "database": "gov", "user": "gsb", "password": str(folder / "password")}


LOGIN: dict[str, Any] = {
    "common.db.login": [2, "token"],
    "model.res.user.get_preferences": {"company": 1},
    "model.company.company.read": [{"id": 1, "currency.": {"id": 1, "code": "XOF", "digits": 2}}],
}


@asynccontextmanager
async def answers(**members: Any) -> AsyncIterator[Listener]:
    """A Tryton that lets in whoever comes and answers everything else with these members."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await read_request(reader)
        method = json.loads(asked.partition(b"\r\n\r\n")[2])["method"]
        said = {"result": LOGIN[method]} if method in LOGIN else members
        server.requests.append(asked)
        writer.write(http(json.dumps({"id": 0} | said).encode()))
        await writer.drain()

    async with listening(talk) as server:
        yield server


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (["UserError", ["The code on party must be unique.", "", None]], Refused, "rejected"),
        (["UserError", ['You are not allowed to access "Invoice".', "", None]], Broken, None),
        (["UserWarning", ["5f3c.quotation_expired", "It is too late.", ""]], Refused, "warned"),
        (["ConcurrencyException", "Record was modified"], Unavailable, None),
        (["database is locked", ""], Unavailable, None),
        (["'nonesuch'", ""], Broken, None),
        (["UserError", []], Broken, None),
        ("odd", Broken, None),
        (None, Broken, None),
    ],
)
async def test_errors_that_come_with_status_200(tmp_path: Path, error: Any, kind: type[Exception], code: Any) -> None:
    (tmp_path / "password").write_text("right")
    async with answers(error=error) as server, opened(Fmis, fake(server, tmp_path), {}) as fmis:
        with pytest.raises(kind) as raised:
            await fmis.handle(asked())
    assert getattr(raised.value, "code", None) == code
    assert getattr(raised.value, "sent", True) is True


@pytest.mark.parametrize(
    "result",
    [
        None,
        [7],
        [{"id": 1}],
        [{"id": 1, "amount": "5.5", "actual_amount": {"__class__": "Decimal", "decimal": "1"}}],
        [{"id": 1, "amount": {"__class__": "Decimal", "decimal": "much"}, "actual_amount": None}],
        [{"id": 1, "amount": {"__class__": "Decimal", "decimal": "5.123"}, "actual_amount": {}}],
        [{"id": 1, "amount": {"__class__": "Decimal", "decimal": "5"}, "actual_amount": None}],
    ],
)
async def test_results_that_make_no_sense_are_broken(tmp_path: Path, result: Any) -> None:
    (tmp_path / "password").write_text("right")
    async with answers(result=result) as server, opened(Fmis, fake(server, tmp_path), {}) as fmis:
        with pytest.raises(Broken):
            await fmis.handle(asked())


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("model.res.user.get_preferences", {}),
        ("model.res.user.get_preferences", ["odd"]),
        ("model.company.company.read", []),
        ("model.company.company.read", [{"id": 1, "currency.": None}]),
    ],
)
async def test_a_user_without_company_or_currency_is_for_an_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, said: Any
) -> None:
    (tmp_path / "password").write_text("right")
    monkeypatch.setitem(LOGIN, method, said)
    async with answers(result=[]) as server, opened(Fmis, fake(server, tmp_path), {}) as fmis:
        with pytest.raises(Broken, match="has no"):
            await fmis.handle(asked())


async def test_an_answer_that_is_neither_result_nor_error_is_broken(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("right")
    async with answers() as server, opened(Fmis, fake(server, tmp_path), {}) as fmis:
        with pytest.raises(Broken, match="neither"):
            await fmis.handle(asked())


@pytest.mark.parametrize("login", [[], [2], ["2", "token"], {"user": 2}, None])
async def test_a_login_that_brings_no_session_is_broken(tmp_path: Path, login: Any) -> None:
    (tmp_path / "password").write_text("right")
    said = http(json.dumps({"id": 0, "result": login}).encode())
    async with answering(said) as server, opened(Fmis, fake(server, tmp_path), {}) as fmis:
        with pytest.raises(Broken):
            await fmis.handle(asked())


@pytest.mark.parametrize(
    ("status", "kind", "sent", "after"),
    [
        ("404 Not Found", Unavailable, True, None),
        ("429 Too Many Requests", Unavailable, False, 60.0),
        ("500 Internal Server Error", Broken, None, None),
        ("503 Busy", Unavailable, True, None),
    ],
)
async def test_statuses_of_a_login(
    tmp_path: Path, status: str, kind: type[Exception], sent: Any, after: float | None
) -> None:
    (tmp_path / "password").write_text("right")
    async with (
        answering(http(b"<html>Oops</html>", status)) as server,
        opened(Fmis, fake(server, tmp_path), {}) as fmis,
    ):
        with pytest.raises(kind) as raised:
            await fmis.handle(asked())
    assert getattr(raised.value, "sent", None) is sent
    assert getattr(raised.value, "after", None) == after


async def test_no_float_ever_leaves(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("right")
    async with answers(result=[]) as server, opened(Fmis, fake(server, tmp_path), {}) as fmis:
        await fmis._tryton.session()
        before = len(server.requests)
        with pytest.raises(TypeError):
            await fmis._tryton.call("model.account.invoice.create", [{"lines": [["create", [{"unit_price": 0.1}]]]}])
        assert len(server.requests) == before
