"""Signed notes and their keys: one way to write each, and nothing that differs by one bit is accepted."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb.evidence.checkpoint import (
    LOG,
    NOTE_LIMIT,
    WITNESS,
    Checkpoint,
    Cosigner,
    NoteWrong,
    Signer,
    Verifier,
    open_checkpoint,
    parse_note,
    parse_signatures,
)
from tests.support.notes import (
    ARCHE,
    CHECKPOINT,
    COSIGNER,
    ENOCH,
    LINES,
    LOG_KEY,
    ORIGIN,
    PETER,
    ROOT,
    SIGNED,
    SIGNER,
    TEXT,
    WITNESS_KEY,
    WITNESSES,
    key,
    line,
    signed_by_us,
)

# --- notes


def test_what_is_signed_is_opened() -> None:
    assert open_checkpoint(SIGNED, LOG_KEY) == CHECKPOINT
    assert CHECKPOINT.text() == f"{ORIGIN}\n70000\n{base64.b64encode(ROOT).decode()}\n"


def test_no_bit_of_a_note_can_be_flipped() -> None:
    for at in range(len(SIGNED) * 8):
        flipped = bytearray(SIGNED)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(NoteWrong):
            open_checkpoint(bytes(flipped), LOG_KEY)


def test_no_byte_of_a_note_can_be_left_out_or_added() -> None:
    for at in range(len(SIGNED)):
        for changed in (SIGNED[:at] + SIGNED[at + 1 :], SIGNED[:at] + b"\n" + SIGNED[at:], SIGNED[:at]):
            with pytest.raises(NoteWrong):
                open_checkpoint(changed, LOG_KEY)


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\n",
        b"\n\n",
        LINES.encode(),
        f"{TEXT}\n{LINES}".encode(),
        f"{TEXT}\n\n".encode(),
        f"{TEXT}\n\n{LINES}\n".encode(),
        f"{TEXT}\n\n\n{LINES}"[:-1].encode(),
        f"{TEXT}\n\n{LINES}\n{LINES}".encode(),
        f"{TEXT}\n\n{LINES}more\n".encode(),
        f"{TEXT}\n\n{LINES.replace(chr(0x2014), '-')}".encode(),
        f"{TEXT}\n\n{LINES.replace(chr(0x2014), chr(0x2013))}".encode(),
        f"{TEXT}\n\n{LINES.replace(chr(0x2014) + ' ', chr(0x2014))}".encode(),
        f"{TEXT}\n\n{LINES.replace(ORIGIN + ' ', ORIGIN + '  ')}".encode(),
        f"{TEXT}\n\n{LINES.replace(ORIGIN + ' ', ORIGIN + chr(0xA0))}".encode(),
        f"{TEXT}\n\n{LINES[:-1]} \n".encode(),
        f"{TEXT}\n\n{LINES[:-1]}\r\n".encode(),
        f"{TEXT}\n\n{LINES}{chr(0x2028)}".encode(),
        f"{TEXT}\n\n{LINES[:-1]}{chr(0x2028)}{LINES}".encode(),
        f"{TEXT}\n\n{LINES}{LINES[2:]}".encode(),
        f"{TEXT}\n\n{LINES[2:]}{LINES}".encode(),
        SIGNED + line("other.example", b"1234", b""),
        SIGNED + line("other.example", b"123", b""),
        f"{TEXT}\r\n\n{LINES}".encode(),
        f"\ufeff{TEXT}\n\n{LINES}".encode(),
        SIGNED.decode().encode("utf-16"),
        b"\xff" + SIGNED,
    ],
)
def test_what_is_not_one_note_is_refused(note: bytes) -> None:
    with pytest.raises(NoteWrong):
        LOG_KEY.open(note)


@pytest.mark.parametrize("character", [chr(code) for code in range(32) if code != 10])
def test_control_characters_are_refused_in_texts_and_lines(character: str) -> None:
    with pytest.raises(NoteWrong, match="control character"):
        SIGNER.sign(f"a{character}b\n")
    with pytest.raises(NoteWrong, match="control character"):
        LOG_KEY.open(signed_by_us(f"a{character}b\n"))
    with pytest.raises(NoteWrong, match="control character"):
        parse_signatures(LINES + character + "\n")


def test_a_text_may_hold_empty_lines_and_any_other_character() -> None:
    text = "\n\ned è subito sera.\n\n\x7f\u2028\x85— quasimodo\n\n"
    assert LOG_KEY.open(SIGNER.sign(text)).text == text
    assert LOG_KEY.open(SIGNER.sign("\n")).text == "\n"


@pytest.mark.parametrize("text", ["", "no newline", "surrogate \ud800\n"])
def test_what_cannot_be_a_text_is_not_signed(text: str) -> None:
    with pytest.raises(NoteWrong):
        SIGNER.sign(text)


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_note_written_back_as_it_was_or_refused(data: bytes) -> None:
    for given_bytes in (data, f"{TEXT}\n\n".encode() + data, data + b"\n\n" + LINES.encode()):
        try:
            note = parse_note(given_bytes)
        except NoteWrong:
            continue
        assert note.encode() == given_bytes


def test_a_note_has_a_limit_far_above_what_verifiers_must_accept() -> None:
    long = line("other.example", b"1234", bytes(6000)) * 16
    assert open_checkpoint(SIGNED + long, LOG_KEY) == CHECKPOINT
    assert open_checkpoint(SIGNED + line("other.example", b"1234", b"5") * 99, LOG_KEY) == CHECKPOINT
    with pytest.raises(NoteWrong, match="more than 100"):
        open_checkpoint(SIGNED + line("other.example", b"1234", b"5") * 100, LOG_KEY)
    with pytest.raises(NoteWrong, match=f"longer than {NOTE_LIMIT}"):
        open_checkpoint(SIGNED + line("other.example", b"1234", bytes(NOTE_LIMIT)), LOG_KEY)


# --- whose signatures count


@pytest.mark.parametrize(
    ("name", "key_id"),
    [("other.example", b"1234"), (ORIGIN, b"1234"), ("other.example", LOG_KEY.key_id), (ORIGIN + "/", LOG_KEY.key_id)],
)
def test_signatures_of_unknown_keys_are_ignored_even_of_a_known_name_or_id(name: str, key_id: bytes) -> None:
    unknown = line(name, key_id, bytes(64))
    head = f"{TEXT}\n\n".encode()
    for note in (head + unknown + LINES.encode(), SIGNED + unknown):
        assert open_checkpoint(note, LOG_KEY) == CHECKPOINT
    with pytest.raises(NoteWrong, match="is not signed by"):
        LOG_KEY.open(head + unknown)


def test_every_signature_of_a_known_key_must_verify() -> None:
    wrong = line(ORIGIN, LOG_KEY.key_id, bytes(64))
    for note in (f"{TEXT}\n\n".encode() + wrong, SIGNED + wrong, f"{TEXT}\n\n".encode() + wrong + LINES.encode()):
        with pytest.raises(NoteWrong, match=r"a signature by bus.example/log/2026 is wrong"):
            LOG_KEY.open(note)
    assert open_checkpoint(SIGNED + LINES.encode(), LOG_KEY) == CHECKPOINT


@pytest.mark.parametrize("value", [b"", b"x", bytes(63), bytes(65)])
def test_a_signature_of_another_length_is_refused(value: bytes) -> None:
    with pytest.raises(NoteWrong):
        LOG_KEY.open(f"{TEXT}\n\n".encode() + line(ORIGIN, LOG_KEY.key_id, value))


def test_another_key_of_the_same_name_does_not_sign_for_this_one() -> None:
    other = Signer(ORIGIN, key(3))
    assert other.verifier.key_id != LOG_KEY.key_id
    with pytest.raises(NoteWrong, match="is not signed by"):
        open_checkpoint(other.sign(CHECKPOINT.text()), LOG_KEY)


def test_a_checkpoint_of_another_log_of_the_same_key_is_refused() -> None:
    other = SIGNER.sign(Checkpoint("bus.example/log/2025", 5, ROOT).text())
    with pytest.raises(NoteWrong, match=r"is of the log 'bus.example/log/2025'"):
        open_checkpoint(other, LOG_KEY)
    assert LOG_KEY.open(other).text.startswith("bus.example/log/2025\n5\n")


def test_a_note_gets_each_further_signature_once() -> None:
    note = parse_note(SIGNED)
    first, second = COSIGNER.sign(note.text, 5), COSIGNER.sign(note.text, 6)
    more = note.add([first]).add([second, first])
    assert more.signatures == (*note.signatures, first, second)
    assert open_checkpoint(more.encode(), LOG_KEY) == CHECKPOINT
    assert parse_signatures(first.line() + second.line()) == (first, second)


# --- keys


def test_keys_are_written_and_read_back() -> None:
    for vkey in (PETER, ENOCH, ARCHE, *WITNESSES, SIGNER.vkey, COSIGNER.vkey):
        assert Verifier.of(vkey).vkey == vkey
    assert LOG_KEY == SIGNER.verifier == Verifier(ORIGIN, LOG, key(1).public_key().public_bytes_raw())
    assert (LOG_KEY.kind, WITNESS_KEY.kind) == (LOG, WITNESS)


def test_no_part_of_a_key_can_be_changed_or_left_out() -> None:
    for vkey in (PETER, WITNESSES[2]):
        for start in range(len(vkey)):
            for end in range(start + 1, len(vkey) + (start > 0)):
                with pytest.raises(NoteWrong):
                    Verifier.of(vkey[start:end])
        for at, character in enumerate(vkey):
            for other in {chr(ord(character) + 1), chr(ord(character) ^ 32), "+", " ", "\n"} - {character}:
                with pytest.raises(NoteWrong):
                    Verifier.of(vkey[:at] + other + vkey[at + 1 :])


@pytest.mark.parametrize(
    ("vkey", "why"),
    [
        ("", "another|unknown|empty"),
        (PETER + "\n", "base64"),
        ("PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==", "canonical|bytes instead of"),
        ("PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "unknown type 0x65"),
        (PETER.replace("c74f20a3", "C74F20A3"), "not that of its name"),
        (PETER.replace("PeterNeumann", "PeterNeuman"), "not that of its name"),
    ],
)
def test_what_is_not_a_key_is_refused(vkey: str, why: str) -> None:
    with pytest.raises(NoteWrong, match=why):
        Verifier.of(vkey)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(NoteWrong, match="instead of 32"):
        Verifier("log.example", LOG, bytes(length))


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\u00a0b", "a\u2003b", "a\u3000b", "a\tb", "a\nb", "a\x00b", "\ud800"]
)
@pytest.mark.parametrize("holder", [Signer, Cosigner])
def test_a_name_that_no_line_can_say_is_refused(name: str, holder: Callable[[str, Ed25519PrivateKey], object]) -> None:
    with pytest.raises(NoteWrong, match="is not a key's name"):
        holder(name, key(1))
