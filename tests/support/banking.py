"""A treasury with its bank: payment orders to try, the bank's account on the server, and what the bank did."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from config.systems.bank import conduct, ledger
from config.systems.running import Copy
from gsb.schema import Schema
from gsb.sdk import Request
from gsb_adapters.treasury import Treasury
from tests.support.adapters import opened, request

ROOT = Path(__file__).parents[2]
ORDER, STATUS = "treasury/payment-order/v1", "treasury/payment-status/v1"
BALANCE = "treasury/account-balance/v1"
ACCOUNT, OPEN, CLOSED = "XA92TREASURY000000000001", "XA35000000000000000001", "XA920000000000000042"
NAME = "Élo <&> 欧阳 'x'"


def money(amount: str) -> dict[str, str]:
    return {"amount": amount, "currency": "XOF"}


def ordering(count: int = 2, **more: Any) -> Request:
    """The first payment goes to an account that may be closed, the others to one that is open."""
    payments: list[dict[str, Any]] = [
        {
            "end_to_end_id": f"E-{number:04}",
            "creditor_name": NAME,
            "creditor_account": OPEN if number else CLOSED,
            "amount": money(f"{100 + number}.10"),
            "remittance": "Salary",
        }
        for number in range(count)
    ]
    total = sum(Decimal(each["amount"]["amount"]) for each in payments)
    body = {"reference": "PAY-1", "debtor_account": ACCOUNT, "execution_date": "2026-09-28", "total": money(str(total))}
    return request(ORDER, body | {"payments": payments} | more)


def left(path: Path, content: bytes) -> None:
    """An answer at which nobody has been at work for long."""
    path.write_bytes(content)
    os.utime(path, (0, 0))


def message(asked: Request) -> str:
    return asked.exchange.replace("-", "")


@dataclass
class Site:
    """The adapter, the bank beside it, and the bank's account on the server."""

    sshd: Copy
    bank: Copy
    account: Path
    adapter: Treasury = field(init=False)

    def bank_is(self, **how: Any) -> None:
        conduct(self.bank.place, **how)

    def taken(self, asked: Request) -> list[list[str]]:
        """The payments that the bank made, for each time that it got this order."""
        return [each["payments"] for each in ledger(self.bank.place) if each["message"] == message(asked)]

    def files(self, folder: str) -> list[Path]:
        return sorted(path for path in (self.account / folder).rglob("*") if path.is_file())

    def put(self, name: str, content: bytes) -> None:
        """A file into the inbox, whole before it has its name: the bank takes it at any time."""
        draft = self.account / f"inbox/.{name}.xml"
        draft.write_bytes(content)
        draft.rename(draft.with_name(f"{name}.xml"))

    def settings(self, **more: Any) -> dict[str, Any]:
        keys = {"host_key": "sshd/host_key.pub", "client_key": "sshd/bank_key"}
        where = {"host": self.sshd.host, "port": self.sshd.port, "patience": 60}  # a busy machine may stand still
        return where | keys | {"debtor": "Treasury", "accounts": {ACCOUNT: ["payroll"]}} | more

    @asynccontextmanager
    async def another(self, **more: Any) -> AsyncIterator[Treasury]:
        async with opened(Treasury, self.settings(**more), {}, folder=self.sshd.place.folder.parent) as adapter:
            yield adapter

    async def status(self, asked: Request, **more: Any) -> dict[str, Any]:
        reply = await self.adapter.handle(request(STATUS, {"order": message(asked)}, **more))
        assert list(REPLY.faults(reply.body)) == []
        return dict(reply.body)

    async def until(self, asked: Request, **wanted: Any) -> dict[str, Any]:
        """Ask until the order's status has these members."""
        for _ in range(2_000):
            status = await self.status(asked)
            if all(status[name] == value for name, value in wanted.items()):
                return status
            await asyncio.sleep(0.05)
        raise AssertionError(f"it stays {status}")

    async def quiet(self) -> None:
        """The bank has taken and answered everything. What a broken connection left is not there for anybody."""
        for _ in range(2_000):
            if all(path.name.startswith(".") for path in self.files("inbox")):
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the bank does not take what is in its inbox")


REPLY = Schema.compile(json.loads((ROOT / "schemas" / STATUS / "reply.json").read_text("utf-8")), STATUS)
BALANCES = Schema.compile(json.loads((ROOT / "schemas" / BALANCE / "reply.json").read_text("utf-8")), BALANCE)
REQUEST = Schema.compile(json.loads((ROOT / "schemas" / ORDER / "request.json").read_text("utf-8")), ORDER)
