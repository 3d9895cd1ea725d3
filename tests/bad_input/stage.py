"""The stage: one node with a core system that does what the test says, a clock that stands still, and its log.

The clock stands still so that "11 seconds too late" is exactly that. The log is kept as the lines that an operator
would read, since what must not be echoed must not stand there either.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import orjson

from gsb.bus import Refusals
from gsb.catalogue import Catalogue, build
from gsb.foundation import ages_of
from gsb.jwk import PrivateKey, read_private
from gsb.model import Exchange, State
from gsb.store.contract import Store
from gsb.store.seal import read_key
from gsb.store.sqlite import SqliteStore
from gsb.telemetry import JsonLines
from tests.bad_input.draft import Draft, Spoil, text_of
from tests.bad_input.wire import WITHIN, Heard, say
from tests.support.bus import Clock, puppet, puppet_deployment
from tests.support.deployment import Deployment, _private, agency_key, closed
from tests.support.node import InProcess, node_in_process

WRITE, MARK, READ, FORM, NOWHERE, UNGRANTED, RATED = (
    "write",
    "repeatable write",
    "read",
    "form",
    "unknown service",
    "service without a grant",
    "service with a budget",
)
READING, REPLY, RECEIPT, LISTING = "reading", "reply", "receipt", "listing"
ACT, SHOW, BODY, RESOLVE, CLOSE, REPLAY = "search", "show", "body", "resolve", "close", "replay"
EVIDENCE, ERASE, REVOKE = "evidence", "erase", "revoke"
SERVICES = {
    WRITE: "registry/note/v1",
    MARK: "registry/mark/v1",
    READ: "registry/person/v1",
    FORM: "registry/form/v1",
    NOWHERE: "registry/canary/v1",
    UNGRANTED: "registry/secret/v1",
    RATED: "registry/rated/v1",
}
"""The calls of services by their kind."""
SUBJECT = "P-7777"
CANARIES = (b"canary", SUBJECT.encode())
"""Stand in claims, keys, bodies and paths of the calls; whatever the bus says or logs must not hold them."""
REASON = "?reason=a+canary+reason"
NOBODYS = "01a0c450-6c00-71b6-b1a8-e21f6124ae04"
"""An id of no exchange."""
NOTE: dict[str, Any] = {"id": SUBJECT, "text": "canary text"}
FORM_BODY: dict[str, Any] = {
    "id": SUBJECT,
    "count": 3,
    "amount": {"amount": "12.50", "currency": "XOF"},
    "items": [{"code": "canary-1"}, {"code": "canary-2"}],
}
BODIES: dict[str, Any] = {READ: {"id": SUBJECT}, FORM: FORM_BODY}
RULINGS: dict[str, Any] = {
    RESOLVE: {"reason": "a canary reason", "state": "done", "effect": "done"},
    CLOSE: {"reason": "a canary reason", "state": "done", "effect": "done"},
    REPLAY: {"reason": "a canary reason", "expires_in": 60},
    ERASE: {"reason": "a canary reason", "legal_basis": "section 17", "exchanges": [NOBODYS]},
    REVOKE: {"reason": "a canary reason", "key": agency_key("tax-agency").kid},
}
"""Right bodies of acts. On the stage's exchange, which is final, they meet ``state_conflict``; erasing names none, and
the key that is revoked signs no call."""
AT = {ERASE: "/admin/erase", REVOKE: "/admin/keys/revoke"}
"""Acts that are not about the stage's exchange."""
KEY_LIVES: dict[str, dict[str, Any]] = {
    "announced": {"state": "announced"},
    "early": {"state": "active", "since": datetime(2098, 1, 1, tzinfo=UTC)},
    "retired": {"state": "retiring", "until": datetime(2020, 1, 1, tzinfo=UTC)},
    "revoked": {"state": "revoked"},
    "spare": {"state": "active"},
}
"""Lives of further keys that the callers have."""


def deployment_of(root: Path) -> Deployment:
    deployment = puppet_deployment(root, 60)
    deployment.gsb["limits"]["wait"] = 60  # whoever waits here is to hear the outcome, however slow the machine is
    money = deployment.schemas["registry/person/v1/reply.json"]["properties"]["salary"]
    identifier = deployment.schemas["registry/note/v1/request.json"]["properties"]["id"]
    items = {"type": "array", "items": closed({"code": {"type": "string", "maxLength": 20}}), "maxItems": 5}
    form = {"id": identifier, "count": {"type": "integer", "minimum": 0}, "amount": money, "items": items}
    example = FORM_BODY | {"id": "P-0001"}
    for kind in (FORM, UNGRANTED, RATED):
        schema = closed(form, example)
        deployment.service(SERVICES[kind], effect="once", request=schema, reply=schema)
    grants: list[dict[str, Any]] = [
        {"service": SERVICES[FORM], "purpose": "payroll", "fields": [""]},
        {"service": SERVICES[WRITE], "purpose": "for-somebody", "fields": [""], "sub": True},
        {"service": SERVICES[WRITE], "purpose": "on-a-case", "fields": [""], "case": True},
        {"service": SERVICES[RATED], "purpose": "payroll", "fields": [""], "rate": {"per_minute": 1, "burst": 1}},
    ]
    deployment.agreement("a-2", grants=grants)
    not_in_force: dict[str, dict[str, Any]] = {
        "ended": {"valid_until": date(2020, 12, 31)},
        "suspended": {"suspended": True},
    }
    for name, more in not_in_force.items():
        grant = {"service": SERVICES[WRITE], "purpose": name, "fields": [""]}
        deployment.agreement(f"a-{name}", grants=[grant], **more)
    deployment.agreement(
        "a-3", consumer="audit-office", grants=[{"service": SERVICES[UNGRANTED], "purpose": "audit", "fields": [""]}]
    )
    for owner in ("payroll", "olive", "otto"):
        for life, table in KEY_LIVES.items():
            kind = "agencies" if owner == "payroll" else "operators"
            key = deployment._publish(f"{owner}-{life}", "ES256") | table
            deployment.files[f"{kind}/{owner}.toml"]["keys"].append(key)
    return deployment


class Log(logging.Handler):
    """Every line of the log as it would be written, at any level that the bus itself uses."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.lines: list[str] = []
        self.errors = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        self.errors += record.levelno >= logging.ERROR

    def taken(self) -> tuple[str, int]:
        """What was logged since this was last asked, and how many of the lines are errors."""
        said, errors = "\n".join(self.lines), self.errors
        self.lines.clear()
        self.errors = 0
        return said, errors


@contextmanager
def logging_to(log: Log) -> Iterator[None]:
    own = logging.getLogger("gsb")
    level = own.level
    own.setLevel(logging.DEBUG)
    logging.getLogger().addHandler(log)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(log)
        own.setLevel(level)


@dataclass(repr=False)
class Stage:
    """A running node and the right calls to it. ``seen`` are the codes it has said, by the case that made it."""

    node: InProcess
    clock: Clock
    log: Log
    exchange: str = ""
    """One that is done, of payroll."""
    seen: dict[str, str | None] = field(default_factory=dict)
    members: set[str] = field(default_factory=set)
    """Members of the problem documents seen."""

    def __repr__(self) -> str:
        return f"the stage at {self.node.url}"  # whatever prints test arguments must not print a whole bus

    @property
    def deployment(self) -> Deployment:
        return self.node.deployment

    def further_key(self, owner: str, life: str) -> PrivateKey:
        return read_private(_private(f"{owner}-{life}", "ES256"))

    def draft(self, kind: str = WRITE) -> Draft:
        """A right call of this kind, with canaries wherever a caller's values go."""
        if kind in SERVICES:
            return self._service(kind)
        paths = {
            READING: f"/exchanges/{self.exchange}",
            REPLY: f"/exchanges/{self.exchange}/reply",
            RECEIPT: f"/exchanges/{self.exchange}/receipt",
            LISTING: "/services",
        }
        if kind in paths:
            return self._draft("GET", paths[kind])
        target = f"/admin/exchanges/{self.exchange}"
        if kind in RULINGS:
            draft = self._draft("POST", AT.get(kind, f"{target}/{kind}"), operator=True)
            draft.body, draft.headers["Content-Type"] = text_of(RULINGS[kind]), [b"application/json"]
            return draft
        targets = {ACT: "/admin/exchanges", SHOW: target, BODY: f"{target}/body", EVIDENCE: f"{target}/evidence"}
        return self._draft("GET", targets[kind] + REASON, operator=True)

    def _service(self, kind: str) -> Draft:
        draft = self._draft("POST", f"/services/{SERVICES[kind]}")
        draft.body, draft.headers["Content-Type"] = text_of(BODIES.get(kind, NOTE)), [b"application/json"]
        draft.key = f"canary-key-{secrets.token_hex(8)}"
        draft.said["purpose"] = "payroll"
        return draft

    def _draft(self, method: str, target: str, *, operator: bool = False) -> Draft:
        deployment = self.deployment
        path = target.partition("?")[0]
        acting = {"body": "ines", "evidence": "ines", "erase": "elsa"}.get(path.rpartition("/")[2], "olive")
        owner = acting if operator else "payroll"
        return Draft(
            port=deployment.operations_port if operator else deployment.port,
            base_url=deployment.operations_url if operator else deployment.bus_url,
            method=method,
            target=target,
            issuer=owner,
            audience=deployment.bus,
            signer=deployment.key(owner),
            now=int(self.clock.now),
            jti=f"canary-{secrets.token_urlsafe(16)}",
            said={"sub": "canary sub", "case": "canary case"},
        )

    async def send(self, draft: Draft) -> Heard | None:
        return await say(draft.port, draft.render()[1])

    async def accepted(self, kind: str, *spoils: Spoil) -> str:
        """The id of a new exchange that nobody waits for."""
        draft = self.draft(kind)
        draft.headers["Prefer"] = [b"respond-async"]
        for spoil in spoils:
            spoil(draft)
        heard = await self.send(draft)
        assert heard is not None
        assert heard.status == 202, heard.body
        return str(orjson.loads(heard.body)["exchange"])

    async def standing(self, exchange: str, *states: State) -> Exchange:
        """The exchange, once it stands in one of these states."""
        bus = self.node.node.bus
        async with asyncio.timeout(WITHIN):
            with bus.waiters.waiting(exchange) as woken:
                while True:
                    known = await bus.store.exchange(exchange)
                    assert known is not None
                    if known.state in states:
                        return known
                    await woken.wait()
                    woken.clear()

    async def begin_again(self, exchange: str) -> None:
        """Have it performed now, whatever it waits for: dispatching early is harmless."""
        await self.node.node.bus.broker.dispatch("registry", exchange, "payroll")

    @contextmanager
    def catalogue(self, file: str, **changes: Any) -> Iterator[None]:
        """Another catalogue for a while: this file's table with these changes."""
        bus, table = self.node.node.bus, self.deployment.files[file]
        before = bus.catalogue
        self.deployment.files[file] = table | changes
        bus.catalogue = build(self.deployment.write())
        try:
            yield
        finally:
            self.deployment.files[file] = table
            self.deployment.write()
            bus.catalogue = before


@asynccontextmanager
async def stage_in(
    root: Path, deployment: Deployment | None = None, *, kind_of_store: type[SqliteStore] = SqliteStore
) -> AsyncIterator[Stage]:
    """A stage of its own; ``kind_of_store`` is the store to run on."""
    clock = Clock()

    def make_store(catalogue: Catalogue) -> Store:
        ages, key = ages_of(catalogue.gsb.retention), read_key(catalogue.folder / "store.key")
        return kind_of_store(catalogue.folder / "store.db", key, ages=ages, clock=clock)

    log = Log()
    puppet().reset()
    async with node_in_process(root, deployment or deployment_of(root), make_store=make_store) as node:
        bus = node.node.bus
        bus.clock = clock
        bus.refusals = Refusals(bus.store, clock)
        stage = Stage(node, clock, log)
        with logging_to(log):
            yield stage
    puppet().reset()


async def furnish(stage: Stage) -> Draft:
    """Give the stage an exchange that is done; the call that made it."""
    draft = stage.draft(WRITE)
    heard = await stage.send(draft)
    assert heard is not None
    assert heard.status == 200, heard.body
    token = heard.one("gsb-signature")
    assert token is not None
    part = token.split(".")[1]
    stage.exchange = orjson.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["exchange"]
    return draft
