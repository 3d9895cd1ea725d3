"""The tables of ``gsb.toml`` that say what a node runs on: ``[store]`` and ``[broker]``, each of one kind of several.

Without ``kind`` each is the one for a single machine. Only shapes are told here; ``gsb.lint`` knows what must hold
between them, and ``gsb.foundation`` makes what they describe. Nothing is opened; a crash is a defect of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from gsb.forms import File, Table


class SqliteTable(Table):
    """Where the truth about exchanges lies, on one machine: a file of SQLite, which one node has open."""

    kind: Literal["sqlite"] = "sqlite"
    """SQLite, for one machine."""
    path: File
    """The database file; its folder must exist and be on a disk that keeps what was synchronised."""
    key: File
    """File with the store's key, made by ``gsb keygen --store``. Without it bodies and evidence cannot be read."""


class PostgresTable(Table):
    """Where the truth about exchanges lies, beyond one machine: a PostgreSQL that any number of nodes share."""

    kind: Literal["postgres"]
    """PostgreSQL 15 or later. Needs the extra ``postgres``."""
    dsn: File
    """File with the connection URI (``postgresql://user:password@host/database``), a secret. It may name several hosts,
    of which the one that takes writes is used. Unless they are on this machine it must say ``sslmode=verify-full`` (and
    ``sslrootcert=``), or ``sslmode=disable`` where something else protects the way."""
    key: File
    """File with the store's key, made by ``gsb keygen --store``, the same on every node. Without it bodies and evidence
    cannot be read."""
    schema_name: str = Field(default="gsb", pattern=r"^[a-z_][a-z0-9_]{0,62}$")
    """The schema in which the bus's tables lie; it is made where there is none. Buses may share a database, never a
    schema."""
    connections: int = Field(default=8, ge=1, le=100)
    """Connections of this node for reading at most; one more writes."""
    statement_seconds: float = Field(default=10.0, ge=1, le=60)
    """Seconds after which the server gives a statement up, and its caller is answered 503 ``store_unavailable``."""


class LocalTable(Table):
    """How work reaches workers on one machine."""

    kind: Literal["local"] = "local"
    """In this process."""


def _kind(default: str) -> Callable[[Any], str]:
    """Of what kind a table is; ``default`` where it does not say so."""

    def kind(table: Any) -> str:
        return str(table.get("kind", default) if isinstance(table, Mapping) else getattr(table, "kind", default))

    return kind


StoreTable = Annotated[
    Annotated[SqliteTable, Tag("sqlite")] | Annotated[PostgresTable, Tag("postgres")],
    Discriminator(
        _kind("sqlite"), custom_error_type="kind", custom_error_message='kind must be "sqlite" or "postgres"'
    ),
]
BrokerTable = LocalTable
