"""Erasing what final exchanges hold of people, inside the transaction of the SQLite store's writer.

Entries, states and reservations stay. Sealed bytes are overwritten with zeros where they lie and their rows are kept:
when rows are deleted, SQLite merges pages, which may leave copies of the rows beside them in the free space of a page,
out of reach of a later erasure. The writer's checkpointer then cuts the journal off, which still holds the pages as
they were. A crash leaves all of it or nothing, and the next opening carries the journal over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gsb.model import FINAL
from gsb.store.asks import Plain, SealedEntry
from gsb.store.logs import Erased
from gsb.store.sqlite.batch import Batch


@dataclass(slots=True, eq=False)
class Erase(Plain):
    """Answers what became of each exchange, by its id, which is given with its entry."""

    given: Mapping[str, SealedEntry]

    def ids(self) -> Sequence[str]:
        return tuple(self.given)

    def decide(self, batch: Batch) -> Erased:
        erased, unfinished, unknown = [], [], []
        for id_, entry in self.given.items():
            if (row := batch.row(id_)) is None:
                unknown.append(id_)
            elif not _final(batch, row.row):
                unfinished.append(id_)
            else:
                erased.append(id_)
                row.request = row.reply = row.business = row.subject = None
                if _has_secrets(batch, row.row):
                    _wipe(batch, row.row)
                    batch.enter(entry, row.row)
        return Erased(tuple(erased), tuple(unfinished), tuple(unknown))


def _final(batch: Batch, row: int) -> bool:
    """Whether an earlier transaction ended it: what this one has ended or accepted is not written yet."""
    found = batch.db.execute("SELECT state FROM exchange WHERE row = ?", (row,)).fetchone()
    return found is not None and found[0] in FINAL


def _has_secrets(batch: Batch, row: int) -> bool:
    """Not after it was erased: then only the entry that says so has a secret, which proves who erased and why."""
    first = "SELECT bytes FROM secret WHERE row = (SELECT min(row) FROM entry WHERE exchange = ?)"
    return any(batch.db.execute(first, (row,)).fetchone()[0])


def _wipe(batch: Batch, row: int) -> None:
    """The zeros are as many as the bytes were, or SQLite would not write them in the same place."""
    for statement in (
        "UPDATE sealed SET bytes = zeroblob(length(bytes)) WHERE row = (SELECT request FROM exchange WHERE row = ?)",
        "UPDATE sealed SET bytes = zeroblob(length(bytes)) WHERE row = (SELECT reply FROM exchange WHERE row = ?)",
        "UPDATE secret SET bytes = zeroblob(length(bytes)) WHERE row IN (SELECT row FROM entry WHERE exchange = ?)",
        "UPDATE exchange SET request = NULL, reply = NULL, business = NULL, subject = NULL WHERE row = ?",
    ):
        batch.db.execute(statement, (row,))
