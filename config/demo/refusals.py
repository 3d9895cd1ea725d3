"""One refusal of each kind: calls that the bus must not let through, signed and sent by hand.

They are made here from the wire profile and not with the client, which would not send them (or would kindly
repeat them). Every answer to a known caller is verified like any other. Nothing here changes anything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from config.demo.deployment import BURST, Site
from config.demo.report import Report, Step
from gsb import jws

JSON_TYPE = "application/json"
EMPLOYEE = {"employee": "E-000042"}


@dataclass(frozen=True, slots=True)
class Letter:
    """A signed call, ready to be sent."""

    url: str
    body: bytes
    token: str


def write(site: Site, agency: str, service: str, body: Mapping[str, Any], **claims: Any) -> Letter:
    """Sign a call as this agency. ``claims`` are purpose, sub, case."""
    url = f"{site.url}/services/{service}"
    content = json.dumps(body).encode()
    token = jws.sign_request(
        site.key(agency),
        issuer=agency,
        audience=site.bus,
        method="POST",
        target_uri=url,
        body=content,
        content_type=JSON_TYPE,
        now=time.time(),
        **claims,
    )
    return Letter(url, content, token)


async def send(session: aiohttp.ClientSession, letter: Letter, step: Step) -> Mapping[str, Any]:
    """Post it and count the outcome: the status, and the code when it is a problem. Answers the body."""
    began = time.perf_counter()
    headers = {"GSB-Signature": letter.token, "Content-Type": JSON_TYPE, "Accept-Encoding": "identity"}
    async with session.post(letter.url, data=letter.body, headers=headers) as answer:
        body: Mapping[str, Any] = json.loads(await answer.read())
        step.took(began, f"{answer.status} {body['code']}" if "code" in body else str(answer.status))
        if answer.status == 429 and "Retry-After" not in answer.headers:
            step.got["429 without Retry-After"] += 1
    return body


async def play(site: Site, report: Report) -> None:
    """Send them all. Raises aiohttp.ClientError when the bus cannot be reached."""
    async with aiohttp.ClientSession() as session:
        await bad_signature(site, report, session)
        await replayed(site, report, session)
        await not_granted(site, report, session)
        await wrong_body(site, report, session)
        await too_fast(site, report, session)


async def bad_signature(site: Site, report: Report, session: aiohttp.ClientSession) -> None:
    letter = write(site, "payroll-agency", "hrmis/employee/v1", EMPLOYEE, purpose="payroll")
    step = report.step("refused: another signature under the agency's name", "401 signature_invalid")
    header, claims, signature = letter.token.split(".")
    forged = ("A" if signature[0] != "A" else "B") + signature[1:]
    with step.running():
        await send(session, Letter(letter.url, letter.body, f"{header}.{claims}.{forged}"), step)
    step = report.step("refused: the body changed on its way", "401 digest_mismatch")
    with step.running():
        await send(session, Letter(letter.url, letter.body.replace(b"42", b"43"), letter.token), step)


async def replayed(site: Site, report: Report, session: aiohttp.ClientSession) -> None:
    letter = write(site, "payroll-agency", "hrmis/employee/v1", EMPLOYEE, purpose="payroll")
    first = report.step("a signed call, recorded by an eavesdropper", "200")
    with first.running():
        await send(session, letter, first)
    again = report.step("refused: the same call sent again", "409 replayed")
    with again.running():
        await send(session, letter, again)


async def not_granted(site: Site, report: Report, session: aiohttp.ClientSession) -> None:
    tax = {"tin": "TIN-0000042", "period": "2026-09", "gross": {"amount": "1.00", "currency": "XOF"}}
    step = report.step("refused: the audit office asks for income tax, without an agreement", "403 grant_missing")
    with step.running():
        await send(session, write(site, "audit-office", "tax/income-tax/v1", tax, purpose="audit"), step)
    step = report.step("refused: the payroll agency asks for another purpose", "403 purpose_not_granted")
    with step.running():
        letter = write(site, "payroll-agency", "hrmis/employee/v1", EMPLOYEE, purpose="marketing")
        await send(session, letter, step)
    step = report.step("refused: the audit office names no case file", "403 case_required")
    with step.running():
        letter = write(site, "audit-office", "hrmis/employee/v1", EMPLOYEE, purpose="audit", sub="auditor-7")
        await send(session, letter, step)


async def wrong_body(site: Site, report: Report, session: aiohttp.ClientSession) -> None:
    wrong = {"ministry": "Justice", "limit": 0, "everything": True}
    step = report.step("refused: three mistakes in one body", "422 body_invalid")
    with step.running():
        letter = write(site, "payroll-agency", "hrmis/payroll-list/v1", wrong, purpose="payroll")
        problem = await send(session, letter, step)
    leaked = "Justice" in json.dumps(problem)
    told = f"{len(problem.get('errors', ()))} places, {'a' if leaked else 'no'} value"
    report.fact("what that answer tells of the mistakes", "3 places, no value", told)


async def too_fast(site: Site, report: Report, session: aiohttp.ClientSession) -> None:
    """The grant for staff plans takes a few calls at once; the next must wait."""

    def letter() -> Letter:
        return write(site, "payroll-agency", "hrmis/payroll-list/v1", {"ministry": "MFA"}, purpose="staff-plan")

    within = report.step("calls within the rate that a grant allows", "200", BURST)
    with within.running():
        for _ in range(BURST):
            await send(session, letter(), within)
    beyond = report.step("refused: one call more at once", "429 rate_exceeded")
    with beyond.running():
        await send(session, letter(), beyond)
