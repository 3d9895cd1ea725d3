"""``gsb doctor`` on what a node stands on, broken on purpose: its store, its database, and its Kafka."""

from __future__ import annotations

import re
import sqlite3
import time
import uuid
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from gsb.catalogue import build
from gsb.doctor import Found, Grade, standing
from gsb.doctor.standing import kafka as examine_kafka
from gsb.store.postgres.sessions import database_clock
from gsb.store.sqlite.opened import mark_moved
from gsb.store.sqlite.rows import VERSION
from tests.support.deployment import Deployment, free_ports, standard
from tests.support.node import node_in_process
from tests.support.stores import PostgresMaker
from tests.test_doctor import found, ill


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return standard(tmp_path)


# --- the store


async def test_a_store_that_is_damaged_newer_or_elsewhere(tmp_path: Path, deployment: Deployment) -> None:
    async with node_in_process(tmp_path, deployment):
        assert (await found(deployment))["store"].said.endswith(f"is whole, layout {VERSION}")
    store = deployment.folder / "store.db"
    with closing(sqlite3.connect(store)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    assert (await ill(deployment))["store"].do == "start the newer program"
    store.write_bytes(b"SQLite format 3\0" + bytes(5_000))
    assert (await ill(deployment))["store"].do == "restore the newest backup, then gsb restore"
    mark_moved(store, "postgresql, schema gsb")
    assert (await ill(deployment))["store"].said.endswith("was carried to postgresql, schema gsb")


async def test_a_large_store_is_not_read_through(
    tmp_path: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with node_in_process(tmp_path, deployment):
        pass
    store = deployment.folder / "store.db"
    size = store.stat().st_size
    with store.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size - size // 2))
    monkeypatch.setattr(standing, "THROUGH", size)
    assert "damaged" in (await ill(deployment))["store"].said
    monkeypatch.setattr(standing, "THROUGH", size - 1)
    told = (await found(deployment))["store"]
    assert told.grade is Grade.WELL
    assert told.said.endswith(f"were not read through: sqlite3 -readonly {store} 'PRAGMA quick_check' does, in minutes")


def _on_postgres(deployment: Deployment, dsn: str, schema: str = "gsb") -> None:
    (deployment.folder / "dsn").write_text(f"{dsn}\n")
    (deployment.folder / "dsn").chmod(0o600)
    deployment.gsb["store"] = {"kind": "postgres", "dsn": "dsn", "key": "store.key", "schema_name": schema}


async def test_a_postgresql_that_is_not_there(deployment: Deployment) -> None:
    (port,) = free_ports(1)
    _on_postgres(deployment, f"postgresql://bus:canary-password@127.0.0.1:{port}/gov")
    told = (await ill(deployment))["store"]
    assert told.said.startswith("PostgreSQL cannot be reached: ")
    assert "canary" not in told.said


async def test_a_store_on_postgresql(deployment: Deployment, maker: PostgresMaker) -> None:
    _on_postgres(deployment, maker.dsn, maker.schema)
    told = await found(deployment)
    assert told["store: layout"].said == f"schema {maker.schema} is empty: the first start makes the tables"
    await maker.open()
    told = await found(deployment)
    kinds = {"store", "clock: store", "store: durable", "store: layout", "store: connections"}
    assert {told[kind].grade for kind in kinds} == {Grade.WELL}
    await maker.rows("UPDATE layout SET version = version + 1, oldest = version + 1")
    assert (await ill(deployment))["store: layout"].do.startswith("start the newer program")
    await maker.rows("UPDATE layout SET version = 1, oldest = 1")
    assert (await found(deployment))["store: layout"].grade is Grade.WARNING


async def test_a_server_that_forgets(deployment: Deployment, maker: PostgresMaker) -> None:
    _on_postgres(deployment, maker.dsn, maker.schema)
    db = await asyncpg.connect(maker.dsn)
    try:
        await db.execute("ALTER SYSTEM SET full_page_writes = off")
        await db.execute("SELECT pg_reload_conf()")
        end = time.monotonic() + 90
        while "store: durable" not in (troubles := await ill(deployment)):
            assert time.monotonic() < end, troubles
    finally:
        await db.execute("ALTER SYSTEM RESET full_page_writes")
        await db.execute("SELECT pg_reload_conf()")
        await db.close()
    assert "full_page_writes = off" in troubles["store: durable"].said


async def test_a_machine_whose_clock_is_off_the_store_s(
    deployment: Deployment, maker: PostgresMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ahead(db: asyncpg.Connection) -> float:
        return await database_clock(db) + 3600

    _on_postgres(deployment, maker.dsn, maker.schema)
    monkeypatch.setattr(standing, "database_clock", ahead)
    told = (await ill(deployment))["clock: store"]
    assert re.fullmatch(r"this machine's clock is 3[56]\d\d\.\d s behind the store's", told.said)
    assert told.do == "set both right: a node that is so far off is not ready"


async def test_a_server_whose_connections_are_taken(
    deployment: Deployment, maker: PostgresMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    _on_postgres(deployment, maker.dsn, maker.schema)
    monkeypatch.setattr(standing, "FULL", 0.0)  # the server is everybody's: to take all would break other tests
    told = (await found(deployment))["store: connections"]
    assert told.grade is Grade.WARNING
    assert told.do == "raise max_connections, or lower [store] connections of the nodes"


# --- Kafka


def _on_kafka(deployment: Deployment, brokers: str) -> None:
    prefix = f"t{uuid.uuid4().hex[:12]}"
    deployment.gsb["broker"] = {
        "kind": "kafka",
        "brokers": brokers.split(","),
        "topic_prefix": prefix,
        "replication": 1,
    }


async def test_a_kafka_that_is_not_there(deployment: Deployment) -> None:
    (port,) = free_ports(1)
    _on_kafka(deployment, f"127.0.0.1:{port}")
    assert (await ill(deployment))["kafka"].said.startswith("it cannot be asked: ")


async def test_topics_that_are_not_there(deployment: Deployment, kafka: str) -> None:
    _on_kafka(deployment, kafka)
    catalogue = build(deployment.write())
    first, *topics = [each async for each in examine_kafka(catalogue)]
    assert first == Found("kafka", Grade.WELL, "its brokers answer")
    assert {(each.grade, each.do) for each in topics} == {(Grade.TROUBLE, "gsb topics apply")}
    assert len(topics) == 2  # of the system, and of wakes
