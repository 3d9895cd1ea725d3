"""Batches go on being lodged, once each, while the customs system's server is slowed, cut off, killed and stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.declarations import LODGE, batch, border, declaration, registered
from tests.support.survival import ENOUGH, Ask, survives


@pytest.mark.slow
async def test_every_batch_is_lodged_once(tmp_path: Path) -> None:
    lines = [[declaration(f"D-{number}-{each}") for each in range(20)] for number in range(ENOUGH)]
    async with border(tmp_path) as place, place.house() as house:

        async def count(exchange: str, body: Any) -> int:
            name = exchange.replace("-", "")
            # In the order in which a file moves on; one that was seen in both places was moved in between.
            seen = [*place.there("inbox"), *place.there("archive")]
            registered(house)  # what the customs house got twice is an error
            return len({each for each in seen if each.startswith(name)})

        told = await survives(tmp_path, place.sshd, "customs", [Ask(LODGE, batch(each)) for each in lines], count)
        assert told.states["done"] == ENOUGH
        await place.taken()  # a file that is moved while it is looked for is seen in both places
        assert len(place.there("inbox", "archive")) == ENOUGH
