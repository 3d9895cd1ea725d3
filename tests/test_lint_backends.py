"""``gsb check`` of ``[store]`` and ``[broker]``: kinds, files and extras. See ``tests.test_check`` for the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gsb import lint_backends
from gsb.backends import KafkaTable, LocalTable, PostgresTable, SqliteTable
from gsb.catalogue import build
from gsb.check import check
from gsb.reload import needs_restart
from tests.support.cluster import spread
from tests.support.deployment import Deployment, standard

DSN = "postgresql://bus@127.0.0.1/gsb"


def on_servers(tmp_path: Path) -> Deployment:
    made = spread(standard(tmp_path), DSN, [8080], "127.0.0.1:9092")
    del made.gsb["limits"]["notice"]  # which nodes that run in tests need
    return made


def found(deployment: Deployment) -> list[tuple[str, str]]:
    return [(finding.where, finding.message) for finding in check(deployment.write())]


def test_without_a_kind_a_table_is_the_one_for_a_single_machine(tmp_path: Path) -> None:
    gsb = build(standard(tmp_path).write()).gsb
    assert (type(gsb.store), type(gsb.broker)) == (SqliteTable, LocalTable)


def test_two_tables_are_all_that_changes(tmp_path: Path) -> None:
    alone, deployment = standard(tmp_path), on_servers(tmp_path)
    assert found(deployment) == []
    gsb = build(deployment.folder).gsb
    assert (type(gsb.store), type(gsb.broker)) == (PostgresTable, KafkaTable)
    assert {name for name, table in deployment.gsb.items() if alone.gsb.get(name) != table} - {"bus", "listen"} == {
        "store",
        "broker",
    }


@pytest.mark.parametrize(
    ("table", "members", "where", "message"),
    [
        ("store", {"kind": "mysql"}, "store", 'kind must be "sqlite" or "postgres"'),
        ("broker", {"kind": "rabbit"}, "broker", 'kind must be "local" or "kafka"'),
        ("store", {"path": "store.db"}, "store.path", "is not known"),
        ("store", {"connectoins": 3}, "store.connectoins", "is not known; did you mean 'connections'?"),
        ("store", {"schema_name": "Gsb"}, "store.schema_name", "String should match pattern"),
        ("store", {"dsn": None}, "store.dsn", "is missing"),
        ("store", {"dsn": "nothing"}, "store.dsn", "cannot be read: No such file or directory"),
        ("store", {"dsn": "store.key"}, "store.dsn", "must be one line with a URI"),
        ("store", {"key": "dsn"}, "store.key", "the store's key must be"),
        ("broker", {"sasl": {"user": "bus", "password": "no"}}, "broker.sasl.password", "there is no file no"),
        ("broker", {"tls": {"ca": "no.pem"}}, "broker.tls.ca", "there is no file no.pem"),
        ("broker", {"brokers": ["kafka.example.org:9092"]}, "broker", "tls is needed"),
    ],
)
def test_each_rule_tells_what_breaks_it(
    tmp_path: Path, table: str, members: dict[str, Any], where: str, message: str
) -> None:
    deployment = on_servers(tmp_path)
    deployment.gsb[table].update(members)
    ((there, said),) = found(deployment)
    assert there == where
    assert message in said


@pytest.mark.parametrize(
    ("extra", "where", "said"),
    [
        ("POSTGRES", "store", "install the bus with the extra postgres"),
        ("KAFKA", "broker", "install the bus with the extra kafka"),
    ],
)
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: str, where: str, said: str
) -> None:
    monkeypatch.setattr(lint_backends, extra, False)
    assert found(on_servers(tmp_path)) == [(where, said)]
    assert found(standard(tmp_path)) == []


def test_a_running_node_changes_neither_store_nor_broker(tmp_path: Path) -> None:
    old = build(standard(tmp_path).write()).gsb
    new = build(on_servers(tmp_path).write()).gsb
    where = {finding.where for finding in needs_restart(old, new)}
    assert {"store.kind", "store.dsn", "broker.kind", "broker.brokers"} <= where
