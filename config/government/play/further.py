"""Some calls on every further system, from personnel and registries to customs and complaints.

Each is what one agency would ask of another. Systems that keep what they are told are asked under a new name each run.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp

from config.government.play.moved import Ledger
from config.government.play.payroll import PERIOD
from config.systems.canaille import CITIZENS, CLIENT, SECRET, WORD
from config.systems.running import Copy

CITIZEN = "amina"
Systems = Mapping[str, Copy]
Scene = Callable[[Ledger, Systems, str], Awaitable[None]]
"""The last is what tells this run from others: six digits."""


async def play(ledger: Ledger, systems: Systems) -> None:
    """All of them."""
    ledger.report.chapter = "Some calls on each further system"
    mark = f"{int(time.time()) % 1_000_000:06}"
    for scene in SCENES:
        await scene(ledger, systems, mark)


async def personnel(ledger: Ledger, systems: Systems, mark: str) -> None:
    agency, options = "payroll-agency", {"purpose": "payroll"}
    await ledger.call(agency, "hrmis/employee/v1", {"employee": "E-000001"}, "a civil servant's record", **options)
    await ledger.call(agency, "hrmis/post/v1", {"post": 7}, "a post, and how many hold it", **options)


async def taxes(ledger: Ledger, systems: Systems, mark: str) -> None:
    """A year is assessed against what was withheld in its months."""
    gross, withheld = ({"amount": amount, "currency": "XOF"} for amount in ("4200.10", "714.02"))
    months = [{"month": f"2026-{month:02}", "gross": gross, "withheld": withheld} for month in range(1, 13)]
    adult = {"tin": "TIN-0000042", "months": months}
    body = {"tin": adult["tin"], "year": "2026", "adults": [adult]}
    await ledger.call("payroll-agency", "tax/annual-assessment/v1", body, "a year's taxes", purpose="year-end")


async def registries(ledger: Ledger, systems: Systems, mark: str) -> None:
    """A business registers once, and whoever follows the register learns of it."""
    agency, purpose = "tax-authority", "taxation"
    page = await ledger.call(agency, "registry/changes/v1", {}, "the register's changes so far", purpose=purpose)
    business = {"brn": f"BRN-{mark}", "name": "Atelier Sow & filles", "tin": f"TIN-{mark}"}
    options: dict[str, Any] = {"purpose": "registration", "sub": "counter-3"}
    service = "registry/register-business/v1"
    await ledger.call(agency, service, business, "register a business", idempotency_key=f"business-{mark}", **options)
    other = business | {"name": "Somebody else's"}
    refused = "422 system_refused already_registered"
    await ledger.call(agency, service, other, "another under its number", expected=refused, **options)

    def listed(page: Any) -> bool:
        return any(each["brn"] == business["brn"] for each in page["changes"])

    asked = {"since": page["next"]} if page else {}
    what = "until it is in the feed of changes"
    await ledger.until(agency, "registry/changes/v1", asked, what, listed, purpose=purpose)


async def identity(ledger: Ledger, systems: Systems, mark: str) -> None:
    """A citizen logs in, and agencies learn whether what they were told is so, and nothing else."""
    token = await _token(systems["canaille"].url)
    given, family = CITIZENS[CITIZEN]
    await ledger.call(
        "ombudsman", "digital-id/token/v1", {"token": token}, "does a citizen's token hold?", purpose="complaint"
    )
    body = {"access_token": token, "claims": {"given_name": given, "family_name": family}}
    options: dict[str, Any] = {"purpose": "benefit-claim", "case": f"claim-{mark}"}
    await ledger.call("social-insurance-fund", "digital-id/verify/v1", body, "is it who they say?", **options)


async def _token(issuer: str) -> str:
    """What the citizen brings along, by their password."""
    pair = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
    form = {"grant_type": "password", "username": CITIZEN, "password": WORD, "scope": "openid profile"}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Basic {pair}"}) as session,
        session.post(f"{issuer}/oauth/token", data=form) as answer,
    ):
        return str((await answer.json())["access_token"])


async def insurance(ledger: Ledger, systems: Systems, mark: str) -> None:
    agency, person = "payroll-agency", "NID-0000001"
    earned = {"amount": "214500.50", "currency": "XOF"}
    paid = {"amount": "4290.01", "currency": "XOF"}
    body = {"employer": "EMP-00001", "person": person, "period": PERIOD, "earnings": earned, "contribution": paid}
    service = "social-insurance/contribution/v1"
    await ledger.call(agency, service, body, "a month's contribution", purpose="payroll", idempotency_key=f"c-{mark}")
    asked = {"person": person, "benefit": "sickness", "period": PERIOD}
    options: dict[str, Any] = {"purpose": "paid-leave", "case": f"leave-{mark}"}
    await ledger.call(agency, "social-insurance/entitlement/v1", asked, "is sick leave paid?", **options)


async def vehicles(ledger: Ledger, systems: Systems, mark: str) -> None:
    vehicle = {
        "plate": f"CD-{mark[-4:]}",
        "owner": "ID-000042",
        "category": "LORRY",
        "first_registered": "2021-11-30",
        "mass_in_tonnes": "7.500",
        "annual_fee": {"amount": "1980.50", "currency": "XOF"},
    }
    options: dict[str, Any] = {"purpose": "vehicle-import"}
    key = f"vehicle-{mark}"
    await ledger.call("customs", "vehicles/register/v1", vehicle, "register a lorry", idempotency_key=key, **options)
    asked = {"plate": vehicle["plate"]}
    await ledger.call("tax-authority", "vehicles/vehicle/v1", asked, "its fee", purpose="vehicle-tax")


async def investment(ledger: Ledger, systems: Systems, mark: str) -> None:
    agency = "procurement-authority"
    await ledger.call(agency, "pim/project/v1", {"project": "PIP-0001"}, "an investment project", purpose="tender")
    asked, what = {"disbursement": "DSB-000001"}, "a disbursement of it"
    await ledger.call(agency, "pim/disbursement/v1", asked, what, purpose="contract-follow-up")


async def customs(ledger: Ledger, systems: Systems, mark: str) -> None:
    """A batch of declarations goes as a file, and the customs house acknowledges it by another."""
    agency, purpose = "procurement-authority", "customs-clearance"
    value, duty = ({"amount": amount, "currency": "XOF"} for amount in ("18750000.00", "937500.00"))
    cocoa = {
        "reference": f"DKR-26-{mark}",
        "declarant": "TIN-1001",
        "procedure": "4000",
        "origin": "CI",
        "commodity": "18010000",
        "description": "Cocoa beans, raw",
        "net_mass": "12500.000",
        "value": value,
        "duty": duty,
    }
    control = {"count": 1, "value": value, "duty": duty}
    body = {"office": "SNDKR", "declarations": [cocoa], "control": control}
    service, options = "customs/declaration-batch/v1", {"purpose": purpose, "idempotency_key": f"batch-{mark}"}
    sent = await ledger.call(agency, service, body, "a file of declarations", **options)
    if sent is not None:
        asked, what = {"batch": sent["batch"]}, "until it is acknowledged"
        service = "customs/acknowledgement/v1"
        said = await ledger.until(agency, service, asked, what, acknowledged, purpose=purpose)
        ledger.report.fact("what the customs house says", "accepted", str(said and said["state"]))


def acknowledged(said: Any) -> bool:
    return bool(said["state"] != "pending")


async def complaints(ledger: Ledger, systems: Systems, mark: str) -> None:
    """A complaint is submitted once, however often it is sent."""
    agency, service = "payroll-agency", "feedback/submit/v1"
    body = {"subject": f"Salary {PERIOD} is late ({mark})", "text": "It has not come yet."}
    options: dict[str, Any] = {"purpose": "complaint", "idempotency_key": f"complaint-{mark}"}
    first = await ledger.call(agency, service, body, "submit a complaint", **options)
    again = await ledger.call(agency, service, body, "the same once more", **options)
    ledger.report.fact("complaints that are there for it", "one", "one" if first and first == again else "another")
    if first is not None:
        await ledger.call(agency, "feedback/status/v1", first, "what became of it", purpose="complaint")


SCENES: tuple[Scene, ...] = (
    personnel,
    taxes,
    registries,
    identity,
    insurance,
    vehicles,
    investment,
    customs,
    complaints,
)
