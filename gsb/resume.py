"""Which log a recorder goes on with: the open one, a first one, the next year's, or, by an operator's act, a new one.

What was published binds: a store that knows less than the checkpoints in the log's folder, or knows it otherwise, was
rolled back, and whoever went on with it would sign a second history. So a node does not start then. It only decides;
it writes no file, and to the store nothing but the first and last entries of logs. A crash leaves a log begun or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gsb.catalogue import Catalogue
from gsb.evidence.checkpoint import Checkpoint, NoteWrong, Signer, open_checkpoint, parse_note, to_base64
from gsb.evidence.entry import Fact, make_entry
from gsb.evidence.log import Folder
from gsb.evidence.merkle import Tree, leaf_hash
from gsb.model import Entry
from gsb.store.contract import StoreUnfit
from gsb.store.logs import LogState, LogStore

BATCH = 4_096
"""Entries that are read from the store at once."""
ENDED = "log_ended"
"""The kind of a log's last entry, unless it is not continued."""
BEGIN = 'or begin a new log, which will name the one before: gsb log begin DIR --reason "..."'
RESTORE = 'or restore from this one, which begins a new log that names both: gsb restore DIR --reason "..."'
"""What may be done beside a log that knows more, or otherwise, than the store."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What logs stand on. ``origin`` is what they have in common: the year is appended."""

    store: LogStore
    folder: Folder
    keys: tuple[Ed25519PrivateKey, ...]
    """The present one, and those before it."""
    origin: str

    @classmethod
    def of(cls, catalogue: Catalogue, store: LogStore, folder: Folder | None = None) -> Ground:
        return cls(store, folder or Folder(catalogue.gsb.log.path), catalogue.log_keys, catalogue.gsb.log_origin)

    def signer(self, origin: str, checkpoint: bytes = b"") -> Signer:
        """With the key that signed this checkpoint of the log; the present one where there is none yet.

        Raises StoreUnfit: signed with another key, a log would be two.
        """
        try:
            return signer_of(self.keys, origin, checkpoint)
        except NoteWrong as error:
            where = "Put that key back, or name it in log.former"
            raise StoreUnfit(f"log.key is not the key of the log {origin} ({error}). {where}, {BEGIN}") from error


def signer_of(keys: Sequence[Ed25519PrivateKey], origin: str, checkpoint: bytes = b"") -> Signer:
    """The one of the keys that signed this checkpoint of the log, or the first where there is none. Raises NoteWrong,
    with what is wrong with the first."""
    first, *others = (Signer(origin, key) for key in keys)
    for signer in others if checkpoint else ():
        with suppress(NoteWrong):
            open_checkpoint(checkpoint, signer.verifier)
            return signer
    if checkpoint:
        open_checkpoint(checkpoint, first.verifier)
    return first


async def resume(ground: Ground, now: float) -> None:
    """Make sure that the open log may be continued, or begin the first one. Raises StoreUnfit, OSError."""
    await asyncio.to_thread(ground.folder.make)
    await examine(ground)
    if not await ground.store.logs():
        origin = _free(ground, now, ())
        await ground.store.begin_log(origin, _begun(origin, now))


async def examine(ground: Ground) -> bool:
    """Make sure that the store knows what was published; whether that could be told: not where the store has a log and
    nothing of any can be read. Raises StoreUnfit, OSError."""
    # The files first: a recorder at work publishes more meanwhile, of which the store then knows.
    found = await asyncio.to_thread(published, ground.folder)
    logs = await ground.store.logs()
    async for fault in _faults(ground, logs, found):
        raise StoreUnfit(fault)
    return bool(found) or not logs


async def is_behind(ground: Ground) -> bool:
    """Whether more, or something else, was published than the store can tell. Raises OSError."""
    found = await asyncio.to_thread(published, ground.folder)
    return any([RESTORE in fault async for fault in _faults(ground, await ground.store.logs(), found)])


async def open_log(ground: Ground) -> LogState | None:
    """The open log, if there is one."""
    logs = await ground.store.logs()
    return logs[-1] if logs else None


async def begin_anew(ground: Ground, now: float, reason: str, witnessed: Iterable[Checkpoint] = ()) -> str:
    """Begin a log that continues none, and say how it is called. Its first entry names the checkpoint that the store
    has of the open log, every published one that the store cannot account for, and those that witnesses have cosigned
    of the open log. Raises StoreUnfit, OSError."""
    await asyncio.to_thread(ground.folder.make)
    logs, found = await ground.store.logs(), await asyncio.to_thread(published, ground.folder)
    if not logs and not found:
        raise StoreUnfit("there is no log yet: the node begins one when it starts")
    origin, last = _free(ground, now, logs), logs[-1] if logs else None
    named = [told(each) for each in found.values() if last is not None and each.origin == last.origin]
    named += [told(each) for each in await _strangers(ground, logs, found)]
    cosigned = sorted({told(each) for each in witnessed})
    facts: dict[str, Fact] = {"published": named or None, "witnessed": cosigned or None}
    begun = _begun(origin, now, last, facts, {"reason": reason})
    await ground.store.begin_log(origin, begun, after=None if last is None else last.origin)
    return origin


async def rotate(ground: Ground, last: LogState, now: float) -> bool:
    """Close the open log and begin the next, if its year is over, or its name or its key is another now; whether that
    was so.

    A clock that is set back opens no earlier year's log. Where the key is another, the last entry of the old log names
    the new one, and the first of the new log the old one, so that who trusts one of them learns of the other. Raises
    LogMoved, StoreUnavailable, StoreUnfit.
    """
    before, after = ground.signer(last.origin, last.checkpoint), ground.signer(last.origin)
    same_key = before.vkey == after.vkey
    if same_key and ground.origin == last.origin.rpartition("/")[0] and _year(now) <= _year_of(last.origin):
        return False
    origin = _free(ground, now, await ground.store.logs())
    keys: dict[str, Fact] = {} if same_key else {"next_key": ground.signer(origin).vkey}
    ended = make_entry(ENDED, now, {"log": last.origin, "next": origin, **keys}, {})
    begun = _begun(origin, now, last, {} if same_key else {"previous_key": before.vkey})
    await ground.store.begin_log(origin, begun, after=last.origin, ended=ended)
    return True


async def has_ended(store: LogStore, state: LogState) -> bool:
    """Whether a log was ended by the next year's, and that has its place."""
    last = await store.entries(state.origin, state.size - 1, 1) if state.size else ()
    return bool(last) and orjson.loads(last[0])["kind"] == ENDED


def _begun(
    origin: str,
    now: float,
    previous: LogState | None = None,
    facts: Mapping[str, Fact] | None = None,
    evidence: Mapping[str, object] | None = None,
) -> Entry:
    known = checkpoint_of(previous.checkpoint) if previous is not None else None
    said: dict[str, Fact] = {
        "log": origin,
        "previous": None if previous is None else told(known) if known is not None else previous.origin,
    }
    return make_entry("log_begun", now, {**said, **(facts or {})}, evidence or {})


def told(checkpoint: Checkpoint) -> str:
    """A checkpoint in an entry: origin, size and root, in the words of its note, on one line."""
    return f"{checkpoint.origin} {checkpoint.size} {to_base64(checkpoint.root)}"


def _year(now: float) -> int:
    return datetime.fromtimestamp(now, UTC).year


def _year_of(origin: str) -> int:
    year = origin.rpartition("/")[2].partition(".")[0]
    return int(year) if year.isdecimal() else 0


def _free(ground: Ground, now: float, logs: Iterable[LogState]) -> str:
    return free(ground.folder, ground.origin, now, {state.origin for state in logs})


def free(folder: Folder, common: str, now: float, taken: AbstractSet[str] = frozenset()) -> str:
    """The year's origin, or with ``.2``, ``.3``, ... if there was one: no name of a log or folder is used again."""
    year = f"{common}/{_year(now)}"
    origin, number = year, 1
    while origin in taken or folder.taken(origin):
        number += 1
        origin = f"{year}.{number}"
    return origin


# --- what was published


def checkpoint_of(note: bytes) -> Checkpoint | None:
    """What a note says, whoever signed it; None for what is no checkpoint."""
    try:
        return Checkpoint.parse(parse_note(note).text)
    except NoteWrong:
        return None


def published(folder: Folder) -> Mapping[str, Checkpoint]:
    """The checkpoint in each log's folder, by its name. One that cannot be read binds nobody, and is made again."""
    found = {name: checkpoint_of(note) for name, note in folder.published().items()}
    return {name: checkpoint for name, checkpoint in found.items() if checkpoint is not None}


async def _fault_of(ground: Ground, state: LogState, found: Checkpoint) -> str | None:
    """Why a log cannot be continued beside what was published of it, or None."""
    if found.size > state.size:
        return (
            f"the store is behind what was published of the log {state.origin}: it has {state.size} entries in order, "
            f"and {found.size} are published in {ground.folder}. Give the node the newer store, {RESTORE}"
        )
    if found.root != await _root(ground, state, found.size):
        return (
            f"the store holds other entries than those published of the log {state.origin}: with {found.size} entries "
            f"(the store has {state.size}) its root is not the one in {ground.folder}. Give the node the right store, "
            f"{RESTORE}"
        )
    return None


async def _faults(ground: Ground, logs: Sequence[LogState], found: Mapping[str, Checkpoint]) -> AsyncIterator[str]:
    for stranger in await _strangers(ground, logs, found):
        yield (
            f"the store knows nothing of the log {stranger.origin}, of which {stranger.size} entries are published in "
            f"{ground.folder} (the store has 0). Give the node the store that belongs to them, {RESTORE}"
        )
    if not logs:
        return
    last, waiting = logs[-1], await ground.store.unsequenced(1)
    for state in logs:
        goes_on = state is last or (waiting is not None and state.origin == waiting.origin)
        if goes_on and (fault := await _inner_fault(ground, state)):
            yield fault
    for checkpoint in found.values():
        if checkpoint.origin == last.origin and (fault := await _fault_of(ground, last, checkpoint)):
            yield fault


async def _inner_fault(ground: Ground, state: LogState) -> str | None:
    """What is wrong with a log that is not complete, in the store alone."""
    if not state.size:
        return None
    try:
        signed = open_checkpoint(state.checkpoint, ground.signer(state.origin, state.checkpoint).verifier)
    except StoreUnfit as error:
        return str(error)
    entries = state.size if await ground.store.entries(state.origin, state.size - 1, 1) else "fewer"
    if (signed.size, entries) == (state.size, state.size):
        return None
    return (
        f"the store is behind its own checkpoint of the log {state.origin}: {max(signed.size, state.size)} entries "
        f"are signed and it has {entries}. Give the node an undamaged store, {RESTORE}"
    )


async def ahead(ground: Ground) -> Sequence[tuple[Checkpoint, int]]:
    """What was published and the store cannot tell, by log, and from which entry on. Raises OSError."""
    logs, found = await ground.store.logs(), await asyncio.to_thread(published, ground.folder)
    beyond = [(checkpoint, 0) for checkpoint in await _strangers(ground, logs, found)]
    for checkpoint in found.values():
        if not logs or checkpoint.origin != logs[-1].origin:
            continue
        if checkpoint.size > logs[-1].size:
            beyond.append((checkpoint, logs[-1].size))
        elif await _fault_of(ground, logs[-1], checkpoint) is not None:
            beyond.append((checkpoint, 0))
    return beyond


async def _strangers(ground: Ground, logs: Sequence[LogState], found: Mapping[str, Checkpoint]) -> Sequence[Checkpoint]:
    """What was published of logs that the store does not know, and that no log of its own has named as such."""
    known = {state.origin for state in logs}
    strangers = [checkpoint for checkpoint in found.values() if checkpoint.origin not in known]
    named = await _named(ground.store, logs) if strangers else ()
    return [checkpoint for checkpoint in strangers if told(checkpoint) not in named]


async def _named(store: LogStore, logs: Sequence[LogState]) -> set[str]:
    """The checkpoints that the first entries of logs name."""
    first = [content for state in logs for content in await store.entries(state.origin, 0, 1)]
    if (waiting := await store.unsequenced(1)) is not None:
        first += waiting.contents
    return {each for content in first for each in orjson.loads(content).get("published", ())}


async def _root(ground: Ground, state: LogState, size: int) -> bytes:
    """The root of the log's first entries: from its checkpoints, or else from the entries themselves."""
    for note in (state.checkpoint, state.published_note):
        checkpoint = checkpoint_of(note)
        if checkpoint is not None and checkpoint.size == size:
            return checkpoint.root
    tree = Tree()
    while tree.size < size:
        contents = await ground.store.entries(state.origin, tree.size, min(BATCH, size - tree.size))
        if not contents:
            break
        await asyncio.to_thread(tree.extend, map(leaf_hash, contents))
    return tree.root()
