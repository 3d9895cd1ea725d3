"""Check the evidence log of a Government Service Bus, or one receipt from it, with nothing but the log's public key.

    python gsb_verify.py [log] DIR|URL --key VKEY [--from CHECKPOINT]
    python gsb_verify.py receipt FILE --key VKEY [--evidence FILE]

It exits with 0 if everything was verified, with 1 if not (one line names the first bad entry or file, and why), and
with 2 if it was called wrongly; a crash says nothing about the log. For auditors: one file, to be read in one sitting,
for Python 3.11 and its package ``cryptography``; it uses nothing of the bus and changes nothing. VKEY is the log's
public key, one line, which must have reached you on another way than the log.

- ``log``: the checkpoint is signed by that key; each tile of hashes is what the one above it says, up to the root in
  the checkpoint; each entry is what its hash says, and well formed; nothing is missing, and nothing lies in the folder
  that does not belong to the log. With an older checkpoint: of the entries that it covers none was changed, moved or
  left out. Keep those that you verified: without one, a log that was written and signed anew looks like any other.
- ``receipt``: the entry in it is in the log whose checkpoint it holds. With evidence: the bus committed to these very
  bytes. Inspectors get the file from the bus: {"entries": [{"leaf": L, "salt": S, "evidence": E}, ...]}, where L is
  the entry's hash, S its 32 random bytes and E the evidence's exact bytes (JSON), all in base64url.

The formats are public: RFC 6962, section 2.1 (the tree), c2sp.org/tlog-tiles (the files), c2sp.org/signed-note and
c2sp.org/tlog-checkpoint (the checkpoint), c2sp.org/tlog-proof (the receipt), RFC 8785 (the form of an entry).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

WIDTH = 256  # hashes in a full tile, entries in a full bundle
ENTRIES = -1  # the level of bundles, below that of their entries' hashes, which is 0
BIGGEST = 2**24 + 2**10  # bytes: no file of a log is larger


class Wrong(Exception):
    """What was checked is not true: where (a file), why, and the first entry that it concerns, if it concerns one."""

    def __init__(self, path: str, why: str, index: int | None = None) -> None:
        super().__init__(f"{path}: {why}" if index is None else f"entry {index}: {path}: {why}")


# --- 1 the key, and what is signed with it (c2sp.org/signed-note, c2sp.org/tlog-checkpoint)


def from_base64(text: str) -> bytes:
    """Base64 in the one way to write it. Raises ValueError."""
    data = base64.b64decode(text.encode("ascii"), validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("holds base64 that is not canonical")
    return data


class Key:
    """The public key of a log from its line ``NAME+ID+BASE64(1, 32 bytes)``. Raises ValueError."""

    def __init__(self, vkey: str) -> None:
        self.name, self.id, encoded = vkey.strip().split("+", 2)
        data = from_base64(encoded)
        if hashlib.sha256(self.name.encode() + b"\n" + data).hexdigest()[:8] != self.id or data[:1] != b"\1":
            raise ValueError("not an Ed25519 key with its own name and id")
        self._key = Ed25519PublicKey.from_public_bytes(data[1:])

    def signed(self, note: bytes) -> str:
        """The text of a note that this key signed; others may have signed it too. Raises ValueError."""
        parts = re.fullmatch("(?s)(.+\n)\n((?:\N{EM DASH} [^+\\s]+ \\S{8,}\n){1,100})", note.decode())
        if parts is None or re.search(rb"[\x00-\x09\x0b-\x1f]", note):
            raise ValueError("is not a signed note")
        signatures = [(name, from_base64(data)) for _, name, data in map(str.split, parts[2].splitlines())]
        mine = [data[4:] for name, data in signatures if (name, data[:4].hex()) == (self.name, self.id)]
        if not mine:
            raise ValueError(f"is not signed by the key {self.name}+{self.id}")
        for signature in mine:
            self._key.verify(signature, parts[1].encode())
        return parts[1]


def open_checkpoint(path: str, note: bytes, key: Key) -> tuple[int, bytes]:
    """Size and root in a checkpoint that this key signed, of the log of its name. Raises Wrong."""
    try:
        found = re.fullmatch(r"(.+)\n(0|[1-9][0-9]{0,18})\n([A-Za-z0-9+/]{43}=)\n(?:.+\n)*", key.signed(note))
        if found is None or found[1] != key.name:
            raise ValueError("is not a checkpoint of this log")
        return int(found[2]), from_base64(found[3])
    except InvalidSignature:
        raise Wrong(path, "has a signature that is not the key's") from None
    except ValueError as error:
        raise Wrong(path, str(error)) from None


# --- 2 the tree (RFC 6962, section 2.1) and its entries


def leaf_hash(entry: bytes) -> bytes:
    """The hash of an entry."""
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two hashes."""
    return hashlib.sha256(b"\1" + left + right).digest()


def tree_hash(hashes: Sequence[bytes]) -> bytes:
    """The root over hashes: pair by pair; one that is left over at the end rises as it is."""
    while len(hashes) > 1:
        pairs = [node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=False)]
        hashes = [*pairs, hashes[-1]] if len(hashes) % 2 else pairs
    return hashes[0] if hashes else hashlib.sha256(b"").digest()


def proven_root(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root to which a proof of inclusion leads (section 2.1.1). Raises ValueError."""
    if not 0 <= index < size or bool(proof) != (size > 1):
        raise ValueError("has an index or a proof that cannot be")
    if size == 1:
        return leaf
    left = 1 << (size - 1).bit_length() - 1  # the entries below the left child: the largest power of two below size
    if index < left:
        return node_hash(proven_root(leaf, index, left, proof[:-1]), proof[-1])
    return node_hash(proof[-1], proven_root(leaf, index - left, size - left, proof[:-1]))


def check_entry(path: str, index: int, content: bytes) -> None:
    """An entry is a JSON object in its one canonical form. Raises Wrong."""
    try:
        value = json.loads(content)
        canonical = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    except (ValueError, RecursionError):
        value, canonical = None, b""
    if not isinstance(value, dict) or canonical != content or not exact(value, 64):
        raise Wrong(path, "is not a JSON object in canonical form", index)


def exact(value: object, levels: int) -> bool:
    """Whether every reader of JSON reads the same: no fractions, no integers beyond 2^53, no deeper than so."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(exact(each, levels - 1) for each in inner)
    return not isinstance(value, float) and (not isinstance(value, int) or abs(value) <= 2**53)


def unpack(bundle: bytes) -> tuple[list[bytes], bool]:
    """The entries in a bundle, each behind its length in two bytes, and whether it ends with the last one."""
    entries, at = list[bytes](), 0
    while (start := at + 2) <= len(bundle) and (end := start + int.from_bytes(bundle[at:start], "big")) <= len(bundle):
        entries.append(bundle[start:end])
        at = end
    return entries, at == len(bundle)


# --- 3 files (c2sp.org/tlog-tiles)


def tile_path(level: int, number: int, width: int = WIDTH) -> str:
    """The file of a tile: that of number 1,234,067 at level 0 with 7 hashes is ``tile/0/x001/x234/067.p/7``."""
    folders = "".join(f"/x{each:0>3}" for each in f"{number:,}".split(","))
    name = f"tile/{'entries' if level == ENTRIES else level}{folders[:-4]}{folders[-3:]}"
    return name if width == WIDTH else f"{name}.p/{width}"


def parse_path(path: str) -> tuple[int, int, int]:
    """Level, number and width of a tile or bundle from its file. Raises Wrong."""
    found = re.fullmatch(r"tile/(entries|[0-7])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([0-9]+))?", path)
    if found is not None:
        level = ENTRIES if found[1] == "entries" else int(found[1])
        number, width = int(re.sub("[x/]", "", found[2])), int(found[3] or WIDTH)
        if 0 < width <= WIDTH and tile_path(level, number, width) == path:
            return level, number, width
    raise Wrong(path, "does not belong to a log")


def read_file(folder: Path, path: str) -> bytes | None:
    """A file of a log in a folder. Raises OSError."""
    try:
        return (folder / path).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def files_in(folder: Path) -> Iterator[str]:
    """Each file in a folder but the hidden ones, which a recorder that was interrupted leaves behind."""
    for inner, _, names in os.walk(folder):
        yield from (Path(inner, name).relative_to(folder).as_posix() for name in names if not name.startswith("."))


def fetch(connection: http.client.HTTPConnection, prefix: str, path: str) -> bytes | None:
    """A file of a log behind an address. Raises OSError or HTTPException."""
    connection.request("GET", f"{prefix}/{path}")
    answer = connection.getresponse()
    data = answer.read(BIGGEST + 1)
    if answer.status not in (200, 404) or len(data) > BIGGEST:
        raise OSError(f"{path}: the server answers {answer.status} with {len(data)} bytes")
    return data if answer.status == 200 else None


# --- 4 the whole log


class Log:
    """One verification, with one tile of each level in memory. Its methods raise Wrong."""

    def __init__(self, read: Callable[[str], bytes | None], key: Key) -> None:
        self._read = read
        if (note := read("checkpoint")) is None:
            raise Wrong("checkpoint", f"is missing: no log lies there, or not that of the key, {key.name}")
        self.size, self.root = open_checkpoint("checkpoint", note, key)
        self._tiles: dict[int, tuple[int, list[bytes]]] = {}

    def verify(self, older: tuple[int, bytes] | None) -> None:
        """Each entry, each tile and the root; and that the log extends an older checkpoint."""
        for number in range(-(-self.size // WIDTH)):
            self._entries(number, self._tile(0, number))
            if number % 100 == 0 and sys.stderr.isatty():
                print(f"{number * WIDTH:,} of {self.size:,} entries", end="\r", file=sys.stderr)
        if self._root(self.size) != self.root:
            raise Wrong("checkpoint", f"its root is not that of the {self.size} entries")
        if older is not None and (older[0] > self.size or self._root(older[0]) != older[1]):
            raise Wrong("checkpoint", f"its {self.size} entries do not extend the {older[0]} of the older one")

    def _root(self, size: int) -> bytes:
        """The root of the first so many entries: that of the lower levels ends the tile above them."""
        below: list[bytes] = []
        for level in range(8):
            number, width = divmod(size >> 8 * level, WIDTH)
            if width:
                below = [tree_hash([*self._tile(level, number)[:width], *below])]
        return tree_hash(below)

    def _tile(self, level: int, number: int) -> list[bytes]:
        """The hashes of a tile. A full one is held against the tile above it, up to those of which the root is made."""
        if level not in self._tiles or self._tiles[level][0] != number:
            path, first, width, data = self._file(level, number)
            if len(data) not in (32 * width, 32 * WIDTH):
                raise Wrong(path, f"has {len(data)} bytes, not {32 * width}", first)
            hashes = [data[at : at + 32] for at in range(0, 32 * width, 32)]
            if width == WIDTH and tree_hash(hashes) != self._tile(level + 1, number // WIDTH)[number % WIDTH]:
                raise Wrong(path, "does not agree with the tile above it", first)
            self._tiles[level] = number, hashes
        return self._tiles[level][1]

    def _file(self, level: int, number: int) -> tuple[str, int, int, bytes]:
        """Path, first entry, width and bytes of a tile or bundle; a partial one may be gone once there is the full."""
        # Each full tile is one hash of the level above it.
        width = min((self.size >> 8 * max(level, 0)) - number * WIDTH, WIDTH)
        path, first = tile_path(level, number, width), number * WIDTH << 8 * max(level, 0)
        data = self._read(path)
        if data is None:
            data = self._read(tile_path(level, number))
        if data is None:
            raise Wrong(path, "is missing", first)
        return path, first, width, data

    def _entries(self, number: int, hashes: list[bytes]) -> None:
        path, first, width, data = self._file(ENTRIES, number)
        entries, complete = unpack(data)
        for index, (entry, expected) in enumerate(zip(entries, hashes, strict=False), first):
            if leaf_hash(entry) != expected:
                raise Wrong(path, "does not agree with its tile at level 0", index)
            check_entry(path, index, entry)
        if not complete or len(entries) not in (width, WIDTH):
            raise Wrong(path, "does not end with its last entry", first + min(len(entries), width))

    def nothing_else(self, paths: Iterable[str]) -> int:
        """Each file is one that was verified, an earlier state of it, or of entries yet to be signed: of so many."""
        last, furthest = "", self.size
        for path in paths:
            if path == "checkpoint":
                continue
            level, number, width = parse_path(path)
            end = number * WIDTH + width << 8 * max(level, 0)
            if end > furthest:
                last, furthest = path, end
            elif end <= self.size and width < WIDTH:
                self._earlier(path, level, number, width)
        end = self._end() if last else self.size
        if furthest > end:
            raise Wrong(last, "lies beyond the log's last entry")
        return end - self.size

    def _earlier(self, path: str, level: int, number: int, width: int) -> None:
        part, (_, first, _, whole) = self._read(path), self._file(level, number)
        size = 32 * width if level != ENTRIES else sum(2 + len(entry) for entry in unpack(whole)[0][:width])
        if part not in (None, whole[:size]):  # it may have been deleted meanwhile, since there is the full one now
            raise Wrong(path, "is not an earlier state of its tile or bundle", first)

    def _end(self) -> int:
        """Up to which entry there are bundles without a gap, signed or not."""
        number = self.size // WIDTH
        while self._read(tile_path(ENTRIES, number)) is not None:
            number += 1
        widths = range(WIDTH - 1, 0, -1)
        last = next((each for each in widths if self._read(tile_path(ENTRIES, number, each)) is not None), 0)
        return max(self.size, number * WIDTH + last)


# --- 5 a receipt (c2sp.org/tlog-proof)


def check_receipt(data: bytes, key: Key) -> tuple[int, int, bytes]:
    """The size of the log, the index and the entry that a receipt proves. Raises Wrong."""
    head, _, note = data.partition(b"\n\n")
    size, root = open_checkpoint("the receipt's checkpoint", note, key)
    form = r"c2sp\.org/tlog-proof@v1\nextra (.+)\nindex (0|[1-9][0-9]{0,18})((?:\n[A-Za-z0-9+/]{43}=){0,63})"
    try:
        parts = re.fullmatch(form, head.decode())
        if parts is None:
            raise ValueError("is not a receipt that holds its entry")
        entry, index = from_base64(parts[1]), int(parts[2])
        if proven_root(leaf_hash(entry), index, size, [from_base64(each) for each in parts[3].split()]) != root:
            raise ValueError("has a proof that does not lead to the checkpoint")
    except ValueError as error:
        raise Wrong("the receipt", str(error)) from None
    check_entry("the receipt", index, entry)
    return size, index, entry


def check_evidence(data: bytes, entry: bytes) -> int:
    """How many bytes of evidence in an inspector's file are what this entry commits to. Raises Wrong."""
    try:
        found = {}
        for each in json.loads(data)["entries"]:
            leaf, *secret = (base64.urlsafe_b64decode(each[name] + "==") for name in ("leaf", "salt", "evidence"))
            found[leaf] = secret
        salt, evidence = found[leaf_hash(entry)]
    except (ValueError, KeyError, TypeError):
        raise Wrong("the evidence", "holds nothing for this entry in the form in which the bus gives it") from None
    commit = base64.urlsafe_b64encode(hmac.digest(salt, evidence, "sha256")).decode().rstrip("=")
    if len(salt) != 32 or commit != json.loads(entry).get("commit"):
        raise Wrong("the evidence", "is not what the entry commits to")
    return len(evidence)


# --- 6 the command


def verify_log(key: Key, what: str, older_file: str | None) -> Iterator[str]:
    """What to tell of a log."""
    older = open_checkpoint("the older checkpoint", Path(older_file).read_bytes(), key) if older_file else None
    # The folder of a bus holds one folder for each of its logs, by the last part of the log's name.
    inner, url = Path(what, key.name.rpartition("/")[2]), urlsplit(what)
    folder = inner if (inner / "checkpoint").is_file() else Path(what)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    with closing(kind(url.netloc, timeout=30)) as site:
        log = Log(partial(fetch, site, url.path.rstrip("/")) if url.netloc else partial(read_file, folder), key)
        log.verify(older)
        unsigned = 0 if url.netloc else log.nothing_else(files_in(folder))
    yield f"verified: {key.name}, {log.size} entries, root {base64.b64encode(log.root).decode()}"
    if older is not None:
        yield f"It extends the older checkpoint of {older[0]} entries."
    if unsigned:
        yield f"Behind them lie {unsigned} more, which no checkpoint covers yet. They were not verified."


def verify_receipt(key: Key, what: str, evidence_file: str | None) -> Iterator[str]:
    """What to tell of a receipt."""
    size, index, entry = check_receipt(Path(what).read_bytes(), key)
    yield f"verified: {key.name}, entry {index} of {size}: {json.dumps(json.loads(entry), indent=2)}"
    if evidence_file:
        size = check_evidence(Path(evidence_file).read_bytes(), entry)
        yield f"verified: the entry commits to these {size} bytes of evidence."


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Check the evidence log of a Government Service Bus.")
    commands = parser.add_subparsers(required=True)
    for name, what, option in (("log", "DIR|URL", "--from"), ("receipt", "FILE", "--evidence")):
        command = commands.add_parser(name)
        command.add_argument("what", metavar=what)
        command.add_argument("--key", required=True, metavar="VKEY", type=Key)
        command.add_argument(option, dest="other", metavar="FILE")
        command.set_defaults(verify=verify_log if name == "log" else verify_receipt)
    args = parser.parse_args(words if words[:1] in (["log"], ["receipt"], ["-h"], ["--help"]) else ["log", *words])
    for path in (args.what, args.other):
        if path and "://" not in path and not Path(path).exists():
            parser.error(f"there is no {path}")
    try:
        print("\n".join(args.verify(args.key, args.what, args.other)))  # nothing before all is verified
    except (Wrong, OSError, http.client.HTTPException) as error:
        print(ascii(f"NOT VERIFIED: {error}")[1:-1], file=sys.stderr)  # a file's name may hold anything
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
