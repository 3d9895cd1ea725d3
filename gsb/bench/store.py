"""How much of SQLite's speed the store keeps: exchanges accepted and finished a second, against the same rows raw.

Both write to the same tables with the same pragmas and 64 exchanges to a commit, two commits for an exchange. The store
makes the entries, seals, decides and answers 64 callers; raw writes the finished rows with ``executemany`` and does
nothing else. The two take turns, and medians are compared. It writes only to a folder of its own and removes that; a
crash leaves the folder behind.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from gsb.evidence.entry import make_entry
from gsb.model import Decision, Effect, Entry, Outcome, Record, State, new_id
from gsb.store.contract import NewExchange
from gsb.store.sqlite import SqliteStore, rows
from gsb.store.standing import Row

COLLECT_AFTER = 10_000
"""The collector of cycles looks as seldom as in a node that serves."""
LEAST = 0.5
"""The ratio under which the store is too slow."""
_BODY = b'{"employee":"' + b"7" * 2_032 + b'"}'
_JWS = "e" * 1_100
_DECISION = Decision("agreement-payroll", "a" * 43, "payroll", ("/name", "/grade"))
_OUTCOME = Outcome(State.DONE, "none", 200, body=_BODY, fields=_DECISION.fields, agreement_digest="a" * 43)
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})


@dataclass(frozen=True, slots=True)
class Result:
    """Exchanges a second: medians over the pairs, and the median of the pairs' ratios."""

    store: float
    raw: float
    ratio: float


async def main(folder: Path | None, *, exchanges: int, in_flight: int, pairs: int) -> int:
    """Print what was measured. 0: good; 1: the ratio is under 0.5; 2: the folder is not on a disk."""
    folder = (folder or Path.cwd()).resolve()
    if (kind := filesystem(folder)) in _IN_MEMORY:
        print(f"{folder} is on a {kind}: nothing written there is durable; name a folder on a disk", file=sys.stderr)
        return 2
    result = await run(folder, exchanges=exchanges, in_flight=in_flight, pairs=pairs)
    print(f"{exchanges} exchanges accepted and finished, {in_flight} in flight, median of {pairs} pairs")
    print(f"store  {result.store:>8,.0f} exchanges/s")
    print(f"raw    {result.raw:>8,.0f} exchanges/s   (the same rows, {in_flight} to a commit)")
    print(f"ratio  {result.ratio:>8.2f}               (at least {LEAST})")
    return 0 if result.ratio >= LEAST else 1


async def run(folder: Path, *, exchanges: int, in_flight: int, pairs: int) -> Result:
    """Measure in a new folder below ``folder``; the first turn of both, which fills caches, does not count."""
    with tempfile.TemporaryDirectory(prefix="gsb-bench-", dir=folder) as name:
        place = Path(name)
        await _store(place / "first.db", exchanges, in_flight)
        same = list(_groups(place / "first.db", in_flight))
        gc.collect()
        gc.freeze()  # the rows to be written raw are the measure's own: the store must not be charged for them
        seldom = gc.get_threshold()
        gc.set_threshold(COLLECT_AFTER)
        stores, raws = [], []
        for turn in range(pairs):
            if turn % 2:
                raws.append(_raw(place / f"{turn}.raw", same, exchanges))
            stores.append(await _store(place / f"{turn}.db", exchanges, in_flight))
            if not turn % 2:
                raws.append(_raw(place / f"{turn}.raw", same, exchanges))
            _clear(place)
        gc.set_threshold(*seldom)
        gc.unfreeze()
    ratio = median(store / raw for store, raw in zip(stores, raws, strict=True))
    return Result(median(stores), median(raws), ratio)


def filesystem(folder: Path) -> str:
    """The type of the file system that holds the folder; empty where /proc does not tell."""
    mounts = Path("/proc/self/mountinfo")
    if not mounts.exists():
        return ""
    best, kind = -1, ""
    for line in mounts.read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = Path(left.split(" ")[4].encode().decode("unicode_escape"))
        if folder.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), right.split(" ")[0]
    return kind


def _clear(place: Path) -> None:
    for file in place.iterdir():
        file.unlink()


# --- through the store ------------------------------------------------------------------------------------


async def _store(path: Path, exchanges: int, in_flight: int) -> float:
    store = SqliteStore(path, os.urandom(32))
    await store.open()
    work = iter([_asked(number) for number in range(exchanges)])
    start = time.perf_counter()
    await asyncio.gather(*(_caller(store, work) for _ in range(in_flight)))
    taken = time.perf_counter() - start
    await store.close()
    return exchanges / taken


async def _caller(store: SqliteStore, work: Iterator[dict[str, Any]]) -> None:
    for asked in work:
        new = NewExchange(**asked, entry=_entry("accepted", asked["id"]))
        if await store.accept(new) is not None:
            raise RuntimeError("an exchange of its own was taken for a repeat")
        begun = await store.begin(new.id, 30)
        if begun is None or begun.record is None:
            raise RuntimeError("an exchange that was accepted did not begin")
        if not await store.finish(begun.attempt, _OUTCOME, _entry("done", new.id)):
            raise RuntimeError("an exchange that was begun did not finish")


def _asked(number: int) -> dict[str, Any]:
    """What the bus has in hand when it accepts, but for the entry."""
    id_ = new_id()
    return {
        "id": id_,
        "agency": "payroll-agency",
        "service": "personnel/employee/v1",
        "effect": Effect.NONE,
        "expires_in": 300,
        "jti": id_ + "-jti",
        "jti_lives": 140,
        "key": f"key-{number}",
        "fingerprint": hashlib.sha256(id_.encode()).digest(),
        "record": Record(_BODY, "k" * 43, _DECISION, "sub", "case"),
    }


def _entry(kind: str, exchange: str) -> Entry:
    facts = {
        "exchange": exchange,
        "agency": "payroll-agency",
        "service": "personnel/employee/v1",
        "purpose": "payroll",
        "agreement": "agreement-payroll",
        "key": "k" * 43,
    }
    return make_entry(kind, time.time(), facts, {"jws": _JWS, "digest": "d" * 60})


# --- the same rows, raw -----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Group:
    """What one commit of acceptances and the commit of their outcomes write: rows by table, then changes."""

    accepted: dict[str, list[tuple[Any, ...]]]
    finished: dict[str, list[tuple[Any, ...]]]
    changes: list[tuple[Any, ...]]


def _groups(path: Path, size: int) -> Iterator[_Group]:
    """The rows that the store wrote, numbered in the order in which they will be written again."""
    db = sqlite3.connect(path)
    sealed = dict(db.execute("SELECT row, bytes FROM sealed"))
    entries: dict[int, list[tuple[Any, ...]]] = {}
    logged = "SELECT exchange, leaf, content, bytes FROM entry JOIN secret USING (row) ORDER BY row"
    for exchange, *entry in db.execute(logged):
        entries.setdefault(exchange, []).append(tuple(entry))
    spent = db.execute("SELECT hash, expires FROM spent ORDER BY row").fetchall()
    found = [rows.row_of(values) for values in db.execute(rows.SELECT + "ORDER BY row")]
    db.close()
    numbers, log = iter(range(1, 10**9)), iter(range(1, 10**9))
    every = zip(found, spent, strict=True)
    while some := list(islice(every, size)):
        group = _Group({name: [] for name in rows.TABLES}, {"sealed": [], "entry": [], "secret": []}, [])
        for row, (hashed, expires) in some:
            request = next(numbers)
            group.accepted["sealed"].append((request, sealed[row.request or 0]))
            group.accepted["spent"].append((row.row, hashed, expires))
            group.accepted["reservation"].append((row.key, row.row))
            group.accepted["exchange"].append(_as_accepted(row, request))
            _log(group.accepted, next(log), entries[row.row][0], row.row)
        for row, _ in some:
            reply = next(numbers)
            group.finished["sealed"].append((reply, sealed[row.reply or 0]))
            row.reply = reply
            group.changes.append(rows.moving(row))
            _log(group.finished, next(log), entries[row.row][1], row.row)
        yield group


def _log(into: dict[str, list[tuple[Any, ...]]], number: int, entry: tuple[Any, ...], exchange: int) -> None:
    *shown, secret = entry
    into["entry"].append((number, *shown, exchange))
    into["secret"].append((number, secret))


def _as_accepted(row: Row, request: int) -> tuple[Any, ...]:
    fixed = rows.whole(row)[: rows.COLUMNS.index("request")]
    moving = (request, row.key, "accepted", row.expires_at, row.accepted_at + 2, 0, 0, 0)
    return (*fixed, *moving, *[None] * (len(rows.COLUMNS) - len(fixed) - len(moving)))


def _raw(path: Path, groups: list[_Group], exchanges: int) -> float:
    db = rows.connect(path, writes=True)
    rows.create(db, b"")
    inserts = {name: f"INSERT INTO {name} VALUES({','.join('?' * width)})" for name, width in rows.TABLES.items()}
    changes = ", ".join(name + " = ?" for name in rows.MOVING)
    update = " ".join(["UPDATE exchange SET", changes, "WHERE row = ?"])
    start = time.perf_counter()
    for group in groups:
        db.execute("BEGIN IMMEDIATE")
        for name, new in group.accepted.items():
            db.executemany(inserts[name], new)
        db.execute("COMMIT")
        db.execute("BEGIN IMMEDIATE")
        for name, new in group.finished.items():
            db.executemany(inserts[name], new)
        db.executemany(update, group.changes)
        db.execute("COMMIT")
    taken = time.perf_counter() - start
    db.close()
    return exchanges / taken
