"""Receipts: a text that proves without the bus that an entry stands in the log.

Pure. A receipt holds the entry itself, its index, its proof of inclusion and the signed checkpoint that it leads to;
whoever has the log's public key needs nothing else. A receipt that is not well formed or proves nothing is
``ProofWrong``, one whose checkpoint is not the log's ``NoteWrong``; any other exception is a defect of this module.

Source: c2sp.org/tlog-proof, "Format".
"""

from __future__ import annotations

from dataclasses import dataclass

from gsb.evidence.checkpoint import (
    NOTE_LIMIT,
    Checkpoint,
    NoteWrong,
    Verifier,
    decimal,
    from_base64,
    open_checkpoint,
    to_base64,
)
from gsb.evidence.merkle import ProofWrong, check_inclusion, leaf_hash
from gsb.evidence.tiles import HASH

MAGIC = "c2sp.org/tlog-proof@v1"
MOST_HASHES = 63
"""Hashes of a proof: the height of the largest log."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The entry's index, the hashes from its sibling up to below the root, and the checkpoint's note verbatim.

    ``extra`` is the entry's content. The format allows anything there, or None; nothing vouches for it until its
    hash was proved.
    """

    index: int
    proof: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def text(self) -> bytes:
        """The receipt as a file, by custom named ``.tlog-proof``."""
        extra = [] if self.extra is None else [f"extra {to_base64(self.extra)}"]
        lines = [MAGIC, *extra, f"index {self.index}", *(to_base64(each) for each in self.proof), ""]
        return "".join(f"{line}\n" for line in lines).encode() + self.checkpoint


def parse_receipt(data: bytes) -> Receipt:
    """The receipt in these bytes, whose ``text()`` is the same bytes again; nothing is verified. Raises ProofWrong."""
    head, gap, checkpoint = data.partition(b"\n\n")
    if not (gap and checkpoint) or len(data) > NOTE_LIMIT:
        raise ProofWrong(
            f"a receipt is a proof, an empty line and a checkpoint, of at most {NOTE_LIMIT} bytes together"
        )
    try:
        first, *lines = head.decode("ascii").split("\n")
        extra = from_base64(lines.pop(0).removeprefix("extra ")) if lines and lines[0].startswith("extra ") else None
        if first != MAGIC or not lines or not lines[0].startswith("index "):
            raise ProofWrong(f"a receipt begins with {MAGIC} and the index of its entry")
        index = decimal(lines[0].removeprefix("index "))
        proof = tuple(from_base64(line) for line in lines[1:])
    except (UnicodeDecodeError, NoteWrong) as error:
        raise ProofWrong(f"a receipt is not well formed: {error}") from error
    if len(proof) > MOST_HASHES or any(len(each) != HASH for each in proof):
        raise ProofWrong(f"the proof in a receipt is at most {MOST_HASHES} hashes of {HASH} bytes")
    return Receipt(index, proof, checkpoint, extra)


def check_receipt(receipt: Receipt, verifier: Verifier) -> Checkpoint:
    """The checkpoint under which the receipt's entry (its ``extra``) is proved.

    Raises NoteWrong if the checkpoint is not of the verifier's log, ProofWrong if the entry is missing or does not
    stand at the index.
    """
    checkpoint = open_checkpoint(receipt.checkpoint, verifier)
    if receipt.extra is None:
        raise ProofWrong("the receipt does not hold its entry")
    check_inclusion(leaf_hash(receipt.extra), receipt.index, checkpoint.size, receipt.proof, checkpoint.root)
    return checkpoint
