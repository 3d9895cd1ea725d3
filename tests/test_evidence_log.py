"""A log's files: what stands on the disk after each growth, after a failed write and after one that was never ended."""

from __future__ import annotations

import errno
import os
import re
from itertools import pairwise
from pathlib import Path

import pytest

from gsb.evidence.log import CHECKPOINT, Edge, Files, Folder
from gsb.evidence.merkle import leaf_hash, root_of
from gsb.evidence.tiles import WIDTH, Bundle, growth, hashes, tile_path, unpack

ENTRIES = [f"entry {number}".encode() for number in range(66_000)]
STEPS = [0, 1, 2, 255, 256, 257, 512, 1_000, 65_535, 65_536, 65_537, 66_000]


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_each_growth_writes_what_the_format_asks_for() -> None:
    edge = Edge()
    for old, new in pairwise(STEPS):
        changed = edge.extend(ENTRIES[old:new])
        wanted = growth(old, new)
        assert sorted(changed) == sorted(each.path for each in wanted)
        for each in wanted:
            first = each.number * WIDTH
            entries = ENTRIES[first : first + each.width]
            if isinstance(each, Bundle):
                assert unpack(changed[each.path]) == entries
            elif each.level == 0:
                assert hashes(changed[each.path], each.width) == [leaf_hash(entry) for entry in entries]
            else:
                assert len(changed[each.path]) == 32 * each.width
        assert edge.size == new
        assert edge.root() == root_of([leaf_hash(entry) for entry in ENTRIES[:new]])


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 1_000, 65_537])
def test_an_edge_is_read_from_the_files_and_grows_as_if_it_had_never_been_away(tmp_path: Path, size: int) -> None:
    files, edge = Files(tmp_path / "log"), Edge()
    files.write(edge.extend(ENTRIES[:size]))
    again = Edge.read(files, size, ENTRIES[size - size % WIDTH : size])
    assert (again.size, again.root()) == (size, edge.root())
    assert again.extend(ENTRIES[size : size + 300]) == edge.extend(ENTRIES[size : size + 300])


def test_what_is_full_serves_where_the_partial_one_is_gone(tmp_path: Path) -> None:
    files, edge = Files(tmp_path), Edge()
    files.write(edge.extend(ENTRIES[:7]))
    root = edge.root()
    changed = edge.extend(ENTRIES[7:300])
    files.write(changed)
    files.forget(path for path in changed if ".p/" not in path)
    assert files_of(tmp_path) == [
        "tile/0/000",
        "tile/0/001.p/44",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/44",
    ]
    assert Edge.read(files, 7, ENTRIES[:7]).root() == root


@pytest.mark.parametrize("path", [tile_path(0, 3, 232), tile_path(1, 0, 3)])
def test_a_tile_that_is_missing_or_cut_short_is_told(tmp_path: Path, path: str) -> None:
    files, edge = Files(tmp_path), Edge()
    files.write(edge.extend(ENTRIES[:1_000]))
    whole = (tmp_path / path).read_bytes()
    (tmp_path / path).write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="bytes, not"):
        Edge.read(files, 1_000, ())
    (tmp_path / path).unlink()
    with pytest.raises(ValueError, match="bytes, not 0"):
        Edge.read(files, 1_000, ())


def test_a_file_that_could_not_be_made_durable_never_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = Files(tmp_path)
    files.write({"a/one": b"1", CHECKPOINT: b"old"})
    synced: list[int] = []

    def failing(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        raise OSError(errno.EIO, "the disk")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", failing)
        with pytest.raises(OSError, match="the disk"):
            files.write({CHECKPOINT: b"new"})
    assert files.read(CHECKPOINT) == b"old"
    # Whatever became of the bytes of the first attempt, the second is another file.
    (unfinished,) = tmp_path.glob(f".{CHECKPOINT}.*.new")
    held = unfinished.open("rb")
    files.write({CHECKPOINT: b"new"})
    assert files.read(CHECKPOINT) == b"new"
    with held:
        assert os.fstat(held.fileno()).st_ino in synced
        assert (tmp_path / CHECKPOINT).stat().st_ino not in synced
    assert files_of(tmp_path) == ["a/one", CHECKPOINT]


def test_every_name_is_synchronised_before_write_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder's own name too, also when it was made by a process that died before it could."""
    (tmp_path / "log" / "tile").mkdir(parents=True)
    synced: list[str] = []
    fsync = os.fsync

    def telling(descriptor: int) -> None:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink()).removeprefix(str(tmp_path))
        synced.append(re.sub(r"\.[0-9a-f]{8}\.new$", ".new", name))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", telling)
    files = Files(tmp_path / "log")
    files.write({"tile/0/000": b"x"})
    assert synced == ["", "/log", "/log/tile", "/log/tile/0/.000.new", "/log/tile/0"]
    synced.clear()
    files.write({"tile/0/001": b"y"})
    assert synced == ["/log/tile/0/.001.new", "/log/tile/0"]


def test_nothing_gets_its_name_when_it_may_not(tmp_path: Path) -> None:
    """Two processes write the same log: who is relieved when its files lie ready changes none, and no other's."""

    class Relieved(Exception):
        pass

    def relieved() -> None:
        new.write({"a/one": b"new", CHECKPOINT: b"new"})
        raise Relieved

    old, new = Files(tmp_path), Files(tmp_path)
    with pytest.raises(Relieved):
        old.write({"a/one": b"old", "a/two": b"old", CHECKPOINT: b"old"}, relieved)
    assert [path for path in files_of(tmp_path) if not path.endswith(".new")] == ["a/one", CHECKPOINT]
    assert new.read("a/one") == new.read(CHECKPOINT) == b"new"


def test_a_mark_tells_whether_another_file_has_taken_the_place(tmp_path: Path) -> None:
    files = Files(tmp_path)
    assert files.mark(CHECKPOINT) is None
    files.write({CHECKPOINT: b"same"})
    mark = files.mark(CHECKPOINT)
    assert mark is not None
    assert files.mark(CHECKPOINT) == mark
    Files(tmp_path).write({CHECKPOINT: b"same"})
    assert files.mark(CHECKPOINT) != mark


def test_the_folder_of_logs_tells_what_was_published(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "log")
    assert folder.published() == {}
    folder.make()
    folder.make()
    assert not folder.taken("bus.test/log/2026")
    folder.files("bus.test/log/2026").write({CHECKPOINT: b"a note"})
    folder.files("bus.test/log/2027").write({"tile/0/000.p/1": b"x"})
    (tmp_path / "log" / "a remark").write_text("no folder")
    assert folder.published() == {"2026": b"a note"}
    assert folder.taken("bus.test/log/2026")
    assert folder.files("other/2026").read("tile/0/000") is None
