"""How long a page takes of each kind of query, among a million exchanges or as many as asked for.

Through the store's own ``search``, as the edge calls it, on a store that is open for writing. It writes only to a
folder of its own and removes that; a crash leaves the folder behind.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import SystemRandom
from statistics import median, quantiles

from gsb.bench.search.fill import AGENCIES, DAYS, PEOPLE, RARE_CODE, SERVICES, STRANGERS, fill
from gsb.model import State
from gsb.store.contract import DAY, Query
from gsb.store.seal import Seal
from gsb.store.sqlite import SqliteStore

MOST = 0.05
"""Seconds that the median of any kind may take."""
Make = Callable[[SystemRandom], Query]


def kinds(now: float) -> Mapping[str, Make]:
    """What is asked for, from common to rare, alone and together."""
    return {**_parties(), **_states(), **_codes(), **_times_and_keys(now)}


def _parties() -> Mapping[str, Make]:
    agency, service = STRANGERS
    return {
        "newest": lambda _: Query(),
        "a page of 500": lambda _: Query(limit=500),
        "agency": lambda chance: Query(agency=chance.choice(AGENCIES)),
        "service": lambda chance: Query(service=chance.choice(SERVICES)),
        "agency, service": lambda chance: Query(agency=chance.choice(AGENCIES), service=chance.choice(SERVICES)),
        "agency, service, hardly met": lambda _: Query(agency=agency, service=service),
        "agency unknown": lambda _: Query(agency="nobody"),
    }


def _states() -> Mapping[str, Make]:
    agency, service = STRANGERS
    refused, held = Query(states=frozenset({State.REFUSED})), Query(states=frozenset({State.HELD}))
    four = Query(states=frozenset({State.HELD, State.UNKNOWN, State.REFUSED, State.FAILED}))
    asked = {f"state {each}": Query(states=frozenset({each})) for each in State} | {
        "state refused, agency": replace(refused, agency=AGENCIES[-1]),
        "state refused, service": replace(refused, service=SERVICES[-1]),
        "state refused, agency, service": replace(refused, agency=agency, service=service),
        "state held, agency, service": replace(held, agency=agency, service=service),
        "state done, agency": Query(agency=agency, states=frozenset({State.DONE})),
        "four states": four,
        "four states, agency": replace(four, agency=AGENCIES[-1]),
    }
    return {name: _always(query) for name, query in asked.items()}


def _codes() -> Mapping[str, Make]:
    agency, service = STRANGERS
    asked = {
        "code common": Query(code="system_refused"),
        "code common, agency, service": Query(agency, service, code="system_refused"),
        "code rare": Query(code=RARE_CODE),
        "code rare, agency": Query(AGENCIES[-1], code=RARE_CODE),
        "code, another state": Query(code="system_refused", states=frozenset({State.FAILED})),
        "code unknown": Query(code="nothing_such"),
    }
    return {name: _always(query) for name, query in asked.items()}


def _times_and_keys(now: float) -> Mapping[str, Make]:
    day, refused = Query(since=now - 12 * DAY, until=now - 11 * DAY), frozenset({State.REFUSED})
    whole = replace(day, agency=AGENCIES[0], service=SERVICES[0], states=refused, code="system_refused")

    def person(chance: SystemRandom) -> str:
        return f"E-{chance.randrange(PEOPLE)}"

    return {
        "time": _always(day),
        "time, agency": lambda chance: replace(day, agency=chance.choice(AGENCIES)),
        "time, service, state": _always(replace(day, service=SERVICES[-1], states=refused)),
        "business key": lambda chance: Query(business=person(chance)),
        "business key, service": lambda chance: Query(business=person(chance), service=chance.choice(SERVICES)),
        "everything": lambda chance: replace(whole, business=person(chance)),
    }


def _always(query: Query) -> Make:
    return lambda _: query


async def main(folder: Path | None, *, exchanges: int, times: int) -> int:
    """Print milliseconds of each kind. 0: good; 1: the median of some kind is over 50 ms."""
    with tempfile.TemporaryDirectory(prefix="gsb-bench-", dir=folder or Path.cwd()) as name:
        path, key = Path(name) / "store.db", os.urandom(32)
        store = SqliteStore(path, key)
        await store.open()
        await store.close()
        began = time.perf_counter()
        fill(path, Seal(key), exchanges)
        size = path.stat().st_size / 1e6
        print(f"{exchanges} exchanges of {DAYS} days, {size:,.0f} MB, written in {time.perf_counter() - began:.0f} s")
        await store.open()
        try:
            slowest = await _measure(store, times)
        finally:
            await store.close()
    print(f"slowest median {slowest * 1000:.1f} ms (at most {MOST * 1000:.0f})")
    return 0 if slowest <= MOST else 1


async def _measure(store: SqliteStore, times: int) -> float:
    """The slowest median. Every kind is asked for its first page and for one that lies deep."""
    print(f"{'':38}{'p50':>8}{'p99':>8}  ms of {times} queries, each with its further page")
    slowest, now = 0.0, time.time()
    for name, make in kinds(now).items():
        chance, taken = SystemRandom(), []
        for _ in range(times):
            query = make(chance)
            taken.append(await _page(store, query))
            middle = replace(query, until=min(query.until or now, now - DAYS / 2 * DAY), limit=1)
            if (cursor := (await store.search(middle)).next) is not None:
                taken.append(await _page(store, replace(query, cursor=cursor)))
        p99 = quantiles(taken, n=100, method="inclusive")[98]
        slowest = max(slowest, median(taken))
        print(f"{name:38}{median(taken) * 1000:>8.1f}{p99 * 1000:>8.1f}")
    return slowest


async def _page(store: SqliteStore, query: Query) -> float:
    began = time.perf_counter()
    await store.search(query)
    return time.perf_counter() - began
