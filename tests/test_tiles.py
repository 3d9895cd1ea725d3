"""Paths, widths and packing of a log's files, held to c2sp.org/tlog-tiles and to what would be ambiguous."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb.evidence.tiles import (
    ENTRY_LIMIT,
    Bundle,
    Tile,
    bundle_path,
    growth,
    hashes,
    pack,
    parse_path,
    tile_path,
    unpack,
    widths,
)

numbers = st.one_of(st.integers(0, 3000), st.integers(0, 2**62))
counts = st.integers(1, 256)


# --- paths


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("tile/0/000", Tile(0, 0)),
        ("tile/0/x001/x234/067", Tile(0, 1_234_067)),
        ("tile/63/999", Tile(63, 999)),
        ("tile/1/x001/000.p/1", Tile(1, 1000, 1)),
        ("tile/entries/000.p/255", Bundle(0, 255)),
        ("tile/entries/x123/x456/789", Bundle(123_456_789)),
    ],
)
def test_paths_are_those_of_the_specification(path: str, named: Tile | Bundle) -> None:
    assert named.path == path
    assert parse_path(path) == named


@settings(deadline=None)
@given(st.integers(0, 63), numbers, counts)
def test_every_path_is_read_as_what_it_names(level: int, number: int, width: int) -> None:
    assert parse_path(tile_path(level, number, width)) == Tile(level, number, width)
    assert parse_path(bundle_path(number, width)) == Bundle(number, width)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile",
        "checkpoint",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/000\n",
        "tile/0/../000",
        "tile/64/000",
        "tile/00/000",
        "tile/01/000",
        "tile/-1/000",
        "tile/+1/000",
        "tile/٣/000",
        "tile/0/0",
        "tile/0/1000",
        "tile/0/٣٣٣",
        "tile/0/001/000",
        "tile/0/x000",
        "tile/0/x000/001",
        "tile/0/X001/000",
        "tile/0/x001/x000",
        "tile/0/x001/x002/x003/x004/x005/x006/x007/x008/009",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/",
        "tile/0/000.p",
        "tile/0/000.p/1/2",
        "tile/entry/000",
        "tile/ENTRIES/000",
    ],
)
def test_what_is_not_the_one_way_to_write_a_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"names neither|is not how"):
        parse_path(path)


@settings(deadline=None)
@given(st.text(alphabet="tile/entris0123456789xp.-", max_size=30))
def test_any_text_is_a_path_written_back_as_it_was_or_refused(text: str) -> None:
    try:
        named = parse_path(text)
    except ValueError:
        return
    assert named.path == text


# --- which files there are


def files(size: int) -> set[Tile | Bundle]:
    """c2sp.org/tlog-tiles, "Merkle Tree" and "Partial Tiles", counted level by level."""
    found: set[Tile | Bundle] = set()
    level, count = 0, size
    while count:
        full, partial = divmod(count, 256)
        tiles = [(number, 256) for number in range(full)] + ([(full, partial)] if partial else [])
        found |= {Tile(level, number, width) for number, width in tiles}
        if level == 0:
            found |= {Bundle(number, width) for number, width in tiles}
        level, count = level + 1, full
    return found


def test_the_examples_of_the_specification() -> None:
    assert widths(0) == []
    assert widths(256) == [0, 1]
    assert widths(70_000) == [112, 17, 1]
    assert growth(0, 256) == [Bundle(0), Tile(0, 0), Tile(1, 0, 1)]
    tiles = [each for each in growth(0, 70_000) if isinstance(each, Tile)]
    assert [tile for tile in tiles if tile.level == 0] == [*(Tile(0, n) for n in range(273)), Tile(0, 273, 112)]
    assert [tile for tile in tiles if tile.level > 0] == [Tile(1, 0), Tile(1, 1, 17), Tile(2, 0, 1)]


@settings(deadline=None)
@given(st.integers(0, 200_000), st.integers(0, 3000))
def test_a_log_grows_by_what_it_has_and_had_not(old: int, more: int) -> None:
    grown = growth(old, old + more)
    assert len(set(grown)) == len(grown)
    assert set(grown) == files(old + more) - files(old)


@settings(deadline=None)
@given(st.integers(0, 200_000))
def test_partial_widths_are_those_of_the_files(size: int) -> None:
    partial = {tile.level: tile.width for tile in files(size) if isinstance(tile, Tile) and tile.width < 256}
    assert {level: width for level, width in enumerate(widths(size)) if width} == partial


def test_a_log_does_not_shrink() -> None:
    for old, new in [(2, 1), (-1, 1)]:
        with pytest.raises(ValueError, match="does not grow"):
            growth(old, new)


# --- what is in them


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_what_is_packed_is_unpacked(entries: list[bytes]) -> None:
    assert unpack(pack(entries)) == entries


def test_bundles_are_entries_with_their_lengths_before_them() -> None:
    assert pack([b"", b"abc", b"x" * 258]) == b"\x00\x00" + b"\x00\x03abc" + b"\x01\x02" + b"x" * 258


def test_the_longest_entries_fit_and_longer_ones_do_not() -> None:
    longest = bytes(ENTRY_LIMIT)
    assert unpack(pack([longest] * 256)) == [longest] * 256
    with pytest.raises(ValueError, match="longer than 65535"):
        pack([longest + b"\0"])


@pytest.mark.parametrize("count", [0, 257])
def test_a_bundle_holds_1_to_256_entries(count: int) -> None:
    with pytest.raises(ValueError, match=f"not {count}"):
        pack([b"entry"] * count)
    with pytest.raises(ValueError, match=f"not {count}"):
        unpack(b"\x00\x01x" * count)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20), min_size=1, max_size=20), st.data())
def test_a_bundle_that_was_cut_is_refused_or_shorter(entries: list[bytes], data: st.DataObject) -> None:
    whole = pack(entries)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    ends = [len(pack(entries[:count])) for count in range(1, len(entries) + 1)]
    if len(cut) in ends:
        assert unpack(cut) == entries[: ends.index(len(cut)) + 1]
    else:
        with pytest.raises(ValueError, match="a bundle"):
            unpack(cut)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_bundle_packed_back_as_it_was_or_refused(data: bytes) -> None:
    try:
        entries = unpack(data)
    except ValueError:
        return
    assert pack(entries) == data


@settings(deadline=None)
@given(counts, st.data())
def test_a_tile_holds_exactly_its_hashes(width: int, data: st.DataObject) -> None:
    held = [bytes([at]) * 32 for at in range(width)]
    assert hashes(b"".join(held), width) == held
    wrong = data.draw(st.integers(0, 8300).filter(lambda length: length != width * 32))
    with pytest.raises(ValueError, match=f"not {wrong}"):
        hashes(bytes(wrong), width)
