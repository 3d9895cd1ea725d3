"""What a transaction of the PostgreSQL store writes at once: never more than a server takes in one value."""

from __future__ import annotations

import pytest

from gsb.store.postgres.batch import AT_ONCE, portions


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([10], [1]),
        ([AT_ONCE, 1], [1, 1]),
        ([AT_ONCE // 2] * 4, [2, 2]),
        ([1, AT_ONCE + 1, 1], [1, 1, 1]),
        ([1] * 300, [300]),
    ],
)
def test_bodies_are_cut_into_pieces_in_their_order(sizes: list[int], expected: list[int]) -> None:
    sealed = [(number, bytes(size)) for number, size in enumerate(sizes)]
    found = list(portions(sealed))
    assert [len(piece) for piece in found] == expected
    assert [each for piece in found for each in piece] == sealed
