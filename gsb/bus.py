"""What the roles of one node share: the look-ups, the store, the broker, who waits, and what was refused.

No decision is made here. A crash loses the waiters (their callers ask again) and the counts of refusal floods.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gsb.broker.contract import Broker
from gsb.catalogue import Catalogue
from gsb.deadlines import Deadlines
from gsb.ends import certificate_end
from gsb.errors import KeyUnknown, Problem, Replayed, SigningUnavailable, StoreUnavailable
from gsb.evidence.entry import Fact, make_entry
from gsb.fair import Gate
from gsb.jwk import PublicKey
from gsb.jws import LEEWAY
from gsb.limits import Budgets
from gsb.metrics import Metrics
from gsb.model import Exchange, Signed, new_id
from gsb.published import Published
from gsb.revocations import Revocations
from gsb.roles import ALL, Role, Roles
from gsb.runtime import Runtime
from gsb.shares.contract import Shares
from gsb.shares.local import LocalShares
from gsb.store.contract import Store
from gsb.tracing import Tracer
from gsb.trouble import Trouble

log = logging.getLogger("gsb.bus")

LOOK = 1.0
"""Seconds after which a waiting call reads the store although nobody woke it: a broker may lose."""
JTI_MARGIN = 10.0
"""Seconds for which a jti is remembered after its signature is refused anyway."""
PROBE = "(readiness)"
"""Issuer of the jti that a readiness probe spends: no agency can be called so."""
CLOCK_OFF = 5.0
"""Seconds by which a node's clock may be off the store's: half of what signatures allow for."""
FLOOD_WINDOW = 60.0
"""Seconds in which the same refusal is, after the first, only counted."""


def jti_lives(signed: Signed, now: float) -> float:
    """Seconds for which the jti of this call must be remembered: 80 or so, of which each costs memory."""
    return max(signed.expires_at + LEEWAY + JTI_MARGIN - now, JTI_MARGIN)


def node_name() -> str:
    """A name for one start of a node: the machine's, for people, and what no other start has."""
    return f"{socket.gethostname()[:60]}-{secrets.token_hex(6)}"


class Woken:
    """Set when the exchange may have changed, as long as the body of its ``with`` runs. One task waits for it."""

    __slots__ = ("_exchange", "_loop", "_set", "_waiting", "ended")

    def __init__(self, exchange: str, waiting: dict[str, set[Woken]], loop: asyncio.AbstractEventLoop) -> None:
        self._exchange, self._waiting, self._loop = exchange, waiting, loop
        self.clear()
        self.ended: Exchange | None = None
        """The exchange as it was committed, when the worker that ended it is in this process; else the store knows."""

    def clear(self) -> None:
        self._set: asyncio.Future[None] = self._loop.create_future()

    def set(self) -> None:
        if not self._set.done():
            self._set.set_result(None)

    def wait(self) -> asyncio.Future[None]:
        return self._set

    def __enter__(self) -> Woken:
        self._waiting.setdefault(self._exchange, set()).add(self)
        return self

    def __exit__(self, *error: object) -> None:
        beside = self._waiting[self._exchange]
        beside.discard(self)
        if not beside:
            del self._waiting[self._exchange]


class Waiters:
    """Calls that wait for an exchange, woken by its id. Waking nobody is normal."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Woken]] = {}
        self.looks = Deadlines(LOOK)
        """When to look whether an exchange has ended although nobody was woken."""

    def waiting(self, exchange: str) -> Woken:
        return Woken(exchange, self._waiting, self.looks.loop)

    def wake(self, exchange: str) -> None:
        for woken in self._waiting.get(exchange, ()):
            woken.set()

    def hand(self, ended: Exchange) -> None:
        """Wake those who wait here with what they wait for, so that nobody reads it back from the store."""
        for woken in self._waiting.get(ended.id, ()):
            woken.ended = ended
            woken.set()

    def wake_all(self) -> None:
        for exchange in self._waiting:
            self.wake(exchange)


@dataclass(slots=True)
class _Flood:
    began_at: float
    count: int = 0

    def over(self, now: float) -> bool:
        """Whether its minute has passed, or the clock was set back before it."""
        return not self.began_at <= now < self.began_at + FLOOD_WINDOW


class Refusals:
    """Entries for what was refused after authentication: the first at once, then a flood of the same counted."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._floods: dict[tuple[str, str, str], _Flood] = {}

    async def prove(self, signed: Signed, service: str | None, refusal: Problem, *, spent: bool = False) -> None:
        """An entry for this refusal and, unless it is ``spent`` already, the call's jti in the same commit.

        ``service`` must be the id of a known service: text of the caller may not stand in an entry. Raises Replayed or
        StoreUnavailable, which is then what the caller must hear: nothing is left unproven.
        """
        if isinstance(refusal, StoreUnavailable):
            return
        try:
            await self._prove(signed, service, refusal, None if spent else signed.jti)
        except Replayed as replayed:
            # Whatever else is wrong with the call, this is what its caller hears, and so what is proved.
            await self._prove(signed, service, replayed, None)
            raise

    async def _prove(self, signed: Signed, service: str | None, refusal: Problem, jti: str | None) -> None:
        now = self._clock()
        jti = None if isinstance(refusal, Replayed) else jti
        earlier = self._floods.get(key := (signed.issuer, service or "", refusal.code))
        if earlier is not None and not earlier.over(now):
            await self._add(earlier, signed, jti)
            return
        # Before anything is awaited: of many at once only one is the first, and only one writes the earlier count.
        self._floods[key] = flood = _Flood(now)
        facts: dict[str, Fact] = {
            "agency": signed.issuer,
            "key": signed.key_id,
            "service": service,
            "code": refusal.code,
        }
        entry = make_entry(
            "refused", now, facts, {"request": signed.jws, "faults": [f.pointer for f in refusal.faults]}
        )
        try:
            if earlier is not None and earlier.count:
                await self._count(key, earlier, now)
            await self._store.note(entry, issuer=signed.issuer, jti=jti, jti_lives=jti_lives(signed, now))
        except Problem:
            if not flood.count and self._floods.get(key) is flood:
                del self._floods[key]  # nothing was written, so the next one is the first
            raise

    async def _add(self, flood: _Flood, signed: Signed, jti: str | None) -> None:
        flood.count += 1
        try:
            if jti is not None:
                await self._store.spend(signed.issuer, jti, jti_lives(signed, self._clock()))
        except Problem:
            flood.count -= 1
            raise

    async def flush(self, *, every: bool = False) -> None:
        """Write the counts of every flood whose minute is over (or of ``every`` one), and forget it."""
        now = self._clock()
        for key, flood in list(self._floods.items()):
            over = every or flood.over(now)
            # While the last count was written, somebody else may have written this one, or begun a new one.
            if over and self._floods.get(key) is flood:
                del self._floods[key]
                if flood.count:
                    await self._count(key, flood, now)

    async def _count(self, key: tuple[str, str, str], flood: _Flood, now: float) -> None:
        agency, service, code = key
        facts: dict[str, Fact] = {"agency": agency, "service": service or None, "code": code, "count": flood.count}
        try:
            await self._store.note(make_entry("refusals", now, facts, {}))
        except StoreUnavailable:
            if (present := self._floods.setdefault(key, flood)) is not flood:
                present.count += flood.count
            raise


@dataclass
class Bus:
    """One node's view of the bus. ``catalogue`` is swapped whole, never changed."""

    catalogue: Catalogue
    store: Store
    broker: Broker
    runtime: Runtime
    budgets: Budgets = field(default_factory=Budgets)
    clock: Callable[[], float] = time.time
    roles: Roles = ALL
    shares: Shares = field(default_factory=LocalShares)
    """What this node shares with the other nodes of its bus."""
    node: str = field(default_factory=node_name)
    """By what they know it."""
    waiters: Waiters = field(default_factory=Waiters)
    behind: bool = False
    """The evidence log is too far behind, or cannot be written: nothing new is admitted, lest it stay unproven."""
    withheld: bool = False
    """The store was restored, and no operator has said yet that writes may be admitted again."""
    cosigned: bool = True
    """Checkpoints get as many cosignatures as are needed, or did so lately."""
    log_files: Trouble = field(default_factory=lambda: Trouble(log, "the evidence log's files can be read again"))
    """Files of the evidence log are not there, or do not prove what they should: whoever asks for them hears it."""
    clock_offset: float = 0.0
    """Seconds by which this node's clock is ahead of the store's."""
    draining: bool = False
    """Stopping: not ready, each answer ends its connection, and what was begun is finished."""
    leaving: bool = False
    """Out of time: calls that still wait are answered with what there is."""
    published: Published = field(default_factory=Published)
    """The keys that agencies publish elsewhere."""
    tracer: Tracer | None = None
    """Begins the spans of this node; none: it does not trace."""
    _certificate_end: float | None = field(init=False, default=None)
    """Of the certificate that new connections are shown, as unix time."""
    refusals: Refusals = field(init=False)
    revocations: Revocations = field(init=False)
    metrics: Metrics = field(init=False)
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(lambda: self.catalogue.gsb.limits)
        self.metrics = self.runtime.metrics
        self.metrics.plays(self.roles.played)
        self.metrics.publish(self.published.ages)
        self.metrics.end(self._key_ends)
        self.take_up(self.catalogue)
        self.refusals = Refusals(self.store, self.clock)
        self.revocations = Revocations(self.store)
        self.broker.on_wake(self.waiters.wake)

    def take_up(self, catalogue: Catalogue) -> None:
        """Let everything look at this catalogue from now on."""
        self.catalogue = catalogue
        tables = {name: agency.jwks for name, agency in catalogue.agencies.items() if agency.jwks is not None}
        self.published.take_up(tables, catalogue.kids)
        self.metrics.known(
            catalogue.digest, services=catalogue.services, systems=catalogue.systems, agencies=catalogue.agencies
        )
        if Role.GATEWAY in self.roles and (end := certificate_end(catalogue)) is not None:
            self._certificate_end = end

    def _key_ends(self) -> dict[str, float]:
        """When what the bus proves itself by ends, as far as it has any."""
        ends = {"bus": self.catalogue.bus_keys.signs_until(self.clock()), "certificate": self._certificate_end}
        return {key: end for key, end in ends.items() if end is not None}

    def find_key(self, owner: str, kid: str, now: float) -> PublicKey:
        """The key, if signatures with it count now. Raises KeyUnknown, KeyRevoked, KeyNotActive, KeySetUnavailable.

        What the files say of a key goes before what its owner publishes, so a revoked one stays revoked.
        """
        try:
            return self.catalogue.keys.find(owner, kid, now)
        except KeyUnknown:
            return self.published.find(owner, kid)

    def key_revoked(self, owner: str, kid: str, now: float) -> bool | None:
        """Whether the key is revoked; None when it is not known here, which proves neither."""
        revoked = self.catalogue.keys.revoked(owner, kid, now)
        return False if revoked is None and self.published.counts(owner, kid) else revoked

    def key_owner(self, kid: str) -> str | None:
        """Whose key it is, whether it counts or not; None when it is nobody's."""
        return self.catalogue.keys.owner(kid) or self.published.owner(kid)

    def leave(self) -> None:
        self.leaving = True
        self.waiters.wake_all()

    async def unready(self) -> list[str]:
        """The names of what keeps this node from its work; empty when it is ready."""
        missing = ["draining"] if self.draining else []
        try:
            # Only a commit shows that the store can take one; this jti is nobody's, and not remembered.
            await self.store.spend(PROBE, new_id(), 0.0)
        except StoreUnavailable:
            missing.append("store")
        if self.behind:
            missing.append("recorder")
        if not self.cosigned:
            missing.append("witness")
        if Role.GATEWAY not in self.roles and Role.WORKER in self.roles and not self.broker.reached():
            missing.append("broker")  # a gateway accepts all the same
        if abs(self.clock_offset) > CLOCK_OFF:
            missing.append("clock")
        try:
            self.catalogue.bus_keys.signing(self.clock())
        except SigningUnavailable:
            missing.append("keys")
        return missing

    @property
    def base_url(self) -> str:
        """The public base URL that the bus writes in links."""
        return self.catalogue.gsb.bus.base_urls[0]
