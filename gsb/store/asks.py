"""What callers ask of a store that commits in groups: each call decides on rows in memory, inside a transaction.

``Transaction`` is what the deciding needs of a store; what is locked, read and written around it is the store's own
business. A call that fails (a jti that was spent, an attempt that is not the newest) has changed nothing, and does not
touch those that are decided with it. Pure; a crash means nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from gsb.model import Effect, Outcome, State
from gsb.store import standing
from gsb.store.contract import Attempt, Ruling
from gsb.store.standing import Row

SET_BACK = (
    "The bus's clock was set back, and until it has passed that time again nobody can tell this call from a replay. "
    "Nothing was promised. Repeat later with a new jti and the same Idempotency-Key."
)
"""What a caller is told whose jti would have been forgotten by now, had it been spent."""


class Jti(NamedTuple):
    """The hash of a jti, and for how long it is remembered."""

    hashed: bytes
    lives: float


class SealedEntry(NamedTuple):
    """An entry whose secret is sealed."""

    leaf: bytes
    content: bytes
    secret: bytes


class Transaction(Protocol):
    """The rows that one transaction of a store reads and writes; ``now`` is the store's time."""

    @property
    def now(self) -> float: ...

    def row(self, exchange: str) -> Row | None:
        """The exchange as it stands now; None when it is not known."""

    def owner(self, key: bytes) -> Row | None:
        """The exchange to which the key belongs."""

    def change(self, row: Row) -> None:
        """Have the row written."""

    def spend(self, jti: Jti) -> None:
        """Raises Replayed, having changed nothing, if it was spent, and StoreUnavailable if nobody knows."""

    def keep(self, sealed: bytes) -> int:
        """Where the sealed bytes will lie."""

    def enter(self, entry: SealedEntry, exchange: int | None) -> None:
        """Add an entry, after all others of the exchange in this row."""

    def create(self, row: Row) -> None:
        """Add an exchange and, if it has a key, its reservation."""


class Plain:
    """Asks for no rows."""

    __slots__ = ()

    def ids(self) -> Sequence[str]:
        return ()

    def hashes(self) -> Sequence[bytes]:
        return ()

    def spends(self) -> Jti | None:
        """The jti that deciding will ask for, so that a store may look for it before."""
        return None


@dataclass(slots=True, eq=False)
class Accept(Plain):
    """Answers the time of acceptance, or the row to which the key belongs."""

    id: str
    agency: str
    service: str
    effect: Effect
    purpose: str
    agreement: str
    fingerprint: bytes
    expires_in: float
    business: str | bytes | None
    subject: bytes | None
    key: bytes | None
    jti: Jti
    record: bytes
    entry: SealedEntry

    def hashes(self) -> Sequence[bytes]:
        return () if self.key is None else (self.key,)

    def spends(self) -> Jti | None:
        return self.jti

    def decide(self, batch: Transaction) -> float | tuple[str, bytes]:
        batch.spend(self.jti)
        if self.key is not None and (owner := batch.owner(self.key)) is not None:
            return owner.id, owner.fingerprint
        now = batch.now
        row = Row(
            0,
            self.id,
            self.agency,
            self.service,
            self.effect,
            self.purpose,
            self.agreement,
            self.fingerprint,
            now,
            self.business,
            self.subject,
            batch.keep(self.record),
            self.key,
            State.ACCEPTED,
            now + self.expires_in,
            min(now + standing.FIRST_GAP, now + self.expires_in),
        )
        batch.create(row)
        batch.enter(self.entry, row.row)
        return now


@dataclass(slots=True, eq=False)
class Move(Plain):
    """Something done to one exchange; ``move`` answers whether it may be."""

    id: str

    def ids(self) -> Sequence[str]:
        return (self.id,)

    def move(self, batch: Transaction, row: Row) -> bool:
        raise NotImplementedError

    def decide(self, batch: Transaction) -> Any:
        row = batch.row(self.id)
        if row is None or not self.move(batch, row):
            return False
        batch.change(row)
        return True


@dataclass(slots=True, eq=False)
class Begin(Move):
    """Answers the exchange as it then is and whether it may have been sent before, or None."""

    lease: float

    def decide(self, batch: Transaction) -> Any:
        row = batch.row(self.id)
        if row is None or (task := standing.task_for(row, batch.now)) is None:
            return None
        maybe_sent = standing.sent_before(row, batch.now)
        if task == "run":
            standing.run(row, self.lease, batch.now)
            batch.change(row)
        return task, standing.told(row), maybe_sent


@dataclass(slots=True, eq=False)
class Finish(Move):
    attempt: Attempt
    outcome: Outcome
    reply: bytes | None
    """The sealed body."""
    entry: SealedEntry

    def move(self, batch: Transaction, row: Row) -> bool:
        if not standing.finish(row, self.attempt.number, self.outcome, batch.now):
            return False
        row.reply = None if self.reply is None else batch.keep(self.reply)
        batch.enter(self.entry, row.row)
        return True


@dataclass(slots=True, eq=False)
class Postpone(Move):
    attempt: Attempt
    delay: float
    reason: str
    sent: bool

    def move(self, batch: Transaction, row: Row) -> bool:
        return standing.postpone(row, self.attempt.number, self.delay, self.reason, sent=self.sent, now=batch.now)


@dataclass(slots=True, eq=False)
class Hold(Move):
    attempt: Attempt
    state: State
    reason: str
    entry: SealedEntry

    def move(self, batch: Transaction, row: Row) -> bool:
        if not standing.hold(row, self.attempt.number, self.state, self.reason, batch.now):
            return False
        batch.enter(self.entry, row.row)
        return True


@dataclass(slots=True, eq=False)
class Resolve(Move):
    ruling: Ruling
    reply: bytes | None
    entry: SealedEntry

    def move(self, batch: Transaction, row: Row) -> bool:
        if not standing.resolve(row, self.ruling, batch.now):
            return False
        row.reply = None if self.reply is None else batch.keep(self.reply)
        batch.enter(self.entry, row.row)
        return True


@dataclass(slots=True, eq=False)
class Note(Plain):
    """An entry, a jti, or both, without an exchange."""

    entry: SealedEntry | None = None
    jti: Jti | None = None

    def spends(self) -> Jti | None:
        return self.jti

    def decide(self, batch: Transaction) -> None:
        if self.jti is not None:
            batch.spend(self.jti)
        if self.entry is not None:
            batch.enter(self.entry, None)
