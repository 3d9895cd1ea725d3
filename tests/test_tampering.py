"""Every way to tamper with a log's files, held against three verifiers: the bus's own, the auditor's file, and Go's.

Each case says what was done to a log of 600 entries, of which an auditor holds the checkpoint at 300. All three must
refuse it, and the two in Python must name the same entry and the same file.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gsb.evidence.tiles import pack, unpack
from tests.support.logs import VERIFIERS, WrittenLog, by_the_auditor, by_the_bus, content, each_verifier

SIZES = [1, 255, 256, 257, 65_535, 65_536, 65_537]
TILE, EDGE, ABOVE = "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"
BUNDLE, LAST = "tile/entries/001", "tile/entries/002.p/88"
EARLIER, EARLIER_BUNDLE, EARLIER_ABOVE = "tile/0/001.p/44", "tile/entries/001.p/44", "tile/1/000.p/1"


@dataclass(frozen=True)
class Kept:
    """A log, and what its auditor has kept of it."""

    log: WrittenLog
    older: Path


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("original")
    log = WrittenLog(folder / "log")
    (folder / "older").write_bytes(log.grow_to(300))
    log.grow_to(600)
    return Kept(log, folder / "older")


@pytest.fixture
def kept(original: Kept, tmp_path: Path) -> Kept:
    """A copy to be tampered with."""
    shutil.copytree(original.log.folder, tmp_path / "log")
    shutil.copy(original.older, tmp_path / "older")
    log = WrittenLog(tmp_path / "unused", key=original.log.signer.key)
    log.folder = tmp_path / "log"
    return Kept(log, tmp_path / "older")


# --- what can be done to a log


Tamper = Callable[[Kept], None]


def flip(path: str, at: int) -> Tamper:
    def tamper(kept: Kept) -> None:
        data = bytearray((kept.log.folder / path).read_bytes())
        data[at] ^= 1
        (kept.log.folder / path).write_bytes(data)

    return tamper


def change(path: str, how: Callable[[bytes], bytes]) -> Tamper:
    def tamper(kept: Kept) -> None:
        file = kept.log.folder / path
        file.write_bytes(how(file.read_bytes()))

    return tamper


def rebundle(path: str, how: Callable[[list[bytes]], list[bytes]]) -> Tamper:
    return change(path, lambda data: pack(how(unpack(data))))


def remove(path: str) -> Tamper:
    return lambda kept: (kept.log.folder / path).unlink()


def add(path: str, data: bytes = b"\0" * 32) -> Tamper:
    def tamper(kept: Kept) -> None:
        (kept.log.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (kept.log.folder / path).write_bytes(data)

    return tamper


def resign(text: Callable[[str], str], *, key: Ed25519PrivateKey | None = None) -> Tamper:
    """Another text in the checkpoint, signed by the log's key or by another one of the same name."""

    def tamper(kept: Kept) -> None:
        signer = kept.log.signer if key is None else WrittenLog(kept.older.parent / "other", key=key).signer
        said = kept.log.checkpoint.read_text().partition("\n\n")[0] + "\n"
        kept.log.checkpoint.write_bytes(signer.sign(text(said)))

    return tamper


def rewrite(contents: list[bytes], *, signed: bool) -> Tamper:
    """Another log in the place of this one, with all its tiles; the operator can sign it, another can not."""

    def tamper(kept: Kept) -> None:
        note = kept.log.checkpoint.read_bytes()
        shutil.rmtree(kept.log.folder)
        WrittenLog(kept.log.folder, key=kept.log.signer.key).grow(contents)
        if not signed:
            kept.log.checkpoint.write_bytes(note)

    return tamper


def swap(entries: list[bytes]) -> list[bytes]:
    return [*entries[:40], entries[41], entries[40], *entries[42:]]


def forge(entries: list[bytes]) -> list[bytes]:
    return [*entries[:10], content(1_000_000), *entries[11:]]


ALL = [content(index) for index in range(600)]
SIGNATURE_BYTE = -20
"""Of the checkpoint's last line, which is the signature in base64."""

TAMPERED: dict[str, tuple[Tamper, int | None, str]] = {
    "flipped origin": (flip("checkpoint", 0), None, "checkpoint"),
    "flipped size": (flip("checkpoint", 21), None, "checkpoint"),
    "flipped root": (flip("checkpoint", 30), None, "checkpoint"),
    "flipped signature": (flip("checkpoint", SIGNATURE_BYTE), None, "checkpoint"),
    "no signature": (change("checkpoint", lambda note: note.partition(b"\n\n")[0] + b"\n\n"), None, "checkpoint"),
    "empty checkpoint": (change("checkpoint", lambda note: b""), None, "checkpoint"),
    "swapped key": (resign(str, key=Ed25519PrivateKey.generate()), None, "checkpoint"),
    "origin of another log": (resign(lambda text: text.replace("2026", "2025")), None, "checkpoint"),
    "larger size": (resign(lambda text: text.replace("600", "601")), 512, "tile/0/002.p/89"),
    "smaller size": (resign(lambda text: text.replace("600", "599")), 512, "tile/0/002.p/87"),
    "flipped level-0 tile": (flip(TILE, 32 * 7), 256, TILE),
    "flipped partial tile": (flip(EDGE, 32 * 7), 512 + 7, LAST),
    "flipped higher tile": (flip(ABOVE, 40), 256, TILE),
    "flipped earlier tile": (flip(EARLIER, 0), 256, EARLIER),
    "flipped earlier higher tile": (flip(EARLIER_ABOVE, 31), 0, EARLIER_ABOVE),
    "flipped entry": (flip(BUNDLE, 2000), 256 + 13, BUNDLE),
    "flipped length of an entry": (flip(BUNDLE, 1), 256, BUNDLE),
    "flipped entry in a partial bundle": (flip(LAST, 20), 512, LAST),
    "flipped earlier bundle": (flip(EARLIER_BUNDLE, 20), 256, EARLIER_BUNDLE),
    "dropped entry": (rebundle(BUNDLE, lambda all_: all_[:40] + all_[41:]), 256 + 40, BUNDLE),
    "dropped last entry": (rebundle(LAST, lambda all_: all_[:-1]), 599, LAST),
    "duplicated entry": (rebundle(BUNDLE, lambda all_: [*all_[:41], *all_[40:255]]), 256 + 41, BUNDLE),
    "reordered entries": (rebundle(BUNDLE, swap), 256 + 40, BUNDLE),
    "entry of another bundle": (rebundle(BUNDLE, lambda all_: [content(0), *all_[1:]]), 256, BUNDLE),
    "truncated bundle": (change(BUNDLE, lambda data: data[:-1]), 511, BUNDLE),
    "empty bundle": (change(BUNDLE, lambda data: b""), 256, BUNDLE),
    "one entry more": (rebundle(LAST, lambda all_: [*all_, content(600)]), 600, LAST),
    "one entry more than fit": (change(BUNDLE, lambda data: data + pack([content(0)])), 512, BUNDLE),
    "a byte behind a bundle": (change(LAST, lambda data: data + b"\0"), 600, LAST),
    "truncated tile": (change(TILE, lambda data: data[:-1]), 256, TILE),
    "a byte behind a tile": (change(TILE, lambda data: data + b"\0"), 256, TILE),
    "a hash more": (change(EDGE, lambda data: data + data[:32]), 512, EDGE),
    "truncated earlier tile": (change(EARLIER, lambda data: data[:-32]), 256, EARLIER),
    "missing checkpoint": (remove("checkpoint"), None, "checkpoint"),
    "missing tile": (remove(TILE), 256, TILE),
    "missing partial tile": (remove(EDGE), 512, EDGE),
    "missing higher tile": (remove(ABOVE), 0, ABOVE),
    "missing bundle": (remove(BUNDLE), 256, BUNDLE),
    "missing partial bundle": (remove(LAST), 512, LAST),
    "a file that is none of a log": (add("tile/0/note.txt"), None, "tile/0/note.txt"),
    "a file beside the tiles": (add("checkpoint.old"), None, "checkpoint.old"),
    "a second name for a tile": (add("tile/0/x000/001"), None, "tile/0/x000/001"),
    "a tile that nothing leads to": (add("tile/0/007"), None, "tile/0/007"),
    "a tile with no entries": (add("tile/0/002.p/90"), None, "tile/0/002.p/90"),
    "a bundle that nothing leads to": (add("tile/entries/004"), None, "tile/entries/004"),
    "a higher tile that nothing leads to": (add("tile/2/000.p/1"), None, "tile/2/000.p/1"),
    "an earlier tile that never was": (add("tile/0/000.p/3"), 0, "tile/0/000.p/3"),
    "an entry changed with its tiles": (rewrite(forge(ALL), signed=False), None, "checkpoint"),
    "forked": (rewrite(forge(ALL), signed=True), None, "checkpoint"),
    "forked and grown": (rewrite([*forge(ALL), *map(content, range(600, 700))], signed=True), None, "checkpoint"),
    "rolled back": (rewrite(ALL[:299], signed=True), None, "checkpoint"),
    "forked at the same size": (rewrite(forge(ALL[:300]), signed=True), None, "checkpoint"),
    "begun again": (rewrite([], signed=True), None, "checkpoint"),
}
"""What was done, and the first bad entry and file as both Python verifiers name them.

If a partial tile is wrong, it and what is below it disagree, and nothing signed says which of both it is.
"""
NAMED_BY_GO = {
    *("flipped entry", "flipped length of an entry", "flipped entry in a partial bundle", "dropped entry"),
    *("dropped last entry", "duplicated entry", "reordered entries", "entry of another bundle", "truncated bundle"),
}
"""Where Go's packages name the entry too; of a tile they say only that it is inconsistent."""
each_case = pytest.mark.parametrize("case", TAMPERED)


@each_case
@each_verifier
def test_whatever_is_tampered_with_is_found(verifier: str, case: str, kept: Kept) -> None:
    tamper, index, path = TAMPERED[case]
    tamper(kept)
    found = VERIFIERS[verifier](kept.log.folder, kept.log.vkey, kept.older)
    assert not found.verified
    if verifier != "go":
        assert (found.index, found.path) == (index, path), found.said
        assert "is missing" in found.said or not case.startswith("missing"), found.said
    elif case in NAMED_BY_GO:
        assert found.index == index, found.said


@each_verifier
def test_what_is_tampered_with_was_right_before(verifier: str, kept: Kept) -> None:
    assert VERIFIERS[verifier](kept.log.folder, kept.log.vkey, kept.older).verified


# --- what only an older checkpoint shows


@each_verifier
@pytest.mark.parametrize("case", ["forked", "forked and grown", "rolled back", "begun again"])
def test_a_history_signed_anew_is_found_by_an_older_checkpoint_alone(verifier: str, case: str, kept: Kept) -> None:
    TAMPERED[case][0](kept)
    assert VERIFIERS[verifier](kept.log.folder, kept.log.vkey, None).verified
    assert not VERIFIERS[verifier](kept.log.folder, kept.log.vkey, kept.older).verified


@each_verifier
def test_an_older_checkpoint_of_the_log_put_back_in_place_is_found(verifier: str, kept: Kept) -> None:
    newest = kept.log.checkpoint.read_bytes()
    kept.log.checkpoint.write_bytes(kept.older.read_bytes())
    kept.older.write_bytes(newest)
    assert not VERIFIERS[verifier](kept.log.folder, kept.log.vkey, kept.older).verified


@each_verifier
def test_an_older_checkpoint_must_be_signed_too(verifier: str, kept: Kept) -> None:
    data = kept.older.read_bytes()
    kept.older.write_bytes(data.replace(b"300", b"299"))
    assert not VERIFIERS[verifier](kept.log.folder, kept.log.vkey, kept.older).verified


@each_verifier
def test_a_log_of_another_key_is_not_verified(verifier: str, kept: Kept, tmp_path: Path) -> None:
    other = WrittenLog(tmp_path / "other").vkey
    assert not VERIFIERS[verifier](kept.log.folder, other, None).verified


# --- any byte


def flips(folder: Path, count: int) -> Iterator[tuple[Path, int, int]]:
    """Bits of files of the log, drawn by a fixed seed; each file is as likely as any other."""
    draw = random.Random(4)
    files = sorted(path for path in (folder / "tile").rglob("*") if path.is_file())
    for _ in range(count):
        file = draw.choice(files)
        yield file, draw.randrange(file.stat().st_size), 1 << draw.randrange(8)


def test_any_flipped_bit_is_found_and_named_alike(kept: Kept) -> None:
    for file, at, bit in flips(kept.log.folder, 60):
        original = file.read_bytes()
        file.write_bytes(bytes([*original[:at], original[at] ^ bit, *original[at + 1 :]]))
        bus, auditor = (verify(kept.log.folder, kept.log.vkey, None) for verify in (by_the_bus, by_the_auditor))
        assert not bus.verified
        assert (bus.index, bus.path) == (auditor.index, auditor.path)
        assert not VERIFIERS["go"](kept.log.folder, kept.log.vkey, None).verified
        file.write_bytes(original)


# --- what is right


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Kept]:
    """A log of each size, and an older checkpoint of it."""
    found: dict[int, Kept] = {}
    for size in SIZES[:4]:
        folder = tmp_path_factory.mktemp("grown")
        log = WrittenLog(folder / "log")
        (folder / "older").write_bytes(log.grow_to(size // 2))
        log.grow_to(size)
        found[size] = Kept(log, folder / "older")
    log, older = WrittenLog(tmp_path_factory.mktemp("large") / "log"), tmp_path_factory.mktemp("large") / "older"
    older.write_bytes(log.grow_to(40_000))
    for size in SIZES[4:]:
        log.grow_to(size)
        folder = tmp_path_factory.mktemp("grown") / "log"
        shutil.copytree(log.folder, folder)
        copy = WrittenLog(folder.parent / "unused", key=log.signer.key)
        copy.folder = folder
        found[size] = Kept(copy, older)
    return found


@each_verifier
@pytest.mark.parametrize("size", SIZES)
def test_logs_of_every_shape_are_verified(verifier: str, size: int, grown: dict[int, Kept]) -> None:
    kept = grown[size]
    found = VERIFIERS[verifier](kept.log.folder, kept.log.vkey, kept.older)
    assert found.verified, found.said


@each_verifier
def test_a_full_tile_above_others_is_held_to_the_one_above_it(verifier: str, grown: dict[int, Kept]) -> None:
    log = grown[65_537].log
    file = log.folder / "tile/1/000"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        found = VERIFIERS[verifier](log.folder, log.vkey, None)
    finally:
        file.write_bytes(data)
    assert not found.verified
    assert found.path in (None, "tile/1/000")


@each_verifier
def test_partial_files_may_go_once_there_are_the_full_ones(verifier: str, kept: Kept) -> None:
    for path in (EARLIER, EARLIER_BUNDLE):
        remove(path)(kept)
    assert VERIFIERS[verifier](kept.log.folder, kept.log.vkey, kept.older).verified


@each_verifier
def test_a_partial_file_may_go_between_two_looks_at_the_folder(verifier: str, kept: Kept) -> None:
    """A recorder at work takes it away when there is the full one. Here its name is there, and the file is gone."""
    gone = kept.log.folder / EARLIER
    gone.unlink()
    gone.symlink_to("nowhere")
    found = VERIFIERS[verifier](kept.log.folder, kept.log.vkey, kept.older)
    assert found.verified, found.said


@each_verifier
def test_files_ahead_of_the_checkpoint_are_those_of_a_recorder_at_work(
    verifier: str, original: Kept, tmp_path: Path
) -> None:
    log = WrittenLog(tmp_path / "log", key=original.log.signer.key)
    log.grow_to(600)
    log.grow_to(900, signed=False)
    (log.folder / "tile/0/.004.new").write_bytes(b"half")
    assert VERIFIERS[verifier](log.folder, log.vkey, None).verified
    # The partial files of 600 entries may be gone by then.
    shutil.rmtree(log.folder / "tile/0/002.p")
    shutil.rmtree(log.folder / "tile/entries/002.p")
    assert VERIFIERS[verifier](log.folder, log.vkey, None).verified
