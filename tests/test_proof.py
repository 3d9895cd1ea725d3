"""Receipts: self-contained, in the form of c2sp.org/tlog-proof, and worth nothing once a bit of them was changed."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb.evidence.checkpoint import NOTE_LIMIT, Checkpoint, Cosigner, NoteWrong, Signer, parse_note
from gsb.evidence.merkle import ProofWrong, inclusion, leaf_hash
from gsb.evidence.proof import Receipt, check_receipt, parse_receipt
from tests.support.rfc6962 import Oracle

ORIGIN = "bus.example/log/2026"
ENTRIES = [b'{"exchange":"%d"}' % number for number in range(300)]
LOG = Oracle([leaf_hash(entry) for entry in ENTRIES])
SIGNER = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))
KEY = SIGNER.verifier


def receipt_of(index: int, size: int) -> Receipt:
    note = SIGNER.sign(Checkpoint(ORIGIN, size, LOG.root(0, size)).text())
    return Receipt(index, tuple(inclusion(index, size, LOG.read)), note, ENTRIES[index])


RECEIPT = receipt_of(257, 300)


@pytest.mark.parametrize(("index", "size"), [(0, 1), (0, 2), (1, 2), (254, 255), (255, 256), (256, 257), (7, 300)])
def test_a_receipt_proves_its_entry(index: int, size: int) -> None:
    read = parse_receipt(receipt_of(index, size).text())
    assert read == receipt_of(index, size)
    assert check_receipt(read, KEY) == Checkpoint(ORIGIN, size, LOG.root(0, size))


def test_a_receipt_is_written_as_the_specification_says() -> None:
    receipt = receipt_of(1, 3)
    sibling, above = (base64.b64encode(each).decode() for each in receipt.proof)
    extra = base64.b64encode(ENTRIES[1]).decode()
    head = f"c2sp.org/tlog-proof@v1\nextra {extra}\nindex 1\n{sibling}\n{above}\n\n"
    assert receipt.text() == head.encode() + receipt.checkpoint
    assert replace(receipt, extra=None).text() == head.replace(f"extra {extra}\n", "").encode() + receipt.checkpoint
    assert receipt_of(0, 1).text().split(b"\n\n")[0].endswith(b"\nindex 0")


def test_a_receipt_of_another_writer_is_read() -> None:
    # The example of the specification, whose signatures are cut short there and left out here.
    text = """c2sp.org/tlog-proof@v1
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=

example.com/fancylog
109482
sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=
"""
    read = parse_receipt(text.encode())
    assert (read.index, len(read.proof), read.extra) == (73_894, 2, None)
    assert read.checkpoint.startswith(b"example.com/fancylog\n109482\n")
    assert read.text() == text.encode()


def test_no_bit_of_a_receipt_can_be_flipped() -> None:
    whole = RECEIPT.text()
    for at in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises((ProofWrong, NoteWrong)):
            check_receipt(parse_receipt(bytes(flipped)), KEY)


def test_no_byte_of_a_receipt_can_be_left_out_or_added() -> None:
    whole = RECEIPT.text()
    for at in range(len(whole)):
        for changed in (whole[:at] + whole[at + 1 :], whole[:at] + b"\n" + whole[at:], whole[:at]):
            with pytest.raises((ProofWrong, NoteWrong)):
                check_receipt(parse_receipt(changed), KEY)


def test_no_line_of_a_receipt_can_be_left_out_doubled_or_moved() -> None:
    lines = RECEIPT.text().split(b"\n")[:-1]
    for at, line in enumerate(lines):
        rest = [*lines[:at], *lines[at + 1 :]]
        for place in range(len(lines)):
            moved = [*rest[:place], line, *rest[place:]]
            if moved != lines:
                with pytest.raises((ProofWrong, NoteWrong)):
                    check_receipt(parse_receipt(b"\n".join(moved) + b"\n"), KEY)
        doubled = [*lines[: at + 1], *lines[at:]]
        # The last line is the signature, and twice the same says the same.
        for changed in (rest, doubled)[: 1 if line == lines[-1] else 2]:
            with pytest.raises((ProofWrong, NoteWrong)):
                check_receipt(parse_receipt(b"\n".join(changed) + b"\n"), KEY)


@settings(deadline=None)
@given(st.integers(0, 299), st.data())
def test_a_receipt_proves_no_other_entry_place_or_log(index: int, data: st.DataObject) -> None:
    receipt = receipt_of(index, 300)
    other = data.draw(st.integers(0, 299).filter(lambda place: place != index))
    for wrong in (
        replace(receipt, index=other),
        replace(receipt, extra=ENTRIES[other]),
        replace(receipt, proof=receipt_of(other, 300).proof),
        replace(receipt, checkpoint=SIGNER.sign(Checkpoint(ORIGIN, 300, LOG.leaves[other]).text())),
        replace(receipt, checkpoint=SIGNER.sign(Checkpoint(ORIGIN, 0, LOG.root(0, 300)).text())),
    ):
        with pytest.raises(ProofWrong):
            check_receipt(wrong, KEY)


def test_a_receipt_is_of_the_log_that_is_asked_for() -> None:
    elsewhere = Checkpoint("bus.example/log/2027", 300, LOG.root(0, 300))
    with pytest.raises(NoteWrong, match="is of the log"):
        check_receipt(replace(RECEIPT, checkpoint=SIGNER.sign(elsewhere.text())), KEY)
    other = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32))
    with pytest.raises(NoteWrong, match="is not signed by"):
        check_receipt(RECEIPT, other.verifier)


def test_a_receipt_without_its_entry_proves_nothing() -> None:
    with pytest.raises(ProofWrong, match="does not hold its entry"):
        check_receipt(replace(RECEIPT, extra=None), KEY)


def test_a_receipt_carries_cosignatures() -> None:
    note = parse_note(RECEIPT.checkpoint)
    witness = Cosigner("audit.example", Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32))
    cosigned = replace(RECEIPT, checkpoint=note.add([witness.sign(note.text, 5)]).encode())
    assert check_receipt(parse_receipt(cosigned.text()), KEY).size == 300


HEAD = "c2sp.org/tlog-proof@v1\n"
HASH = base64.b64encode(bytes(32)).decode() + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        f"{HEAD}index 0\n",
        f"{HEAD}index 0\n\n",
        f"{HEAD}\nnote",
        f"{HEAD}{HASH}\nnote",
        f"{HEAD}extra AAAA\n\nnote",
        f"{HEAD}index 0\nextra AAAA\n\nnote",
        f"{HEAD}extra AAAA\nextra AAAA\nindex 0\n\nnote",
        f"{HEAD}extra\nindex 0\n\nnote",
        f"{HEAD}extra AAB=\nindex 0\n\nnote",
        f"{HEAD}extra  AAAA\nindex 0\n\nnote",
        f"{HEAD}Index 0\n\nnote",
        f"{HEAD}index  0\n\nnote",
        f"{HEAD}index 00\n\nnote",
        f"{HEAD}index -1\n\nnote",
        f"{HEAD}index {2**63}\n\nnote",
        f"{HEAD}index ٣\n\nnote",
        f"{HEAD}index 0\r\n\nnote",
        f"{HEAD}index 0\nAAAA\n\nnote",
        f"{HEAD}index 0\n{HASH * 64}\nnote",
        f"{HEAD}index 0\n {HASH}\nnote",
        f" {HEAD}index 0\n\nnote",
        f"{HEAD.replace('v1', 'v2')}index 0\n\nnote",
        f"{HEAD}index 0\n\n{'x' * NOTE_LIMIT}",
    ],
)
def test_what_is_not_one_receipt_is_refused(text: str) -> None:
    with pytest.raises(ProofWrong, match="receipt"):
        parse_receipt(text.encode())


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_any_bytes_are_a_receipt_written_back_as_it_was_or_refused(data: bytes) -> None:
    for given_bytes in (data, HEAD.encode() + data, f"{HEAD}index 0\n".encode() + data, RECEIPT.text()[:-40] + data):
        try:
            receipt = parse_receipt(given_bytes)
        except ProofWrong:
            continue
        assert receipt.text() == given_bytes


def test_the_largest_entry_has_a_receipt() -> None:
    entry = bytes(65_535)
    root = leaf_hash(entry)
    receipt = Receipt(0, (), SIGNER.sign(Checkpoint(ORIGIN, 1, root).text()), entry)
    assert check_receipt(parse_receipt(receipt.text()), KEY).root == root
