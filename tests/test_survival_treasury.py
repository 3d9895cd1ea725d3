"""Payment orders while the bank's server is slowed, cut off, killed, stopped and started again: each is paid once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from config.systems.bank import account, ledger
from tests.support.banking import ACCOUNT, ORDER, ordering
from tests.support.real import real
from tests.support.survival import ENOUGH, Ask, survives


@pytest.mark.slow
async def test_no_order_is_lost_or_sent_twice(tmp_path: Path) -> None:
    async with real("sshd", tmp_path) as sshd, real("bank", tmp_path) as bank:

        async def paid(exchange: str, body: Any) -> int:
            """How often the bank has taken the order's file and made its payments."""
            for _ in range(3_000):
                if not any((account(bank.place) / "inbox").glob("[!.]*")):
                    break
                await asyncio.sleep(0.05)
            message = exchange.replace("-", "")
            taken = [each["payments"] for each in ledger(bank.place) if each["message"] == message]
            made = [each["end_to_end_id"] for each in body["payments"]]
            assert taken in ([], [made])
            return len(taken)

        asks = [Ask(ORDER, ordering(2, reference=f"PAY-{number}").body) for number in range(ENOUGH)]
        told = await survives(tmp_path, sshd, "treasury", asks, paid, settings={"accounts": {ACCOUNT: ["payroll"]}})
        assert told.states == {"done": ENOUGH}
        assert told.resolved == 0
