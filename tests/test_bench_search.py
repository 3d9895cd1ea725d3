"""The bench of searches fills a store as the store would, asks for every kind, and judges by the slowest median."""

from __future__ import annotations

import re
import sqlite3
import time
from pathlib import Path

import pytest

from gsb.bench.search import measure
from gsb.bench.search.fill import STRANGERS, fill
from gsb.model import State
from gsb.store.contract import Query
from gsb.store.seal import Seal
from gsb.store.sqlite import SqliteStore
from tests.test_bench_store import content

KEY = bytes(range(32))


async def test_every_kind_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await measure.main(tmp_path, exchanges=3_000, times=2) == 0
    told = capsys.readouterr().out
    rows = re.findall(r"^(\S.*?) +([0-9.]+) +([0-9.]+)$", told, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(measure.kinds(time.time()))
    assert all(0 <= float(p50) <= float(p99) for _, p50, p99 in rows)
    assert content(tmp_path) == []


async def test_a_median_beyond_the_bar_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "MOST", 0.0)
    assert await measure.main(tmp_path, exchanges=1_000, times=2) == 1


async def test_the_store_is_filled_as_it_fills_itself(tmp_path: Path) -> None:
    """What it was given can be found, and every index agrees with the table."""
    path, store = tmp_path / "store.db", SqliteStore(tmp_path / "store.db", KEY)
    await store.open()
    await store.close()
    fill(path, Seal(KEY), 20_000)
    await store.open()
    page = await store.search(Query(limit=500))
    assert len(page.exchanges) == 500
    assert len(await _all(store, Query(agency=STRANGERS[0], service=STRANGERS[1]))) < 20
    done = await _all(store, Query(states=frozenset({State.DONE})))
    assert 18_000 < len(done) < 19_500
    await store.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


async def _all(store: SqliteStore, query: Query) -> list[str]:
    found: list[str] = []
    cursor, last = None, False
    while not last:
        page = await store.search(Query(query.agency, query.service, query.states, cursor=cursor, limit=500))
        found += [one.id for one in page.exchanges]
        cursor, last = page.next, page.next is None
    return found
