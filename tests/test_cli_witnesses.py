"""Cosignatures as whoever verifies a log or a receipt asks for them: by the witnesses' keys, and by how many."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from gsb.cli.main import app
from gsb.evidence.checkpoint import Cosigner, Note, Signature, parse_note
from tests.support.logs import VERIFIERS, WrittenLog, each_verifier

AT = 1_790_000_000
TOLD = "2026-09-21T14:13:20.000Z"
FIRST, SECOND, SILENT = (
    Cosigner(name, Ed25519PrivateKey.generate()) for name in ("first.example", "second.example", "silent.example")
)


@pytest.fixture
def log(tmp_path: Path) -> WrittenLog:
    made = WrittenLog(tmp_path / "log" / "2026")
    made.grow_to(30)
    return made


def cosign(note: bytes, *cosigners: Cosigner) -> bytes:
    parsed = parse_note(note)
    return parsed.add(each.sign(parsed.text, AT) for each in cosigners).encode()


def gsb(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def both(log: WrittenLog, note: bytes, *words: object) -> list[Result]:
    """The log with this note as its checkpoint, and a receipt from it, verified."""
    log.checkpoint.write_bytes(note)
    receipt = log.folder.parent.parent / "receipt"
    receipt.write_bytes(replace(log.receipt(7), checkpoint=note).text())
    key = ("--key", log.vkey, *words)
    return [gsb("log", "verify", log.folder, *key), gsb("receipt", "verify", receipt, *key)]


def test_all_that_are_given_must_have_cosigned(log: WrittenLog) -> None:
    note = cosign(log.checkpoint.read_bytes(), FIRST, SECOND)
    for ran in both(log, note, "--witness", FIRST.vkey, "--witness", SECOND.vkey):
        assert ran.exit_code == 0, ran.stderr
        assert f"cosigned by first.example at {TOLD}" in ran.output
        assert f"cosigned by second.example at {TOLD}" in ran.output
    for ran in both(log, note, "--witness", FIRST.vkey, "--witness", SILENT.vkey):
        assert ran.exit_code == 1
        assert "is cosigned by 1 of the witnesses instead of 2: first.example" in ran.stderr


def test_or_as_many_as_are_asked_for(log: WrittenLog) -> None:
    note = cosign(log.checkpoint.read_bytes(), FIRST)
    given = ("--witness", FIRST.vkey, "--witness", SILENT.vkey, "--cosignatures")
    assert [ran.exit_code for ran in both(log, note, *given, 1)] == [0, 0]
    assert [ran.exit_code for ran in both(log, note, *given, 0)] == [0, 0]
    assert [ran.exit_code for ran in both(log, note, *given, 2)] == [1, 1]
    for ran in both(log, note, *given, 3):
        assert (ran.exit_code, "--cosignatures 3 needs as many --witness" in ran.stderr) == (2, True)


def test_one_witness_given_twice_counts_once(log: WrittenLog) -> None:
    note = cosign(log.checkpoint.read_bytes(), FIRST)
    twice = ("--witness", FIRST.vkey, "--witness", FIRST.vkey, "--cosignatures", 2)
    assert [ran.exit_code for ran in both(log, note, *twice)] == [2, 2]


def test_a_cosignature_that_fails_is_worse_than_none(log: WrittenLog) -> None:
    note = parse_note(cosign(log.checkpoint.read_bytes(), FIRST))
    last = note.signatures[-1]
    spoilt = Signature(last.name, last.key_id, last.value[:-1] + bytes([last.value[-1] ^ 1]))
    wrong = Note(note.text, (*note.signatures[:-1], spoilt)).encode()
    assert [ran.exit_code for ran in both(log, wrong)] == [0, 0], "whoever trusts no witness need not look"
    for ran in both(log, wrong, "--witness", FIRST.vkey, "--cosignatures", 0):
        assert (ran.exit_code, "a signature by first.example is wrong" in ran.stderr) == (1, True)


def test_a_log_s_key_is_no_witness_s(log: WrittenLog) -> None:
    for key in (log.vkey, "nonsense"):
        for ran in both(log, log.checkpoint.read_bytes(), "--witness", key):
            assert (ran.exit_code, "is no key of a witness" in ran.stderr) == (2, True)


@each_verifier
def test_cosignatures_are_in_no_verifier_s_way(log: WrittenLog, verifier: str) -> None:
    crowd = [Cosigner(f"w{number}.example", Ed25519PrivateKey.generate()) for number in range(15)]
    log.checkpoint.write_bytes(cosign(log.checkpoint.read_bytes(), *crowd))
    found = VERIFIERS[verifier](log.folder, log.vkey, None)
    assert found.verified, found.said


def test_machines_are_told_who_cosigned(log: WrittenLog) -> None:
    note = cosign(log.checkpoint.read_bytes(), FIRST)
    for ran in both(log, note, "--witness", FIRST.vkey, "--json"):
        assert json.loads(ran.stdout)["cosigned"] == {"first.example": TOLD}
