"""Receipts: the proof that an entry of an exchange stands in the log, which convinces without the bus.

It is made from the tiles of the published log, never from what the store alone says, and is proved here once more
before it is handed out: a receipt that proves nothing would be noticed years later. Nothing is kept; a crash costs the
caller another question.

Format: c2sp.org/tlog-proof.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson

from gsb import handout
from gsb.admit import preference_applied
from gsb.bus import Bus
from gsb.errors import EntryUnknown
from gsb.evidence.checkpoint import Checkpoint, parse_note
from gsb.evidence.merkle import ReadTile, check_inclusion, inclusion
from gsb.evidence.proof import Receipt
from gsb.evidence.tiles import HASH, WIDTH, hashes, tile_path
from gsb.jwk import from_base64url
from gsb.model import JSON_TYPE, Answer, Call, Exchange, Signed
from gsb.resume import checkpoint_of
from gsb.store.logs import Entered, LogState
from gsb.web.callers import for_caller
from gsb.web.exchanges import own
from gsb.web.log import TEXT, files_of, unavailable

POLL = 0.1
"""Seconds between two looks at what is published, while a call waits for the next checkpoint."""
RETRY = "1"


async def receipt(bus: Bus, call: Call, exchange: str) -> Answer:
    """``GET /exchanges/{id}/receipt``: of its last entry, or of ``?entry=``. Takes ``Prefer: wait=``; 202 as long as no
    published checkpoint covers the entry."""

    async def act(signed: Signed) -> Answer:
        known = await own(bus, signed, exchange)
        leaf = wanted_entry(known, call.target.partition("?")[2])
        wait = min(call.wait or 0, bus.catalogue.gsb.limits.wait_max)
        covered = await published(bus, known.id, leaf, wait)
        applied = preference_applied(call, wait)
        if covered is None:
            return pending(bus, known, leaf, applied)
        try:
            text = await asyncio.to_thread(make_receipt, bus, *covered)
        except (OSError, ValueError) as error:
            raise unavailable(bus, covered[1], str(error)) from error
        bus.log_files.is_over()
        return Answer(200, text, TEXT, applied, known)

    return await for_caller(bus, call, act, bus.catalogue.gsb.bus.base_urls)


def wanted_entry(known: Exchange, query: str) -> bytes:
    """The leaf hash that the query names, or that of the last entry. Raises EntryUnknown."""
    leaves = [entry.leaf for entry in known.entries]
    if not query and leaves:
        return leaves[-1]
    named, _, text = query.partition("=")
    try:
        leaf = from_base64url(text)
    except ValueError:
        raise EntryUnknown from None
    if named != "entry" or leaf not in leaves:
        raise EntryUnknown
    return leaf


async def published(bus: Bus, exchange: str, leaf: bytes, wait: float) -> tuple[Entered, LogState] | None:
    """The entry with its place and the log whose published checkpoint covers it; None if there is none in time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    while True:
        for entered in await bus.store.entered(exchange):
            if entered.entry.leaf == leaf and (state := covering(entered, await bus.store.logs())) is not None:
                return entered, state
        if bus.leaving or loop.time() >= end:
            return None
        await asyncio.sleep(min(POLL, max(end - loop.time(), 0)))


def covering(entered: Entered, logs: Sequence[LogState]) -> LogState | None:
    """The log whose published checkpoint covers the entry. Of a log that an operator has ended there may be entries
    beyond it; ``published`` counts them, so that nobody writes them any more."""
    for state in logs:
        if state.origin == entered.origin and entered.index is not None:
            checkpoint = checkpoint_of(state.published_note)
            return state if checkpoint is not None and entered.index < checkpoint.size else None
    return None


def pending(bus: Bus, known: Exchange, leaf: bytes, headers: dict[str, str]) -> Answer:
    """202: the entry is durable, and no published checkpoint covers it yet."""
    query = f"?entry={handout.leaf_text(leaf)}"
    links = {**handout.links(bus, known), "receipt": f"{bus.base_url}/exchanges/{known.id}/receipt{query}"}
    body = {"exchange": known.id, "state": known.state, "links": links}
    return Answer(202, orjson.dumps(body), JSON_TYPE, {**headers, "Retry-After": RETRY}, known)


def make_receipt(bus: Bus, entered: Entered, state: LogState) -> bytes:
    """In a thread: the receipt of a published entry. Raises OSError, and ValueError if the tiles do not prove it."""
    checkpoint = Checkpoint.parse(parse_note(state.published_note).text)
    index = entered.index or 0
    proof = inclusion(index, checkpoint.size, tiles(bus, state))
    check_inclusion(entered.entry.leaf, index, checkpoint.size, proof, checkpoint.root)
    return Receipt(index, tuple(proof), state.published_note, entered.entry.content).text()


def tiles(bus: Bus, state: LogState) -> ReadTile:
    """The log's tiles, from its files. Reading raises OSError, and ValueError for one that is not there whole."""
    files = files_of(bus, state)

    def read(level: int, number: int, width: int) -> list[bytes]:
        data = files.read(tile_path(level, number, width))
        if data is None and width < WIDTH:
            # It has become full since, and the partial one is gone.
            data = files.read(tile_path(level, number))
        if data is None:
            raise ValueError(f"{tile_path(level, number, width)} is missing")
        return hashes(data, len(data) // HASH)[:width]

    return read
