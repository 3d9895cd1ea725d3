"""What a store promises. Every verb is one transaction, durable when it returns unless it says otherwise.

A crash inside a verb leaves either all of it or nothing. Concurrent calls may be committed together. Times in
arguments are durations in seconds: the store's own clock decides what is due, leased or expired, so that nodes need
not agree on theirs. Bodies, requests and the secrets of entries are encrypted by the store, per record.

What has grown older than its age (``Ages``, given to a store when it is made) is told to nobody from that moment, and
deleted soon after, by the store itself and in pieces so small that no call is delayed by more than one. There is no
verb for it: it depends on nothing but the store's clock, only the store knows when it has nothing better to do, and
what nobody has to ask for cannot be forgotten.

A database that cannot be read or written raises ``StoreUnavailable`` (gsb.errors); a commit whose fate is not known
raises it too, and the caller must then say nothing that depends on either fate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from gsb.model import FINAL, Effect, Entry, Exchange, Outcome, Record, State, Took
from gsb.store.logs import LogStore

DAY = 86_400.0


class StoreUnfit(Exception):
    """The store cannot be opened, and why: its version is unknown, its key is another. No waiting mends it."""


class StoreAway(StoreUnfit):
    """The store cannot be opened now, and why, but later it may be: its server is away, another process has it."""


class CursorUnfit(ValueError):
    """A cursor that this store has not made."""


@dataclass(frozen=True, slots=True)
class Ages:
    """For how many seconds after its outcome what an exchange leaves behind is kept; one without an outcome has no age.

    Entries have none either, nor have the secrets of those that belong to no exchange. Raises ValueError unless the
    exchange itself outlives the others: it tells a repeat under a kept key, and who asks for a body that is gone, how
    it ended.
    """

    bodies: float = 30 * DAY
    """Request and body of the outcome, deleted together."""
    keys: float = 30 * DAY
    """The reservation of the idempotency key."""
    exchanges: float = 365 * DAY
    """State, effect, time line, everything by which it can be found, and what its entries commit to."""

    def __post_init__(self) -> None:
        if self.exchanges <= max(self.bodies, self.keys):
            raise ValueError("exchanges must be kept longer than bodies and keys")


@dataclass(frozen=True, slots=True)
class Business:
    """By what the service's own people know an exchange, such as the number of an employee."""

    value: str
    personal: bool
    """Whether it may lie in the store only as a keyed hash, another one for each service."""


class NewExchange(NamedTuple):
    """Everything that accepting writes in one commit."""

    id: str
    agency: str
    service: str
    effect: Effect
    expires_in: float
    jti: str
    jti_lives: float
    """Seconds for which the jti must be remembered, however the clock is set meanwhile."""
    key: str | None
    """The Idempotency-Key, if there is one."""
    fingerprint: bytes
    """Digest of method, target, purpose, sub, case and body: what a repeat must equal. Of no use without a key."""
    record: Record
    entry: Entry
    business: Business | None = None
    subject: str | None = None
    """Whom the request is about; it may lie in the store only as a keyed hash, the same for every service."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The promise that an idempotency key belongs to one exchange."""

    exchange: str
    fingerprint: bytes


class Attempt(NamedTuple):
    """One try at performing an exchange; ``finish``, ``postpone`` and ``hold`` must name the newest one."""

    exchange: str
    number: int


class Begun(NamedTuple):
    """What ``begin`` hands out.

    ``task`` says what may be done: ``run`` it; ``find`` whether it took effect (it is unknown: never run it); or end
    it because it is past its time (``expired``). For ``find`` and ``expired`` nothing was changed, so several may
    hold the same attempt, and the first to finish wins.
    """

    attempt: Attempt
    task: Literal["run", "find", "expired"]
    exchange: Exchange
    record: Record | None
    """None when the record cannot be decrypted or parsed: hold it."""
    maybe_sent: bool
    """An earlier attempt may have reached the core system (never true for ``effect = none``)."""


@dataclass(frozen=True, slots=True)
class Due:
    """An exchange that wants dispatching, or, with ``lapsed``, a ``once`` whose lease ran out: it is unknown now."""

    exchange: str
    system: str
    agency: str
    lapsed: Attempt | None = None


@dataclass(frozen=True, slots=True)
class Ruling:
    """What an operator decides of an exchange that is in one of the states ``of``.

    ``to`` final: ends it with ``outcome``. ``to`` accepted: it is tried again and expires in ``expires_in`` seconds.
    ``to`` unknown: nobody knows whether it took effect, for this ``reason``; it is never run again.
    """

    of: frozenset[State]
    to: State
    outcome: Outcome | None = None
    expires_in: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """Which exchanges to list, newest first. Empty fields do not narrow."""

    agency: str | None = None
    service: str | None = None
    states: frozenset[State] = frozenset()
    code: str | None = None
    since: float | None = None
    """The first moment of acceptance, in seconds since the epoch; like ``until`` it counts."""
    until: float | None = None
    business: str | None = None
    """The business key, whether it was stored as a hash or not."""
    subject: str | None = None
    """Whom the requests are about, in any service. Exchanges that were erased are not found by it."""
    cursor: str | None = None
    """``Page.next`` of the page before."""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the exchanges that a query finds, newest first, without bodies and entries."""

    exchanges: tuple[Exchange, ...]
    next: str | None
    """Opaque; None on the last page."""


class Store(LogStore, Protocol):
    """The verbs; those of the evidence log are in ``gsb.store.logs``. ``Replayed`` (gsb.errors) is raised wherever a
    jti was spent before by the same issuer."""

    async def open(self) -> None:
        """Open or create the database. Raises StoreUnfit, and changes nothing, for one of an unknown version, one that
        another process has, and one that was sealed with another key."""

    async def close(self) -> None:
        """Finish what was begun and let go of the files."""

    async def look(self, issuer: str, jti: str, key: str | None) -> Reservation | None:
        """Raises Replayed if the jti is spent; else the reservation of the key, if any. A read: it reserves nothing."""

    async def accept(self, new: NewExchange) -> Reservation | None:
        """Reservation, jti, request, decision and entry in one commit.

        None: it is accepted. A reservation: the key belonged to an earlier exchange; only the jti was spent.
        """

    async def begin(self, exchange: str, lease: float) -> Begun | None:
        """Take the exchange for ``lease`` seconds, or None when there is nothing to do for this caller now.

        None for a final or held exchange, one leased to another, and one not known. The lease of an effect of
        ``repeatable`` or ``once`` is durable before this returns; that of ``none`` need not be.
        An accepted or waiting exchange begins whether or not it is due: dispatching it early is harmless.
        """

    async def finish(self, attempt: Attempt, outcome: Outcome, entry: Entry) -> bool:
        """End the exchange with this outcome. False, and nothing is written, when the attempt is not the newest or
        the exchange is final already. An unknown exchange is ended by its newest attempt (a late finish)."""

    async def postpone(self, attempt: Attempt, delay: float, reason: str, *, sent: bool) -> bool:
        """Back to ``waiting``; due in ``delay`` seconds. ``sent`` False: nothing of this attempt was sent, so
        ``maybe_sent`` is what it was before it. False when the attempt is not the newest running one."""

    async def hold(
        self, attempt: Attempt, state: Literal[State.HELD, State.UNKNOWN], reason: str, entry: Entry
    ) -> bool:
        """The bus cannot finish it alone. An unknown exchange stays due, by growing gaps, so that ``find`` is asked
        again. False when the attempt is not the newest, or the exchange is final, held or unknown already."""

    async def resolve(self, exchange: str, ruling: Ruling, entry: Entry) -> bool:
        """Apply an operator's ruling. False, and nothing is written, when the exchange is in another state."""

    async def due(self, limit: int) -> Sequence[Due]:
        """At most ``limit`` exchanges whose time has come; each one's due time moves on, by growing gaps (2 s, 4 s,
        ... at most 300 s), so a sweeper that dies or a broker that loses costs a delay, not the exchange.

        Due are: accepted ones a few seconds after acceptance, waiting ones at their time, running ones whose lease
        ran out, unknown ones. Past ``expires`` they are due too, to be ended. What was to be due later than any gap or
        lease is long (400 s) was written before the clock was set back: it is due soon, and a lease ends within that.
        """

    async def exchange(self, exchange: str) -> Exchange | None:
        """The exchange with its outcome (body decrypted) and entries. None when there is none, or none any more;
        ``gone`` when its bodies are too old to be told, or erased; ``unreadable`` when its outcome's is damaged."""

    async def record(self, exchange: str) -> Record | None:
        """The request of an exchange; None when there is no such exchange or it is ``gone``. Raises ReplyUnreadable
        (gsb.errors) when it is damaged."""

    async def search(self, query: Query) -> Page:
        """A page of what the query finds; every combination of its fields goes along an index. What is accepted or
        deleted between two pages makes no other exchange appear twice or be left out. Raises CursorUnfit."""

    async def standing(self) -> Mapping[State, int]:
        """How many exchanges are waiting, held and unknown; a state in which there is none may be missing. Made to be
        asked often: the others, final ones above all, are never counted. One that is waiting and being tried this
        moment may count or not."""

    async def note(
        self, entry: Entry, *, issuer: str | None = None, jti: str | None = None, jti_lives: float = 0
    ) -> None:
        """An entry without an exchange: a refusal or an administrative act. A jti is spent in the same commit."""

    async def withhold(self, entry: Entry) -> None:
        """From now on, and until ``admit_writes``, ``withheld`` says so; with an entry, in one commit."""

    async def admit_writes(self, entry: Entry) -> bool:
        """End that, with an entry in the same commit. False, and nothing is written, when there is nothing to end."""

    async def withheld(self) -> bool:
        """Whether writes are not to be admitted, since the store was restored and may lack what was acknowledged."""

    async def revoke(self, kid: str, entry: Entry) -> None:
        """From now on ``revoked`` names this key, for ever; with an entry, in one commit. Repeating it does no harm."""

    async def revoked(self) -> frozenset[str]:
        """The ids of all keys whose ``revoke`` had returned when this was asked, on whatever node."""

    async def spend(self, issuer: str, jti: str, jti_lives: float) -> None:
        """Remember the jti of a call that writes nothing else; with a life of 0 the commit is all that matters."""


def ended(state: State, effect: Took, status: int, code: str | None = None) -> Outcome:
    """An outcome without a body; raises ValueError for a state that is not final."""
    if state not in FINAL:
        raise ValueError(f"{state} is not final")
    return Outcome(state, effect, status, code, content_type=None)
