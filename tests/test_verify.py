"""The bus's own verifier: what it says of logs, entries, receipts and evidence, and that the auditor's file agrees.

Tampered files are in ``test_tampering.py``; here is what a log's operator, who can sign, may have done wrong.
"""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gsb.evidence.checkpoint import Checkpoint
from gsb.evidence.entry import canonical, commitment
from gsb.evidence.log import Files
from gsb.evidence.merkle import EMPTY, leaf_hash
from gsb.evidence.proof import Receipt, parse_receipt
from gsb.evidence.tiles import ENTRY_LIMIT
from gsb.evidence.verify import LogWrong, verify_evidence, verify_log, verify_receipt
from tests.support.logs import (
    SALT,
    VERIFIERS,
    WrittenLog,
    by_the_auditor,
    by_the_bus,
    content,
    evidence,
    run_auditor,
)

PYTHON = pytest.mark.parametrize("verifier", ["bus", "auditor"])


# --- logs


def test_it_says_what_it_verified(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path / "log")
    older = log.grow_to(300)
    log.grow_to(700)
    log.grow_to(800, signed=False)
    seen: list[tuple[int, int]] = []
    paths = ["checkpoint", "tile/0/003.p/32", "tile/entries/003.p/32", "tile/0/000"]
    read = Files(log.folder).read
    found = verify_log(
        read, log.signer.verifier, older=older, paths=paths, progress=lambda done, size: seen.append((done, size))
    )
    assert (found.checkpoint.size, found.unsigned) == (700, 100)
    assert found.older == Checkpoint("bus.example/log/2026", 300, found.older.root if found.older else b"")
    assert seen == [(256, 700), (512, 700), (700, 700)]
    assert verify_log(read, log.signer.verifier).older is None


@PYTHON
def test_an_empty_log_has_the_root_of_nothing(verifier: str, tmp_path: Path) -> None:
    log = WrittenLog(tmp_path / "log")
    log.checkpoint.write_bytes(log.sign(0, EMPTY))
    assert VERIFIERS[verifier](log.folder, log.vkey, None).verified
    log.checkpoint.write_bytes(log.sign(0, bytes(32)))
    assert VERIFIERS[verifier](log.folder, log.vkey, None).path == "checkpoint"


@PYTHON
def test_every_log_extends_the_empty_one_and_itself(verifier: str, tmp_path: Path) -> None:
    log = WrittenLog(tmp_path / "log")
    newest = log.grow_to(3)
    for note, verified in ((newest, True), (log.sign(0, EMPTY), True), (log.sign(0, bytes(32)), False)):
        (tmp_path / "older").write_bytes(note)
        assert VERIFIERS[verifier](log.folder, log.vkey, tmp_path / "older").verified == verified


@PYTHON
def test_a_checkpoint_may_be_signed_by_others_too_but_not_wrongly_by_its_log(verifier: str, tmp_path: Path) -> None:
    log = WrittenLog(tmp_path / "log")
    note = log.grow_to(3)
    other = WrittenLog(tmp_path / "other", origin="witness.example").signer.sign(
        note.decode().partition("\n\n")[0] + "\n"
    )
    line = other.partition(b"\n\n")[2]
    log.checkpoint.write_bytes(note + line)
    assert VERIFIERS[verifier](log.folder, log.vkey, None).verified
    ours = note.partition(b"\n\n")[2]
    wrong = WrittenLog(tmp_path / "again", key=log.signer.key).signer.sign("another text\n").partition(b"\n\n")[2]
    assert wrong[:30] == ours[:30]
    for lines in (ours + wrong, wrong + ours, ours + b"\n", ours[:-1], ours + "\N{EM DASH} a b\n".encode(), line):
        log.checkpoint.write_bytes(note.partition(b"\n\n")[0] + b"\n\n" + lines)
        assert VERIFIERS[verifier](log.folder, log.vkey, None).path == "checkpoint", lines


@PYTHON
def test_a_note_has_one_form(verifier: str, tmp_path: Path) -> None:
    log = WrittenLog(tmp_path / "log")
    text, _, line = log.grow_to(3).decode().partition("\n\n")
    others = "".join(f"\N{EM DASH} witness.example {text_in_base64(bytes([n]) * 68)}\n" for n in range(100))
    strange = f"{text}\n\x01\n"
    by_hand = text_in_base64(log.signer.verifier.key_id + log.signer.key.sign(strange.encode()))
    # 68 bytes leave two bits of their last base64 digit unused.
    last = chr(ord(line[-3]) + 1)
    for note, verified in (
        (f"{text}\n\n{others[: others.rindex(chr(0x2014))]}{line}", True),
        (f"{text}\n\n{others}{line}", False),
        (f"{strange}\n\N{EM DASH} {log.signer.verifier.name} {by_hand}\n", False),
        (f"{text}\n\n{line[:-3]}{last}=\n", False),
    ):
        log.checkpoint.write_text(note)
        found = VERIFIERS[verifier](log.folder, log.vkey, None)
        assert (found.verified, found.path) == (verified, None if verified else "checkpoint"), note


def text_in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@PYTHON
@pytest.mark.parametrize(
    "text",
    [
        "bus.example/log/2026\n03\nROOT\n",
        "bus.example/log/2026\n+3\nROOT\n",
        "bus.example/log/2026\n3\nROOT\n\nmore\n",
        "bus.example/log/2026\n3\n",
        "bus.example/log/2026\n3\nAAAA\n",
        "bus.example/log/2026\n3\nROO=\n",
    ],
)
def test_a_signed_text_that_is_no_checkpoint_is_refused(verifier: str, text: str, tmp_path: Path) -> None:
    log = WrittenLog(tmp_path / "log")
    root = log.grow_to(3).decode().split("\n")[2]
    for written, verified in ((text, False), ("bus.example/log/2026\n3\nROOT\nan extension\n", True)):
        log.checkpoint.write_bytes(log.signer.sign(written.replace("ROOT", root)))
        found = VERIFIERS[verifier](log.folder, log.vkey, None)
        assert (found.verified, found.path) == (verified, None if verified else "checkpoint")


@PYTHON
def test_memory_does_not_grow_with_the_log(verifier: str, tmp_path: Path) -> None:
    log = WrittenLog(tmp_path / "log")
    peaks = []
    for size in (1_000, 8_000):
        log.grow_to(size)
        VERIFIERS[verifier](log.folder, log.vkey, None)
        tracemalloc.start()
        try:
            assert VERIFIERS[verifier](log.folder, log.vkey, None).verified
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 50_000


# --- entries


def nested(levels: int) -> bytes:
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


ENTRIES = [
    b"{}",
    content(1),
    b'{"a":null,"b":true,"c":-5,"d":9007199254740992}',
    '{"a":"é\U0001f600 \x7f \u2028 [[[ \\" \\\\ \\u0001 \\b\\n"}'.encode(),
    nested(64),
    b'{"a":"' + b"x" * (ENTRY_LIMIT - 8) + b'"}',
]
NOT_ENTRIES = [
    *(b"", b"null", b"[]", b'"a"', b"{}x", b"{}\n", b'{"a":1', b'{"a": 1}', b'{"b":1,"a":1}', b'{"a":1,"a":1}'),
    *(b'{"a":1.5}', b'{"a":1.0}', b'{"a":1e3}', b'{"a":-0}', b'{"a":01}', b'{"a":NaN}', b'{"a":Infinity}'),
    *(
        b'{"a":9007199254740993}',
        b'{"a":[-9007199254740993]}',
        b'{"a":99999999999999999999}',
        b'{"a":' + b"9" * 9000 + b"}",
    ),
    *(b'{"a":"\\u0041"}', b'{"a":"\\/"}', b'{"a":"\\u00e9"}', b'{"a":"\\ud800"}', b'{"a":"\xff"}', b'{"a":"\x01"}'),
    *(b'\xef\xbb\xbf{"a":1}', '{"a":1}'.encode("utf-16"), nested(65), nested(30_000), b"[" * ENTRY_LIMIT),
]


@PYTHON
def test_an_entry_is_canonical_json(verifier: str, tmp_path: Path) -> None:
    log = WrittenLog(tmp_path / "log")
    log.grow(ENTRIES)
    assert VERIFIERS[verifier](log.folder, log.vkey, None).verified


@pytest.mark.parametrize("wrong", NOT_ENTRIES, ids=lambda each: repr(each[:20]))
def test_what_is_no_entry_is_named_though_the_log_signed_it(wrong: bytes, tmp_path: Path) -> None:
    log = WrittenLog(tmp_path / "log")
    log.grow([content(0), content(1), wrong, content(3)])
    for found in (by_the_bus(log.folder, log.vkey), by_the_auditor(log.folder, log.vkey)):
        assert (found.index, found.path) == (2, "tile/entries/000.p/4")


# --- receipts


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    log = WrittenLog(tmp_path / "log")
    log.grow_to(300)
    return log


@pytest.mark.parametrize("index", [0, 1, 255, 256, 298, 299])
def test_a_receipt_proves_its_entry(index: int, log: WrittenLog, tmp_path: Path) -> None:
    text = log.receipt(index).text()
    proven = verify_receipt(text, log.signer.verifier)
    assert (proven.index, proven.entry, proven.checkpoint.size) == (index, content(index), 300)
    assert by_auditor(text, log.vkey, tmp_path)[0] == 0


def test_a_receipt_of_the_only_entry_needs_no_proof(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path / "log")
    log.grow_to(1)
    assert verify_receipt(log.receipt(0).text(), log.signer.verifier).entry == content(0)
    assert by_auditor(log.receipt(0).text(), log.vkey, tmp_path)[0] == 0


def by_auditor(text: bytes, vkey: str, folder: Path, evidence_file: bytes | None = None) -> tuple[int, str]:
    """The status and what was said of a receipt by the auditor's file."""
    (folder / "receipt").write_bytes(text)
    words = ["receipt", str(folder / "receipt"), "--key", vkey]
    if evidence_file is not None:
        (folder / "evidence").write_bytes(evidence_file)
        words += ["--evidence", str(folder / "evidence")]
    status, said, why = run_auditor(words)
    assert (status == 0) == (why == "")
    return status, said + why


def changed(**changes: Any) -> Callable[[Receipt], bytes]:
    return lambda receipt: replace(receipt, **changes).text()


def in_text(old: bytes, new: bytes) -> Callable[[Receipt], bytes]:
    return lambda receipt: receipt.text().replace(old, new, 1)


def in_proof(how: Callable[[list[bytes]], list[bytes]]) -> Callable[[Receipt], bytes]:
    return lambda receipt: replace(receipt, proof=tuple(how(list(receipt.proof)))).text()


RECEIPTS: dict[str, tuple[Callable[[Receipt], bytes], str]] = {
    "another index": (changed(index=41), "the receipt"),
    "an index beyond the log": (changed(index=300), "the receipt"),
    "a number that is none": (in_text(b"index 40", b"index 040"), "the receipt"),
    "another entry": (changed(extra=content(41)), "the receipt"),
    "no entry": (changed(extra=None), "the receipt"),
    "an empty entry": (changed(extra=b""), "the receipt"),
    "a flipped hash": (in_proof(lambda proof: [bytes([proof[0][0] ^ 1]) + proof[0][1:], *proof[1:]]), "the receipt"),
    "hashes in another order": (in_proof(lambda proof: proof[::-1]), "the receipt"),
    "a hash less": (in_proof(lambda proof: proof[:-1]), "the receipt"),
    "a hash more": (in_proof(lambda proof: [*proof, proof[-1]]), "the receipt"),
    "no proof": (in_proof(lambda proof: []), "the receipt"),
    "64 hashes": (in_proof(lambda proof: [bytes(32)] * 64), "the receipt"),
    "a short hash": (in_proof(lambda proof: [proof[0][:31], *proof[1:]]), "the receipt"),
    "two hashes cut elsewhere": (
        in_proof(lambda proof: [proof[0] + proof[1][:1], proof[1][1:], *proof[2:]]),
        "the receipt",
    ),
    "another format": (in_text(b"@v1", b"@v2"), "the receipt"),
    "a size that is not signed": (in_text(b"\n300\n", b"\n299\n"), "the receipt's checkpoint"),
    "a checkpoint cut off": (lambda receipt: receipt.text()[:-10], "the receipt's checkpoint"),
}


@pytest.mark.parametrize("case", RECEIPTS)
def test_a_receipt_that_was_tampered_with_proves_nothing(case: str, log: WrittenLog, tmp_path: Path) -> None:
    tamper, path = RECEIPTS[case]
    text = tamper(log.receipt(40))
    assert text != log.receipt(40).text()
    with pytest.raises(LogWrong) as wrong:
        verify_receipt(text, log.signer.verifier)
    assert wrong.value.path == path
    status, said = by_auditor(text, log.vkey, tmp_path)
    assert status == 1
    assert said.startswith(f"NOT VERIFIED: {path}: ")


def test_a_receipt_of_another_log_proves_nothing(log: WrittenLog, tmp_path: Path) -> None:
    other = WrittenLog(tmp_path / "other", key=Ed25519PrivateKey.generate())
    with pytest.raises(LogWrong, match="the receipt's checkpoint"):
        verify_receipt(log.receipt(40).text(), other.signer.verifier)
    assert by_auditor(log.receipt(40).text(), other.vkey, tmp_path)[0] == 1


def test_any_flipped_bit_of_a_receipt_is_found_by_both(log: WrittenLog, tmp_path: Path) -> None:
    text = log.receipt(40).text()
    assert parse_receipt(text).extra == content(40)
    for at in range(0, len(text), 5):
        flipped = text[:at] + bytes([text[at] ^ (1 << at % 8)]) + text[at + 1 :]
        with pytest.raises(LogWrong):
            verify_receipt(flipped, log.signer.verifier)
        assert by_auditor(flipped, log.vkey, tmp_path)[0] == 1, at


def test_a_receipt_proves_entries_only(tmp_path: Path) -> None:
    log = WrittenLog(tmp_path / "log")
    log.grow([content(0), b'{"a": 1}'])
    receipt = replace(log.receipt(1), extra=b'{"a": 1}')
    with pytest.raises(LogWrong, match="entry 1: the receipt: is not a JSON object in canonical form"):
        verify_receipt(receipt.text(), log.signer.verifier)
    assert by_auditor(receipt.text(), log.vkey, tmp_path)[0] == 1


# --- evidence


def text_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def given(index: int, **changes: Any) -> dict[str, Any]:
    """The evidence of an entry as an inspector gets it."""
    said = {"leaf": leaf_hash(content(index)), "salt": SALT, "evidence": evidence(index)}
    return {name: text_of(value) for name, value in said.items()} | changes


def test_evidence_is_what_the_entry_commits_to(log: WrittenLog, tmp_path: Path) -> None:
    data = json.dumps({"entries": [given(3), given(40), given(41)], "exchange": "01a0"}).encode()
    assert verify_evidence(data, content(40)) == evidence(40)
    status, said = by_auditor(log.receipt(40).text(), log.vkey, tmp_path, data)
    assert status == 0
    assert said.endswith(f"the entry commits to these {len(evidence(40))} bytes of evidence.\n")


@pytest.mark.parametrize(
    "data",
    [
        {"entries": [given(40, evidence=text_of(evidence(41)))]},
        {"entries": [given(40, salt=text_of(bytes(32)))]},
        {"entries": [given(40, salt=text_of(SALT[:31]))]},
        {"entries": [given(40, salt="")]},
        {"entries": [given(40, salt=None)]},
        {"entries": [given(41)]},
        {"entries": []},
        {"entries": None},
        {"entries": [1]},
        {"entries": [{"leaf": text_of(leaf_hash(content(40)))}]},
        {},
        [],
        None,
    ],
)
def test_other_evidence_is_not(data: object, log: WrittenLog, tmp_path: Path) -> None:
    written = json.dumps(data).encode()
    with pytest.raises(LogWrong, match="the evidence"):
        verify_evidence(written, content(40))
    status, said = by_auditor(log.receipt(40).text(), log.vkey, tmp_path, written)
    assert (status, said.startswith("NOT VERIFIED: the evidence: ")) == (1, True)


def test_a_short_salt_commits_to_nothing(tmp_path: Path) -> None:
    """Whoever may choose its length can move bytes between it and the evidence."""
    entry = canonical({"commit": commitment(SALT[:31], b"{}")})
    log = WrittenLog(tmp_path / "log")
    log.grow([entry])
    data = json.dumps(
        {"entries": [{"leaf": text_of(leaf_hash(entry)), "salt": text_of(SALT[:31]), "evidence": text_of(b"{}")}]}
    ).encode()
    with pytest.raises(LogWrong, match="is not what the entry commits to"):
        verify_evidence(data, entry)
    assert by_auditor(replace(log.receipt(0), extra=entry).text(), log.vkey, tmp_path, data)[0] == 1
