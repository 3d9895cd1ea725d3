"""Paths and methods, as the wire profile's table has them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gsb.web.app import API, OPERATIONS, Route
from tests.bad_input.case import Case
from tests.bad_input.draft import Draft, Spoil, put
from tests.bad_input.stage import (
    ACT,
    LISTING,
    NOBODYS,
    NOWHERE,
    READING,
    RECEIPT,
    REPLY,
    SERVICES,
    UNGRANTED,
    WRITE,
)


def target(path: str) -> Spoil:
    """Sent and truly signed."""
    return put(target=path)


def query(text: str) -> Spoil:
    """This query behind the path, truly signed."""

    def spoil(draft: Draft) -> None:
        draft.target = f"{draft.target.partition('?')[0]}?{text}"

    return spoil


PATHS: dict[str, tuple[tuple[str, Spoil, str, str], ...]] = {
    "POST /services/{system}/{service}/v{n}": (
        (WRITE, target("/services/registry/canary/v1"), "another service", "service_unknown"),
        (WRITE, target("/services/canary/note/v1"), "another system", "service_unknown"),
        (WRITE, target("/services/registry/note/v2"), "another version", "service_unknown"),
        (WRITE, target("/services/registry/note"), "no version", "service_unknown"),
        (WRITE, target("/services/registry/note/v1/"), "a slash behind", "service_unknown"),
        (WRITE, target("/services/registry//note/v1"), "a double slash", "service_unknown"),
        (WRITE, target("/services/registry/./note/v1"), "a dot segment", "service_unknown"),
        (WRITE, target("/services/x/../registry/note/v1"), "two dots", "service_unknown"),
        (WRITE, target("/services/registry/%6eote/v1"), "percent-encoding", "service_unknown"),
        (WRITE, target("/services/registry/note/v1?id=canary"), "a query", "service_unknown"),
        (WRITE, target("/services/registry/note/v1?"), "an empty query", "service_unknown"),
        (WRITE, target("/services/registry/Note/v1"), "another case", "service_unknown"),
        (WRITE, target("/services/registry\\note\\v1"), "backslashes", "service_unknown"),
        (WRITE, target("/services/" + "a" * 4000), "very long", "service_unknown"),
        (WRITE, target("//services/registry/note/v1"), "a double slash in front", "path_unknown"),
        (WRITE, target("/Services/registry/note/v1"), "another case in front", "path_unknown"),
        (WRITE, target("/services/"), "nothing behind", "path_unknown"),
        (UNGRANTED, put(), "no grant", "grant_missing"),
        (NOWHERE, put(), "no service", "service_unknown"),
    ),
    "GET /exchanges/{id}": (
        (READING, target(f"/exchanges/{NOBODYS}"), "of nobody", "exchange_unknown"),
        (READING, target("/exchanges/canary"), "no id", "path_unknown"),
        (READING, target("/exchanges/"), "nothing", "path_unknown"),
        (READING, target(f"/exchanges/{NOBODYS.upper()}"), "upper case", "path_unknown"),
        (READING, target(f"/exchanges/{NOBODYS}/"), "a slash behind", "path_unknown"),
        (READING, target(f"/exchanges/%30{NOBODYS[1:]}"), "percent-encoding", "path_unknown"),
        (READING, target("/exchanges/8e03978e-40d5-43dd-bc93-6894a57f9324"), "no UUIDv7", "path_unknown"),
    ),
    "GET /exchanges/{id}/reply": (
        (REPLY, target(f"/exchanges/{NOBODYS}/reply"), "of nobody", "exchange_unknown"),
        (REPLY, target("/exchanges/canary/reply"), "no id", "path_unknown"),
        (REPLY, target(f"/exchanges/{NOBODYS}/replies"), "another word", "path_unknown"),
    ),
    "GET /exchanges/{id}/receipt": (
        (RECEIPT, target(f"/exchanges/{NOBODYS}/receipt"), "of nobody", "exchange_unknown"),
        (RECEIPT, target(f"/exchanges/{NOBODYS}/receipt?entry=canary"), "of nobody, an entry", "exchange_unknown"),
        (RECEIPT, query("entry=canary"), "no hash", "entry_unknown"),
        (RECEIPT, query("entry=" + "A" * 43), "of no entry", "entry_unknown"),
        (RECEIPT, query("entry="), "an empty hash", "entry_unknown"),
        (RECEIPT, query("canary=1"), "another parameter", "entry_unknown"),
        (RECEIPT, target("/exchanges/canary/receipt"), "no id", "path_unknown"),
        (RECEIPT, target(f"/exchanges/{NOBODYS}/receipts"), "another word", "path_unknown"),
    ),
    "GET /services": (
        (LISTING, target("/services/"), "a slash behind", "path_unknown"),
        (LISTING, target("/%73ervices"), "percent-encoding", "path_unknown"),
        (LISTING, target("/./services"), "a dot segment", "path_unknown"),
        (LISTING, target("/"), "the root", "path_unknown"),
        (LISTING, target("/admin/exchanges?reason=canary"), "an act at the API", "path_unknown"),
        (LISTING, target("/livez"), "a probe at the API", "path_unknown"),
    ),
    "GET /openapi.json": ((LISTING, target("/openapi"), "without its end", "path_unknown"),),
    "GET /docs": ((LISTING, target("/docs/"), "a slash behind", "path_unknown"),),
    "GET /problems/{code}": (
        (LISTING, target("/problems/canary"), "a problem that is none", "path_unknown"),
        (LISTING, target("/problems/"), "none", "path_unknown"),
    ),
    "GET /.well-known/jwks.json": (
        (LISTING, target("/.well-known/jwks"), "without its end", "path_unknown"),
        (LISTING, target("/.well-known/"), "the folder", "path_unknown"),
    ),
    "GET /log/checkpoint": (
        (LISTING, target("/log"), "the folder", "path_unknown"),
        (LISTING, target("/log/checkpoint/"), "a slash behind", "path_unknown"),
        (LISTING, target("/log/%63heckpoint"), "percent-encoding", "path_unknown"),
    ),
    "GET /log/{log}/checkpoint": (
        (LISTING, target("/log/canary/checkpoint"), "of no log", "path_unknown"),
        (LISTING, target("/log/../checkpoint"), "two dots", "path_unknown"),
        (LISTING, target("/log//checkpoint"), "a double slash", "path_unknown"),
    ),
    "GET /log/{tile}": (
        (LISTING, target("/log/tile/0/000"), "an agency", "operator_required"),
        (LISTING, target("/log/tile/canary"), "an agency, no tile", "operator_required"),
        (LISTING, target("/log/tile/"), "nothing behind", "path_unknown"),
        (LISTING, target("/log/tile/../000"), "an agency, two dots", "operator_required"),
        (LISTING, target("/log/tile/%30/000"), "percent-encoding", "path_unknown"),
    ),
    "GET /log/{log}/{tile}": (
        (LISTING, target("/log/2026/tile/entries/000"), "an agency", "operator_required"),
        (LISTING, target("/log/canary/tile/0/000"), "an agency, no log", "operator_required"),
        (LISTING, target("/log/2026/canary"), "another word", "path_unknown"),
    ),
}
"""Wrong targets by the page's rows: the call, what is sent and signed instead, and the code."""

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND")


def path_of(route: Route) -> str:
    """A path that this route takes."""
    inside = {"{12}": NOBODYS, "tile/": "tile/0/000"}
    path = re.sub(
        r"\([^()]*\)",
        lambda group: next((each for mark, each in inside.items() if mark in group[0]), "replayed"),
        route.pattern.pattern,
    )
    path = path.replace(".+", SERVICES[WRITE]).replace("\\", "")
    assert route.pattern.fullmatch(path), f"no path was found for {route.pattern.pattern}"
    return path


def path_cases() -> Iterator[Case]:
    for row, wrong in PATHS.items():
        for kind, spoil, what, code in wrong:
            yield Case(row, "value", what, spoil, code, kind, signed=code != "path_unknown")
    for routes, kind in ((API, LISTING), (OPERATIONS, ACT)):
        for route in routes:
            path = path_of(route)
            for method in METHODS:
                if method != route.method:
                    spoil = put(target=path, method=method)
                    yield Case(path, "type", method, spoil, "method_refused", kind, signed=False)
