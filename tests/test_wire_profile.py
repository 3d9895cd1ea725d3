"""The wire profile's page says what the code does: its tables are whole, its examples and paths real.

That its generated parts are fresh is shown in ``test_manual``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from joserfc import jws as joserfc_jws
from joserfc.jwk import OKPKey

from gsb import jws
from gsb.errors import TABLE
from gsb.jwk import read_private
from gsb.manual import profile
from gsb.model import FINAL, Call, State
from gsb.web.app import API

PAGE = Path(__file__).parents[1] / "schemas" / "WIRE_PROFILE.md"
TEXT = PAGE.read_text("utf-8")


def example(heading: str) -> tuple[str, bytes]:
    """The signature and the body of the HTTP message below this heading, as a reader would copy them."""
    section = TEXT.partition(f"### The {heading} of ")[2].partition("\n###")[0].partition("<!-- end")[0]
    signature = re.search(r"^    GSB-Signature: (\S+)$", section, re.MULTILINE)
    assert signature is not None
    body = [line for line in section.splitlines() if line.startswith("    ")][-1]
    return signature[1], body.strip().encode()


def test_every_code_stands_in_the_table_once() -> None:
    codes = re.findall(r"^\| `([a-z_]+)` \| ([0-9]{3}) \| (consumer|bus|provider) \|", TEXT, re.MULTILINE)
    assert codes == [(each.code, str(each.status), each.origin) for each in TABLE.values()]


def test_every_claim_and_state_is_explained() -> None:
    request, _ = example("request")
    reply, _ = example("reply")
    claims = {name for token in (request, reply) for name in claims_of(token)}
    named = set(re.findall(r"^\| `([a-z_]+)`", TEXT, re.MULTILINE))
    assert claims <= named
    states = re.findall(r"^\| `([a-z]+)` \| (yes|no) \|", TEXT, re.MULTILINE)
    assert states == [(state.value, "yes" if state in FINAL else "no") for state in State]


def test_every_path_of_the_api_stands_in_the_table_of_paths() -> None:
    named = re.findall(r"^\| `(GET|POST) (/[^`]*)` \|", TEXT, re.MULTILINE)
    places = {"{id}": profile.EXCHANGE, "{n}": "1", "{system}": "tax", "{service}": "income-tax", "{code}": "replayed"}
    places |= {"{log}": "2026", "{tile}": "tile/0/000"}
    found = set()
    for method, template in named:
        path = re.sub(r"\{.*?\}", lambda place: places[place[0]], template)
        found |= {each.pattern for each in API if each.method == method and each.pattern.fullmatch(path)}
    assert found == {each.pattern for each in API}


def test_the_example_request_is_what_the_code_signs_and_accepts() -> None:
    token, body = example("request")
    assert token == profile.example_request()
    agency = read_private(profile.AGENCY_KEY).public
    signed = jws.verify_request(
        token, lambda issuer, kid: {("payroll", agency.kid): agency}[issuer, kid], profile.BUS, profile.NOW
    )
    call = Call(
        "POST",
        "/services/tax/income-tax/v1",
        body,
        profile.NOW,
        content_type="application/json",
        idempotency_key=profile.KEY,
    )
    jws.bind(signed, call, [profile.BASE_URL])


def test_the_example_reply_is_what_the_code_signs_and_believes() -> None:
    request, _ = example("request")
    token, body = example("reply")
    assert token == profile.example_reply()
    bus = read_private(profile.BUS_KEY).public
    claims = jws.verify_reply(
        token,
        {bus.kid: bus},
        bus=profile.BUS,
        caller=profile.AGENCY,
        request_jws=request,
        status=200,
        body=body,
        content_type="application/json",
        now=profile.NOW + 1,
    )
    assert (claims.exchange, claims.state, claims.effect) == (profile.EXCHANGE, "done", "none")


@pytest.mark.parametrize(("heading", "key"), [("request", profile.AGENCY_KEY), ("reply", profile.BUS_KEY)])
def test_another_library_makes_the_same_bytes(heading: str, key: bytes) -> None:
    token, _ = example(heading)
    header, claims = (json.loads(line) for line in signed_lines(heading))
    okp = OKPKey.import_key(json.loads(key))
    payload = json.dumps(claims, separators=(",", ":")).encode()
    assert joserfc_jws.serialize_compact(header, payload, okp, algorithms=["Ed25519"]) == token
    assert okp.thumbprint() == header["kid"]


def signed_lines(heading: str) -> list[str]:
    """JOSE header and claims as the page shows them."""
    section = TEXT.partition(f"### The {heading} of ")[2].partition("JOSE header and claims")[2]
    return [line.strip() for line in section.splitlines() if line.startswith("    {")][:2]


def claims_of(token: str) -> dict[str, object]:
    claims = json.loads(joserfc_jws.extract_compact(token.encode()).payload)
    assert isinstance(claims, dict)
    return claims


def test_the_page_stands_alone() -> None:
    """It is what an agency gets: no path of the repository, no other document to read first."""
    assert not re.search(r"DESIGN|DECISIONS|README|(?<!\.)\.\./", TEXT)
    for anchor in re.findall(r"\]\(#([a-z0-9-]+)\)", TEXT):
        headings = (
            re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
            for line in TEXT.splitlines()
            if line.startswith("#")
        )
        assert anchor in set(headings), anchor
    assert not re.search(r"\]\((?!#)", TEXT)
