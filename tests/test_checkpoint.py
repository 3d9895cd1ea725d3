"""Checkpoints and cosignatures: published ones are accepted byte for byte, and ours say what they must."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb.evidence.checkpoint import (
    LAST,
    Checkpoint,
    Cosigner,
    Note,
    NoteWrong,
    Signature,
    Signer,
    Verifier,
    cosignatures,
    decimal,
    from_base64,
    open_checkpoint,
    parse_note,
)
from tests.support.notes import (
    ARCHE,
    CHECKPOINT,
    COSIGNER,
    ENOCH,
    GO_SUM,
    LOG_KEY,
    ORIGIN,
    PETER,
    PETERS_SECRET,
    ROOT,
    SIGNED,
    SIGNER,
    WITNESS_KEY,
    WITNESSES,
    key,
    published,
)

# --- what others published


def test_a_published_note_is_accepted_and_made_again_byte_for_byte() -> None:
    go_note = published("go-note-test")
    for vkey in (PETER, ENOCH):
        assert Verifier.of(vkey).open(go_note).text.startswith("If you think cryptography is")
    seed = base64.b64decode(PETERS_SECRET)
    peter = Signer("PeterNeumann", Ed25519PrivateKey.from_private_bytes(seed[1:]))
    assert peter.vkey == PETER
    both = parse_note(go_note)
    assert peter.sign(both.text) == Note(both.text, both.signatures[:1]).encode()
    assert both.encode() == go_note


def test_the_specifications_own_key_verifies_its_message() -> None:
    vkey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
    signature = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
    note = f"This is an example message.\n\n— example.com/foo {signature}\n".encode()
    assert Verifier.of(vkey).open(note).text == "This is an example message.\n"


def test_a_public_logs_checkpoint_and_its_cosignatures_are_accepted() -> None:
    witnessed = published("arche2025h1")
    checkpoint = open_checkpoint(witnessed, Verifier.of(ARCHE))
    assert (checkpoint.origin, checkpoint.size) == ("arche2025h1.staging.ct.transparency.dev", 1_432_088_532)
    found = cosignatures(witnessed, [Verifier.of(vkey) for vkey in WITNESSES])
    assert found == {vkey.split("+")[0]: 1_779_573_024 for vkey in WITNESSES}
    assert parse_note(witnessed).encode() == witnessed


def test_a_log_may_be_named_otherwise_than_its_key_but_is_then_not_taken_for_the_keys_own() -> None:
    note, go = published("go-sum-database"), Verifier.of(GO_SUM)
    assert Checkpoint.parse(go.open(note).text).size == 65_664_258
    with pytest.raises(NoteWrong, match=r"is of the log 'go.sum database tree'"):
        open_checkpoint(note, go)


# --- checkpoints


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        f"{ORIGIN}\n5\n",
        f"{ORIGIN}\n5\nAAAA\n",
        CHECKPOINT.text()[:-1],
        CHECKPOINT.text() + "\n",
        CHECKPOINT.text() + "\nextension\n",
        CHECKPOINT.text() + "extension",
        CHECKPOINT.text().replace(ORIGIN, ""),
        CHECKPOINT.text().replace("70000", ""),
        CHECKPOINT.text().replace("70000", "070000"),
        CHECKPOINT.text().replace("70000", "00"),
        CHECKPOINT.text().replace("70000", "-1"),
        CHECKPOINT.text().replace("70000", "+1"),
        CHECKPOINT.text().replace("70000", "7_0"),
        CHECKPOINT.text().replace("70000", " 70000"),
        CHECKPOINT.text().replace("70000", "\u0667\u0660"),
        CHECKPOINT.text().replace("70000", str(LAST + 1)),
        CHECKPOINT.text().replace("70000", "9" * 5000),
        CHECKPOINT.text().replace("=\n", "\n"),
        CHECKPOINT.text().replace("=\n", "= \n"),
        CHECKPOINT.text().replace("\n", "\r\n"),
    ],
)
def test_what_is_not_one_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteWrong):
        Checkpoint.parse(text)


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1),
    st.integers(0, LAST),
    st.binary(min_size=32, max_size=32),
    st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1), max_size=3),
)
def test_checkpoints_are_written_and_read_back(origin: str, size: int, root: bytes, extensions: list[str]) -> None:
    checkpoint = Checkpoint(origin, size, root, tuple(extensions))
    assert Checkpoint.parse(checkpoint.text()) == checkpoint


@pytest.mark.parametrize(
    ("origin", "size", "root", "extensions"),
    [
        ("", 5, ROOT, ()),
        ("a\nb", 5, ROOT, ()),
        ("a", -1, ROOT, ()),
        ("a", LAST + 1, ROOT, ()),
        ("a", 5, ROOT[1:], ()),
        ("a", 5, ROOT, ("",)),
        ("a", 5, ROOT, ("b\nc",)),
    ],
)
def test_what_no_checkpoint_can_say_is_not_made(
    origin: str, size: int, root: bytes, extensions: tuple[str, ...]
) -> None:
    with pytest.raises(NoteWrong):
        Checkpoint(origin, size, root, extensions)


@pytest.mark.parametrize("text", ["=", "AAA", "AB==", "AAE=\n", "A A=", "AA-_", "ÄÄÄÄ", "AA==AA=="])
def test_base64_is_canonical(text: str) -> None:
    with pytest.raises(NoteWrong, match="base64"):
        from_base64(text)


def test_numbers_are_decimal_up_to_what_all_can_hold() -> None:
    assert [decimal("0"), decimal("10"), decimal(str(LAST))] == [0, 10, LAST]
    for text in ("", "01", str(LAST + 1), "1 ", "1\n", "1e3", "¹"):
        with pytest.raises(NoteWrong, match="is not a number"):
            decimal(text)


# --- cosignatures


def cosigned(*signatures: Signature) -> bytes:
    return parse_note(SIGNED).add(signatures).encode()


def test_a_cosignature_says_when() -> None:
    text = CHECKPOINT.text()
    made = COSIGNER.sign(text, 1_679_315_147)
    message = f"cosignature/v1\ntime 1679315147\n{text}".encode()
    assert made.value == (1_679_315_147).to_bytes(8, "big") + key(2).sign(message)
    assert made.key_id == hashlib.sha256(b"audit.example/witness\n\x04" + WITNESS_KEY.public).digest()[:4]
    note = cosigned(made)
    assert cosignatures(note, [WITNESS_KEY]) == {"audit.example/witness": 1_679_315_147}
    assert open_checkpoint(note, LOG_KEY) == CHECKPOINT
    assert cosignatures(SIGNED, [WITNESS_KEY]) == {}


def test_no_bit_of_a_cosignature_can_be_flipped() -> None:
    note = cosigned(COSIGNER.sign(CHECKPOINT.text(), 5))
    for at in range(len(SIGNED) * 8, len(note) * 8):
        flipped = bytearray(note)
        flipped[at // 8] ^= 1 << at % 8
        try:
            assert cosignatures(bytes(flipped), [WITNESS_KEY]) == {}
        except NoteWrong:
            continue


def test_a_cosignature_is_of_the_text_that_it_stands_under() -> None:
    other = COSIGNER.sign(Checkpoint(ORIGIN, 70_001, ROOT).text(), 5)
    with pytest.raises(NoteWrong, match=r"a signature by audit.example/witness is wrong"):
        cosignatures(cosigned(other), [WITNESS_KEY])


def test_the_last_of_several_times_counts_and_each_must_verify() -> None:
    text = CHECKPOINT.text()
    several = [COSIGNER.sign(text, at) for at in (7, 9, 8)]
    assert cosignatures(cosigned(*several), [WITNESS_KEY]) == {"audit.example/witness": 9}
    moved = Signature(several[0].name, several[0].key_id, (10).to_bytes(8, "big") + several[0].value[8:])
    with pytest.raises(NoteWrong, match="is wrong"):
        cosignatures(cosigned(*several, moved), [WITNESS_KEY])


def test_only_witnesses_that_were_asked_for_count() -> None:
    other = Cosigner("other.example", key(4))
    note = cosigned(COSIGNER.sign(CHECKPOINT.text(), 5), other.sign(CHECKPOINT.text(), 6))
    assert cosignatures(note, [other.verifier]) == {"other.example": 6}
    assert cosignatures(note, [other.verifier, WITNESS_KEY]) == {"other.example": 6, "audit.example/witness": 5}
    assert cosignatures(note, []) == cosignatures(note, [LOG_KEY]) == {}


def test_a_witness_is_no_log_and_a_log_no_witness_even_with_one_key_and_name() -> None:
    same = Cosigner(ORIGIN, key(1))
    with pytest.raises(NoteWrong, match="is not signed by"):
        open_checkpoint(Note(CHECKPOINT.text(), (same.sign(CHECKPOINT.text(), 5),)).encode(), LOG_KEY)
    assert cosignatures(SIGNED, [same.verifier]) == {}


def test_a_witness_signs_checkpoints_and_possible_times_only() -> None:
    for text in ("hello\n", CHECKPOINT.text()[:-1], CHECKPOINT.text() + "a\tb\n"):
        with pytest.raises(NoteWrong):
            COSIGNER.sign(text, 5)
    for at in (-1, LAST + 1):
        with pytest.raises(NoteWrong, match="no possible time"):
            COSIGNER.sign(CHECKPOINT.text(), at)
    late = COSIGNER.sign(CHECKPOINT.text(), LAST)
    assert cosignatures(cosigned(late), [WITNESS_KEY]) == {"audit.example/witness": LAST}


def test_a_cosignature_of_an_impossible_time_is_refused() -> None:
    at = LAST + 1
    value = at.to_bytes(8, "big") + key(2).sign(f"cosignature/v1\ntime {at}\n{CHECKPOINT.text()}".encode())
    with pytest.raises(NoteWrong, match="no possible time"):
        cosignatures(cosigned(Signature("audit.example/witness", WITNESS_KEY.key_id, value)), [WITNESS_KEY])


def test_extensions_of_another_log_are_signed_and_kept() -> None:
    text = CHECKPOINT.text() + "extension one\n"
    note = SIGNER.sign(text)
    assert open_checkpoint(note, LOG_KEY).extensions == ("extension one",)
    whole = parse_note(note).add([COSIGNER.sign(text, 5)]).encode()
    assert cosignatures(whole, [WITNESS_KEY]) == {"audit.example/witness": 5}
    with pytest.raises(NoteWrong):
        cosignatures(whole.replace(b"one", b"two"), [WITNESS_KEY])
