"""How an exchange moves from state to state: the rules of the store's contract on one row, without any I/O.

Pure: each function is given the row, the time and what is asked, and changes the row or answers that it may not.
What to lock, read and write around it is the business of the stores. A crash means nothing here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import orjson

from gsb.model import FINAL, Effect, Entry, Exchange, Outcome, State, Took
from gsb.store.contract import Ages, Attempt, Due, Ruling

FIRST_GAP = 2.0
LAST_GAP = 300.0
"""Seconds: the gaps by which what is due moves on grow from the first to the last, doubling."""

HORIZON = 400.0
"""Seconds: no gap, pause or lease is longer. What is due later than that was written when the clock stood ahead."""

Task = Literal["run", "find", "expired"]


@dataclass(slots=True)
class Row:
    """An exchange as it lies in the store; the order of the fields is that of the columns."""

    row: int
    id: str
    agency: str
    service: str
    effect: Effect
    purpose: str
    agreement: str
    fingerprint: bytes
    """Masked: it is a digest of personal data."""
    accepted_at: float
    business: str | bytes | None
    """The business key, as a keyed hash if it is personal."""
    subject: bytes | None
    """Keyed hash of whom the request is about."""
    request: int | None
    """Where the sealed record lies; None once it is gone, and the body of the outcome with it."""
    key: bytes | None
    """Keyed hash of the idempotency key, as long as it is reserved."""
    state: State
    expires_at: float
    due_at: float | None
    attempt: int = 0
    maybe_sent: bool = False
    """An attempt before the newest one may have reached the core system."""
    nudges: int = 0
    """How often it was handed out as due since it last moved."""
    lease_until: float | None = None
    began_at: float | None = None
    reason: str | None = None
    finished_at: float | None = None
    reply: int | None = None
    """Where the sealed body of the outcome lies."""
    status: int | None = None
    took: Took | None = None
    code: str | None = None
    content_type: str | None = None
    fields: bytes | None = None
    agreement_digest: str | None = None


class Lease(NamedTuple):
    """A lease that only memory holds: an exchange of ``effect = none`` may be tried again after any crash."""

    number: int
    until: float
    began_at: float


def apply(row: Row, lease: Lease | None) -> None:
    """Let the row show a lease from memory, unless it has moved on since."""
    if lease is None or lease.number <= row.attempt or row.state in FINAL:
        return
    row.state, row.attempt, row.reason = State.RUNNING, lease.number, None
    row.lease_until = row.due_at = lease.until
    row.began_at = row.began_at or lease.began_at


def _lapsed(row: Row, now: float) -> bool:
    return row.state is State.RUNNING and (row.lease_until or 0) <= now


def sent_before(row: Row, now: float) -> bool:
    """Whether an attempt before the next one may have reached the core system."""
    maybe = row.maybe_sent or row.state is State.UNKNOWN or _lapsed(row, now)
    return maybe and row.effect is not Effect.NONE


def task_for(row: Row, now: float) -> Task | None:
    """What a caller of ``begin`` may do now; nothing is changed."""
    if row.state in FINAL or row.state is State.HELD:
        return None
    if row.state is State.UNKNOWN:
        return "find"
    if row.state is State.RUNNING and (not _lapsed(row, now) or row.effect is Effect.ONCE):
        return None
    return "expired" if now >= row.expires_at else "run"


def run(row: Row, lease: float, now: float) -> None:
    """Begin the next attempt, which ``task_for`` allowed."""
    row.maybe_sent = sent_before(row, now)
    row.state, row.reason = State.RUNNING, None
    row.attempt += 1
    row.nudges = 0
    row.lease_until = row.due_at = now + lease
    row.began_at = row.began_at or now


def _end(row: Row, outcome: Outcome, now: float) -> None:
    row.state, row.finished_at = outcome.state, now
    row.due_at = row.lease_until = row.reason = None
    row.status, row.took, row.code = outcome.status, outcome.effect, outcome.code
    row.content_type, row.agreement_digest = outcome.content_type, outcome.agreement_digest
    row.fields = orjson.dumps(outcome.fields) if outcome.fields else None


def finish(row: Row, number: int, outcome: Outcome, now: float) -> bool:
    """End it, unless it is final or the attempt is not the newest."""
    if row.state in FINAL or number != row.attempt:
        return False
    _end(row, outcome, now)
    return True


def postpone(row: Row, number: int, delay: float, reason: str, *, sent: bool, now: float) -> bool:
    """Back to waiting, unless the attempt is not the newest running one."""
    if row.state is not State.RUNNING or number != row.attempt:
        return False
    row.maybe_sent = row.maybe_sent or (sent and row.effect is not Effect.NONE)
    row.state, row.reason, row.lease_until, row.nudges = State.WAITING, reason, None, 0
    row.due_at = _before_expiry(row, now + delay, now)
    return True


def hold(row: Row, number: int, state: State, reason: str, now: float) -> bool:
    """Held or unknown, unless it is so already, final, or the attempt is not the newest.

    A held ``once`` was not sent, or it would be unknown; a held ``repeatable`` may have been.
    """
    if row.state in FINAL or row.state in (State.HELD, State.UNKNOWN) or number != row.attempt:
        return False
    if state is State.UNKNOWN or row.effect is Effect.REPEATABLE:
        row.maybe_sent = row.effect is not Effect.NONE
    row.state, row.reason, row.lease_until, row.nudges = state, reason, None, 0
    row.due_at = now + FIRST_GAP if state is State.UNKNOWN else None
    return True


def resolve(row: Row, ruling: Ruling, now: float) -> bool:
    """Apply a ruling, unless the exchange is in a state that it does not speak of, or final."""
    if row.state in FINAL or row.state not in ruling.of:
        return False
    if ruling.outcome is not None:
        _end(row, ruling.outcome, now)
        return True
    doubtful = ruling.to is State.UNKNOWN
    row.maybe_sent = sent_before(row, now) or (doubtful and row.effect is not Effect.NONE)
    row.state, row.reason, row.lease_until, row.nudges = ruling.to, ruling.reason, None, 0
    if ruling.expires_in is not None:
        row.expires_at = now + ruling.expires_in
    row.due_at = now + FIRST_GAP
    return True


def nudge(row: Row, now: float) -> Due | None:
    """Hand out what is due and move it on; None when it is not due (any more)."""
    if row.due_at is None or row.due_at > now:
        return None
    gap = min(LAST_GAP, FIRST_GAP * 2 ** min(row.nudges, 16))
    row.nudges += 1
    row.due_at = _before_expiry(row, now + gap, now)
    lapsed = row.effect is Effect.ONCE and row.state is State.RUNNING
    return Due(row.id, row.service.partition("/")[0], row.agency, Attempt(row.id, row.attempt) if lapsed else None)


def pull_back(row: Row, now: float) -> None:
    """Correct a due time beyond the horizon. What runs keeps the longest lease, from now: its worker may be alive."""
    if row.due_at is None or row.due_at <= now + HORIZON:
        return
    if row.state is State.RUNNING:
        row.due_at = row.lease_until = now + HORIZON
    else:
        row.due_at = now


def _before_expiry(row: Row, at: float, now: float) -> float:
    """An exchange that expires earlier is due then, to be ended; an unknown one never expires."""
    if row.state is not State.UNKNOWN and now < row.expires_at < at:
        return row.expires_at
    return at


def aged(row: Row, ages: Ages, now: float) -> Row | None:
    """The row without what has reached its age, deleted already or not; None when the exchange itself has."""
    if row.finished_at is None:
        return row
    if row.finished_at <= now - ages.exchanges:
        return None
    if row.finished_at <= now - ages.bodies:
        row.request = row.reply = None
    return row


def told(row: Row, body: bytes | None = b"", entries: tuple[Entry, ...] = ()) -> Exchange:
    """The row as everybody else sees it; without a ``body`` the one that it has cannot be read."""
    return Exchange(
        row.id,
        row.agency,
        row.service,
        row.effect,
        row.state,
        row.purpose,
        row.agreement,
        row.accepted_at,
        row.expires_at,
        row.attempt,
        row.reason,
        row.due_at,
        row.began_at,
        _outcome(row, body or b""),
        entries,
        row.request is None,
        body is None,
    )


def _outcome(row: Row, body: bytes) -> Outcome | None:
    if row.status is None or row.took is None:
        return None
    return Outcome(
        row.state,
        row.took,
        row.status,
        row.code,
        body,
        row.content_type,
        tuple(orjson.loads(row.fields)) if row.fields else (),
        row.agreement_digest or "",
    )
