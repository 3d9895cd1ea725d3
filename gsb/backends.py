"""The tables of ``gsb.toml`` that say what a node runs on: ``[store]`` and ``[broker]``, each of one kind of several,
and where traces of it go: ``[tracing]``.

Without ``kind`` each is the one for a single machine. Only shapes are told here; ``gsb.lint`` knows what must hold
between them, and ``gsb.foundation`` makes what they describe. Nothing is opened; a crash is a defect of this module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from gsb.forms import BaseUrl, File, Table, is_loopback


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


class KafkaTls(Table):
    """TLS to Kafka's brokers, whose names must stand in their certificates."""

    ca: File | None = None
    """PEM file with the authorities that vouch for the brokers. None: those that this machine trusts."""
    certificate: File | None = None
    """PEM file with this node's certificate and its chain, where brokers ask for one (mutual TLS)."""
    key: File | None = None
    """PEM file with its private key."""

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key come together: without them this node shows no certificate")
        return self


class KafkaSasl(Table):
    """Who this node is to Kafka, by a password that never leaves it (SCRAM, RFC 5802)."""

    mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    """As the brokers are set up."""
    user: str = Field(min_length=1, max_length=255)
    """The user's name at Kafka."""
    password: File
    """File with the password; a line break at its end is not part of it."""


class KafkaTable(Table):
    """How work reaches workers beyond one machine: an Apache Kafka that any number of nodes share."""

    kind: Literal["kafka"]
    """Apache Kafka 3.9 or 4.1. Needs the extra ``kafka``, and the topics that ``gsb topics apply`` makes."""
    brokers: list[str] = Field(min_length=1, max_length=100)
    """``host:port`` of some of its brokers, from which the others are learnt."""
    topic_prefix: str = Field(default="gsb", pattern=r"^[a-z0-9]([a-z0-9.-]{0,78}[a-z0-9])?$")
    """What the names of its topics and groups begin with. Buses may share a Kafka, never a prefix."""
    partitions: int = Field(default=12, ge=1, le=1000)
    """Partitions of each system's topic: so many nodes can work for one system at once. Can be raised, not lowered."""
    replication: int = Field(default=3, ge=1, le=9)
    """Brokers that hold a copy of each partition. All but one of them must have a message before it counts as sent."""
    tls: KafkaTls | Literal["upstream"] | None = None
    """TLS here; or "upstream": something else protects the way to the brokers; or nothing, and then only for brokers on
    this machine."""
    sasl: KafkaSasl | None = None
    """None: who this node is, its certificate says, or nobody asks."""

    @field_validator("brokers")
    @classmethod
    def _addresses(cls, brokers: list[str]) -> list[str]:
        for broker in brokers:
            if not re.fullmatch(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}", broker):
                raise ValueError("a broker is host:port")
        return brokers

    @model_validator(mode="after")
    def _protected(self) -> Self:
        if self.tls is None and not all(is_loopback(each.rpartition(":")[0].strip("[]")) for each in self.brokers):
            raise ValueError('tls is needed for brokers on other machines, or tls = "upstream" where the way is safe')
        return self


class TracingTable(Table):
    """Where traces of exchanges go, to a collector that takes OpenTelemetry's spans (OTLP over HTTP). Needs the extra
    ``otel``. Without this table there are none."""

    endpoint: BaseUrl
    """Where the collector is asked: what ``/v1/traces`` is appended to."""
    ratio: float = Field(default=0.01, ge=0, le=1)
    """Of calls that come without a ``traceparent``, the part that is traced. One that comes with it says itself whether
    it is."""
    ca: File | None = None
    """PEM file with the authorities that vouch for the collector. None: those that this machine trusts."""
    tls: Literal["upstream"] | None = None
    """"upstream": something else protects the way; or nothing, and then plain HTTP only to loopback addresses."""

    @model_validator(mode="after")
    def _protected(self) -> Self:
        parts = urlsplit(self.endpoint)
        if parts.scheme == "http" and self.tls is None and not is_loopback(parts.hostname or ""):
            raise ValueError('endpoint must be https, or tls = "upstream" where the way is safe')
        return self


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
BrokerTable = Annotated[
    Annotated[LocalTable, Tag("local")] | Annotated[KafkaTable, Tag("kafka")],
    Discriminator(_kind("local"), custom_error_type="kind", custom_error_message='kind must be "local" or "kafka"'),
]
