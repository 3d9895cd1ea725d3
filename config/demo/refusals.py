"""One refusal of each kind: calls that the bus must not let through, signed and sent by hand.

They are made here from the wire profile and not with the client, which would not send them, or would kindly repeat
them. Every answer to a known caller is verified. Nothing here changes anything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from config.demo.deployment import BURST, PERIOD, Site
from config.demo.report import Report, Step
from gsb import jws

JSON_TYPE = "application/json"
EMPLOYEE = ("hrmis/employee/v1", {"employee": "E-000042"})
HIDDEN = {"name", "tin", "bank_account", "home_address", "health_notes"}
"""Members of the record that the audit office's agreement does not grant."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A signed call, ready to be sent."""

    agency: str
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
    return Letter(agency, url, content, token)


class Post:
    """Sends letters, verifies the answers and counts how each came out."""

    def __init__(self, site: Site, report: Report, session: aiohttp.ClientSession) -> None:
        self._site, self._report, self._session = site, report, session

    async def expect(self, title: str, expected: str, *letters: Letter, signed: bool = True) -> Any:
        """Send these one after the other, each of which should come out like this; the last answer's body."""
        step = self._report.step(title, expected, len(letters))
        body = None
        with step.running():
            for letter in letters:
                body = await self._send(letter, step, signed)
        return body

    async def _send(self, letter: Letter, step: Step, signed: bool) -> Any:
        began = time.perf_counter()
        headers = {"GSB-Signature": letter.token, "Content-Type": JSON_TYPE, "Accept-Encoding": "identity"}
        async with self._session.post(letter.url, data=letter.body, headers=headers) as answer:
            content = await answer.read()
        body = json.loads(content)
        outcome = f"{answer.status} {body['code']}" if "code" in body else str(answer.status)
        if signed:
            outcome += self._doubt(letter, answer, content)
        if answer.status == 429 and "Retry-After" not in answer.headers:
            outcome += ", without Retry-After"
        step.took(began, outcome)
        return body

    def _doubt(self, letter: Letter, answer: aiohttp.ClientResponse, content: bytes) -> str:
        """Nothing when the answer is the bus's own, to this very call; else what is wrong with it."""
        try:
            jws.verify_reply(
                answer.headers.get("GSB-Signature"),
                self._site.bus_keys(),
                bus=self._site.bus,
                caller=letter.agency,
                request_jws=letter.token,
                status=answer.status,
                body=content,
                content_type=answer.headers.get("Content-Type"),
                now=time.time(),
            )
        except jws.ReplyRefused as refused:
            return f", but: {refused.reason}"
        return ""


async def play(site: Site, report: Report) -> None:
    """Send them all. Raises aiohttp.ClientError when the bus cannot be reached."""
    async with aiohttp.ClientSession() as session:
        post = Post(site, report, session)
        report.chapter = "The same record, another agreement"
        await audit(site, report, post)
        report.chapter = "Refused"
        await not_theirs(site, post)
        await not_granted(site, post)
        await wrong_body(site, report, post)
        await too_fast(site, post)


async def audit(site: Site, report: Report, post: Post) -> None:
    """The audit office sees other members of the record, and only with an auditor and a case file named."""
    letter = write(site, "audit-office", *EMPLOYEE, purpose="audit", sub="auditor-7", case="2026/118")
    record = await post.expect("audit office, naming a case file", "200", letter)
    report.fact("its view of name, account, address", "nothing", ", ".join(set(record) & HIDDEN) or "nothing")


async def not_theirs(site: Site, post: Post) -> None:
    """Who signed, what, and when: the call must be the agency's own, unchanged and new."""
    letter = write(site, "payroll-agency", *EMPLOYEE, purpose="payroll")
    header, claims, signature = letter.token.split(".")
    forged = f"{header}.{claims}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
    await post.expect("a forged signature", "401 signature_invalid", replace(letter, token=forged), signed=False)
    changed = letter.body.replace(b"42", b"43")
    await post.expect("a body changed on its way", "401 digest_mismatch", replace(letter, body=changed))
    letter = write(site, "payroll-agency", *EMPLOYEE, purpose="payroll")
    await post.expect("a good call, somebody records it", "200", letter)
    await post.expect("the recorded call, sent once more", "409 replayed", letter)


async def not_granted(site: Site, post: Post) -> None:
    salary = {"tin": "TIN-0000042", "period": PERIOD, "gross": {"amount": "1.00", "currency": "XOF"}}
    letter = write(site, "audit-office", "tax/income-tax/v1", salary, purpose="audit")
    await post.expect("audit office asks for income tax", "403 grant_missing", letter)
    letter = write(site, "payroll-agency", *EMPLOYEE, purpose="marketing")
    await post.expect("a purpose that was not agreed", "403 purpose_not_granted", letter)
    letter = write(site, "audit-office", *EMPLOYEE, purpose="audit", sub="auditor-7")
    await post.expect("audit office names no case file", "403 case_required", letter)


async def wrong_body(site: Site, report: Report, post: Post) -> None:
    wrong = {"ministry": "Justice", "limit": 0, "everything": True}
    letter = write(site, "payroll-agency", "hrmis/payroll-list/v1", wrong, purpose="payroll")
    problem = await post.expect("a body with three mistakes", "422 body_invalid", letter)
    leaked = "Justice" in json.dumps(problem)
    told = f"{len(problem.get('errors', ()))} places, {'a' if leaked else 'no'} value"
    report.fact("what that answer tells of them", "3 places, no value", told)


async def too_fast(site: Site, post: Post) -> None:
    """The grant for staff plans takes a few calls at once; the next must wait."""
    plan = ("hrmis/payroll-list/v1", {"ministry": "MFA"})
    letters = [write(site, "payroll-agency", *plan, purpose="staff-plan") for _ in range(BURST + 1)]
    await post.expect("as many calls at once as agreed", "200", *letters[:BURST])
    await post.expect("one more, at once", "429 rate_exceeded", *letters[BURST:])
