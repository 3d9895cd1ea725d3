"""What a node stands on, made from the tables of ``gsb.toml``: its store, its broker, what it shares with others, and
where its traces go.

The extras are imported here, where they are installed; ``gsb.lint_backends`` names one that is missing. Nothing
is opened; a crash is a defect of this module.
"""

from __future__ import annotations

from gsb.backends import KafkaTable, PostgresTable
from gsb.broker.contract import Broker
from gsb.broker.local import LocalBroker
from gsb.catalogue import Catalogue
from gsb.config import Retention
from gsb.dsn import DsnUnfit, read_dsn
from gsb.lint_backends import KAFKA, OTEL, POSTGRES
from gsb.metrics import Metrics
from gsb.roles import Role, Roles
from gsb.shares.contract import Shares
from gsb.shares.local import LocalShares
from gsb.store.contract import DAY, Ages, Store, StoreUnfit
from gsb.store.seal import read_key
from gsb.store.sqlite import SqliteStore
from gsb.tracing import Tracer

if KAFKA:
    from gsb.broker.kafka import KafkaBroker
if OTEL:
    from gsb.otel import OtelTracer
if POSTGRES:
    from gsb.shares.postgres import PostgresShares
    from gsb.store.postgres import PostgresStore


def store_of(catalogue: Catalogue, metrics: Metrics) -> Store:
    """The store of a deployment, not yet open. Raises StoreUnfit, KeyFileUnfit."""
    table, ages = catalogue.gsb.store, ages_of(catalogue.gsb.retention)
    key = read_key(table.key)
    if isinstance(table, PostgresTable):
        return _postgres(table, key, ages, metrics)
    return SqliteStore(table.path, key, ages=ages, committed=metrics.committed)


def _postgres(table: PostgresTable, key: bytes, ages: Ages, metrics: Metrics) -> Store:
    try:
        dsn = read_dsn(table.dsn)
    except DsnUnfit as error:
        raise StoreUnfit(f"{table.dsn}: {error}") from error
    return PostgresStore(
        dsn,
        key,
        schema=table.schema_name,
        ages=ages,
        readers=table.connections,
        statement=table.statement_seconds,
        committed=metrics.committed,
    )


def broker_of(catalogue: Catalogue, roles: Roles) -> Broker:
    """The broker of a deployment, not yet open. A node that neither dispatches nor performs needs none but in name.
    Raises BrokerUnfit."""
    table = catalogue.gsb.broker
    if isinstance(table, KafkaTable) and roles.played != {Role.RECORDER}:
        return KafkaBroker(table, listens=Role.GATEWAY in roles)
    return LocalBroker()


def shares_of(store: Store) -> Shares:
    """What the nodes of one store share; it is to be opened after the store."""
    return PostgresShares(store.sessions) if POSTGRES and isinstance(store, PostgresStore) else LocalShares()


def tracer_of(catalogue: Catalogue, node: str, metrics: Metrics) -> Tracer | None:
    """What begins the spans of a node of this name, at work from now on; None for a deployment without traces."""
    table = catalogue.gsb.tracing
    return None if table is None else OtelTracer(table, catalogue.gsb.bus.id, node, metrics)


def ages_of(days: Retention) -> Ages:
    return Ages(days.bodies_days * DAY, days.keys_days * DAY, days.exchanges_days * DAY)
