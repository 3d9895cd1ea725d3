"""The typed files of a deployment. The path is the id; the docstrings of the fields are the manual.

    gsb.toml                                    the bus itself
    agencies/<id>.toml  operators/<id>.toml     who may sign
    systems/<system>.toml                       core systems and their adapters
    services/<system>/<service>/v<n>.toml       what they offer
    agreements/<id>.toml                        who may ask for what, and why

Unknown fields are refused. Relative paths start at the deployment's folder. No expressions, includes or templates.
Only shapes are told here, of one table at a time; ``gsb.load`` reads the files, ``gsb.lint`` knows what must hold
between them.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from gsb.backends import BrokerTable, LocalTable, StoreTable, TracingTable
from gsb.forms import BUSINESS_KEY, ID, ORIGIN, BaseUrl, File, Id, ServiceId, Table
from gsb.model import Effect
from gsb.sources import HsmTable, KeySetTable


class KeyFile(Table):
    """One key and its life: announced -> active -> retiring -> (gone), or revoked at any time."""

    file: File
    """The key as a JWK: public for agencies and operators, private for the bus itself."""
    state: Literal["announced", "active", "retiring", "revoked"] = "active"
    """Announced: published, not yet accepted. Active and retiring: accepted. Revoked: never again."""
    since: AwareDatetime | None = None
    """From when an active or retiring key is accepted, or since when a revoked one is not (with a UTC offset)."""
    until: AwareDatetime | None = None
    """Until when it is accepted; required for a retiring key."""

    @model_validator(mode="after")
    def _life(self) -> Self:
        if self.state == "retiring" and self.until is None:
            raise ValueError("a retiring key needs until: the time at which it is no longer accepted")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("since must be before until")
        return self


class BusKey(KeyFile):
    """One key of the bus itself and its life, as those of agencies have one."""

    label: str | None = Field(default=None, min_length=1, max_length=64)
    """Label of the private key in the token of ``[bus.hsm]``. ``file`` is then the public key alone, as ``gsb hsm``
    writes it."""


class Bus(Table):
    """Who this bus is."""

    id: str = Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$")
    """The audience of every request and the issuer of every reply. Each environment has its own."""
    base_urls: list[BaseUrl] = Field(min_length=1)
    """Public base URLs of the API, without a trailing slash; the first is the one that the bus writes in links."""
    operations_url: BaseUrl
    """Base URL of the operations port, which operators' signatures name."""
    keys: list[BusKey] = Field(min_length=1)
    """The bus's own private keys; it signs with the active one that has been in force longest."""
    hsm: HsmTable | None = None
    """Where those of them lie that have a label."""

    @model_validator(mode="after")
    def _labels(self) -> Self:
        labels = [key.label for key in self.keys if key.label is not None]
        if bool(labels) != (self.hsm is not None):
            raise ValueError("keys with a label and the table hsm belong together")
        if len(set(labels)) < len(labels):
            raise ValueError("two keys have the same label")
        return self


class Tls(Table):
    """TLS 1.2 or later at the gateway."""

    certificate: File
    """PEM file with the certificate and its chain. It and its key are read again at each reload."""
    key: File
    """PEM file with the private key."""
    client_ca: File | None = None
    """PEM file with the authorities whose client certificates are required; none: no client certificates."""


class Listen(Table):
    """Where the gateway listens."""

    host: str = "127.0.0.1"
    """Address of the API."""
    port: int = Field(default=8080, ge=0, le=65535)
    """Port of the API; 0 takes a free one."""
    operations_host: str = "127.0.0.1"
    """Address of the operations port: probes and administration."""
    operations_port: int = Field(default=8081, ge=0, le=65535)
    """Port of the operations port; 0 takes a free one."""
    tls: Tls | Literal["upstream"] | None = None
    """TLS here; or "upstream": something in front ends TLS; or nothing, and then only loopback addresses start."""


class WitnessTable(Table):
    """Another agency's witness, which cosigns the checkpoints of the evidence log (c2sp.org/tlog-witness)."""

    url: BaseUrl
    """Where it is asked: what ``/add-checkpoint`` is appended to."""
    key: str
    """Its verifier key, as ``gsb witness key`` prints it there."""


class TimestampTable(Table):
    """An authority that says when a checkpoint existed (RFC 3161), for proof that outlives the log's key."""

    url: str = Field(pattern=r"^https?://[!-~]+$")
    """Where it is asked, over plain HTTP too: what it answers is signed."""
    every: float = Field(default=86_400.0, ge=60)
    """Seconds between two time-stamps of a log that grows."""
    certificates: File
    """PEM file with the authority's root certificates, and those between them and its own."""


class LogTable(Table):
    """Where the evidence log lies, who signs and witnesses it, and how far it may fall behind."""

    path: File
    """Folder of its files, one folder in it for each year; it is made where its parent exists. They can be made again
    from the store; that the store was never rolled back, only they can show."""
    key: File
    """The log's own private key, a JWK made by ``gsb keygen --alg Ed25519``. It signs nothing but checkpoints."""
    former: list[File] = Field(default=[])
    """Private keys that signed before ``key`` did. A log that one of them has begun is ended with it, and the next one
    begun with ``key``; then it is needed no more."""
    origin: str | None = Field(default=None, pattern=ORIGIN, max_length=200)
    """The log's name, to which the year is appended. None: host and path of the first base URL, and ``/log``."""
    every: float = Field(default=1.0, gt=0, le=10)
    """Seconds after which what was committed stands in a published checkpoint, at most, while the log keeps up."""
    idle: float = Field(default=600.0, ge=1, le=86_400)
    """Seconds after which an unchanged checkpoint is published again, so that silence can be told from failure."""
    behind_entries: int = Field(default=100_000, ge=1)
    """Entries committed and not yet published above which new exchanges are answered 503 ``recorder_behind``."""
    behind_seconds: float = Field(default=30.0, gt=0)
    """Age of the oldest such entry above which they are."""
    witnesses: list[WitnessTable] = Field(default=[], max_length=15)
    """Who is asked to cosign each checkpoint. Without one, whoever has the log's key can write another history."""
    cosignatures: int = Field(default=0, ge=0)
    """How many of them a checkpoint needs. One with fewer is published all the same, and again when more have come."""
    cosign_wait: float = Field(default=1.0, ge=0, le=10)
    """Seconds that a checkpoint waits for them before it is published, at most; for a witness that failed it does not
    wait."""
    cosigned_within: float = Field(default=3_600.0, gt=0)
    """Seconds without a checkpoint with enough cosignatures after which ``/readyz`` is 503 and names ``witness``."""

    timestamp: TimestampTable | None = None
    """Needs the extra ``timestamp``. Time-stamps lie in the folder ``timestamps`` beside the logs."""

    @model_validator(mode="after")
    def _keeps_up(self) -> Self:
        if self.behind_seconds <= self.every + self.cosign_wait:
            raise ValueError(
                "behind_seconds must be more than every and cosign_wait, or the log is behind while it keeps up"
            )
        if self.cosignatures > len(self.witnesses):
            raise ValueError("cosignatures must be at most the number of witnesses")
        if self.cosignatures and self.cosigned_within <= self.idle:
            raise ValueError("cosigned_within must be more than idle, or cosigning has stopped while nothing happens")
        return self


class Retention(Table):
    """How long what exchanges leave behind is kept, in days after the outcome; what has no outcome is kept whole.

    What has reached its age is deleted in the background. Entries of the evidence log have no age here; what those of
    an exchange commit to goes with the exchange, and what acts and refusals commit to stays as long as the store. The
    ``jti`` of a call is always kept 300 seconds.
    """

    bodies_days: int = Field(default=30, ge=1, le=3650)
    """Days for which requests and bodies of outcomes are kept. Then the outcome is answered 410 ``reply_gone``."""
    keys_days: int = Field(default=30, ge=1, le=3650)
    """Days for which an idempotency key is kept. Then the same key begins a new exchange."""
    exchanges_days: int = Field(default=365, ge=2, le=36_500)
    """Days for which state, effect and time line of an exchange can be read, and its evidence; more than the other two.
    Then nobody knows it any more, and its entries and receipts prove as much as after an erasure."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.exchanges_days <= max(self.bodies_days, self.keys_days):
            raise ValueError("exchanges_days must be more than bodies_days and keys_days: it tells how those ended")
        return self


class Limits(Table):
    """What the bus takes at once."""

    body: int = Field(default=524_288, ge=1, le=10_485_760)
    """Bytes of a request body, unless the service says otherwise; a larger one is answered 413 ``body_too_large``."""
    header: int = Field(default=16_384, ge=8_192 + 64, le=1_048_576)
    """Bytes of the request line and of each header; a larger one is answered 400 ``bad_request``."""
    header_within: float = Field(default=15.0, gt=0, le=300)
    """Seconds for the head of a request, from its first byte; later it is answered 408 ``request_too_slow``."""
    body_within: float = Field(default=30.0, gt=0, le=300)
    """Seconds for the body of a request, from the end of its head; later it is answered 408 ``request_too_slow``."""
    idle: float = Field(default=75.0, gt=0, le=3_600)
    """Seconds for which a connection is kept open without a request; then it is closed."""
    connections: int = Field(default=2_000, ge=1)
    """Connections at once, fewer than the process may open files; more are answered 503 ``busy`` and closed."""
    in_flight: int = Field(default=1_000, ge=1)
    """Calls at once; more are answered 503 ``busy``."""
    in_flight_agency: int = Field(default=250, ge=1)
    """Calls of one agency at once, those that wait for their outcome too; more of its are answered 503 ``busy``."""
    turns: int = Field(default=64, ge=1)
    """Exchanges that the bus itself works on at once; the others wait, and agencies are served in rounds."""
    calm: int = Field(default=4, ge=1)
    """Exchanges of one agency at once, in turns or waiting for one, above which it floods: while calmer agencies are
    there it then has one turn at a time. More: it gets more done, the calmer ones wait longer."""
    wait: float = Field(default=10.0, ge=0, le=120)
    """Seconds that a call waits for its outcome when it does not say so itself."""
    wait_max: float = Field(default=60.0, ge=0, le=120)
    """Seconds that a call may ask to wait."""
    drain: float = Field(default=25.0, ge=0)
    """Seconds that a stopping node gives the exchanges it has begun."""
    notice: float = Field(default=5.0, ge=0, le=60)
    """Seconds of ``drain`` for which a stopping gateway beside others still takes calls, so that whatever spreads them
    sees at ``/readyz`` that it goes: more than that takes. Meanwhile each answer ends its connection."""

    @model_validator(mode="after")
    def _waits(self) -> Self:
        if self.wait > self.wait_max:
            raise ValueError("wait must be at most wait_max")
        return self


class Adapters(Table):
    """Which installed adapters may run."""

    allow: list[str]
    """Names of entry points in the group gsb.adapters. Installing a package is not enough to run it."""


class Gsb(Table):
    """``gsb.toml``"""

    bus: Bus
    listen: Listen = Listen()
    store: StoreTable
    log: LogTable
    retention: Retention = Retention()
    tracing: TracingTable | None = None
    broker: BrokerTable = LocalTable()
    limits: Limits = Limits()
    adapters: Adapters
    schemas: File = Field(default=Path("schemas"), validate_default=True)
    """Folder of the services' schemas."""
    reload: Literal["signal", "watch"] = "signal"
    """When a running node takes up changes of these files: at SIGHUP, or also by itself as soon as they are still."""

    @property
    def log_origin(self) -> str:
        """The name of the evidence log, without the year."""
        if self.log.origin is not None:
            return self.log.origin
        return self.bus.base_urls[0].partition("://")[2] + "/log"


class Agency(Table):
    """``agencies/<id>.toml``: a member of the bus."""

    name: str = Field(min_length=1)
    """Its name, as people say it."""
    keys: list[KeyFile] = Field(default=[])
    """Public keys with which it signs."""
    jwks: KeySetTable | None = None
    """Where it publishes further ones itself."""


Role = Literal["observer", "operator", "inspector", "auditor", "eraser"]


class Operator(Table):
    """``operators/<id>.toml``: a person who runs the bus."""

    name: str = Field(min_length=1)
    """The person's name."""
    roles: list[Role] = Field(min_length=1)
    """observer: may list and show exchanges. operator: may also resolve, replay and close them. inspector: may look
    into bodies and evidence. auditor: may read the evidence log at the API. eraser: may erase bodies and evidence. The
    last three may do nothing else."""
    keys: list[KeyFile] = Field(min_length=1)
    """Public keys with which the person signs."""


class CallsTable(Table):
    """What a system that is composed of other services needs to call them, under its agency's own agreements."""

    key: File
    """Private key (JWK) of the system's agency, with which the calls are signed."""
    url: BaseUrl | None = None
    """At which of the bus's base URLs the node reaches the API; none: the first."""


class System(Table):
    """``systems/<system>.toml``: a core system behind an adapter."""

    title: str = Field(min_length=1)
    """What it is, in a few words."""
    agency: Id
    """The providing agency, to which it belongs."""
    adapter: str
    """Name of the adapter; it must be allowed in gsb.toml."""
    timeout: float = Field(default=10.0, gt=0, le=300)
    """Seconds for one call of the adapter."""
    concurrency: int = Field(default=16, ge=1, le=1_000)
    """Calls of the adapter at once, of all workers together."""
    settings: dict[str, Any] = Field(default={})
    """The adapter's own settings, see its manual."""
    calls: CallsTable | None = None
    """Only for adapters that call other services of the bus; none: this one may not."""


class Service(Table):
    """``services/<system>/<service>/v<n>.toml``: one operation of a system."""

    title: str = Field(min_length=1)
    """What it gives, in a few words."""
    summary: str = ""
    """What a caller should know, in a few sentences."""
    effect: Effect = Effect.ONCE
    """What a repeat would do: none (a read), repeatable (nothing more), once (act again)."""
    public: bool = False
    """Whether its description is shown to everyone; calling it needs a grant all the same."""
    expires: float = Field(default=3_600.0, gt=0, le=30 * 86_400)
    """Seconds after which nothing begins any more."""
    body: int | None = Field(default=None, ge=1, le=10_485_760)
    """Bytes of a request body; none: the bus's limit."""
    business_key: str | None = Field(default=None, pattern=BUSINESS_KEY)
    """JSON Pointer of the member of the request by which operators look for exchanges, such as ``/employee``. The store
    keeps its value as a keyed hash where the schema marks it ``x-personal`` or ``x-subject``."""
    settings: dict[str, Any] = Field(default={})
    """The adapter's settings for this service, see its manual."""


class Rate(Table):
    """How fast a grant may be used, at all gateways together."""

    per_minute: int = Field(ge=1)
    """Exchanges a minute, in the long run."""
    burst: int = Field(default=1, ge=1)
    """Exchanges at once, after a pause."""


class GrantTable(Table):
    """One thing that the agreement allows."""

    service: ServiceId
    """The service."""
    purpose: Annotated[str, Field(pattern=ID, max_length=64)]
    """The purpose code that calls must state."""
    fields: list[str] = Field(min_length=1)
    """Reply fields that may leave the bus: JSON Pointers, * for every item of an array; "" grants the whole."""
    rate: Rate | None = None
    """None: only the bus's own limits."""
    sub: bool = False
    """Whether calls must name the person or system acting."""
    case: bool = False
    """Whether calls must name the case file."""


class Agreement(Table):
    """``agreements/<id>.toml``: one data-sharing agreement, as in the legal document."""

    title: str = Field(min_length=1)
    """Its title."""
    consumer: Id
    """The agency that may ask."""
    provider: Id
    """The agency whose systems answer."""
    legal_basis: str = Field(min_length=1)
    """The law and the section that allow it."""
    valid_from: date
    """First day (UTC)."""
    valid_until: date
    """Last day (UTC)."""
    suspended: bool = False
    """Whether it is suspended: then it is not in force."""
    grants: list[GrantTable] = Field(min_length=1)
    """What it allows; nothing else is."""

    @model_validator(mode="after")
    def _validity(self) -> Self:
        if self.valid_from > self.valid_until:
            raise ValueError("valid_from must not be after valid_until")
        return self
