"""What must hold whatever died or was cut off. Each breach is a finding with a kind, so that a test can ask for it.

lost         an acknowledged exchange, or the reservation of its key, is gone
changed      a repeat was told something else than the first time
twice        a key has two effects
untrue       an outcome says ``effect: none`` and there is one, or ``done`` and there is none
unfinished   an exchange did not come to its end
unproven     an exchange without exactly one entry of its acceptance and one of its end
stranger     an exchange in the store that nobody was told of
unrecorded   an entry without its place in the published log
forged       a log that does not verify, or takes back what it has published
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from gsb.client import BusProblem, Client
from gsb.evidence.checkpoint import Verifier
from gsb.evidence.verify import LogWrong
from gsb.model import FINAL, Exchange, State
from gsb.store.contract import Query, Store
from gsb.store.logs import Entered
from tests.histories.load import Ended, Op, ask, ended
from tests.support.auditor import contents_of

AT_ONCE = 16
"""Checks that run at the same time."""


@dataclass(frozen=True)
class Finding:
    kind: str
    key: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} {self.key}: {self.detail}"


@dataclass(frozen=True)
class Line:
    """One effect, as the ledger wrote it down."""

    service: str
    key: str
    exchange: str
    receipt: int


def read_effects(path: Path) -> list[Line]:
    """Every effect so far. The ledger may be writing its next line: what has no end is not there yet."""
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return [Line(**json.loads(line)) for line in whole.splitlines()]


def effects_of(lines: Iterable[Line]) -> list[Finding]:
    """No key has two effects."""
    by_key: dict[str, list[Line]] = {}
    for line in lines:
        by_key.setdefault(line.key, []).append(line)
    return [
        Finding("twice", key, f"{len(found)} effects, by {sorted({line.exchange for line in found})}")
        for key, found in by_key.items()
        if len(found) > 1
    ]


def outcomes_of(ops: Iterable[Op], lines: Iterable[Line]) -> list[Finding]:
    """What the agency was told at the end is what happened in the core system."""
    receipts: dict[str, list[int]] = {}
    for line in lines:
        receipts.setdefault(line.key, []).append(line.receipt)
    findings = []
    for op in ops:
        end, there = op.ended, receipts.get(op.key, [])
        if end is None:
            continue
        if end.effect == "none" and there:
            findings.append(Finding("untrue", op.key, f"{end.state} says no effect, the ledger has {there}"))
        if end.effect == "done" and len(there) != 1:
            findings.append(Finding("untrue", op.key, f"{end.state} says one effect, the ledger has {there}"))
        if end.effect == "done" and end.status == 200 and [end.body["receipt"]] != there:
            findings.append(Finding("untrue", op.key, f"the reply names {end.body}, the ledger has {there}"))
    return findings


def pursuits_of(ops: Iterable[Op]) -> list[Finding]:
    """Every call came to its end, and each led to one exchange only."""
    findings = []
    for op in ops:
        if op.failure is not None:
            findings.append(Finding("unfinished", op.key, f"{op.service} {op.exchange}: {op.failure}"))
        if op.others:
            findings.append(Finding("changed", op.key, f"{op.exchange} and also {sorted(op.others)}"))
    return findings


@dataclass(frozen=True)
class Later:
    """What the bus says of an acknowledged exchange afterwards: when it is looked at, and when the call is repeated."""

    shown: dict[str, Any] | None
    """None: it was not found."""
    exchange: str | None
    status: int
    ended: Ended | None


def later_of(op: Op, later: Later) -> list[Finding]:
    """The exchange is still there as it was told, and its key still leads to it and to its outcome."""
    known, findings = op.ended, []
    if later.shown is None:
        findings.append(Finding("lost", op.key, f"{op.exchange} is not found"))
    elif known is not None and (later.shown["state"], later.shown["effect"]) != (known.state, known.effect):
        findings.append(Finding("changed", op.key, f"{known} became {later.shown}"))
    if later.exchange != op.exchange:
        findings.append(Finding("lost", op.key, f"the key led to {op.exchange}, now {later.status} {later.exchange}"))
    elif known is not None and later.ended != known:
        findings.append(Finding("changed", op.key, f"{known} became {later.ended}"))
    return findings


async def acknowledged(client: Client, ops: Iterable[Op]) -> list[Finding]:
    """Ask for each acknowledged exchange, and repeat its call."""
    places = asyncio.Semaphore(AT_ONCE)

    async def check(op: Op) -> list[Finding]:
        async with places:
            # What the agency knows now is what must hold afterwards: it may hear of an end while it asks.
            known = replace(op)
            return later_of(known, await _asked(client, known))

    found = await asyncio.gather(*(check(op) for op in ops if op.exchange is not None))
    return [finding for each in found for finding in each]


async def _asked(client: Client, op: Op) -> Later:
    try:
        shown = (await client.exchange(str(op.exchange))).body
    except BusProblem as problem:
        if problem.result.status != 404:
            raise
        shown = None
    result = await ask(client, op, at_once=True)
    return Later(shown, result.exchange, result.status, ended(result))


async def everything(store: Store) -> list[Exchange]:
    """Every exchange of the store, with its entries."""
    found: list[Exchange] = []
    cursor, last = None, False
    while not last:
        page = await store.search(Query(cursor=cursor, limit=500))
        found += [whole for each in page.exchanges if (whole := await store.exchange(each.id)) is not None]
        cursor, last = page.next, page.next is None
    return found


async def entered(store: Store, exchanges: Iterable[Exchange]) -> list[Entered]:
    """Every entry of these exchanges, with its place in the log."""
    return [found for each in exchanges for found in await store.entered(each.id)]


def kept(exchanges: Iterable[Exchange], ops: Iterable[Op]) -> list[Finding]:
    """The store holds every acknowledged exchange, and of each the outcome that the agency was told."""
    found, findings = {each.id: each for each in exchanges}, []
    for op in ops:
        if op.exchange is None:
            continue
        each = found.get(op.exchange)
        if each is None:
            findings.append(Finding("lost", op.key, f"{op.exchange} is not in the store"))
        elif op.ended is not None and (op.ended.state, op.ended.effect) != (each.state, _effect(each)):
            findings.append(Finding("changed", op.key, f"{op.ended} lies in the store as {each.state} {each.outcome}"))
    return findings


def _effect(exchange: Exchange) -> str | None:
    return exchange.outcome.effect if exchange.outcome is not None else None


def standing(exchanges: Iterable[Exchange], ops: Iterable[Op]) -> list[Finding]:
    """Nothing stands still, nothing is unproven, nobody is in the store whom nobody knows."""
    keys = {op.exchange: op.key for op in ops}
    findings = []
    for each in exchanges:
        key = keys.get(each.id)
        if key is None:
            findings.append(Finding("stranger", "?", f"{each.id} {each.service} {each.state}"))
        if each.state not in FINAL:
            findings.append(Finding("unfinished", key or "?", f"{each.id} {each.service} is {each.state}"))
        findings += [Finding("unproven", key or "?", f"{each.id}: {why}") for why in _unproven(each)]
    return findings


def published(folder: Path, verifier: Verifier, before: Sequence[bytes]) -> tuple[list[bytes], list[Finding]]:
    """The entries of the log in this folder; they begin with those that it had ``before``."""
    try:
        contents = contents_of(folder, verifier)
    except (LogWrong, FileNotFoundError) as error:
        return list(before), [Finding("forged", "?", str(error))]
    if contents[: len(before)] != list(before):
        return contents, [Finding("forged", "?", f"the log of {len(contents)} entries does not extend {len(before)}")]
    return contents, []


def recorded(entered: Iterable[Entered], contents: Sequence[bytes]) -> list[Finding]:
    """Every entry of every exchange has its place in the log, and stands there."""
    findings = []
    for each in entered:
        index, content = each.index, each.entry.content
        if index is None or not index < len(contents) or contents[index] != content:
            findings.append(Finding("unrecorded", "?", f"{content!r} at {index} of {len(contents)}"))
    return findings


def _unproven(exchange: Exchange) -> list[str]:
    """One entry of its acceptance, and one of its end: its outcome, or an operator's act after it stood still."""
    entries = [orjson.loads(entry.content) for entry in exchange.entries]
    kinds = Counter(entry["kind"] for entry in entries)
    ends = [entry for entry in entries if entry["kind"] in ("outcome", "act") and entry["state"] in FINAL]
    wrong = []
    if kinds["accepted"] != 1:
        wrong.append(f"{kinds['accepted']} entries of its acceptance")
    if exchange.state in FINAL and [entry["state"] for entry in ends] != [exchange.state]:
        wrong.append(f"it is {exchange.state}, its ends are {ends}")
    if any(entry["attempt"] == end.get("attempt") for entry in entries if entry["kind"] == "late" for end in ends):
        wrong.append("the attempt that ended it is also said to have come late")
    if kinds["act"] and not kinds[State.UNKNOWN] + kinds[State.HELD]:
        wrong.append("an operator acted on what did not stand still")
    return wrong
