"""Signed notes and checkpoints: what a log says of itself, signed by the log and cosigned by its witnesses.

Pure. A note is read strictly, byte for byte: what could be written in two ways is refused, so what was verified is
exactly what was signed. Text of a note is worth nothing before a known key's signature was verified. Whatever is
wrong with a note or a key is ``NoteWrong``; any other exception is a defect of this module.

Source: c2sp.org/signed-note (v1.0.0), c2sp.org/tlog-checkpoint (v1.0.0), c2sp.org/tlog-cosignature (v1.0.1, Ed25519).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gsb.evidence.tiles import HASH

NOTE_LIMIT = 1_000_000
"""Bytes of a note; the longest checkpoint with 100 post-quantum signatures is shorter."""
MOST_SIGNATURES = 100
"""Signature lines of a note: verifiers accept at least 16, and may refuse at some limit (signed-note, "Format")."""
LAST = 2**63 - 1
"""The largest size, index and time: what every verifier's integer can hold."""
LOG, WITNESS = 0x01, 0x04
"""Types of signature: Ed25519 over the text; Ed25519 over the time and the text, which is a cosignature."""

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]")
"""Control characters but for the newline, and surrogates, which UTF-8 cannot say."""
_DASH = "\N{EM DASH} "


class NoteWrong(ValueError):
    """A note, checkpoint or key that is not well formed, or is not signed by whom it should be."""


# --- what several formats share


def decimal(text: str) -> int:
    """A number as every format here writes it: ASCII, no leading zeroes, at most 2**63 - 1. Raises NoteWrong."""
    if _DECIMAL.fullmatch(text) is None or int(text) > LAST:
        raise NoteWrong(f"{text[:40]!r} is not a number up to {LAST}")
    return int(text)


def to_base64(data: bytes) -> str:
    """RFC 4648, section 4, padded."""
    return base64.b64encode(data).decode()


def from_base64(text: str) -> bytes:
    """RFC 4648, section 4, in the one way in which these bytes are written. Raises NoteWrong."""
    try:
        data = base64.b64decode(text)
    except ValueError as error:
        raise NoteWrong(f"{text[:40]!r} is not base64") from error
    # Decoding passes over what is not of the alphabet, and over bits that pad; encoding knows one way only.
    if to_base64(data) != text:
        raise NoteWrong(f"{text[:40]!r} is not canonical base64")
    return data


# --- checkpoints


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's origin, size and root (32 bytes). Raises NoteWrong for what no checkpoint can say.

    ``extensions`` are further lines, which nobody can audit: ours have none, others' are kept as they are.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not all(line and "\n" not in line for line in (self.origin, *self.extensions)):
            raise NoteWrong("the origin and the extensions of a checkpoint are non-empty lines")
        if not 0 <= self.size <= LAST:
            raise NoteWrong(f"a log does not have {self.size} entries")
        if len(self.root) != HASH:
            raise NoteWrong(f"a root has {HASH} bytes, not {len(self.root)}")

    def text(self) -> str:
        """The text that is signed (c2sp.org/tlog-checkpoint, "Note text")."""
        return "".join(f"{line}\n" for line in (self.origin, self.size, to_base64(self.root), *self.extensions))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The checkpoint of a note's text. Raises NoteWrong."""
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop():
            raise NoteWrong("a checkpoint has at least three lines, each ending in a newline")
        return cls(lines[0], decimal(lines[1]), from_base64(lines[2]), tuple(lines[3:]))


# --- notes


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: the name and the id (4 bytes) of a key, and what it signed with."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> str:
        """The line with its newline."""
        return f"{_DASH}{self.name} {to_base64(self.key_id + self.value)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text, which ends in a newline, and its signatures: not verified."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        """The note as it is served and stored."""
        return "".join([self.text, "\n", *(signature.line() for signature in self.signatures)]).encode()

    def add(self, signatures: Iterable[Signature]) -> Note:
        """This note with further signatures, each once; those that it had come first and stay."""
        return Note(self.text, tuple(dict.fromkeys([*self.signatures, *signatures])))


def parse_note(data: bytes) -> Note:
    """The note in these bytes, whose ``encode()`` is the same bytes again. Raises NoteWrong."""
    if len(data) > NOTE_LIMIT:
        raise NoteWrong(f"a note of {len(data)} bytes is longer than {NOTE_LIMIT}")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoteWrong("a note is not UTF-8") from error
    # The text may hold empty lines; no signature line is one, so the last of them ends the text.
    text, gap, lines = whole.rpartition("\n\n")
    if not gap:
        raise NoteWrong("a note has no empty line before its signatures")
    return Note(_well_formed(text + "\n"), parse_signatures(lines))


def parse_signatures(lines: str) -> tuple[Signature, ...]:
    """1 to 100 signature lines, as they end a note or as a witness answers. Raises NoteWrong."""
    # Not splitlines, which would also end lines where only Unicode does.
    found = _well_formed(lines).removesuffix("\n").split("\n")
    if len(found) > MOST_SIGNATURES:
        raise NoteWrong(f"a note has more than {MOST_SIGNATURES} signatures")
    return tuple(_signature(line) for line in found)


def _signature(line: str) -> Signature:
    name, gap, encoded = line.removeprefix(_DASH).partition(" ")
    if not (line.startswith(_DASH) and gap):
        raise NoteWrong(f"{line[:80]!r} is not a signature line")
    value = from_base64(encoded)
    if len(value) < 5:
        raise NoteWrong(f"{line[:80]!r} holds no signature")
    return Signature(_named(name), value[:4], value[4:])


def _well_formed(text: str) -> str:
    if not text.endswith("\n"):
        raise NoteWrong("a note or its text does not end in a newline")
    if _CONTROL.search(text):
        raise NoteWrong("a note holds a control character")
    return text


def _named(name: str) -> str:
    if not name or "+" in name or any(character.isspace() for character in name) or _CONTROL.search(name):
        raise NoteWrong(f"{name[:80]!r} is not a key's name: it is empty, or holds a space, control character or plus")
    return name


# --- keys


@dataclass(frozen=True)
class Verifier:
    """The public key of a log (``LOG``) or of a witness (``WITNESS``), by its name. Raises NoteWrong."""

    name: str
    kind: int
    public: bytes

    def __post_init__(self) -> None:
        _named(self.name)
        if self.kind not in (LOG, WITNESS):
            raise NoteWrong(f"the key {self.name} is of the unknown type {self.kind:#04x}")
        if len(self.public) != 32:
            raise NoteWrong(f"the key {self.name} has {len(self.public)} bytes instead of 32")

    @classmethod
    def of(cls, vkey: str) -> Self:
        """The key written as ``name+id+base64``. Raises NoteWrong, also where the id is another key's."""
        name, _, rest = vkey.partition("+")
        _, _, encoded = rest.partition("+")
        material = from_base64(encoded)
        found = cls(name, material[0] if material else 0, material[1:])
        if found.vkey != vkey:
            raise NoteWrong(f"the id in {vkey[:120]!r} is not that of its name and key")
        return found

    @cached_property
    def key_id(self) -> bytes:
        """Its four bytes in a signature line: SHA-256(name, newline, type, key)[:4]."""
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    @property
    def vkey(self) -> str:
        """The key as text, to be handed to whoever verifies."""
        return f"{self.name}+{self.key_id.hex()}+{to_base64(bytes([self.kind]) + self.public)}"

    def times(self, note: Note) -> list[int]:
        """When this key signed the note, in seconds since 1970 (0 for a log's key, which does not say).

        Empty if it did not sign. Other keys' signatures are ignored, even of the same name or the same id.
        Raises NoteWrong if any signature of this key fails: then nothing in the note is to be trusted.
        """
        mine = [each.value for each in note.signatures if (each.name, each.key_id) == (self.name, self.key_id)]
        return [self._time(note.text, value) for value in mine]

    def _time(self, text: str, value: bytes) -> int:
        at, value = (int.from_bytes(value[:8], "big"), value[8:]) if self.kind == WITNESS else (0, value)
        message = _cosigned(text, at) if self.kind == WITNESS else text.encode()
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(value, message)
        except InvalidSignature as error:
            raise NoteWrong(f"a signature by {self.name} is wrong") from error
        if at > LAST:
            raise NoteWrong(f"a cosignature by {self.name} is of no possible time")
        return at

    def open(self, data: bytes) -> Note:
        """The note in these bytes, verified. Raises NoteWrong unless this key signed it."""
        note = parse_note(data)
        if not self.times(note):
            raise NoteWrong(f"the note is not signed by {self.name} with the key {self.key_id.hex()}")
        return note


class Signer:
    """A log's private key: it signs whole notes."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        """``name`` should be the log's origin. Raises NoteWrong for one that a note cannot say."""
        self.key = key
        self.verifier = Verifier(name, LOG, key.public_key().public_bytes_raw())

    @property
    def vkey(self) -> str:
        return self.verifier.vkey

    def sign(self, text: str) -> bytes:
        """The note of this text with one signature. Raises NoteWrong for what cannot be a note's text."""
        value = self.key.sign(_well_formed(text).encode())
        return Note(text, (Signature(self.verifier.name, self.verifier.key_id, value),)).encode()


class Cosigner:
    """A witness's private key: it says when it had seen a checkpoint as the newest of its log."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        """Each witness needs its own key: a cosignature does not say the name. Raises NoteWrong as ``Signer``."""
        self.key = key
        self.verifier = Verifier(name, WITNESS, key.public_key().public_bytes_raw())

    @property
    def vkey(self) -> str:
        return self.verifier.vkey

    def sign(self, text: str, at: int) -> Signature:
        """The cosignature of a checkpoint's text at a time in seconds. Raises NoteWrong for any other text or time."""
        Checkpoint.parse(_well_formed(text))
        if not 0 <= at <= LAST:
            raise NoteWrong(f"{at} is no possible time")
        value = at.to_bytes(8, "big") + self.key.sign(_cosigned(text, at))
        return Signature(self.verifier.name, self.verifier.key_id, value)


def _cosigned(text: str, at: int) -> bytes:
    """c2sp.org/tlog-cosignature, "Ed25519 signed message"."""
    return f"cosignature/v1\ntime {at}\n{text}".encode()


# --- both together


def open_checkpoint(data: bytes, verifier: Verifier) -> Checkpoint:
    """The checkpoint in these bytes, verified.

    Raises NoteWrong unless the log's key signed it and it is of the log that the key is named after. Without that, one
    log's checkpoint would pass for another's that the same key signs under another name.
    """
    found = Checkpoint.parse(verifier.open(data).text)
    if found.origin != verifier.name:
        raise NoteWrong(f"the checkpoint is of the log {found.origin[:120]!r}, not of {verifier.name!r}")
    return found


def cosignatures(data: bytes, witnesses: Sequence[Verifier]) -> dict[str, int]:
    """Which of these witnesses cosigned, by name, and when last, in seconds since 1970.

    Raises NoteWrong if a cosignature of any of them fails. It does not say that the log signed: ``open_checkpoint``.
    """
    note = parse_note(data)
    found = {witness.name: max(witness.times(note), default=-1) for witness in witnesses if witness.kind == WITNESS}
    return {name: at for name, at in found.items() if at >= 0}
