"""What callers bring to a store, sealed and hashed as it lies there, and opened again: alike for every database.

Pure but for the random bytes of the seal. It knows what belongs to an exchange, ``gsb.store.seal`` how it is sealed. It
keeps no state, so a crash means nothing to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from gsb.errors import ReplyUnreadable
from gsb.model import Entry, Outcome, Record
from gsb.store.asks import Accept, Jti, SealedEntry
from gsb.store.contract import Business, NewExchange, Query, Reservation
from gsb.store.logs import Evidence
from gsb.store.seal import RECORD, REPLY, SECRET, Seal, Unreadable, pack, unpack


class Position(NamedTuple):
    """Where an exchange stands in every list: by the time of its acceptance, then in the order of arrival."""

    accepted_at: float
    row: int


class Sealing(Seal):
    """A store's seal."""

    # --- what is asked of a transaction

    def accept(self, new: NewExchange) -> Accept:
        decision = new.record.decision
        record, secret = self.seal(
            {RECORD: (pack(new.record), new.id.encode()), SECRET: (new.entry.secret, new.entry.leaf)}
        )
        return Accept(
            new.id,
            new.agency,
            new.service,
            new.effect,
            decision.purpose,
            decision.agreement,
            b"" if new.key is None else self.mask(new.fingerprint, new.id),
            new.expires_in,
            None if new.business is None else self.business(new.service, new.business),
            None if new.subject is None else self.subject(new.subject),
            None if new.key is None else self.key(new.agency, new.key),
            self.jti(new.agency, new.jti, new.jti_lives),
            record,
            SealedEntry(new.entry.leaf, new.entry.content, secret),
        )

    def jti(self, issuer: str, jti: str, lives: float) -> Jti:
        return Jti(self.hash(issuer, jti, b"jti"), lives)

    def key(self, agency: str, key: str) -> bytes:
        """An idempotency key as it is stored."""
        return self.hash(agency, key, b"key")

    def entry(self, entry: Entry) -> SealedEntry:
        (secret,) = self.seal({SECRET: (entry.secret, entry.leaf)})
        return SealedEntry(entry.leaf, entry.content, secret)

    def reply(self, exchange: str, outcome: Outcome | None, entry: Entry) -> tuple[bytes | None, SealedEntry]:
        """The body of an outcome, if it has one, and the entry that belongs to it."""
        if outcome is None or not outcome.body:
            return None, self.entry(entry)
        reply, secret = self.seal({REPLY: (outcome.body, exchange.encode()), SECRET: (entry.secret, entry.leaf)})
        return reply, SealedEntry(entry.leaf, entry.content, secret)

    # --- what is found

    def reservation(self, exchange: str, fingerprint: bytes) -> Reservation:
        """Of an exchange, by its masked fingerprint."""
        return Reservation(exchange, self.mask(fingerprint, exchange))

    def record(self, sealed: bytes | None, exchange: str) -> Record | None:
        """None for what is not there. Raises ReplyUnreadable for what is damaged."""
        try:
            return None if sealed is None else unpack(self.open(sealed, RECORD, exchange.encode()))
        except ValueError as error:
            raise ReplyUnreadable from error

    def body(self, sealed: bytes | None, exchange: str) -> bytes | None:
        """The body of an outcome, empty when it has none; None for one that is damaged."""
        try:
            return b"" if sealed is None else self.open(sealed, REPLY, exchange.encode())
        except Unreadable:
            return None

    def evidence(self, found: Iterable[tuple[bytes, bytes | None]]) -> list[Evidence]:
        """Of leaves with their sealed secrets. Raises ReplyUnreadable for what is damaged."""
        try:
            return [
                Evidence(leaf, None if sealed is None else self.open(sealed, SECRET, leaf)) for leaf, sealed in found
            ]
        except Unreadable as error:
            raise ReplyUnreadable from error

    # --- what is searched for

    def businesses(self, query: Query, services: Iterable[str]) -> list[str | bytes] | None:
        """The forms in which the business key of a query may lie in a store that holds exchanges of these services."""
        if query.business is None:
            return None
        among = services if query.service is None else [query.service]
        return [query.business, *(self.business(each, Business(query.business, personal=True)) for each in among)]

    def subject_of(self, query: Query) -> bytes | None:
        return None if query.subject is None else self.subject(query.subject)

    def before(self, query: Query) -> Position | None:
        """The place after which the page begins. Raises CursorUnfit."""
        return None if query.cursor is None else Position(*self.read_cursor(query.cursor))


def narrowed(query: Query, subject: bytes | None) -> Iterator[tuple[str, Any]]:
    """What every exchange that a query finds must pass, but for its state, its business key and the place of the page:
    comparisons of SQL without their right sides, which follow."""
    for comparison, value in (
        ("agency =", query.agency),
        ("service =", query.service),
        ("subject =", subject),
        ("code =", query.code),
        ("accepted_at >=", query.since),
        ("accepted_at <=", query.until),
    ):
        if value is not None:
            yield comparison, value
