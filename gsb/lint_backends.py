"""What must hold of the tables that say what a node runs on: their files are there, and so is what they need.

It is part of ``gsb.lint`` and keeps to its rules. Nothing is connected to: a check says the same on a machine that
reaches no server. Secrets are read, never repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from gsb.backends import KafkaTable, KafkaTls, PostgresTable, TracingTable
from gsb.config import Gsb
from gsb.dsn import DsnUnfit, read_dsn
from gsb.load import Finding, Tables
from gsb.material import shown
from gsb.store.seal import KeyFileUnfit, read_key

POSTGRES, KAFKA = find_spec("asyncpg") is not None, find_spec("aiokafka") is not None
OTEL = all(find_spec(name) is not None for name in ("opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter"))
"""Whether the extras of these names are installed."""


def lint_backends(tables: Tables, gsb: Gsb) -> Iterator[Finding]:
    store = gsb.store
    if isinstance(store, PostgresTable):
        yield from _postgres(store)
    elif not store.path.parent.is_dir():
        yield Finding("gsb.toml", "store.path", f"there is no folder {shown(store.path.parent, tables.folder)}")
    if isinstance(gsb.broker, KafkaTable):
        yield from _kafka(gsb.broker, tables)
    if gsb.tracing is not None:
        yield from _tracing(gsb.tracing, tables)
    try:
        read_key(store.key)
    except KeyFileUnfit as error:
        yield Finding("gsb.toml", "store.key", f"{error}; gsb keygen --store makes one")


def _kafka(table: KafkaTable, tables: Tables) -> Iterator[Finding]:
    if not KAFKA:
        yield Finding("gsb.toml", "broker", "install the bus with the extra kafka")
    files = {"sasl.password": table.sasl.password} if table.sasl is not None else {}
    if isinstance(table.tls, KafkaTls):
        given = {f"tls.{name}": getattr(table.tls, name) for name in ("ca", "certificate", "key")}
        files |= {where: path for where, path in given.items() if path is not None}
    for where, path in files.items():
        if not path.is_file():
            yield Finding("gsb.toml", f"broker.{where}", f"there is no file {shown(path, tables.folder)}")


def _tracing(table: TracingTable, tables: Tables) -> Iterator[Finding]:
    if not OTEL:
        yield Finding("gsb.toml", "tracing", "install the bus with the extra otel")
    if table.ca is not None and not table.ca.is_file():
        yield Finding("gsb.toml", "tracing.ca", f"there is no file {shown(table.ca, tables.folder)}")


def _postgres(table: PostgresTable) -> Iterator[Finding]:
    if not POSTGRES:
        yield Finding("gsb.toml", "store", "install the bus with the extra postgres")
    try:
        read_dsn(table.dsn)
    except DsnUnfit as error:
        yield Finding("gsb.toml", "store.dsn", str(error))
