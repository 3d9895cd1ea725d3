"""Erasure: evidence and bodies go, entries and their proofs stay; and what inspectors may read of evidence before.

An eraser names exchanges, or whom they are about. Each exchange that is final loses its bodies and what its entries
commit to, and gets an entry that says who did it and on what legal basis. Whom it was about must not outlive it in the
proof of the act itself: the value is written nowhere, and the digest in the operator's signature, which the evidence of
the act keeps, is made unguessable by a random member of the body that is forgotten here. Bounded pieces, each one
transaction: a crash between two leaves the rest as it was, and the same act again does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import orjson
from pydantic import Field, model_validator

from gsb import handout, strictjson
from gsb.admit import declared_json
from gsb.bus import Bus
from gsb.errors import ReplyUnreadable
from gsb.evidence.entry import Fact, make_entry
from gsb.jwk import to_base64url
from gsb.model import JSON_TYPE, Answer, Call, Entry, Exchange, Signed
from gsb.store.contract import Query
from gsb.store.logs import Erased, Evidence
from gsb.web.admin import PAGE, Act, Look, Parameters, allow, existing, log, parsed, query_of
from gsb.web.callers import for_caller
from gsb.web.reference.shapes import UUID

PIECE = 50
"""Exchanges that are erased in one transaction, so that no call waits for more."""
SALT = 32
"""Bytes of the random value before the evidence in an entry's secret."""


class Erasure(Parameters):
    """Body of ``POST /admin/erase``."""

    reason: str = ""
    legal_basis: str = Field(min_length=4, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
    exchanges: list[Annotated[str, Field(pattern=UUID)]] | None = Field(default=None, min_length=1, max_length=PAGE)
    subject: str | None = Field(default=None, min_length=1, max_length=1_000)
    salt: str | None = Field(default=None, pattern="^[A-Za-z0-9_-]{22,64}$")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.exchanges is None) == (self.subject is None):
            raise ValueError("names either exchanges or a subject")
        if (self.salt is None) != (self.subject is None):
            raise ValueError("a subject, and nothing else, comes with a salt")
        if self.subject is not None and self.subject.casefold() in self.legal_basis.casefold():
            raise ValueError("legal_basis stands in the log: it must not name the subject")
        return self


async def erase(bus: Bus, call: Call) -> Answer:
    """``POST /admin/erase``: what became of each exchange; repeating it is harmless."""

    async def act(signed: Signed) -> Answer:
        wanted = parsed(Erasure, strictjson.loads(call.body))
        allowed = allow(bus, signed, "erase", "eraser", wanted.reason)
        proof = allowed.evidence({"by": "exchanges" if wanted.subject is None else "subject"})
        told: dict[str, Fact] = {**allowed.entry_facts(), "legal_basis": wanted.legal_basis}
        # The act is proved before anything is gone, and also when there turns out to be nothing to erase.
        await bus.store.note(make_entry("act", bus.clock(), told, proof))
        if wanted.subject is None:
            known = [await bus.store.exchange(each) or each for each in dict.fromkeys(wanted.exchanges or ())]
        else:
            known = [*await about(bus, wanted.subject)]
        entries = {name(each): erased_entry(bus, allowed, wanted, each) for each in known}
        done = await in_pieces(bus, entries)
        facts = {"operator": signed.issuer, **{state: len(each) for state, each in done.items()}}
        log.info("exchanges erased", extra={"facts": facts})
        return Answer(200, orjson.dumps(done), JSON_TYPE)

    declared_json(call)
    return await for_caller(bus, call, act, [bus.catalogue.gsb.bus.operations_url])


async def about(bus: Bus, subject: str) -> Sequence[Exchange]:
    """Every exchange about this subject, in whatever service."""
    found: list[Exchange] = []
    page = await bus.store.search(Query(subject=subject, limit=PAGE))
    found += page.exchanges
    while page.next is not None:
        page = await bus.store.search(Query(subject=subject, limit=PAGE, cursor=page.next))
        found += page.exchanges
    return found


def name(each: Exchange | str) -> str:
    return each if isinstance(each, str) else each.id


def erased_entry(bus: Bus, act: Act, wanted: Erasure, each: Exchange | str) -> Entry:
    """The entry of one exchange that is erased; of one that is not known only its name, and it is never written."""
    facts: dict[str, Fact] = {**act.entry_facts(name(each)), "legal_basis": wanted.legal_basis}
    if isinstance(each, Exchange):
        facts |= {
            "agency": each.agency,
            "service": each.service,
            "purpose": each.purpose,
            "agreement": each.agreement,
            "state": each.state,
        }
    return make_entry("erased", bus.clock(), facts, act.evidence({}))


async def in_pieces(bus: Bus, entries: dict[str, Entry]) -> dict[str, list[str]]:
    done: dict[str, list[str]] = {state: [] for state in Erased.__annotations__}
    names = list(entries)
    for start in range(0, len(names), PIECE):
        piece = await bus.store.erase({each: entries[each] for each in names[start : start + PIECE]})
        for state in done:
            done[state] += getattr(piece, state)
    return done


async def evidence(bus: Bus, call: Call, exchange: str) -> Answer:
    """``GET /admin/exchanges/{id}/evidence``: what its entries commit to, for whoever checks a receipt against it, or
    wants to know why the exchange stands as it does."""

    async def act(signed: Signed) -> Answer:
        wanted = parsed(Look, query_of(call))
        allowed = allow(bus, signed, "evidence", "inspector", wanted.reason)
        known = await existing(bus, exchange)
        facts = {**allowed.entry_facts(exchange), "agency": known.agency, "service": known.service}
        await bus.store.note(make_entry("act", bus.clock(), facts, allowed.evidence({})))
        try:
            found = await bus.store.evidence(exchange)
        except ReplyUnreadable:
            raise ReplyUnreadable(extra=handout.facts(known)) from None
        shown = {"exchange": known.id, "state": known.state, **opened(known, found)}
        return Answer(200, orjson.dumps(shown), JSON_TYPE)

    return await for_caller(bus, call, act, [bus.catalogue.gsb.bus.operations_url])


def opened(known: Exchange, found: Sequence[Evidence]) -> dict[str, list[dict[str, str]]]:
    """Leaf, kind and time of each entry; of ``entries`` also salt and evidence, of which those that are ``erased`` have
    nothing left. Bytes are in base64url, and HMAC-SHA256 of the evidence under the salt is the entry's ``commit``."""
    told: dict[str, list[dict[str, str]]] = {"entries": [], "erased": []}
    contents = {entry.leaf: orjson.loads(entry.content) for entry in known.entries}
    for each in found:
        if (content := contents.get(each.leaf)) is None:
            continue  # it has come since the exchange was read
        entry = {"leaf": to_base64url(each.leaf), "kind": content["kind"], "at": content["at"]}
        if each.secret is None:
            told["erased"].append(entry)
        else:
            salt, proof = to_base64url(each.secret[:SALT]), to_base64url(each.secret[SALT:])
            told["entries"].append(entry | {"salt": salt, "evidence": proof})
    return told
