"""The store's part of the evidence log: which entry has which place in which log, and up to where a log is published.

Entries are committed with what they speak of and get their places later, in the order of the log, by one recorder:
``unsequenced`` shows what is next, ``sequence`` gives places and keeps the signed checkpoint in the same transaction,
``publish`` says that the log's files are written up to a size. Files, checkpoints and receipts can always be made again
from what these verbs tell. Every verb is one transaction, durable when it returns; a crash inside one leaves all of it
or nothing. Two recorders cannot fork a log: whoever is behind gets LogMoved and has changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

import orjson

from gsb.model import Entry


class LogMoved(Exception):
    """The log does not stand where the caller thought: another recorder is at work, or an earlier try did succeed.

    Nothing was changed. Read ``logs`` again.
    """


@dataclass(frozen=True, slots=True)
class LogState:
    """Where one log stands."""

    origin: str
    """The first line of its checkpoints (c2sp.org/tlog-checkpoint); no other log of the store has it."""
    size: int
    """How many of its entries have a place: 0 to ``size - 1``."""
    checkpoint: bytes
    """The signed note of that size, as ``sequence`` was given it; empty as long as the size is 0."""
    published: int
    """Up to which size its files are written; at most ``size``."""
    published_note: bytes
    """The note that was published last, with its cosignatures; empty as long as none was."""
    published_at: float | None
    """When, by the store's clock, in seconds since the epoch."""
    closed: bool
    """Whether its last entry is committed, though perhaps not sequenced yet: all others go to the next log."""


@dataclass(frozen=True, slots=True)
class Unsequenced:
    """Entries that are next in a log, in order."""

    origin: str
    size: int
    """The log's size now, and so the place of the first of them."""
    contents: Sequence[bytes]
    leaves: Sequence[bytes]
    """``Entry.content`` and ``Entry.leaf`` of each."""
    token: object
    """By what the store knows them again; nobody else reads it, and it is worth nothing after a restart."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is committed and not yet published."""

    entries: int
    oldest: float | None
    """When the one that is next to be published happened (``at`` in its content), in seconds since the epoch; None
    when there is none, or when it does not tell."""


@dataclass(frozen=True, slots=True)
class Entered:
    """An entry and its place; origin and index are both None until it is sequenced. It has no secret here."""

    entry: Entry
    origin: str | None
    index: int | None


class Evidence(NamedTuple):
    """What an entry commits to."""

    leaf: bytes
    secret: bytes | None
    """``Entry.secret``: 32 random bytes, then the evidence. None once it is erased."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What became of the exchanges that were to be erased; each is in exactly one of these."""

    erased: tuple[str, ...]
    """There is nothing left to erase of them, whether that was done now or before."""
    unfinished: tuple[str, ...]
    """Not final, so nothing was erased: ask again when they are."""
    unknown: tuple[str, ...]
    """Never accepted, or deleted when they had reached their age."""


def happened_at(content: bytes) -> float | None:
    """When what an entry speaks of happened, as its content tells."""
    try:
        return datetime.fromisoformat(orjson.loads(content)["at"]).timestamp()
    except (ValueError, TypeError, KeyError):
        return None


class LogStore(Protocol):
    """The verbs of the evidence log, which every store has (``gsb.store.contract.Store``)."""

    async def logs(self) -> Sequence[LogState]:
        """Every log, oldest first; the last one is open, unless there is none. Cheap: read it whenever you like."""

    async def begin_log(
        self, origin: str, begun: Entry, *, after: str | None = None, ended: Entry | None = None
    ) -> None:
        """Begin a log whose first entry is ``begun``. Whatever was entered and belongs to no log comes after it.

        Without ``after``: the first log. With ``after`` and ``ended``: the open log ``after`` gets ``ended`` as its
        last entry, after everything that was entered before, and the new one gets all that is entered from then on.
        With ``after`` and without ``ended``: the open log ``after`` is not continued (after a restore); it ends at its
        size, and what was not sequenced in it goes to the new one.

        Raises LogMoved when ``after`` is not the open log (without ``after``: when there is a log), or ``origin`` is
        that of an earlier one.
        """

    async def unsequenced(self, limit: int) -> Unsequenced | None:
        """At most ``limit`` entries that are next in the oldest log that is not complete; None when there are none, or
        no log. A closed log is completed, ``ended`` last, before the next one gets entries. A read: it claims nothing,
        and says the same until ``sequence``. What it has once shown keeps its order, whatever is committed later."""

    async def sequence(self, given: Unsequenced, checkpoint: bytes) -> None:
        """Give all that ``unsequenced`` handed out their places, ``given.size`` onwards, and keep ``checkpoint``, the
        signed note of the size that the log then has, in one commit. Raises LogMoved when the log has another size
        than ``given.size`` or is not continued."""

    async def entries(self, origin: str, start: int, limit: int) -> Sequence[bytes]:
        """Contents of the sequenced entries ``start`` to ``start + limit - 1`` of a log, as far as there are any."""

    async def publish(self, origin: str, size: int, note: bytes) -> None:
        """The files of the log are written up to this size, and ``note`` is its published checkpoint. The size only
        grows; the same size may get another note, with more cosignatures. Raises LogMoved for an unknown log, a size
        below the published one and one beyond the log's size."""

    async def backlog(self) -> Backlog:
        """What is committed and not yet published, in all logs and outside. Cheap: ask several times a second."""

    async def entered(self, exchange: str) -> Sequence[Entered]:
        """The entries of an exchange with their places, oldest first; none when it is not known."""

    async def evidence(self, exchange: str) -> Sequence[Evidence]:
        """What the entries of an exchange commit to, in the order of ``entered``; none when it is not known. Raises
        ReplyUnreadable (gsb.errors) when any of it is damaged."""

    async def erase(self, entries: Mapping[str, Entry]) -> Erased:
        """Delete, of every final exchange that is named, the request, the body of the outcome, the secrets of all its
        entries, its business key and its subject, and add its entry, which becomes the newest one of the exchange; all
        in one transaction. Each has an entry of its own, since which of them are final is known only here: one that is
        unfinished, unknown or erased before gets none.

        Entries, state, effect, code, times and the reservation of the key stay: proofs stay valid, and a repeat under
        the key never acts twice. So the fingerprint stays as well, masked; who has the store's key can test it against
        a guessed request as long as the exchange is kept. ``exchange`` then says ``gone``.

        The deleted bytes leave the store's own files soon after; file systems, disks and backups keep their own copies.
        Other calls wait for the transaction: give some hundred exchanges at a time.
        """
