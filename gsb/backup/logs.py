"""The evidence log in a backup: its files up to exactly where the store in the same backup stands.

The checkpoints in the log's folder are read first, then the store, then the tiles. So the store in a backup is never
behind a checkpoint in it: whoever published that one had committed its entries before. What the store has given places
and the recorder has not written yet is made here from the store's entries, as the recorder would; so is its checkpoint,
which the store keeps signed. Of a log that is not continued the store has less than was published, and its files are
taken as they are. A full tile never changes, and a partial one may only have become a full one; so it does not matter
that the recorder goes on meanwhile. A crash means nothing: the folder is only read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gsb.backup.archive import Pack
from gsb.backup.envelope import BackupUnfit, Tell
from gsb.evidence.checkpoint import Checkpoint, NoteWrong, Verifier
from gsb.evidence.log import CHECKPOINT, Edge, Files, Folder
from gsb.evidence.merkle import Tree, leaf_hash
from gsb.evidence.tiles import HASH, WIDTH, Bundle, Tile, growth, pack, unpack
from gsb.evidence.verify import LogWrong, verify_log
from gsb.resume import checkpoint_of, signer_of
from gsb.store.contract import StoreUnfit
from gsb.store.logs import LogState, LogStore

TIMESTAMPS = "timestamps"
"""The folder beside the logs with what an authority has said of them."""
BATCH = 4_096
"""Entries that are in memory at once."""
Entries = Callable[[str, int, int], Coroutine[Any, Any, Sequence[bytes]]]
"""Contents of the entries of a log, from an index on, so many at most."""


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a log in a backup stands: what its files say."""

    origin: str
    note: bytes
    checkpoint: Checkpoint

    @property
    def name(self) -> str:
        return self.origin.rpartition("/")[2]


class Taken:
    """The checkpoints of a folder, read before the store."""

    def __init__(self, path: Path) -> None:
        self._path, self._folder = path, Folder(path)
        self._notes = self._folder.published()

    async def add(self, out: Pack, logs: Sequence[LogState], entries: Entries, tell: Tell) -> list[Stand]:
        """Add the files of every log; answers where each stands. Raises StoreUnfit, OSError."""
        known = {state.origin.rpartition("/")[2]: state for state in logs}
        stands = []
        for name in sorted({*known, *self._notes}):
            stand, made = await self._stand(name, known.get(name), entries)
            if stand is None:
                continue
            if stand.origin == logs[-1].origin and stand.checkpoint.size > logs[-1].size:
                raise StoreUnfit("the store is behind what was published: gsb restore goes on with it")
            await asyncio.to_thread(self._add_log, out, stand, made, tell)
            stands.append(stand)
        await asyncio.to_thread(self._add_timestamps, out)
        return stands

    async def _stand(
        self, name: str, state: LogState | None, entries: Entries
    ) -> tuple[Stand | None, Mapping[str, bytes]]:
        """Where a log stands, and the files that only the store can give."""
        note = self._notes.get(name, b"")
        found = checkpoint_of(note) if note else None
        if state is None or (found is not None and found.size >= state.size):
            return (None if found is None else Stand(found.origin, note, found)), {}
        signed = checkpoint_of(state.checkpoint)
        if signed is None:
            return None, {}
        size = 0 if found is None else found.size
        files = self._folder.files(state.origin)
        tail = await entries(state.origin, size - size % WIDTH, size % WIDTH)
        edge, made = await asyncio.to_thread(Edge.read, files, size, tail), dict[str, bytes]()
        while edge.size < state.size:
            contents = await entries(state.origin, edge.size, min(BATCH, state.size - edge.size))
            if not contents:
                break
            made |= await asyncio.to_thread(edge.extend, contents)
        if (edge.size, edge.root()) != (signed.size, signed.root):
            raise StoreUnfit(f"the entries of the log {state.origin} do not make the tree that was signed for them")
        return Stand(state.origin, state.checkpoint, signed), made

    def _add_log(self, out: Pack, stand: Stand, made: Mapping[str, bytes], tell: Tell) -> None:
        files, wanted = self._folder.files(stand.origin), growth(0, stand.checkpoint.size)
        for done, file in enumerate(wanted, 1):
            data = made.get(file.path) or _read(files, file)
            if data is None:
                raise StoreUnfit(
                    f"{self._path / stand.name}/{file.path} is missing; a node makes it again at its start"
                )
            out.add(f"log/{stand.name}/{file.path}", data, 0o644)
            tell(f"log {stand.name}", done, len(wanted))
        out.add(f"log/{stand.name}/{CHECKPOINT}", stand.note, 0o644)

    def _add_timestamps(self, out: Pack) -> None:
        for path in sorted((self._path / TIMESTAMPS).rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                out.add(f"log/{path.relative_to(self._path).as_posix()}", path.read_bytes(), 0o644)


def _read(files: Files, wanted: Tile | Bundle) -> bytes | None:
    """A file of a log, if need be the beginning of the full one that has taken its place since."""
    if (data := files.read(wanted.path)) is not None or wanted.width == WIDTH:
        return data
    whole = files.read(wanted._replace(width=WIDTH).path)
    if whole is None:
        return None
    return whole[: wanted.width * HASH] if isinstance(wanted, Tile) else pack(unpack(whole)[: wanted.width])


# --- of what was unpacked


def stands_in(path: Path, keys: Sequence[Ed25519PrivateKey], tell: Tell) -> list[Stand]:
    """Every log in a folder, each verified by that of these keys which signed it. Raises BackupUnfit. One that none of
    them has signed is passed over; whether the open one is among them the caller must see."""
    found = []
    for name, note in Folder(path).published().items():
        checkpoint = checkpoint_of(note)
        if checkpoint is None:
            raise BackupUnfit(f"its log {name} has no checkpoint that can be read")
        with suppress(NoteWrong):
            verifier = signer_of(keys, checkpoint.origin, note).verifier
            found.append(_verified(path / name, verifier, note, tell))
    return found


def _verified(folder: Path, verifier: Verifier, note: bytes, tell: Tell, older: bytes | None = None) -> Stand:
    def progress(done: int, size: int) -> None:
        tell(f"verifying log {folder.name}", done, size)

    try:
        verified = verify_log(Files(folder).read, verifier, older=older, progress=progress)
    except LogWrong as error:
        raise BackupUnfit(f"the log {verifier.name} is broken: {error}") from error
    return Stand(verifier.name, note, verified.checkpoint)


def extends(folder: Path, older: Stand, keys: Sequence[Ed25519PrivateKey], tell: Tell) -> None:
    """A log that was there already goes on from where the backup's stands. Raises BackupUnfit."""
    note = Files(folder / older.name).read(CHECKPOINT) or b""
    _verified(folder / older.name, signer_of(keys, older.origin, older.note).verifier, note, tell, older.note)


async def same_in_store(stands: Sequence[Stand], store: LogStore, tell: Tell) -> None:
    """The store's logs are those of the files, entry by entry, and the open one stands at the same place in both.
    Raises BackupUnfit."""
    logs, by_origin = await store.logs(), {stand.origin: stand for stand in stands}
    for state in logs:
        stand = by_origin.get(state.origin)
        if stand is None and state is not logs[-1]:
            continue  # of another key
        tree = Tree()
        while contents := await store.entries(state.origin, tree.size, BATCH):
            tree.extend(map(leaf_hash, contents))
            tell(f"verifying store of {state.origin}", tree.size, state.size)
        if tree.size != state.size or not _agrees(stand, tree, is_open=state is logs[-1]):
            raise BackupUnfit(f"its store and its log {state.origin} do not agree")


def _agrees(stand: Stand | None, tree: Tree, *, is_open: bool) -> bool:
    if stand is None:
        return False
    if stand.checkpoint.size == tree.size:
        return stand.checkpoint.root == tree.root()
    # Of a log that is not continued more, or something else, was published than its store knew.
    return stand.checkpoint.size > tree.size and not is_open
