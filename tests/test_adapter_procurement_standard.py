"""What the procurement adapter makes, before the checker of the standard's own authors; and what it makes it by."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from zipfile import ZipFile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ocdsmerge.rules import get_merge_rules

from gsb.model import new_id
from gsb_adapters.procurement import ocds
from tests.support.contracting import LATER, MISSING, STANDARD, checked, money, published
from tests.support.needs import needs


@pytest.mark.slow
async def test_records_are_open_contracting_data() -> None:
    packages = []
    for more in ({}, LATER):
        asked = published("VALID-2", **more)
        release = ocds.release("ocds-213czf-VALID-2", asked.exchange, asked.body)
        packages.append(ocds.package(f"https://contracts.example/{asked.exchange}", "DCMP", [release]))
    shared = {name: value for name, value in packages[-1].items() if name != "releases"}
    record = ocds.record(packages, versioned=True)
    found = await checked(shared | {"records": [record]})
    assert found["validation_errors"] == []
    assert found["additional_fields"] == []
    del record["compiledRelease"]["tender"]["id"]
    record["versionedRelease"]["tender"]["status"][0]["releaseDate"] = "yesterday"
    found = await checked(shared | {"records": [record]})
    assert len(found["validation_errors"]) == 2  # it looked into both


@pytest.mark.slow
async def test_the_checker_finds_what_is_no_open_contracting_data() -> None:
    asked = published("WRONG-1", tender={"id": "T", "value": money("1.00", "ZZZ")})
    package = ocds.package("no uri", "DCMP", [ocds.release("ocds-213czf-WRONG-1", asked.exchange, asked.body)])
    found = await checked(package)
    assert {error["path"] for error in found["validation_errors"]} == {"uri"}
    assert set(found["additional_closed_codelist_values"]) == {"releases/tender/value/currency"}


def test_releases_are_merged_by_the_rules_of_the_standard() -> None:
    needs(STANDARD.exists(), MISSING)
    with ZipFile(STANDARD) as archive:
        standard = json.loads(archive.read("standard/schema/release-schema.json"))
    assert standard["id"].endswith("/1__1__5/release-schema.json")
    assert get_merge_rules(standard) == ocds.RULES


def test_merging_opens_no_connection() -> None:
    """In a process of its own, in which a socket is an error."""
    asked = published("OFFLINE-1")
    code = """
import json, sys
def no(event, args):
    if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto"}:
        raise SystemExit(f"{event} was called")
sys.addaudithook(no)
from gsb_adapters.procurement import ocds
exchange, body = json.loads(sys.stdin.read())
release = ocds.release("ocds-213czf-OFFLINE-1", exchange, body)
print(ocds.record([ocds.package("https://x.example/1", "DCMP", [release])], versioned=True)["ocid"])
"""
    assert run_python(code, json.dumps([asked.exchange, asked.body])) == "ocds-213czf-OFFLINE-1"


def run_python(code: str, given: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@given(st.decimals(min_value=0, max_value=Decimal("9999999999999.99"), places=2))
def test_an_amount_comes_back_as_it_went(amount: Decimal) -> None:
    text = format(amount, ".2f")
    release = ocds.release(
        "ocds-213czf-A", "01990000-0000-7000-8000-000000000001", {"planning": {"value": money(text)}}
    )
    sent = json.loads(json.dumps(release, default=float), parse_float=Decimal)
    assert ocds.on_bus(sent)["planning"]["value"] == money(text)


def test_a_release_is_dated_when_the_bus_took_the_exchange() -> None:
    assert ocds.accepted(new_id(1_790_000_000.007)) == "2026-09-21T14:13:20.007Z"
