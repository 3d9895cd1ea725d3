"""The recorder on a store that goes back while it is at work: it ends, and forks no log."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from gsb.evidence.log import CHECKPOINT
from gsb.store.contract import Store, StoreUnfit
from gsb.store.seal import read_key
from gsb.store.sqlite import SqliteStore
from tests.support.deployment import standard
from tests.support.recording import recording


class Standby:
    """A store with a standby that lags: it stands where the store stood before or after it was last told to publish
    while it was ``copied``, and takes the store's place when it is ``promoted``."""

    def __init__(self, store: Store, folder: Path, before: bool) -> None:
        self._store, self._folder, self._before = store, folder, before
        self.copied = True

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._store, verb)

    async def publish(self, origin: str, size: int, note: bytes) -> None:
        if self._before:
            self._copy()
        await self._store.publish(origin, size, note)
        if not self._before:
            self._copy()

    def _copy(self) -> None:
        if self.copied:
            with (
                closing(sqlite3.connect(self._folder / "store.db")) as store,
                closing(sqlite3.connect(self._folder / "standby.db")) as standby,
            ):
                store.backup(standby)

    async def promoted(self) -> None:
        await self._store.close()
        self._store = SqliteStore(self._folder / "standby.db", read_key(self._folder / "store.key"))
        await self._store.open()


@pytest.mark.parametrize("before", [True, False])
async def test_a_store_that_goes_back_at_work_forks_no_log(tmp_path: Path, before: bool) -> None:
    """As when a standby that was behind is promoted: nothing is signed or written beside what it does not know."""
    folder = standard(tmp_path).folder
    async with recording(tmp_path, wrap=lambda store: cast(Store, Standby(store, folder, before))) as hands:
        standby = cast(Any, hands.store)
        await hands.record(1)
        standby.copied = False
        await hands.record(2, 3)
        published, seen = (hands.folder() / CHECKPOINT).read_bytes(), hands.contents()
        await standby.promoted()
        try:
            signed = [state.checkpoint for state in await hands.store.logs()]
            await hands.enter(4, 5, 6)
            for _ in range(2):  # the second is the last one of a node that ends because of the first
                with pytest.raises(StoreUnfit, match="the store has gone back"):
                    await hands.recorder.look()
                assert [state.checkpoint for state in await hands.store.logs()] == signed
                assert (hands.folder() / CHECKPOINT).read_bytes() == published
                assert hands.contents() == seen
        finally:
            await hands.store.close()
