"""The tree held to the definition in RFC 6962, to published vectors, and its proofs to what may not pass as one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb.evidence.merkle import (
    EMPTY,
    ProofWrong,
    Tree,
    check_consistency,
    check_inclusion,
    consistency,
    inclusion,
    leaf_hash,
    node_hash,
    root_of,
    tree_root,
)
from gsb.evidence.tiles import Tile, growth, widths
from tests.support.rfc6962 import Oracle, Sparse, leaf

ENTRIES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
"""The entries (hexadecimal) and below the roots of the trees over the first 1 to 8 of them, of Certificate
Transparency's reference implementation; the proofs after them are published with it (transparency-dev/merkle)."""
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
_23 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
_4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
_67 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
_45 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
_47 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
_1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
INCLUSIONS = [
    (0, 8, [_1, _23, _47]),
    (5, 8, [_4, _67, ROOTS[3]]),
    (2, 3, [ROOTS[1]]),
    (1, 5, [ROOTS[0], _23, _4]),
]
CONSISTENCIES = [
    (1, 1, []),
    (1, 8, [_1, _23, _47]),
    (6, 8, [_45, _67, ROOTS[3]]),
    (2, 5, [_23, _4]),
    (6, 7, [_45, "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f", ROOTS[3]]),
]
PUBLISHED = Oracle([leaf_hash(bytes.fromhex(entry)) for entry in ENTRIES])
EVERY = 130
LOG = Oracle([leaf(number) for number in range(70_000)])
EDGES = [255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 65_793, 70_000]
"""Sizes around which tiles become full, of level 0 and of level 1."""

sizes = st.one_of(st.integers(1, 1000), st.sampled_from(EDGES), st.integers(1, 70_000))


def unhex(hashes: list[str]) -> list[bytes]:
    return [bytes.fromhex(each) for each in hashes]


# --- published vectors


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert EMPTY.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Tree().root() == root_of([]) == tree_root(0, LOG.read) == EMPTY


def test_the_published_roots_are_ours() -> None:
    tree = Tree()
    for size, expected in enumerate(ROOTS, 1):
        tree.append(PUBLISHED.leaves[size - 1])
        assert tree.root().hex() == expected
        assert root_of(PUBLISHED.leaves[:size]).hex() == expected
        assert PUBLISHED.root(0, size).hex() == expected


@pytest.mark.parametrize(("index", "size", "proof"), INCLUSIONS)
def test_the_published_proofs_of_inclusion_are_ours(index: int, size: int, proof: list[str]) -> None:
    assert inclusion(index, size, PUBLISHED.read) == unhex(proof)
    check_inclusion(PUBLISHED.leaves[index], index, size, unhex(proof), bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(("old", "new", "proof"), CONSISTENCIES)
def test_the_published_proofs_of_consistency_are_ours(old: int, new: int, proof: list[str]) -> None:
    assert consistency(old, new, PUBLISHED.read) == unhex(proof)
    check_consistency(old, bytes.fromhex(ROOTS[old - 1]), new, bytes.fromhex(ROOTS[new - 1]), unhex(proof))


# --- the definition


def test_roots_of_every_small_size_are_those_of_the_definition() -> None:
    tree = Tree()
    for size in range(1, 800):
        tree.append(LOG.leaves[size - 1])
        assert tree.size == size
        assert tree.root() == root_of(LOG.leaves[:size]) == LOG.root(0, size)


def test_every_proof_of_inclusion_in_every_small_log_is_that_of_the_definition() -> None:
    for size in range(1, EVERY):
        for index in range(size):
            proof = inclusion(index, size, LOG.read)
            assert proof == LOG.path(index, 0, size)
            check_inclusion(LOG.leaves[index], index, size, proof, LOG.root(0, size))


def test_every_proof_of_consistency_of_every_small_log_is_that_of_the_definition() -> None:
    for new in range(1, EVERY):
        for old in range(1, new):
            proof = consistency(old, new, LOG.read)
            assert proof == LOG.proof(old, new)
            check_consistency(old, LOG.root(0, old), new, LOG.root(0, new), proof)


@pytest.mark.parametrize("new", EDGES)
def test_proofs_where_tiles_become_full_are_those_of_the_definition(new: int) -> None:
    for place in {0, 1, new // 2, new - 2, new - 1, *(edge for edge in EDGES if edge < new)}:
        assert inclusion(place, new, LOG.read) == LOG.path(place, 0, new)
        if place:
            assert consistency(place, new, LOG.read) == LOG.proof(place, new)


@settings(deadline=None)
@given(sizes, st.data())
def test_proofs_of_any_log_are_those_of_the_definition_and_are_accepted(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion(index, size, LOG.read)
    assert proof == LOG.path(index, 0, size)
    check_inclusion(LOG.leaves[index], index, size, proof, LOG.root(0, size))
    old = index + 1
    steps = consistency(old, size, LOG.read)
    assert steps == (LOG.proof(old, size) if old < size else [])
    check_consistency(old, LOG.root(0, old), size, LOG.root(0, size), steps)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 2**63 - 1), st.data())
def test_proofs_of_logs_of_any_size_are_those_of_the_definition(size: int, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=6))
    log = Sparse(size, [*places, *(place + 1 for place in places), size - 1])
    index, old = places[0], places[-1] + 1
    proof = inclusion(index, size, log.read)
    assert proof == log.path(index, 0, size)
    check_inclusion(log.root(index, index + 1), index, size, proof, log.root(0, size))
    steps = consistency(old, size, log.read)
    assert steps == (log.proof(old, size) if old < size else [])
    check_consistency(old, log.root(0, old), size, log.root(0, size), steps)
    assert tree_root(size, log.read) == log.root(0, size)


def test_nothing_is_proved_of_what_is_not_in_the_log() -> None:
    for index, size in [(0, 0), (5, 5), (-1, 5)]:
        with pytest.raises(ValueError, match="has no index"):
            inclusion(index, size, LOG.read)
    for old, new in [(6, 5), (-1, 5)]:
        with pytest.raises(ValueError, match="does not extend"):
            consistency(old, new, LOG.read)
    assert consistency(0, 5, LOG.read) == consistency(5, 5, LOG.read) == []


# --- growing, and reading tiles


@settings(deadline=None)
@given(st.lists(st.integers(0, 700), max_size=12))
def test_a_tree_fills_the_tiles_that_a_log_of_its_size_has(parts: list[int]) -> None:
    tree, size = Tree(), 0
    for part in parts:
        filled = tree.extend(LOG.leaves[size : size + part])
        new = size + part
        partial = [
            (Tile(level, new >> 8 * (level + 1), len(tail)), tail) for level, tail in enumerate(tree.tails) if tail
        ]
        made = [*filled, *partial]
        assert all(hashes == LOG.read(*tile) for tile, hashes in made)
        named = {each for each in growth(size, new) if isinstance(each, Tile)}
        assert {tile for tile, _ in filled} == {tile for tile in named if tile.width == 256}
        assert named <= {tile for tile, _ in made}
        size = new
    assert (tree.size, [len(tail) for tail in tree.tails]) == (size, widths(size))
    assert tree.root() == LOG.root(0, size)


@settings(deadline=None)
@given(st.integers(0, 70_000), st.integers(0, 700))
def test_a_tree_read_from_tiles_goes_on_as_the_one_that_made_them(size: int, more: int) -> None:
    more = min(more, 70_000 - size)
    tree = Tree.of(size, LOG.read)
    assert tree.root() == tree_root(size, LOG.read) == LOG.root(0, size)
    tree.extend(LOG.leaves[size : size + more])
    assert tree.tails == Tree.of(size + more, LOG.read).tails
    assert tree.root() == LOG.root(0, size + more)


def test_a_tree_keeps_its_own_hashes() -> None:
    held = [leaf(0), leaf(1)]
    tree = Tree.of(2, lambda *_: held)
    tree.append(leaf(2))
    assert held == [leaf(0), leaf(1)]


def test_a_tree_stays_whole_when_its_leaves_end_in_an_error() -> None:
    def leaves() -> Iterator[bytes]:
        yield from LOG.leaves[:300]
        raise OSError("the disk is gone")

    tree = Tree()
    with pytest.raises(OSError, match="gone"):
        tree.extend(leaves())
    assert tree.root() == LOG.root(0, tree.size)


@pytest.mark.parametrize("size", [10_000, 100_000, 1_000_000, 10_000_000])
def test_proofs_read_each_tile_once_and_at_most_two_a_level(size: int) -> None:
    rng = random.Random(size)
    for _ in range(20):
        index = rng.randrange(size)
        log = Sparse(size, [index])
        for make, place in ((inclusion, index), (consistency, index + 1)):
            log.reads.clear()
            assert make(place, size, log.read)
            assert len(set(log.reads)) == len(log.reads) <= 2 * len(widths(size)) - 1


def test_only_tiles_that_the_log_has_are_read() -> None:
    for size in [*range(1, 600, 7), *EDGES]:
        has = set(growth(0, size))
        LOG.reads.clear()
        for index in {0, size // 2, size - 1}:
            inclusion(index, size, LOG.read)
            consistency(index + 1, size, LOG.read)
        assert {Tile(*read) for read in LOG.reads} <= has


@pytest.mark.parametrize("use", [lambda read: Tree.of(300, read), lambda read: inclusion(7, 300, read)])
def test_a_tile_of_another_width_is_refused(use: Callable[[object], object]) -> None:
    def read(level: int, number: int, width: int) -> list[bytes]:
        return LOG.read(level, number, width)[:-1]

    with pytest.raises(ValueError, match=r"has \d+ hashes instead of \d+"):
        use(read)


# --- what may not pass as a proof


def refused(check: Callable[..., None], *said: object) -> bool:
    try:
        check(*said)
    except ProofWrong:
        return True
    return False


def mutants(proof: list[bytes]) -> Iterator[list[bytes]]:
    """Every single bit flipped, every element dropped, doubled or cut, any two exchanged, one added at either end."""
    for at, value in enumerate(proof):
        for bit in range(256):
            flipped = int.from_bytes(value, "big") ^ 1 << bit
            yield [*proof[:at], flipped.to_bytes(32, "big"), *proof[at + 1 :]]
        yield [*proof[:at], *proof[at + 1 :]]
        yield [*proof[:at], value, *proof[at:]]
        yield [*proof[:at], value[:-1], *proof[at + 1 :]]
        yield [*proof[:at], value + b"\0", *proof[at + 1 :]]
        for other in range(at):
            swapped = list(proof)
            swapped[at], swapped[other] = swapped[other], swapped[at]
            yield swapped
    for added in (bytes(32), EMPTY, b""):
        yield [added, *proof]
        yield [*proof, added]


@settings(max_examples=25, deadline=None)
@given(sizes, st.data())
def test_every_mutant_of_a_proof_of_inclusion_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof, root, mine = LOG.path(index, 0, size), LOG.root(0, size), LOG.leaves[index]
    for mutant in mutants(proof):
        assert refused(check_inclusion, mine, index, size, mutant, root)


@settings(max_examples=25, deadline=None)
@given(sizes.filter(lambda new: new > 1), st.data())
def test_every_mutant_of_a_proof_of_consistency_is_refused(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new - 1))
    proof, before, after = LOG.proof(old, new), LOG.root(0, old), LOG.root(0, new)
    for mutant in mutants(proof):
        assert refused(check_consistency, old, before, new, after, mutant)


def test_a_proof_of_inclusion_proves_one_place_only() -> None:
    for size in range(1, 40):
        for index in range(size):
            proof, root, mine = LOG.path(index, 0, size), LOG.root(0, size), LOG.leaves[index]
            places = range(-1, size + 2)
            assert [at for at in places if not refused(check_inclusion, mine, at, size, proof, root)] == [index]


def test_a_proof_of_a_larger_or_smaller_log_is_of_another_length() -> None:
    # Roots do not say their size; where a whole proof of another log fits otherwise, only its length tells.
    with pytest.raises(ProofWrong, match="too long"):
        check_inclusion(LOG.leaves[1], 0, 1, LOG.path(1, 0, 2), LOG.root(0, 2))
    with pytest.raises(ProofWrong, match="too short"):
        check_inclusion(LOG.leaves[0], 0, 2, [], LOG.leaves[0])
    with pytest.raises(ProofWrong, match="too long"):
        check_consistency(3, LOG.root(0, 7), 4, LOG.root(0, 8), LOG.proof(7, 8))
    with pytest.raises(ProofWrong, match="too short"):
        check_consistency(7, LOG.root(0, 3), 8, LOG.root(0, 4), LOG.proof(3, 4))
    for old in (2, 3):
        with pytest.raises(ProofWrong, match="too short"):
            check_consistency(old, LOG.root(0, old), 4, LOG.root(0, 4), [])


@settings(deadline=None)
@given(sizes, st.data())
def test_another_leaf_or_root_is_refused(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof, root = LOG.path(index, 0, size), LOG.root(0, size)
    for mine, top in [(leaf(-1), root), (LOG.leaves[index], leaf(-1)), (b"", root), (LOG.leaves[index], b"")]:
        with pytest.raises(ProofWrong):
            check_inclusion(mine, index, size, proof, top)


@settings(deadline=None)
@given(sizes.filter(lambda new: new > 1), st.data())
def test_a_log_that_was_rewritten_is_not_consistent(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new - 1))
    changed = data.draw(st.integers(0, old - 1))
    honest, forged = Sparse(new, [changed]), Sparse(new, [])
    with pytest.raises(ProofWrong, match="does not begin with"):
        check_consistency(old, honest.root(0, old), new, forged.root(0, new), forged.proof(old, new))
    check_consistency(old, forged.root(0, old), new, forged.root(0, new), forged.proof(old, new))


def test_the_boundary_between_two_hashes_cannot_be_moved() -> None:
    left, right = leaf(0), leaf(1)
    root = node_hash(left, right)
    longer, shorter = left + right[:1], right[1:]
    assert node_hash(longer, shorter) == root
    with pytest.raises(ProofWrong, match="32 bytes"):
        check_inclusion(longer, 0, 2, [shorter], root)


def test_equal_sizes_need_equal_roots_and_no_proof() -> None:
    root = LOG.root(0, 5)
    check_consistency(5, root, 5, root, [])
    for before, proof in [(leaf(0), []), (root, [root])]:
        with pytest.raises(ProofWrong):
            check_consistency(5, before, 5, root, proof)


def test_everything_extends_the_empty_log_and_only_its_own_root_is_empty() -> None:
    check_consistency(0, EMPTY, 5, LOG.root(0, 5), [])
    check_consistency(0, EMPTY, 0, EMPTY, [])
    for before, new, after, proof in [
        (leaf(0), 5, LOG.root(0, 5), []),
        (EMPTY, 5, LOG.root(0, 5), [EMPTY]),
        (EMPTY, 0, leaf(0), []),
    ]:
        with pytest.raises(ProofWrong):
            check_consistency(0, before, new, after, proof)


def test_no_log_extends_a_longer_one() -> None:
    for old, new in [(6, 5), (-1, 5)]:
        with pytest.raises(ProofWrong, match="does not extend"):
            check_consistency(old, LOG.root(0, 6), new, LOG.root(0, 5), [])
