"""Going on from a store that may lack what was acknowledged: a backup, or a standby that was promoted too early.

Nobody knows what became of a write that was not finished in it, so each is ``unknown`` from now on: it is never run
again, only looked for. What was accepted after the backup is named by the log's files alone, and is told. A new log
begins that names the old one, and writes are withheld until an operator says so. The steps are in that order, and each
may be done again: a crash leaves a store that does not start, and a restore that is simply repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from gsb.evidence.checkpoint import Checkpoint
from gsb.evidence.entry import Fact, make_entry
from gsb.evidence.log import Files
from gsb.evidence.tiles import WIDTH, bundle_path, unpack
from gsb.model import Effect, Exchange, State
from gsb.resume import Ground, ahead, begin_anew, open_log, told
from gsb.store.contract import Query, Ruling, Store, StoreUnfit

RESTORED = "restored"
"""Why a write is unknown whose store was restored; and the kind of the entry that says so of the whole."""
ADMITTED = "writes_admitted"
UNFINISHED = frozenset({State.ACCEPTED, State.RUNNING, State.WAITING, State.HELD})
"""States in which a write may have been when the backup was made; what it came to since, nobody knows."""
PAGE = 100
"""Exchanges that are changed at once."""


class Missing(NamedTuple):
    """An exchange that the log's files name and the store does not know."""

    id: str
    agency: str
    service: str
    kinds: tuple[str, ...]
    """Of its entries, as far as they were published."""


@dataclass(frozen=True, slots=True)
class Lost:
    """What was published and the store cannot tell."""

    beyond: Sequence[Checkpoint]
    missing: Sequence[Missing]
    unread: Sequence[str]
    """Parts of the log that cannot be read, and may name more."""


@dataclass(frozen=True, slots=True)
class Restored:
    origin: str
    """Of the log that has begun."""
    doubted: int
    """How many writes are unknown now."""


async def lost(ground: Ground, store: Store) -> Lost:
    """Only reads. Raises StoreUnfit, StoreUnavailable, OSError."""
    beyond, unread = await ahead(ground), list[str]()
    missing = [each async for each in _missing(ground, store, beyond, unread)]
    return Lost([checkpoint for checkpoint, _ in beyond], missing, unread)


async def restore(
    ground: Ground, store: Store, now: float, reason: str, known: Lost, witnessed: Iterable[Checkpoint] = ()
) -> Restored:
    """Do all of it on a store that nobody else uses. Raises StoreUnfit, StoreUnavailable, LogMoved, OSError."""
    if await open_log(ground) is None and not known.beyond:
        raise StoreUnfit("there is no log yet, so nothing was acknowledged that could be lost")
    facts: dict[str, Fact] = {"missing": len(known.missing), "published": [told(each) for each in known.beyond] or None}
    await store.withhold(make_entry(RESTORED, now, facts, {"reason": reason}))
    doubted = await _doubt(store, now)
    return Restored(await begin_anew(ground, now, reason, witnessed), doubted)


async def admit_writes(store: Store, now: float, reason: str) -> bool:
    """Whether they were withheld."""
    return await store.admit_writes(make_entry(ADMITTED, now, {}, {"reason": reason}))


async def _doubt(store: Store, now: float) -> int:
    ruling = Ruling(UNFINISHED, State.UNKNOWN, reason=RESTORED)
    cursor, count = None, 0
    while True:
        page = await store.search(Query(states=UNFINISHED, cursor=cursor, limit=PAGE))
        writes = [each for each in page.exchanges if each.effect is not Effect.NONE]
        entries = [make_entry(State.UNKNOWN, now, _facts(each), {}) for each in writes]
        asked = (store.resolve(each.id, ruling, entry) for each, entry in zip(writes, entries, strict=True))
        count += sum(await asyncio.gather(*asked))
        if (cursor := page.next) is None:
            return count


def _facts(exchange: Exchange) -> dict[str, Fact]:
    return {
        "exchange": exchange.id,
        "agency": exchange.agency,
        "service": exchange.service,
        "purpose": exchange.purpose,
        "agreement": exchange.agreement,
        "attempt": exchange.attempt,
        "reason": RESTORED,
    }


# --- what the log's files alone name


async def _missing(
    ground: Ground, store: Store, beyond: Iterable[tuple[Checkpoint, int]], unread: list[str]
) -> AsyncIterator[Missing]:
    named: dict[str, Missing] = {}
    for checkpoint, start in beyond:
        files = ground.folder.files(checkpoint.origin)
        for number in range(start // WIDTH, -(-checkpoint.size // WIDTH)):
            contents = await asyncio.to_thread(_bundle, files, number, checkpoint.size)
            if contents is None:
                unread.append(f"{checkpoint.origin} from its entry {number * WIDTH} on")
                continue
            for content in contents[max(start - number * WIDTH, 0) :]:
                _name(named, content)
    for each in named.values():
        if await store.exchange(each.id) is None:
            yield each


def _bundle(files: Files, number: int, size: int) -> Sequence[bytes] | None:
    width = min(WIDTH, size - number * WIDTH)
    data = files.read(bundle_path(number, width)) or files.read(bundle_path(number))
    try:
        return None if data is None else unpack(data)[:width]
    except ValueError:
        return None


def _name(named: dict[str, Missing], content: bytes) -> None:
    try:
        said: dict[str, Any] = orjson.loads(content)
    except ValueError:
        return
    if isinstance(id_ := said.get("exchange"), str):
        before = named.get(id_)
        kinds = (*(before.kinds if before else ()), str(said.get("kind")))
        named[id_] = Missing(id_, str(said.get("agency")), str(said.get("service")), kinds)
