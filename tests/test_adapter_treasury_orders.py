"""What the treasury's adapter decides by itself: which orders it refuses, which answers it reads, which state holds."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gsb.sdk import Refused, Unavailable
from gsb.testing.conduct import stage
from gsb.testing.subject import find_subject
from gsb_adapters.batch.iso20022 import read_answer
from gsb_adapters.treasury import Treasury
from gsb_adapters.treasury.orders import Order
from gsb_adapters.treasury.statement import statement
from gsb_adapters.xml import Unreadable
from tests.support.adapters import opened
from tests.support.banking import ACCOUNT, OPEN, left, money, ordering

ANSWER = """<Document><CstmrPmtStsRpt><GrpHdr><MsgId>{name}</MsgId></GrpHdr><OrgnlGrpInfAndSts>
<OrgnlMsgId>m</OrgnlMsgId><OrgnlNbOfTxs>{count}</OrgnlNbOfTxs><GrpSts>ACSP</GrpSts></OrgnlGrpInfAndSts>
<OrgnlPmtInfAndSts><TxInfAndSts><OrgnlEndToEndId>a</OrgnlEndToEndId><TxSts>ACSP</TxSts><OrgnlTxRef><Amt>
<InstdAmt Ccy="XOF">{amount}</InstdAmt></Amt></OrgnlTxRef></TxInfAndSts></OrgnlPmtInfAndSts></CstmrPmtStsRpt>
</Document>"""


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"total": money("201.21")}, "total_differs"),
        ({"total": {"amount": "201.20", "currency": "EUR"}}, "currency_invalid"),
        ({"debtor_account": OPEN}, "account_unknown"),
    ],
    ids=["total", "currency", "account"],
)
async def test_an_order_that_contradicts_itself_is_refused_unsent(change: dict[str, Any], code: str) -> None:
    """Nothing listens there, so nothing was sent."""
    settings = {"host": "127.0.0.1", "port": 1, "debtor": "T", "accounts": {ACCOUNT: ["payroll"]}}
    keys = {name: str(Path(__file__)) for name in ("host_key", "client_key")}
    async with opened(Treasury, settings | keys, {}) as adapter:
        with pytest.raises(Refused) as raised:
            await adapter.handle(ordering(**change))
        assert raised.value.code == code
        with pytest.raises(Unavailable) as away:
            await adapter.handle(ordering())
        assert away.value.sent is False


def test_a_later_state_overrides_an_earlier_one_whichever_comes_first() -> None:
    of = Order("0" * 32, "payroll", "R", ACCOUNT, "XOF", {"a": Decimal("1.00"), "b": Decimal("2.00")})
    states = ["accepted", "rejected", "settled", "returned"]
    notes = [{"message": state, "said": [["a", state, None]], "unmatched": []} for state in states]
    for count in range(1, 5):
        for some in (notes[:count], notes[:count][::-1]):
            assert statement(of, some)["payments"][0]["state"] == states[count - 1]
    whole = {"message": "m", "said": [[None, "rejected", "AM04"]], "unmatched": []}
    assert statement(of, [whole])["state"] == "rejected"
    assert statement(of, [])["state"] == "pending"
    mixed = statement(of, [notes[2], whole])
    assert (mixed["state"], mixed["settled"]) == ("mixed", money("1.00"))


@pytest.mark.parametrize(
    "odd",
    [
        *({"amount": each} for each in ("NaN", "sNaN", "Infinity", "1E9", "-1.00", "", "1,00", "9" * 5_000, "\uff11")),
        *({"count": each} for each in ("9" * 5_000, "two", "-1")),
        *({"name": each} for each in ("", "x" * 36)),
    ],
    ids=lambda odd: "-".join(f"{name}-{value[:5]}" for name, value in odd.items()),
)
def test_numbers_and_names_that_are_none_of_iso_20022_are_not_read(odd: dict[str, str]) -> None:
    given = {"amount": "1.00", "count": "1", "name": "n"}
    assert len(read_answer(ANSWER.format(**given).encode()).said) == 2
    with pytest.raises(Unreadable):
        read_answer(ANSWER.format(**given | odd).encode())


async def test_an_answer_that_the_bank_still_writes_is_read_when_it_is_whole() -> None:
    """Half a file under its final name: only what has not been written for a while waits for a person instead."""
    subject = find_subject("treasury")
    asked = subject.cassettes["payment-status"].asked()
    async with stage(subject) as (adapter, _, folder):
        (answer,) = (folder / "peer" / "outbox").glob("camt054-*")
        whole = answer.read_bytes()
        answer.write_bytes(whole[: len(whole) // 2])
        assert (await adapter.handle(asked)).body["unassigned"] == 0
        assert answer.exists()
        answer.write_bytes(whole)
        assert (await adapter.handle(asked)).body == subject.cassettes["payment-status"].reply
        assert not answer.exists()
        left(answer, whole[: len(whole) // 2])
        assert (await adapter.handle(asked)).body["unassigned"] == 1
