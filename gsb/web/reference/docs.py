"""The documentation that the bus serves of itself: one readable page, and one for each problem code.

HTML without scripts that loads nothing, from here or elsewhere; the policy in its headers says so too. It shows the
same services as ``/openapi.json`` would show the same reader. It decides nothing and holds no state.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import orjson

from gsb.bus import Bus
from gsb.errors import TABLE, PathUnknown, Problem
from gsb.model import Answer, Call, Effect, Signed
from gsb.policy import Grant, cut
from gsb.projection import granted, whole
from gsb.schema import escape
from gsb.web import services
from gsb.web.callers import for_caller
from gsb.web.reference.shapes import EFFECTS
from gsb.web.services import Offer

HTML_TYPE = "text/html; charset=utf-8"
STYLE = """
:root { color-scheme: light dark; --paper: #fff; --panel: #f1f4f8; --ink: #1b1f24; --link: #0b4a94; --line: #6b7480; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --panel: #20252b; --ink: #e8eaed; --link: #9cc7ff; --line: #8b949e; }
}
* { box-sizing: border-box; }
html { scroll-padding: 2rem; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif;
  overflow-wrap: break-word; }
header, main { margin: 0 auto; max-width: 62rem; padding: 1rem; }
main { padding-bottom: 4rem; }
a { color: var(--link); }
a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -100rem; }
.skip:focus { position: static; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; list-style: none; margin: 0; padding: 0; }
nav { border-bottom: 1px solid var(--line); padding-bottom: .75rem; }
h1, h2, h3 { line-height: 1.25; }
h1 { margin-top: 1rem; }
h2 { border-bottom: 1px solid var(--line); margin-top: 3rem; padding-bottom: .25rem; }
h3 { margin-top: 2.5rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .95em; overflow-wrap: anywhere; }
pre { background: var(--panel); border-radius: .25rem; padding: .75rem; white-space: pre-wrap; }
table { border-collapse: collapse; margin: 1.5rem 0; width: 100%; }
caption { font-weight: bold; padding: .5rem 0; text-align: left; }
th, td { border: 1px solid var(--line); padding: .4rem .6rem; text-align: left; vertical-align: top; }
thead th { background: var(--panel); }
tbody th { min-width: 16rem; }
dl { display: grid; gap: .4rem 1.5rem; grid-template-columns: max-content 1fr; }
dt { font-weight: bold; }
dd { margin: 0; min-width: 0; }
dd ul { margin: 0; padding-left: 1.1rem; }
@media (max-width: 45rem) {
  dl { display: block; }
  dd { margin: 0 0 .6rem 1rem; }
  table, caption, tbody, tr, th, td { display: block; width: 100%; }
  thead { clip-path: inset(50%); height: 1px; overflow: hidden; position: absolute; white-space: nowrap; width: 1px; }
  tbody tr { border: 1px solid var(--line); margin-bottom: .75rem; }
  tbody th { background: var(--panel); border: 0; min-width: 0; }
  td { border: 0; }
  td::before { content: attr(data-label) ": "; font-weight: bold; }
  td:empty { display: none; }
}
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
ORIGINS = {"consumer": "the caller", "bus": "the bus", "provider": "the core system or its adapter"}


async def page(bus: Bus, call: Call) -> Answer:
    """``GET /docs``"""
    if call.signature is None:
        return _answer(_documentation(bus, services.offered(bus), None))

    async def act(signed: Signed) -> Answer:
        return _answer(_documentation(bus, services.usable_by(bus, signed.issuer), signed.issuer))

    return await for_caller(bus, call, act, bus.catalogue.gsb.bus.base_urls)


async def problem(bus: Bus, call: Call, name: str) -> Answer:
    """``GET /problems/{code}``: where the ``type`` of a problem leads. Raises PathUnknown for any other code."""
    if name not in TABLE:
        raise PathUnknown
    return _answer(_problem_page(TABLE[name]))


def _answer(text: str) -> Answer:
    return Answer(200, text.encode(), HTML_TYPE, HEADERS)


# --- HTML


class Markup(str):
    """Text that is HTML already; any other text is escaped when it gets into an element."""

    __slots__ = ()


def el(name: str, *content: str, **attributes: str) -> Markup:
    """An element. ``class_`` is the attribute class, ``aria_label`` is aria-label."""
    named = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{named}>{joined(content)}</{name}>")


def joined(content: Iterable[str]) -> Markup:
    return Markup("".join(part if isinstance(part, Markup) else html.escape(part, quote=False) for part in content))


def code(text: str) -> Markup:
    return el("code", text)


def link(target: str, *content: str) -> Markup:
    return el("a", *content, href=target)


def section(name: str, title: str, *content: str, level: int = 2) -> Markup:
    """A landmark with a heading that names it."""
    heading = el(f"h{level}", title, id=f"{name}-title")
    return el("section", heading, *content, id=name, aria_labelledby=f"{name}-title")


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """Each row's first cell is its heading. The roles stay where a narrow screen shows the cells one below another."""
    headings = (el("th", each, scope="col", role="columnheader") for each in head)
    return el(
        "table",
        el("caption", caption),
        el("thead", el("tr", *headings, role="row"), role="rowgroup"),
        el("tbody", *(_row(head, row) for row in rows), role="rowgroup"),
        role="table",
    )


def _row(head: Sequence[str], row: Sequence[str]) -> Markup:
    cells = (el("td", cell, role="cell", data_label=name) for name, cell in zip(head[1:], row[1:], strict=True))
    return el("tr", el("th", row[0], scope="row", role="rowheader"), *cells, role="row")


def terms(pairs: Iterable[tuple[str, str]]) -> Markup:
    return el("dl", *chain.from_iterable((el("dt", term), el("dd", meaning)) for term, meaning in pairs))


def example(label: str, value: Any) -> Markup:
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return joined([el("p", label), el("pre", code(text))])


def _html(title: str, navigation: Sequence[Markup], *content: str) -> str:
    head = el(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        el("title", title),
        el("style", Markup(STYLE)),
    )
    nav = el("nav", el("ul", *(el("li", each) for each in navigation)), aria_label="Contents")
    skip = el("a", "Skip to the content", href="#content", class_="skip")
    body = el("body", el("header", skip, nav), el("main", el("h1", title), *content, id="content"))
    return f"<!DOCTYPE html>\n{el('html', head, body, lang='en')}\n"


# --- the page


def _documentation(bus: Bus, offers: Sequence[Offer], agency: str | None) -> str:
    base = bus.catalogue.gsb.bus
    shown = f"What {agency} may use now." if agency else "The services that are described to everyone."
    listed = [_service(bus, offer) for offer in offers] or [el("p", "None.")]
    navigation = [
        link("#services", "Services"),
        link("#signing", "How to sign a call"),
        link("#answers", "How to read an answer"),
        link("#problems", "Problem codes"),
    ]
    return _html(
        f"Government Service Bus {base.id}",
        navigation,
        el("p", "Agencies call services of government systems: one HTTP request, signed; one answer, signed."),
        terms(
            [
                ("Id of this bus", code(base.id)),
                ("Base URLs", el("ul", *(el("li", code(url)) for url in base.base_urls))),
                ("Description for programs", link("openapi.json", "OpenAPI 3.1")),
                ("Keys with which the bus signs", link(".well-known/jwks.json", "JWK Set")),
            ]
        ),
        section("services", "Services", el("p", shown), *_list(offers), *listed),
        _signing(),
        _answers(),
        section("problems", "Problem codes", _problem_table()),
    )


def _list(offers: Sequence[Offer]) -> list[Markup]:
    """Where each service stands on the page; of one alone that needs not be said."""
    listed = (link(f"#{_place(each)}", each.service.title) for each in offers)
    return [el("ul", *(el("li", each) for each in listed))] if len(offers) > 1 else []


def _place(offer: Offer) -> str:
    return f"service-{offer.service.id.replace('/', '.')}"


def _service(bus: Bus, offer: Offer) -> Markup:
    service = offer.service
    facts = [
        ("Call", code(f"POST /services/{service.id}")),
        ("Provided by", bus.catalogue.agencies[service.provider].name),
        ("Effect", EFFECTS[service.effect]),
        ("Idempotency-Key", "allowed" if service.effect is Effect.NONE else "required"),
        ("Limits", f"{service.body} bytes; nothing begins later than {service.expires:g} s after it was accepted"),
    ]
    if reasons := bus.runtime.codes(service.system):
        told = [el("li", code(reason), f": {title}") for reason, title in reasons.items()]
        facts.append(("When the system says no", el("ul", *told)))
    reply, examples = whole(service.reply), service.reply.examples
    if offer.grants:
        # One grant shows the shape; the description for programs has one for each.
        fields = offer.grants[0].fields
        reply, examples = granted(service.reply, fields), [cut(each, fields) for each in examples]
    purpose = f", for the purpose {offer.grants[0].purpose}" if offer.grants else ""
    return section(
        _place(offer),
        service.title,
        *([el("p", service.summary)] if service.summary else []),
        terms(facts),
        *([_grants(offer.grants)] if offer.grants else []),
        _members("Request", whole(service.request)),
        example("Example of a request:", service.request.examples[0]),
        _members(f"Reply{purpose}", reply),
        example(f"Example of a reply{purpose}:", examples[0]),
        level=3,
    )


def _grants(grants: Sequence[Grant]) -> Markup:
    rows = [
        (
            code(grant.purpose),
            code(grant.agreement),
            f"{grant.rate.per_minute} a minute, {grant.rate.burst} at once" if grant.rate else "no limit of its own",
            ", ".join(name for name in ("sub", "case") if getattr(grant, name)) or "none",
        )
        for grant in grants
    ]
    return table("Your grants", ("Purpose", "Agreement", "Rate", "Further claims required"), rows)


def _members(title: str, schema: Any) -> Markup:
    rows = [
        (code(pointer), kind, "yes" if required else "no", about)
        for pointer, (kind, required, about) in _found(schema, "").items()
    ]
    return table(title, ("Member", "Type", "Required", "Meaning"), rows) if rows else el("p", f"{title}: empty.")


def _found(schema: Any, pointer: str) -> dict[str, tuple[str, bool, str]]:
    """The members that a schema describes, by their pointers; the first to describe one has the word."""
    if not isinstance(schema, dict):
        return {}
    found: dict[str, tuple[str, bool, str]] = {}
    for name, each in schema.get("properties", {}).items():
        said = each if isinstance(each, dict) else {}
        child = f"{pointer}/{escape(name)}"
        found[child] = (_kind(said), name in schema.get("required", ()), said.get("description", ""))
        found |= _found(each, child)
    below = [(schema.get("items"), f"{pointer}/*")]
    below += [(each, pointer) for word in ("allOf", "anyOf", "oneOf") for each in schema.get(word, ())]
    for each, place in below:
        found |= {name: facts for name, facts in _found(each, place).items() if name not in found}
    return found


def _kind(schema: dict[str, Any]) -> str:
    kind = schema.get("type", "any")
    return kind if isinstance(kind, str) else " or ".join(kind)


def _signing() -> Markup:
    return section(
        "signing",
        "How to sign a call",
        el(
            "p",
            "Every call carries the header ",
            code("GSB-Signature"),
            ": one compact JWS (RFC 7515) by wire profile 1, valid for at most 60 seconds and once. Any JOSE library "
            "makes it. The algorithm is ES256, Ed25519 or PS256, as fits your key.",
        ),
        table("Header of the JWS: exactly these", ("Member", "Value"), _coded(JOSE)),
        table("Claims: exactly these", ("Claim", "Value"), _coded(CLAIMS)),
        el(
            "p",
            "What is signed is the very bytes that are sent. If a call fails on the way, sign it anew with a new ",
            code("jti"),
            " and send it with the same ",
            code("Idempotency-Key"),
            ": there will be one effect.",
        ),
    )


def _coded(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(code(name), meaning) for name, meaning in pairs]


JOSE = (
    ("alg", "ES256, Ed25519 (or EdDSA) or PS256"),
    ("kid", "RFC 7638 thumbprint of your key"),
    ("typ", "gsb-req+jwt"),
)
CLAIMS = (
    ("iss", "your id"),
    ("aud", "the id of this bus, one string"),
    ("iat", "now, in whole seconds since 1970-01-01 UTC"),
    ("exp", "at most iat + 60"),
    ("jti", "16 to 64 random characters, new for each call"),
    ("method", "the HTTP method"),
    ("target_uri", "a base URL followed by path and query, byte for byte as sent"),
    ("content_digest", "sha-256=:base64: of the body as sent (RFC 9530), of an empty one too"),
    ("content_type", "the header Content-Type as sent; only with a body"),
    ("idempotency_key", "the header Idempotency-Key without its quotes; only with that header"),
    ("purpose", "the purpose code of your grant; on calls to services"),
    ("sub", "on whose behalf you act; where your grant requires it"),
    ("case", "the case file for which you ask; where your grant requires it"),
)
ANSWERS = (
    ("200", "The outcome: done, with the reply."),
    ("202", "Accepted and durable, not finished. Ask at /exchanges/{id}/reply, signed, after Retry-After seconds."),
    ("204", "Done, as an operator recorded; there is no reply."),
    ("4xx, 5xx", "A problem document (RFC 9457). Decide by its code; the codes are listed below."),
)


def _answers() -> Markup:
    return section(
        "answers",
        "How to read an answer",
        el(
            "p",
            "Answers to a caller whom the bus recognises carry ",
            code("GSB-Signature"),
            " too, with typ gsb-res+jwt. Verify it with the bus's keys: iss and aud, req_jti and req_hash (SHA-256 of "
            "the JWS you sent), status, content_digest and content_type. Only a signed final state (done, refused, "
            "failed or expired) ends an exchange; after anything else repeat.",
        ),
        table("Statuses", ("Status", "Meaning"), ANSWERS),
    )


# --- problems


def _problem_table() -> Markup:
    rows = [
        (
            el("a", code(each.code), href=f"problems/{each.code}", id=f"problem-{each.code}"),
            str(each.status),
            each.title,
            each.advice,
        )
        for each in TABLE.values()
    ]
    return table("Every code that the bus can say", ("Code", "Status", "Meaning", "What to do"), rows)


def _problem_page(each: type[Problem]) -> str:
    return _html(
        each.code,
        [link("../docs", "Documentation"), link(f"../docs#problem-{each.code}", "All problem codes")],
        el("p", each.title),
        terms(
            [
                ("HTTP status", str(each.status)),
                ("Whose it is to mend", ORIGINS[each.origin]),
                ("What to do", each.advice),
            ]
        ),
    )
