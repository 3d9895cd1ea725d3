"""What happens to the files of the evidence log while the bus runs, and what readers then hear."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.bad_input.case import Case
from tests.bad_input.draft import put
from tests.bad_input.judge import hold
from tests.bad_input.stage import RECEIPT, furnish, stage_in


async def a_lost_tile(root: Path) -> set[str]:
    """Receipts are asked for, and the tiles that would prove them are not there any more."""
    async with stage_in(root) as stage:
        await furnish(stage)
        recorder = stage.node.node.recorder
        await recorder.look()
        tiles = list(stage.deployment.log_folder.glob("*/tile/0/000.p/*"))
        assert tiles
        for tile in tiles:
            tile.unlink()
        cases = [Case("bus", "value", f"a lost tile, {time}", put(), "log_unavailable", RECEIPT) for time in (1, 2)]
        async with recorder._alone:  # what is refused is recorded too, and with it would come a tile that is there
            for case in cases:
                await hold(stage, case)
        return {str(stage.seen[case.name]) for case in cases}


TROUBLES: dict[str, Callable[[Path], Awaitable[set[str]]]] = {"a tile that is lost": a_lost_tile}
