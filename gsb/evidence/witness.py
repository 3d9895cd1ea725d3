"""What a log and its witness say to each other, and what a witness must have seen before it cosigns.

Pure: requests and answers as bytes, and the judgement between the newest checkpoint of a log that a witness has seen
and the one that it is asked to cosign. Who asks, and where the newest one is kept, others decide. Whatever a witness
must not cosign is ``Refused``; any other exception is a defect of this module.

Source: c2sp.org/tlog-witness. Where its version 1.0.0 and later ones differ, another root for the same size is 422 here
as in the later ones; who asks must understand both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from gsb.evidence.checkpoint import (
    Checkpoint,
    Note,
    NoteWrong,
    Verifier,
    decimal,
    from_base64,
    parse_note,
    to_base64,
)
from gsb.evidence.merkle import EMPTY, ProofWrong, check_consistency
from gsb.evidence.proof import MOST_HASHES
from gsb.evidence.tiles import HASH

ADD = "add-checkpoint"
"""Below the submission prefix."""
SIZE_TYPE = "text/x.tlog.size"
"""The content type of an answer that says nothing but a size."""
REQUEST_LIMIT = 65_536
"""Bytes of a request; 63 hashes and a checkpoint with a dozen post-quantum signatures are fewer."""

_YEAR = re.compile(r"[0-9]{4}(\.[1-9][0-9]{0,2})?")


class Refused(Exception):
    """A witness does not cosign. ``status`` is HTTP's; ``size``, with 409, of the newest checkpoint it has cosigned."""

    def __init__(self, status: int, why: str, size: int | None = None) -> None:
        super().__init__(why)
        self.status, self.size = status, size


def seen_path(origin: str) -> str:
    """Where, below the monitoring prefix, a witness shows the newest checkpoint of a log that it has cosigned."""
    return f"{sha256(origin.encode()).hexdigest()}/checkpoint"


@dataclass(frozen=True, slots=True)
class Request:
    """A checkpoint to be cosigned, and the proof that its tree begins with that of ``old`` entries."""

    old: int
    proof: tuple[bytes, ...]
    note: bytes
    """The checkpoint with the log's signature."""

    def encode(self) -> bytes:
        """The body of a POST to ``ADD``."""
        lines = [f"old {self.old}", *(to_base64(each) for each in self.proof), ""]
        return "".join(f"{line}\n" for line in lines).encode() + self.note


def parse_request(body: bytes) -> Request:
    """The request in these bytes, whose ``encode()`` is the same bytes again. Raises Refused with 400."""
    head, gap, note = body.partition(b"\n\n")
    try:
        first, *rest = head.decode("ascii").split("\n")
        proof = tuple(from_base64(line) for line in rest)
        if (
            not (gap and first.startswith("old "))
            or len(proof) > MOST_HASHES
            or any(len(each) != HASH for each in proof)
        ):
            raise NoteWrong(f"a request is 'old <size>', at most {MOST_HASHES} hashes, an empty line and a checkpoint")
        return Request(decimal(first.removeprefix("old ")), proof, note)
    except (UnicodeDecodeError, NoteWrong) as error:
        raise Refused(400, str(error)) from error


@dataclass(frozen=True, slots=True)
class Known:
    """A log that a witness cosigns for, by its origin and the keys that it signs with.

    ``yearly``: a year stands behind the origin, or a year and a number (``2026.2``), as the bus calls its logs; the key
    stays the same from year to year, and is named like the log.
    """

    origin: str
    keys: tuple[Verifier, ...]
    yearly: bool = False

    def covers(self, origin: str) -> bool:
        if not self.yearly:
            return origin == self.origin
        before, _, year = origin.rpartition("/")
        return before == self.origin and _YEAR.fullmatch(year) is not None

    def open(self, note: Note, origin: str) -> Note:
        """The note with no other signatures than those of this log, of this origin. Raises Refused with 403 if there is
        none, or one that fails."""
        keys = [Verifier(origin, each.kind, each.public) if self.yearly else each for each in self.keys]
        try:
            signed = {(key.name, key.key_id) for key in keys if key.times(note)}
        except NoteWrong as error:
            raise Refused(403, str(error)) from error
        if not signed:
            raise Refused(403, f"the checkpoint is not signed with a known key of {origin[:120]}")
        return Note(note.text, tuple(each for each in note.signatures if (each.name, each.key_id) in signed))


def opened(request: Request, logs: Iterable[Known]) -> tuple[Note, Checkpoint]:
    """The checkpoint of a request, verified, and its note. Raises Refused: 400 malformed, 404 of no known log, 403 not
    signed by it."""
    try:
        note = parse_note(request.note)
        checkpoint = Checkpoint.parse(note.text)
    except NoteWrong as error:
        raise Refused(400, str(error)) from error
    log = next((each for each in logs if each.covers(checkpoint.origin)), None)
    if log is None:
        raise Refused(404, f"the log {checkpoint.origin[:120]!r} is not known here")
    return log.open(note, checkpoint.origin), checkpoint


def judge(request: Request, checkpoint: Checkpoint, newest: Checkpoint | None) -> None:
    """Whether a witness that has seen ``newest`` of this log may cosign ``checkpoint``.

    Raises Refused: 400 if the request goes back, 409 with the newest size if it starts elsewhere, 422 if the tree is
    not an extension of the one that was seen.
    """
    if request.old > checkpoint.size:
        raise Refused(400, f"a log of {checkpoint.size} entries does not extend one of {request.old}")
    size, root = (newest.size, newest.root) if newest is not None else (0, EMPTY)
    if request.old != size:
        raise Refused(409, f"the newest checkpoint seen is of {size} entries, not of {request.old}", size)
    if not checkpoint.size and checkpoint.root != EMPTY:
        raise Refused(422, "a log without entries has another root than the empty tree")
    try:
        check_consistency(size, root, checkpoint.size, checkpoint.root, request.proof)
    except ProofWrong as error:
        raise Refused(422, str(error)) from error


def parse_size(body: bytes) -> int:
    """The size that an answer of ``SIZE_TYPE`` says. Raises NoteWrong."""
    text = body.decode("ascii", "replace")
    if not text.endswith("\n"):
        raise NoteWrong("a size does not end in a newline")
    return decimal(text[:-1])
