"""The file of a backup: what is not whole, not the bus's or not for this key is refused; age's own tool opens it."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import orjson
import pytest

from gsb.backup import envelope, sqlite
from gsb.backup.archive import MANIFEST, Pack, unpack
from gsb.backup.envelope import BackupUnfit, Claims, growing, opened
from gsb.backup.files import outside
from gsb.backup.make import new_name, too_old
from gsb.backup.sealed import identities, new_identity, opening, recipients, sealing
from gsb.jwk import PublicKey, generate, public_of, read_private, read_public
from gsb.load import load
from gsb.store.seal import read_key
from gsb.store.sqlite import rows
from tests.support.backups import DIES, Kept, contents, process, run
from tests.support.needs import needs
from tests.support.recording import Clock, recording
from tests.support.softhsm import SoftHsm
from tests.support.stores import accepted, done

NOW = 1_790_000_000


def silent(what: str, done: int, whole: int) -> None:
    """Nobody watches."""


@pytest.fixture
async def kept(tmp_path: Path) -> Kept:
    """A deployment with a few exchanges, and a backup of it."""
    made = Kept(tmp_path)
    clock = Clock()
    clock.now = time.time()
    async with recording(made.root, made.deployment, clock) as hands:
        for _ in range(5):
            await done(hands.store)
        await hands.recorder.look()
        # What is committed and not yet recorded, too.
        made.unfinished = (await accepted(hands.store)).id
        assert (await made.backup()).code == 0
    return made


# --- what is refused


def regions(file: Path) -> Iterator[tuple[str, int]]:
    """A byte of each part of the file."""
    with tarfile.open(file) as archive:
        sealed, signature = archive.getmembers()
    yield "the header of what is sealed", 3
    yield "its size", 130
    yield "the rest of the header", 500
    for name, member in (("sealed", sealed), ("signature", signature)):
        for part in (0.0, 0.3, 0.999):
            yield f"{name} at {part}", member.offset_data + int(part * member.size)
    yield "the padding", sealed.offset_data + sealed.size
    yield "the header of the signature", signature.offset + 3
    yield "the padding of the signature", signature.offset_data + signature.size + 1
    yield "the end", file.stat().st_size - 1


async def test_every_changed_byte_is_noticed(kept: Kept) -> None:
    whole = kept.file.read_bytes()
    assert (await kept.verify()).code == 0
    for what, at in regions(kept.file):
        changed = bytearray(whole)
        changed[at] ^= 1
        kept.file.write_bytes(changed)
        said = await kept.verify()
        assert (said.code, said.out, said.wrong.count("\n")) == (1, "", 1), what
        laid = await run(*kept.words())
        assert (laid.code, kept.there.exists()) == (2, False), what


async def test_a_file_that_was_cut_or_went_on_is_no_backup(kept: Kept) -> None:
    whole = kept.file.read_bytes()
    for data in (b"", whole[:100], whole[:512], whole[: len(whole) // 2], whole[:-1], whole + bytes(512), b"x" * 5000):
        kept.file.write_bytes(data)
        assert (await kept.verify()).code == 1
        assert (await run(*kept.words())).code == 2


async def test_another_key_neither_opens_nor_verifies_it(kept: Kept, tmp_path: Path) -> None:
    said = await kept.verify(None, "--identity", kept.other_identity)
    assert (said.code, "is sealed for other keys" in said.wrong) == (1, True)
    kept.identity.write_bytes(kept.other_identity.read_bytes())
    laid = await run(*kept.words())
    assert (laid.code, "is sealed for other keys" in laid.wrong) == (2, True)
    kept.bus_keys.write_bytes(public_of(generate("ES256")))
    said = await kept.verify()
    assert (said.code, "none of those that were given" in said.wrong) == (1, True)
    assert not kept.there.exists()


async def test_what_another_bus_has_signed_is_not_taken_for_this_ones(kept: Kept, tmp_path: Path) -> None:
    """Not even if it is this one's deployment."""
    private = generate("ES256")
    with opened(kept.file, keys_of(kept.bus_keys), silent) as found:
        claims, sealed = found.claims, found.sealed().read()
    forged = tmp_path / "forged"
    for change in ({"iss": "bus.other"}, {"log": claims.log.replace("/log/", "/gol/")}):
        with growing(forged) as file:
            file.sink.write(sealed)
            told = {name: getattr(claims, name) for name in Claims.__slots__}
            file.finish(read_private(private), Claims(**(told | change)))
        kept.bus_keys.write_bytes(public_of(private))
        said = await kept.verify(forged, "--identity", kept.identity)
        assert said.code == 1
        assert "is not that of the bus" in said.wrong or "is not the one that was signed" in said.wrong
        forged.unlink()


def test_members_that_were_not_signed_are_not_believed(tmp_path: Path) -> None:
    """By who has the recipient, which is public, and the bus's signature of other members."""
    secret, recipient = new_identity()
    (tmp_path / "identity").write_text(secret, "ascii")
    with (tmp_path / "sealed").open("w+b") as file:
        with sealing(envelope.Sink(file), recipients(recipient)) as out:
            pack = Pack(out)
            pack.add("deployment/gsb.toml", b"one")
            digest = pack.finish()
        for listed, right in ((digest, True), (hashlib.sha256(b"other").hexdigest(), False)):
            root = tmp_path / str(right)
            part = envelope.Part(file, 0, file.seek(0, os.SEEK_END))
            refused = nullcontext() if right else pytest.raises(BackupUnfit, match="not those that the bus has signed")
            with refused, opening(part, identities(tmp_path / "identity")) as stream:
                unpack(stream, root.joinpath, listed, silent)
            assert (root / "deployment/gsb.toml").read_bytes() == b"one"


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "deployment/../../x"])
def test_no_member_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    file = tmp_path / "packed"
    with file.open("wb") as out:
        pack = Pack(out)
        pack.add(name, b"x")
        digest = pack.finish()
    with file.open("rb") as stream, pytest.raises(BackupUnfit, match="no backup has"):
        unpack(stream, tmp_path.joinpath, digest, silent)


def keys_of(path: Path) -> dict[str, PublicKey]:
    key = read_public(path.read_bytes())
    return {key.kid: key}


def named(folder: Path, part: str) -> list[Path]:
    """The files whose names hold this."""
    return [path for path in folder.iterdir() if part in path.name]


# --- how it comes to be


def test_age_and_tar_open_it_without_the_bus(kept: Kept, tmp_path: Path) -> None:
    needs(shutil.which("age") is not None, "age is not installed: make deps-test")
    command = f"tar -xOf {kept.file} backup.age | age -d -i {kept.identity} | tar -x -C {tmp_path / 'opened'}"
    (tmp_path / "opened").mkdir()
    subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True)
    subprocess.run(["sha256sum", "--quiet", "-c", MANIFEST], check=True, cwd=tmp_path / "opened")
    assert (tmp_path / "opened/deployment/gsb.toml").read_bytes() == (kept.deployment.folder / "gsb.toml").read_bytes()


async def test_nothing_is_written_over_and_nothing_half_remains(kept: Kept, tmp_path: Path) -> None:
    before = kept.file.read_bytes()
    again = await kept.backup()
    assert (again.code, "is there already" in again.wrong, again.wrong.count("\n")) == (2, True, 1)
    assert kept.file.read_bytes() == before
    inside = await kept.backup(kept.deployment.folder / "backup")
    assert (inside.code, "would become part" in inside.wrong) == (2, True)
    assert named(tmp_path, ".one") == []


FULL = """
import resource, signal, sys
from gsb.cli import main

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
main.main()
"""


async def test_a_full_disk_leaves_no_backup(kept: Kept, tmp_path: Path) -> None:
    """As far as a process can be shown one: no file may become larger."""
    size = kept.file.stat().st_size
    for most in (10_000, 400_000, size - 1_000):
        target = tmp_path / "full.gsb-backup"
        words = ("backup", kept.deployment.folder, target, "--to", kept.recipient)
        said = await process(str(most), *words, program=("-c", FULL))
        assert (said.code, said.wrong.count("\n")) == (2, 1), said.wrong
        assert os.strerror(errno.EFBIG) in said.wrong or "disk" in said.wrong
        assert named(tmp_path, "full") == []


@pytest.mark.parametrize("step", ["make:_add_logs", "envelope:finish"])
async def test_a_backup_that_died_is_none_and_the_next_one_is(kept: Kept, tmp_path: Path, step: str) -> None:
    target = tmp_path / "second.gsb-backup"
    words = ("backup", kept.deployment.folder, target, "--to", kept.recipient)
    died = await process(step, *words, program=("-c", DIES))
    assert (died.code, target.exists()) == (-signal.SIGKILL, False)
    left = named(tmp_path, ".second")
    assert left != []
    for path in left:
        assert (await kept.verify(path)).code == 1
    assert (await kept.backup(target)).code == 0
    assert (await kept.verify(target, "--identity", kept.identity)).code == 0
    assert named(tmp_path, ".second") == []


@pytest.mark.parametrize("step", ["lay:settle", "lay:finish", "moves:_move"])
async def test_a_restore_that_died_lets_nothing_start_and_is_run_again(kept: Kept, step: str) -> None:
    kept.deployment.gsb["store"]["path"] = "../data/store.db"
    (kept.deployment.folder.parent / "data").mkdir()
    (kept.deployment.folder / "store.db").rename(kept.deployment.folder.parent / "data" / "store.db")
    kept.deployment.write()
    kept.file.unlink()
    assert (await kept.backup()).code == 0
    (kept.there.parent / "data").mkdir(parents=True)
    died = await process(step, *kept.words(), program=("-c", DIES))
    assert died.code == -signal.SIGKILL
    assert not kept.there.exists()
    assert (await run("check", kept.there)).code == 2
    other = await kept.restored()
    async with recording(kept.root, other) as hands:
        assert await hands.store.withheld()
        await hands.recorder.look()
        assert await hands.store.exchange(kept.unfinished) is not None
    assert [name for name in contents(kept.there.parent) if "restoring" in name or ".ready" in name] == []


async def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "no room")


async def test_a_log_is_as_long_as_the_store_though_the_recorder_was_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had signed entries that it could not write yet, over the edge of a tile."""
    kept, clock = Kept(tmp_path), Clock()
    clock.now = time.time()
    async with recording(kept.root, kept.deployment, clock) as hands:
        await hands.record(*range(250))
        await hands.enter(*range(250, 300))

        monkeypatch.setattr(hands.recorder, "_publish", no_room)
        await hands.recorder.look()
        [state] = await hands.store.logs()
        assert (state.published, state.size) == (251, 301)
        made = await kept.backup()
    assert made.code == 0, made.wrong
    assert made.out.split(", log ")[1].split()[1] == "301"
    assert (await kept.verify(None, "--identity", kept.identity)).code == 0
    other = await kept.restored()
    async with recording(kept.root, other, clock) as hands:
        old, new = await hands.store.logs()
        assert (old.published, old.size, old.origin.rpartition("/")[0]) == (301, 301, new.origin.rpartition("/")[0])
        # So that receipts of them can be given: the checkpoint that is known to be published reaches over them.
        assert b"\n301\n" in old.published_note


async def test_a_copy_is_of_one_moment_whatever_is_committed_meanwhile(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is not begun anew each time: a node that commits all day would never be backed up."""
    monkeypatch.setattr(sqlite, "PAGES", 2)
    store, steps = kept.deployment.folder / "store.db", list[int]()
    with closing(rows.connect(store, writes=True)) as db:
        before = rows.pragma(db, "page_count")

        def commit(what: str, done: int, whole: int) -> None:
            steps.append(done)
            assert len(steps) <= before
            db.execute("INSERT INTO spent VALUES(NULL, randomblob(32), 1e9)")

        key = read_key(kept.deployment.folder / "store.key")
        async with sqlite.snapshot(store, key, tmp_path / "copy", commit):
            with closing(rows.connect(tmp_path / "copy", writes=False)) as copy:
                [(copied,)] = copy.execute("SELECT count(*) FROM spent WHERE expires = 1e9")
        [(committed,)] = db.execute("SELECT count(*) FROM spent WHERE expires = 1e9")
    assert (copied, committed) == (0, len(steps))
    assert steps == sorted(set(steps))
    assert named(tmp_path, "copy") == []


def test_two_do_not_make_the_same_backup(tmp_path: Path) -> None:
    with (
        growing(tmp_path / "one"),
        pytest.raises(OSError, match="another process is making"),
        growing(tmp_path / "one"),
    ):
        pass


async def test_a_bus_that_signs_in_an_hsm_signs_its_backups_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The PIN goes along, the token's library and the key in it do not."""
    kept, softhsm = Kept(tmp_path), SoftHsm(tmp_path, monkeypatch)
    kept.bus_keys.write_bytes(orjson.dumps(softhsm.into(kept.deployment).jwk))
    async with recording(kept.root, kept.deployment) as hands:
        await hands.record(1)
        assert (await kept.backup()).code == 0
    assert (await kept.verify(None, "--identity", kept.identity)).code == 0
    tables, _ = load(kept.deployment.folder)
    assert tables.gsb is not None
    assert outside(tables, tables.gsb) == [str(softhsm.pin)]


# --- bad input


async def test_what_cannot_be_carried_out_is_said_in_one_line(kept: Kept, tmp_path: Path) -> None:
    nothing, folder = tmp_path / "nothing", kept.deployment.folder
    (tmp_path / "notes").write_text("no key", "ascii")
    to = ["--to", kept.recipient]
    asked: list[list[str | Path]] = [
        ["backup", nothing, tmp_path / "x", *to],
        ["backup", folder, tmp_path / "x", "--to", "age1zzz"],
        ["backup", folder, tmp_path / "x", "--to", nothing],
        ["backup", folder, tmp_path / "x", "--to", tmp_path / "notes"],
        ["backup", folder, tmp_path / "x", *to, "--keep", "3"],
        ["backup", folder, nothing / "x", *to],
        ["verify-backup", nothing, "--bus-keys", kept.bus_keys],
        ["verify-backup", kept.file, "--bus-keys", nothing],
        ["verify-backup", kept.file, "--bus-keys", kept.bus_keys, "--identity", tmp_path / "notes"],
        ["backup-key", kept.file],
        [*kept.words(folder)],
        [*kept.words(), "--admit-writes"],
        [*kept.words(), "--dsn", tmp_path / "notes"],
        ["restore", kept.there, "--from", kept.file, "--reason", "why not"],
    ]
    for words in asked:
        said = await run(*words)
        assert (said.code, said.wrong.count("\n")) == (2, 1), (words, said.wrong)
        assert "Traceback" not in said.wrong
    assert not kept.there.exists()


async def test_where_nothing_was_acknowledged_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.deployment.write()
    said = await kept.backup()
    assert (said.code, "there is no store" in said.wrong) == (2, True)


# --- many of them


async def test_older_ones_go_and_the_newest_never_does(kept: Kept, tmp_path: Path) -> None:
    folder, now = tmp_path / "many", time.time()
    folder.mkdir()
    days = {age: folder / new_name("bus.test", now - age * 86_400) for age in (400, 31, 29)}
    others = [folder / new_name("bus.test.other", now - 400 * 86_400), folder / "bus.test-notes.gsb-backup"]
    for path in (*days.values(), *others):
        path.touch()
    said = await kept.backup(folder, "--keep", "30")
    assert said.code == 0, said.wrong
    assert [path.exists() for path in (*days.values(), *others)] == [False, False, True, True, True]
    made = Path(said.out.partition(": ")[0])
    assert re.fullmatch(r"bus\.test-\d{8}T\d{6}Z\.gsb-backup", made.name)
    assert (await kept.verify(made, "--json")).code == 0
    assert too_old(folder, "bus.test", now + 10_000 * 86_400, 30) == [days[29]]


async def test_the_keys_file_is_the_one_that_age_makes(tmp_path: Path) -> None:
    said = await run("backup-key", tmp_path / "identity")
    assert (said.code, recipients(said.out.strip()) != []) == (0, True)
    assert (tmp_path / "identity").stat().st_mode & 0o777 == 0o600
    assert len(identities(tmp_path / "identity")) == 1
    (tmp_path / "to").write_text(f"# of the vault\n{said.out}", "ascii")
    assert [str(each) for each in recipients(str(tmp_path / "to"))] == [said.out.strip()]


async def test_what_is_told_to_machines(kept: Kept) -> None:
    said = await kept.verify(None, "--json")
    told = orjson.loads(said.out)
    assert (told["bus"], told["store"].split()[0]) == ("bus.test", "sqlite")
    assert told["log"].split()[1] == "11"
