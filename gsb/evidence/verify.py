"""The whole log, a receipt, and evidence, held against the log's public key: what ``gsb log verify`` and others run.

Pure: files come from a function that reads them, and none is believed. What is not true is ``LogWrong``, which names
the first bad entry or file. An OSError is the reader's; any other exception is a defect of this module.
``gsb_verify.py`` says the same without any code of the bus, and a test holds both to the same answers.

Source: c2sp.org/tlog-tiles; RFC 6962, section 2.1; RFC 8785 for the form of an entry.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from gsb.evidence.checkpoint import Checkpoint, NoteWrong, Verifier, cosignatures, open_checkpoint
from gsb.evidence.entry import canonical, commitment
from gsb.evidence.merkle import ProofWrong, leaf_hash, root_of, tree_root
from gsb.evidence.proof import check_receipt, parse_receipt
from gsb.evidence.tiles import HASH, HEIGHT, WIDTH, Bundle, Tile, parse_path, unpack

ReadFile = Callable[[str], bytes | None]
"""A file of the log by its path in it, None when there is none."""
Progress = Callable[[int, int], None]
"""How many of how many entries were verified."""

MOST_LEVELS = 64
"""Objects and lists inside each other in an entry."""
LARGEST_INTEGER = 2**53


class LogWrong(ValueError):
    """Something is not true: ``index`` is the first entry that it concerns, or None; ``path`` the file."""

    def __init__(self, index: int | None, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}" if index is None else f"entry {index}: {path}: {why}")
        self.index, self.path, self.why = index, path, why


@dataclass(frozen=True, slots=True)
class Verified:
    """A log that is what its checkpoint says, and extends the ``older`` one if one was given.

    ``unsigned``: entries behind its last one. Files are written first and signed with the next checkpoint, so a
    recorder at work, or an interrupted one, leaves such; nothing is said about those.
    """

    checkpoint: Checkpoint
    older: Checkpoint | None
    unsigned: int
    cosigned: Mapping[str, int]
    """Which witnesses cosigned the checkpoint, by name, and when, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Proven:
    """An entry (its content) that stands at ``index`` in the log of this checkpoint; ``cosigned`` as in Verified."""

    index: int
    entry: bytes
    checkpoint: Checkpoint
    cosigned: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Witnessing:
    """The witnesses that are trusted to have seen every checkpoint, and how many of them must have cosigned."""

    witnesses: Sequence[Verifier] = ()
    needed: int = 0

    def check(self, path: str, note: bytes) -> Mapping[str, int]:
        """Who cosigned, and when. Raises LogWrong if a cosignature fails, or if there are too few."""
        try:
            found = cosignatures(note, self.witnesses)
        except NoteWrong as error:
            raise LogWrong(None, path, str(error)) from None
        if len(found) < self.needed:
            who = ", ".join(found) or "none of them"
            raise LogWrong(None, path, f"is cosigned by {len(found)} of the witnesses instead of {self.needed}: {who}")
        return found


NOBODY = Witnessing()


def verify_log(
    read: ReadFile,
    verifier: Verifier,
    *,
    older: bytes | None = None,
    witnessing: Witnessing = NOBODY,
    paths: Iterable[str] = (),
    progress: Progress = lambda done, size: None,
) -> Verified:
    """Every tile and every entry of the log named like the key, its root, and that it extends an older checkpoint.

    ``older``: that checkpoint's note. ``paths``: the files that there are, where that can be known; each must belong
    to the log. One tile of each level is in memory at a time. Raises LogWrong.
    """
    before = None if older is None else _checkpoint("the older checkpoint", older, verifier)
    if (note := read("checkpoint")) is None:
        raise LogWrong(None, "checkpoint", f"is missing: no log lies there, or not that of the key, {verifier.name}")
    log = _Log(read, _checkpoint("checkpoint", note, verifier))
    cosigned = witnessing.check("checkpoint", note)
    log.check_entries(progress)
    log.check_roots(before)
    return Verified(log.checkpoint, before, log.check_files(paths), cosigned)


def verify_receipt(data: bytes, verifier: Verifier, witnessing: Witnessing = NOBODY) -> Proven:
    """What a receipt (c2sp.org/tlog-proof, the entry as its extra data) proves. Raises LogWrong."""
    try:
        receipt = parse_receipt(data)
        checkpoint = check_receipt(receipt, verifier)
    except NoteWrong as error:
        raise LogWrong(None, "the receipt's checkpoint", str(error)) from None
    except ProofWrong as error:
        raise LogWrong(None, "the receipt", str(error)) from None
    entry = receipt.extra or b""
    _check_entry(receipt.index, "the receipt", entry)
    cosigned = witnessing.check("the receipt's checkpoint", receipt.checkpoint)
    return Proven(receipt.index, entry, checkpoint, cosigned)


def verify_evidence(data: bytes, entry: bytes) -> bytes:
    """The evidence, byte for byte, that an entry commits to, from the file that an inspector gets from the bus.

    That is JSON: ``{"entries": [{"leaf": L, "salt": S, "evidence": E}]}``, where L is the entry's hash, S its 32
    random bytes and E the evidence's exact bytes, all in base64url. Raises LogWrong.
    """
    try:
        each = {_from_base64url(each["leaf"]): each for each in orjson.loads(data)["entries"]}[leaf_hash(entry)]
        salt, evidence = _from_base64url(each["salt"]), _from_base64url(each["evidence"])
    except (ValueError, KeyError, TypeError):
        raise LogWrong(None, "the evidence", "holds nothing for this entry in the form that the bus gives it") from None
    if len(salt) != 32 or orjson.loads(entry).get("commit") != commitment(salt, evidence):
        raise LogWrong(None, "the evidence", "is not what the entry commits to")
    return evidence


def _from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


def _checkpoint(path: str, note: bytes, verifier: Verifier) -> Checkpoint:
    try:
        return open_checkpoint(note, verifier)
    except NoteWrong as error:
        raise LogWrong(None, path, str(error)) from None


# --- an entry


def _check_entry(index: int, path: str, content: bytes) -> None:
    """An entry is a JSON object in its one canonical form. Raises LogWrong."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise LogWrong(index, path, "is not JSON") from None
    if not isinstance(value, dict) or not _exact(value, MOST_LEVELS) or canonical(value) != content:
        raise LogWrong(index, path, "is not a JSON object in canonical form")


def _exact(value: object, levels: int) -> bool:
    """Whether every reader of JSON reads the same number everywhere, and can read as deep as this goes."""
    if isinstance(value, dict):
        return levels > 0 and all(_exact(each, levels - 1) for each in value.values())
    if isinstance(value, list):
        return levels > 0 and all(_exact(each, levels - 1) for each in value)
    if isinstance(value, float):
        return False
    return not isinstance(value, int) or abs(value) <= LARGEST_INTEGER


def _whole(bundle: bytes) -> Iterator[bytes]:
    """The entries of a damaged bundle up to where it breaks off."""
    at = 0
    while at + 2 <= len(bundle):
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if end > len(bundle):
            return
        yield bundle[at + 2 : end]
        at = end


# --- the log


class _Log:
    """One verification of a log of a checkpoint's size."""

    def __init__(self, read: ReadFile, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._read = read
        self._known: dict[int, tuple[int, list[bytes]]] = {}
        """By level the number and the hashes of the tile that was read last, held against the one above it.

        The last tile of a level, if it is partial, is held only against the root: it must stay until then.
        """

    def check_entries(self, progress: Progress) -> None:
        """Each entry against its hash in the tiles, and so each tile against those above it."""
        size = self.checkpoint.size
        for number in range(-(-size // WIDTH)):
            bundle = Bundle(number, self._width(0, number))
            self._check_bundle(bundle, self.hashes(0, number, bundle.width))
            progress(number * WIDTH + bundle.width, size)

    def check_roots(self, before: Checkpoint | None) -> None:
        """The root of the tiles is the checkpoint's, and that of the older entries among them the older one's."""
        size = self.checkpoint.size
        if tree_root(size, self.hashes) != self.checkpoint.root:
            raise LogWrong(None, "checkpoint", f"its root is not that of the {size} entries")
        if before is not None and (before.size > size or tree_root(before.size, self.hashes) != before.root):
            raise LogWrong(None, "checkpoint", f"its {size} entries do not extend the {before.size} of the older one")

    def check_files(self, paths: Iterable[str]) -> int:
        """Each file belongs to the log, or to entries that follow it without a gap: how many of those there are."""
        size = self.checkpoint.size
        last, furthest = "", size
        for path in paths:
            if path == "checkpoint":
                continue
            try:
                found = parse_path(path)
            except ValueError as error:
                raise LogWrong(None, path, str(error)) from None
            end = found.number * WIDTH + found.width << HEIGHT * _level(found)
            if end > furthest:
                last, furthest = path, end
            elif end <= size and found.width < WIDTH:
                self._check_earlier(found)
        # Looked for last, and bundles are written before tiles: what was seen has its bundles by now.
        end = self._end() if last else size
        if furthest > end:
            raise LogWrong(None, last, "lies beyond the log's last entry")
        return end - size

    def hashes(self, level: int, number: int, width: int) -> list[bytes]:
        """The first so many hashes of a tile: a ``merkle.ReadTile`` that believes nothing. Raises LogWrong."""
        known = self._known.get(level)
        if known is None or known[0] != number:
            tile = Tile(level, number, self._width(level, number))
            known = self._known[level] = number, self._tile(tile)
        return known[1][:width]

    def _tile(self, tile: Tile) -> list[bytes]:
        data = self._file(tile)
        if len(data) not in (HASH * tile.width, HASH * WIDTH):
            raise LogWrong(_first(tile), tile.path, f"has {len(data)} bytes, not {HASH * tile.width}")
        hashes = [data[at : at + HASH] for at in range(0, HASH * tile.width, HASH)]
        if tile.width == WIDTH:
            above = self.hashes(tile.level + 1, tile.number // WIDTH, WIDTH)
            if root_of(hashes) != above[tile.number % WIDTH]:
                raise LogWrong(_first(tile), tile.path, "does not agree with the tile above it")
        return hashes

    def _width(self, level: int, number: int) -> int:
        """How much of a tile or bundle a log of this size has."""
        return min((self.checkpoint.size >> HEIGHT * level) - number * WIDTH, WIDTH)

    def _file(self, wanted: Tile | Bundle) -> bytes:
        """The file of a tile or bundle; a partial one may be gone once there is the full one. Raises LogWrong."""
        data = self._read(wanted.path)
        if data is None:
            data = self._read(wanted._replace(width=WIDTH).path)
        if data is None:
            raise LogWrong(_first(wanted), wanted.path, "is missing")
        return data

    def _check_bundle(self, bundle: Bundle, hashes: list[bytes]) -> None:
        data = self._file(bundle)
        first, path = _first(bundle), bundle.path
        try:
            entries, complete = unpack(data), True
        except ValueError:
            entries, complete = list(_whole(data)), False
        for index, (entry, expected) in enumerate(zip(entries, hashes, strict=False), first):
            if leaf_hash(entry) != expected:
                raise LogWrong(index, path, "does not agree with its tile at level 0")
            _check_entry(index, path, entry)
        if not complete or len(entries) not in (bundle.width, WIDTH):
            end = first + min(len(entries), bundle.width)
            raise LogWrong(end, path, "does not end with its last entry")

    def _check_earlier(self, found: Tile | Bundle) -> None:
        """A partial file is how its tile or bundle began."""
        data = self._read(found.path)
        whole = self._file(found._replace(width=self._width(_level(found), found.number)))
        if isinstance(found, Tile):
            size = HASH * found.width
        else:
            size = sum(2 + len(entry) for entry in unpack(whole)[: found.width])
        # None: deleted since it was named, because there is the full one now.
        if data not in (None, whole[:size]):
            raise LogWrong(_first(found), found.path, "is not an earlier state of its tile or bundle")

    def _end(self) -> int:
        """Up to which entry there are bundles without a gap, signed or not."""
        size = self.checkpoint.size
        number = size // WIDTH
        while self._read(Bundle(number).path) is not None:
            number += 1
        partial = (width for width in range(WIDTH - 1, 0, -1) if self._read(Bundle(number, width).path) is not None)
        return max(size, number * WIDTH + next(partial, 0))


def _level(named: Tile | Bundle) -> int:
    """The level of the hashes that a tile holds or that stand for a bundle's entries."""
    return named.level if isinstance(named, Tile) else 0


def _first(named: Tile | Bundle) -> int:
    """The first entry below a tile or in a bundle."""
    return named.number * WIDTH << HEIGHT * _level(named)
