"""A composite service whose node is killed between two steps: each step takes effect once, and the whole ends."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.deployment import Deployment, closed
from tests.support.node import RunningNode

ENTRY, RUN = "ledger/entry/v1", "run/both/v1"
AGENCY = "tax-agency"
TEXT = closed({"text": {"type": "string"}}, {"text": "first"})


def composed(root: Path) -> Deployment:
    database = root / "ledger.sqlite"
    with closing(sqlite3.connect(database)) as ledger:
        ledger.execute("CREATE TABLE entries (exchange TEXT, text TEXT)")
        ledger.commit()
    deployment = Deployment(root)
    deployment.system("ledger", adapter="sql", settings={"url": f"sqlite+aiosqlite:///{database}"})
    statement = {
        "mode": "write",
        "statement": "INSERT INTO entries (exchange, text) VALUES (:exchange, :text) RETURNING text",
        "parameters": {"exchange": "exchange", "text": "body.text"},
        "reply": {"text": "rows[0].text"},
    }
    deployment.service(ENTRY, effect="once", request=TEXT, reply=TEXT, settings=statement)
    settings = {"service": ENTRY, "marker": str(root / "killed")}
    key = str(deployment.key_file(AGENCY))
    deployment.system("run", agency=AGENCY, adapter="steps", settings=settings, calls={"key": key}, timeout=2.0)
    steps = {"type": "array", "items": {"type": "object", "properties": {"text": {"type": "string"}}}}
    reply = closed({"steps": steps}, {"steps": []})
    deployment.service(RUN, effect="repeatable", request=closed({}, {}), reply=reply)
    grant = {"purpose": "payroll", "fields": [""]}
    deployment.agreement("a-steps", consumer=AGENCY, grants=[grant | {"service": ENTRY}])
    deployment.agreement("a-run", provider=AGENCY, grants=[grant | {"service": RUN}])
    return deployment


@pytest.mark.slow
async def test_a_node_killed_between_two_steps_repeats_neither(tmp_path: Path) -> None:
    deployment = composed(tmp_path)
    deployment.write()
    node = RunningNode(deployment)
    await node.start()
    async with node.client() as client:
        accepted = await client.call(RUN, {}, purpose="payroll", respond_async=True)
        assert await node.ended() < 0, "it was killed"
        assert (tmp_path / "killed").exists()
        await node.start()
        try:
            # Whoever was performing it is dead for the bus only when its lease has run out.
            result = await client.follow(str(accepted.exchange), timeout=180.0)
        finally:
            await node.stop()
    assert result.body == {"steps": [{"text": "first"}, {"text": "second"}]}
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as ledger:
        rows = ledger.execute("SELECT text, exchange FROM entries ORDER BY rowid").fetchall()
    assert [text for text, _ in rows] == ["first", "second"]
    assert len({exchange for _, exchange in rows}) == 2
