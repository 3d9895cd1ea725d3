"""Bad input: every row of the wire profile spoilt in every way that makes sense, over a real socket to a running node.

The rows are data in ``tests/bad_input``, held here to the tables of the page and to the sets that the code uses: a row
on either side without cases fails, and so does one that no side knows any more. In the end the codes seen must be
the codes there are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from itertools import chain
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from gsb import compact
from gsb.errors import TABLE
from gsb.web import admin, erasure, server
from gsb.web.app import API, OPERATIONS
from tests.bad_input import (
    happenings,
    losses,
    mutations,
    rows_admin,
    rows_body,
    rows_claims,
    rows_http,
    rows_jose,
    rows_keys,
    rows_paths,
    troubles,
)
from tests.bad_input.case import WAYS, Case, repeated
from tests.bad_input.judge import hold, right_draft, sane
from tests.bad_input.stage import (
    ACT,
    BODY,
    CLOSE,
    ERASE,
    EVIDENCE,
    LISTING,
    READING,
    REPLAY,
    RESOLVE,
    REVOKE,
    SHOW,
    WRITE,
    Stage,
    furnish,
    stage_in,
)

on_the_stage = pytest.mark.asyncio(loop_scope="module")
"""All of them share one node, and so one event loop."""

PAGE = (Path(__file__).parents[1] / "schemas" / "WIRE_PROFILE.md").read_text("utf-8")
GROUPS = (
    rows_claims.claim_cases,
    rows_jose.jose_cases,
    rows_paths.path_cases,
    rows_http.http_cases,
    rows_keys.idempotency_cases,
    rows_body.body_cases,
    rows_admin.admin_cases,
    happenings.outcome_cases,
)
CASES = list(chain.from_iterable(cases() for cases in GROUPS))
TROUBLES = troubles.TROUBLES | losses.TROUBLES
TROUBLE_SEEN: dict[str, set[str]] = {}
NOT_APPLICABLE = {
    ("sub", "missing"): "it is optional; where a grant requires it, that is a wrong value",
    ("case", "missing"): "it is optional; where a grant requires it, that is a wrong value",
    ("Idempotency-Key", "missing"): "a rule of its own: no key, to a service that is not a read",
    ("Prefer", "type"): "whatever is not understood is ignored",
    ("Content-Encoding", "missing"): "none is right",
    ("Content-Encoding", "type"): "any other text is a wrong value",
    ("Accept-Encoding", "missing"): "it may be",
    ("Accept-Encoding", "type"): "it is not read",
    ("Accept-Encoding", "duplicated"): "it is not read",
    **{
        (name, "missing"): "it only narrows a search"
        for name in ("agency", "service", "code", "since", "until", "business_key", "cursor", "limit")
    },
    **{
        (name, "type"): "everything in a query is text"
        for name in ("agency", "service", "code", "since", "until", "business_key", "cursor", "limit")
    },
    **{(name, "value"): "any text may be looked for" for name in ("agency", "service", "code", "business_key")},
    ("expires_in", "missing"): "it has a default",
    ("subject", "missing"): "exchanges stand in its place",
    ("salt", "missing"): "exchanges need none; a subject without one is a wrong act",
    ("amount", "value"): "those are the rules on money",
    **{(name, "duplicated"): "one for all members: strict JSON" for name in rows_body.MEMBERS},
}
"""Which ways of being wrong do not apply to which rows, and why."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with stage_in(tmp_path_factory.mktemp("stage")) as stage:
        await furnish(stage)
        yield stage


@on_the_stage
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_case(stage: Stage, case: Case) -> None:
    await hold(stage, case)


@on_the_stage
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_trouble(trouble: str, tmp_path: Path) -> None:
    async with asyncio.timeout(240):
        TROUBLE_SEEN[trouble] = await TROUBLES[trouble](tmp_path)
    assert len(TROUBLE_SEEN[trouble]) == 1


@on_the_stage
@pytest.mark.parametrize("kind", [WRITE, READING, LISTING, ACT])
async def test_a_problem_without_its_body(stage: Stage, kind: str) -> None:
    """HEAD: nothing can be said but the status and the methods that would have been right."""
    draft = stage.draft(kind)
    draft.method = "HEAD"
    heard = await stage.send(draft)
    assert heard is not None
    assert (heard.status, heard.body) == (405, b"")
    assert heard.one("allow") is not None


# --- the whole: nothing on the page without cases, no code that nobody can meet


@on_the_stage
async def test_the_codes_seen_are_the_codes_there_are(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever was not run yet is run now, so that it holds of this test alone as well."""
    for case in CASES:
        if case.name not in stage.seen:
            await hold(stage, case)
    for name, trouble in TROUBLES.items():
        if name not in TROUBLE_SEEN:
            TROUBLE_SEEN[name] = await trouble(tmp_path_factory.mktemp("trouble"))
    seen = {code for code in stage.seen.values() if code is not None}.union(*TROUBLE_SEEN.values())
    assert seen == set(TABLE)
    told = set(re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \|", section("## Problems"), re.MULTILINE))
    assert stage.members == {name for cell in told for name in re.findall("`([a-z-]+)`", cell)}


def section(heading: str) -> str:
    """The page's text from this line to the next heading of the same or a higher level."""
    level = len(heading) - len(heading.lstrip("#"))
    found = PAGE.partition(f"\n{heading}\n")[2]
    assert found, f"the page has no {heading}"
    return re.split(rf"\n#{{1,{level}}} ", found)[0]


def table(heading: str, first: str) -> list[list[str]]:
    """The rows of the table below this heading whose first column has this name."""
    text = section(heading).partition(f"\n| {first} |")[2]
    assert text, f"no table of {first} below {heading}"
    lines = text.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def ways_of(cases: Iterable[Case]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for case in cases:
        found.setdefault(case.row, set()).add(case.way)
    return found


def test_no_case_hides_another() -> None:
    assert repeated(CASES) == []


def test_every_claim_of_the_page_has_its_cases() -> None:
    rows = {row.name: row for row in rows_claims.CLAIMS}
    page = {cells[0].strip("`"): cells[2] for cells in table("## Signing a request", "claim")}
    assert list(rows) == list(page) == list(compact.REQUEST_RULES.forms)
    everywhere = rows_claims.EVERY
    required = {name for name, on in page.items() if on == "every call"}
    assert required == compact.REQUEST_RULES.required
    assert required == {name for name, row in rows.items() if row.missing == "claim_missing" and row.on == everywhere}
    assert {row.name for row in rows_claims.CLAIMS if row.missing is None} == {
        name for name, on in page.items() if on == "optional"
    }


def test_every_member_of_the_header_has_its_cases() -> None:
    page = [cells[0].strip("`") for cells in table("## Signing a request", "member")]
    assert [row.name for row in rows_jose.JOSE] == page
    refused = re.search(r"in any order\. (.*?) and any other member are refused", section("## Signing a request"))
    assert refused is not None
    assert list(rows_jose.OTHER_MEMBERS) == re.findall("`([a-z0-9]+)`", refused[1])


def test_every_path_of_the_page_and_of_the_code_has_its_cases() -> None:
    page = [cells[0].strip("`") for cells in table("## Base URLs and paths", "call")]
    assert list(rows_paths.PATHS) == list(dict.fromkeys(page))
    taken = {rows_paths.path_of(route) for route in (*API, *OPERATIONS)}
    assert taken <= {case.row for case in CASES if case.code == "method_refused"}


def test_every_header_of_the_page_has_its_cases() -> None:
    # The claim of the same name is set in lower case; header names have capitals.
    named = set(re.findall(r"`((?:[A-Z][A-Za-z]*-)*[A-Z][a-z]+)(?::[^`]*)?`", PAGE.partition("## Worked examples")[0]))
    ours = {rows_http.KEY, *rows_http.HEADERS, *rows_http.REPLY_HEADERS}
    assert named == ours
    once = re.search(r"\*\*Once\*\*: (.*?) may each stand at most once", section("## Bodies"))
    assert once is not None
    assert tuple(re.findall("`([A-Za-z-]+)`", once[1])) == server.ONCE
    ways = ways_of(CASES)
    assert all("duplicated" in ways[name] for name in server.ONCE)


def test_every_rule_on_bodies_has_its_cases() -> None:
    assert re.findall(r"^- \*\*(.+?)\*\*", section("## Bodies"), re.MULTILINE) == list(rows_body.BULLETS)
    assert set(rows_body.BULLETS.values()) <= ways_of(CASES).keys()


def test_every_rule_on_keys_has_its_cases() -> None:
    page = {cells[0] for cells in table("## Idempotency", "you send")}
    held = {case.row for case in rows_keys.idempotency_cases()} - {"rate"}
    assert held | rows_keys.ELSEWHERE.keys() == page
    assert not held & rows_keys.ELSEWHERE.keys()


def test_every_parameter_of_an_act_has_its_cases() -> None:
    models: dict[str, type[BaseModel]] = {
        ACT: admin.Filter,
        SHOW: admin.Look,
        BODY: admin.Look,
        RESOLVE: admin.Ending,
        CLOSE: admin.Ending,
        REPLAY: admin.Replay,
        EVIDENCE: admin.Look,
        ERASE: erasure.Erasure,
        REVOKE: admin.Revocation,
    }
    rows = rows_admin.QUERY | rows_admin.RULED
    assert {kind: {row.name for row in each} for kind, each in rows.items()} == {
        kind: set(model.model_fields) for kind, model in models.items()
    }


def test_every_row_is_wrong_in_every_way_that_applies() -> None:
    ways = ways_of(CASES)
    rows = [row.name for row in (*rows_claims.CLAIMS, *rows_jose.JOSE)] + [rows_http.KEY, *rows_http.HEADERS]
    rows += [row.name for each in (*rows_admin.QUERY.values(), *rows_admin.RULED.values()) for row in each]
    rows += [*rows_body.MEMBERS, "strict JSON"]
    without = {(row, way) for row in rows for way in WAYS if way not in ways[row]}
    assert without == NOT_APPLICABLE.keys()


# --- and whatever nobody thought of


@on_the_stage
@given(st.lists(mutations.ANY, min_size=1, max_size=3))
@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
async def test_no_signed_nonsense_upsets_the_bus(stage: Stage, changes: list[mutations.Mutation]) -> None:
    draft = right_draft(stage, WRITE)
    for change in changes:
        mutations.spoil(draft, *change)
    sane(stage, draft, await stage.send(draft))


@on_the_stage
@given(st.lists(mutations.BYTE, min_size=1, max_size=3))
@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
async def test_no_changed_bytes_upset_the_bus(stage: Stage, changes: list[tuple[int, int]]) -> None:
    draft = right_draft(stage, WRITE)
    draft.message = lambda message: mutations.changed(message, changes)
    sane(stage, draft, await stage.send(draft))
