"""The two composed services of a payroll by themselves: what they ask, in which order, and what they do not believe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest

from gsb.model import Request
from gsb.sdk import Adapter, Broken, Context, Http, Refused, Unavailable
from gsb.testing import AdapterContract
from gsb_adapters.payroll_page import PayrollPage, adds_up, doubt, well_formed
from gsb_adapters.payroll_run import PayrollRun
from tests.support.adapters import request

CURRENCY = "XOF"
ACCOUNTS = {"gross": "6110", "income_tax": "4470", "social_security_contribution": "4310", "net": "4210"}
SETTINGS: Mapping[str, Any] = {"currency": CURRENCY, "debtor_account": "XA92TREASURY000000000001", "accounts": ACCOUNTS}
IBAN = "SN51SN0100100000000000000042"
Answer = Callable[[str, Any], Any]
"""What a service answers to a body."""


class TestPayrollPage(AdapterContract):
    adapter = "payroll_page"


class TestPayrollRun(AdapterContract):
    adapter = "payroll_run"


class Steps:
    """The bus, as an adapter's ``call`` sees it: answers, and remembers what was asked."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.asked: list[tuple[str, str, Any]] = []
        """Step, service and body."""
        self.busy = self.most = 0

    async def __call__(self, request: Request, service: str, body: Any, *, step: str, purpose: str) -> Any:
        assert purpose == "payroll"
        self.asked.append((step, service, body))
        self.busy += 1
        self.most = max(self.most, self.busy)
        await asyncio.sleep(0)
        self.busy -= 1
        answer = self._answer(service, body)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def bodies(self, service: str) -> list[Any]:
        return [body for _, asked, body in self.asked if asked == service]


async def performed(kind: type[Adapter[Any, Any]], settings: Mapping[str, Any], steps: Steps, body: Any) -> Any:
    async with Http(1.0) as http:
        adapter = kind(
            Context(
                system="system",
                settings=kind.Settings.model_validate(dict(settings)),
                services={},
                http=http,
                log=logging.getLogger("gsb.system.system"),
                call=steps,
            )
        )
        return (await adapter.handle(request("system/service/v1", body))).body


def money(amount: str | Decimal, currency: str = CURRENCY) -> dict[str, str]:
    return {"amount": str(amount), "currency": currency}


# --- a page


def person(number: int, **more: Any) -> dict[str, Any]:
    return {
        "employee": f"E-{number:06}",
        "name": {"family": "Konan", "given": f"Yao {number}"},
        "birth_date": "1984-03-02",
        "national_id": f"NID-{number:07}",
        "tin": f"TIN-{number:07}",
        "salary": money("1000.10"),
        "bank_account": IBAN,
        **more,
    }


def a_page(*people: Any, identity: Any = None, tax: Any = None) -> Answer:
    """Of these people, all of whom the registry confirms."""

    def answer(service: str, body: Any) -> Any:
        match service:
            case "hrmis/payroll-list/v1":
                return {"employees": list(people)}
            case "registry/identity/v1":
                return identity or {"registered": True, "alive": True, "matches": True}
            case _:
                return tax or taxed(body["gross"])

    return answer


def taxed(gross: Mapping[str, str]) -> dict[str, Any]:
    amount = Decimal(gross["amount"])
    kept = {"income_tax": Decimal("150.02"), "social_security_contribution": Decimal("20.01")}
    withheld = {name: money(value) for name, value in kept.items()}
    return {"gross": dict(gross), **withheld, "net": money(amount - sum(kept.values()))}


async def assessed(answer: Answer, **settings: Any) -> tuple[Any, Steps]:
    steps = Steps(answer)
    body = {"ministry": "MOE", "period": "2026-09"}
    return await performed(PayrollPage, {"currency": CURRENCY, **settings}, steps, body), steps


async def test_totals_are_the_sum_to_the_cent() -> None:
    reply, _ = await assessed(a_page(*map(person, range(1, 8))))
    assert reply["totals"]["gross"] == money("7000.70")
    assert reply["totals"]["net"] == money(7 * Decimal("830.07"))
    assert (reply["people"], len(reply["payments"]), reply["withheld"]) == (7, 7, [])


async def test_no_more_people_are_looked_at_at_once_than_told() -> None:
    _, steps = await assessed(a_page(*map(person, range(1, 30))), at_once=3)
    assert steps.most == 3


async def test_a_ghost_is_reported_and_the_tax_service_hears_nothing_of_it() -> None:
    gone = {"registered": True, "alive": False, "matches": True}
    reply, steps = await assessed(a_page(person(1), identity=gone))
    assert (reply["payments"], reply["withheld"]) == ([], [{"employee": "E-000001", "reason": "dead"}])
    assert steps.bodies("tax/income-tax/v1") == []
    assert reply["totals"]["net"] == money("0.00")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ((True, True, True), None),
        ((False, False, False), "unregistered"),
        ((True, False, True), "dead"),
        ((True, True, False), "mismatch"),
        ((True, True, None), "mismatch"),
    ],
)
def test_only_what_is_said_is_believed(said: tuple[Any, ...], reason: str | None) -> None:
    assert doubt(dict(zip(("registered", "alive", "matches"), said, strict=True))) == reason


@pytest.mark.parametrize("account", ["", "SN52" + IBAN[4:], IBAN.lower(), "SN5100", IBAN[:-1] + "é", IBAN[:-1] + "-"])
def test_an_account_that_a_bank_would_refuse_is_known_before(account: str) -> None:
    assert well_formed(IBAN)
    assert not well_formed(account)


async def test_a_salary_of_nothing_is_reported() -> None:
    reply, _ = await assessed(a_page(person(1, salary=money("0.00"))))
    assert (reply["payments"], reply["withheld"]) == ([], [{"employee": "E-000001", "reason": "nothing_due"}])


@pytest.mark.parametrize(
    "changed",
    [
        {"gross": money("1000.00")},
        {"net": money("830.08")},
        {"income_tax": money("150.02", "EUR")},
        {"income_tax": money("980.09"), "net": money("0.00")},
    ],
)
async def test_a_tax_that_does_not_add_up_is_not_believed(changed: Any) -> None:
    gross = money("1000.10")
    assert adds_up(taxed(gross), gross)
    with pytest.raises(Broken, match="is not the salary"):
        await assessed(a_page(person(1), tax=taxed(gross) | changed))


async def test_another_currency_ends_the_page() -> None:
    with pytest.raises(Refused) as refused:
        await assessed(a_page(person(1), person(2, salary=money("1.00", "EUR"))))
    assert refused.value.code == "currency_invalid"


@pytest.mark.parametrize("error", [Unavailable("no outcome yet", sent=True), Broken("nonsense")])
async def test_a_step_that_fails_ends_the_page_as_it_failed(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        await assessed(a_page(*map(person, range(1, 20)), tax=error))
    assert raised.value is error


async def test_a_step_is_never_named_after_a_person() -> None:
    _, steps = await assessed(a_page(person(41), person(42)))
    assert {step for step, _, _ in steps.asked} == {"list", "identity-0", "identity-1", "tax-0", "tax-1"}


# --- a run


def a_run(*pages: int, sufficient: bool = True, **instead: Any) -> Answer:
    """With so many payments of 830.07 on each page; ``instead`` of a service's answer, another."""
    numbers = iter(range(len(pages)))

    def answer(service: str, body: Any) -> Any:
        name = service.split("/")[1]
        if name in instead:
            return instead[name]
        match name:
            case "page":
                number = next(numbers)
                return page(number, pages[number], last=number == len(pages) - 1)
            case "budget-availability":
                return {"sufficient": sufficient}
            case "posting":
                return {"posting": "17"}
            case _:
                return {"order": "0" * 32, **body, "payments": len(body["payments"])}

    return answer


def page(number: int, payments: int, *, last: bool) -> dict[str, Any]:
    people = [f"E-{number}{index:05}" for index in range(payments)]
    one = taxed(money("1000.10"))
    paid = [{"employee": each, "name": "Ñ" * 90, "bank_account": IBAN, "amount": one["net"]} for each in people]
    totals = {name: money(Decimal(one[name]["amount"]) * payments) for name in ACCOUNTS}
    return {"people": payments, "payments": paid, "withheld": [], "totals": totals} | (
        {} if last else {"next": f"E-{number}99999"}
    )


async def run(answer: Answer, **settings: Any) -> tuple[Any, Steps]:
    steps = Steps(answer)
    body = {"ministry": "MOE", "period": "2026-09", "date": "2026-09-28"}
    return await performed(PayrollRun, {**SETTINGS, **settings}, steps, body), steps


async def test_everything_is_known_before_anything_is_done_and_posted_before_it_is_paid() -> None:
    _, steps = await run(a_run(2, 2, 1), payments=2)
    assert [step for step, _, _ in steps.asked] == [
        *(f"page-{number}" for number in (1, 2, 3)),
        "budget",
        "posting",
        *(f"payment-order-{number}" for number in (1, 2, 3)),
    ]


async def test_the_totals_of_pages_posting_and_orders_are_the_same_to_the_cent() -> None:
    reply, steps = await run(a_run(200, 200, 101), payments=150)
    debit, *credits_ = steps.bodies("fmis/posting/v1")[0]["lines"]
    assert debit == {"account": "6110", "side": "debit", "amount": reply["totals"]["gross"]}
    assert sum(Decimal(line["amount"]["amount"]) for line in credits_) == Decimal(debit["amount"]["amount"])
    ordered = steps.bodies("treasury/payment-order/v1")
    assert [len(each["payments"]) for each in ordered] == [150, 150, 150, 51]
    assert sum(Decimal(each["total"]["amount"]) for each in ordered) == Decimal(reply["totals"]["net"]["amount"])
    ids = [payment["end_to_end_id"] for each in ordered for payment in each["payments"]]
    assert len(set(ids)) == len(ids) == reply["paid"] == 501


async def test_a_payroll_beyond_its_budget_posts_nothing_and_pays_nobody() -> None:
    steps = Steps(a_run(3, sufficient=False))
    with pytest.raises(Refused) as refused:
        await performed(PayrollRun, SETTINGS, steps, {"ministry": "MOE", "period": "2026-09", "date": "2026-09-28"})
    assert refused.value.code == "budget_insufficient"
    assert [step for step, _, _ in steps.asked] == ["page-1", "budget"]


async def test_nobody_is_paid_when_the_posting_is_not_confirmed() -> None:
    steps = Steps(a_run(3, posting=Unavailable("no outcome yet", sent=True)))
    with pytest.raises(Unavailable):
        await performed(PayrollRun, SETTINGS, steps, {"ministry": "MOE", "period": "2026-09", "date": "2026-09-28"})
    assert [step for step, _, _ in steps.asked][-1] == "posting"


async def test_a_payroll_of_nobody_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        await run(a_run(0, 0))
    assert refused.value.code == "nobody_to_pay"


async def test_a_payroll_that_never_ends_is_not_followed() -> None:
    with pytest.raises(Broken, match="leads back"):
        await run(a_run(1, page=page(0, 1, last=False)))


async def test_payments_that_are_not_their_totals_are_not_paid() -> None:
    wrong = page(0, 2, last=True)
    wrong["payments"][0]["amount"] = money("830.08")
    with pytest.raises(Broken, match="not the totals"):
        await run(a_run(2, page=wrong))


async def test_names_are_cut_to_what_banks_take_and_nothing_is_posted_as_nothing() -> None:
    only = page(0, 1, last=True)
    only["totals"] |= {"income_tax": money("0.00")}
    _, steps = await run(a_run(1, page=only))
    assert steps.bodies("treasury/payment-order/v1")[0]["payments"][0]["creditor_name"] == "Ñ" * 70
    assert [line["account"] for line in steps.bodies("fmis/posting/v1")[0]["lines"]] == ["6110", "4310", "4210"]
