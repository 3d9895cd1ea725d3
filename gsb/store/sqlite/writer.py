"""The one thread that writes: whatever was asked while the last commit ran goes into the next transaction.

No timer: a lone call is committed at once, and under load the groups grow by themselves. The next group is handed over
when those whose commit it was have been answered and have had their turn: what they ask at once is in it. When the disk
fails, the transaction is rolled back before anybody is answered, so that its fate is known, and the next group tries
anew. Between two transactions what has reached its age is deleted, piece by piece with pauses, so that exchanges hardly
notice. Checkpoints of the journal run in a thread of their own, so that they do not stall commits. A crash loses only
what nobody was told of.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Literal

from gsb.errors import Problem, StoreUnavailable
from gsb.store.contract import Ages
from gsb.store.sqlite import rows
from gsb.store.sqlite.batch import Ask, Batch, Memory
from gsb.store.standing import Lease
from gsb.trouble import Trouble

GROUP = 256
"""Calls in one transaction at most: bounds how long the first of them waits."""
CHECKPOINT = 32 * 1024 * 1024
"""Bytes of journal, estimated, after which it is carried over into the database."""
WIPE_WAIT, WIPE_AGAIN = 50, 0.5
"""Milliseconds for which cutting the journal off may keep commits waiting, and seconds until the next try."""
PURGE_EVERY = 1.0
"""Seconds between two looks for what has reached its age."""
PURGE_QUIET = 0.005
PURGE_REST = 4.0
PURGE_CALLS = 2 * rows.PIECE
"""While there is more, a piece is deleted when nobody has asked for anything for so many seconds, and for so many times
as long as the last piece took. When that does not come, it is deleted after so many calls: an exchange takes two at
least, so steady load is kept up with, and what has piled up is left for quiet times."""

_log = logging.getLogger(__name__)

Asked = tuple[Ask, "asyncio.Future[Any]"]
Committed = Callable[[int, float], None]


SET_BACK = (
    "the clock was set back: calls that nobody can tell from replays are answered 503 until it has passed that time "
    "again; if it is wrong now, set it right, and service resumes by itself"
)
OF_THE_DATABASE = (sqlite3.OperationalError, sqlite3.DatabaseError)
"""Exactly these are errors of the database; those that derive from them speak of what one call brought."""


def untold(calls: int, seconds: float) -> None:
    """For stores whose commits nobody counts."""


class Checkpointer:
    """Carries the journal over into the database, from a thread and a connection of its own."""

    def __init__(self, path: Path, steady: Callable[[], float]) -> None:
        self._path = path
        # Open as long as the store is: when there are no descriptors left, the journal must not grow.
        self._db = rows.connect(path, writes=True)
        self._trouble = Trouble(_log, "the store's journal is carried over again", steady)
        # Cutting the journal off keeps commits waiting until nobody reads from it: only so long at a time.
        self._db.execute(f"PRAGMA busy_timeout={WIPE_WAIT}")
        self._wiping = False
        self._told: SimpleQueue[Literal["carry", "wipe", "end"]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="gsb-checkpoint")
        self.carried = False
        """All but what was committed meanwhile is carried over: the writer does the rest between two commits, since
        under load the journal would never be caught up with and would grow for ever."""

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._told.put("carry")

    def wipe(self) -> None:
        """Have nothing left in the journal of what was deleted, as soon as nobody reads from it."""
        self._told.put("wipe")

    def stop(self) -> None:
        self._told.put("end")
        self._thread.join()

    def _next(self) -> str:
        with suppress(Empty):
            return self._told.get(timeout=WIPE_AGAIN if self._wiping else None)
        return "wipe"

    def _work(self) -> None:
        while (told := self._next()) != "end":
            self._wiping = self._wiping or told == "wipe"
            try:
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                self.carried = True
                if self._wiping:
                    self._wiping = bool(self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
                self._trouble.is_over()
            except sqlite3.Error as error:
                self._trouble.is_there(
                    f"the store's journal cannot be carried over ({error}): it grows, beside {self._path}"
                )
        self._db.close()


class Writer:
    """Decides and commits in groups. ``ask`` is called in the event loop; all else here runs in the thread."""

    def __init__(
        self,
        path: Path,
        leases: Mapping[str, Lease],
        clock: Callable[[], float],
        steady: Callable[[], float],
        ages: Ages,
        committed: Committed = untold,
    ) -> None:
        self._committed, self._steady = committed, steady
        self._path, self._leases, self._clock, self._ages = path, leases, clock, ages
        self._queue: SimpleQueue[list[Asked] | None] = SimpleQueue()
        self._asked: list[Asked] = []
        """What was asked and is not handed over yet."""
        self._busy = False
        """Whether the thread has a group whose calls are not answered yet."""
        self._thread = threading.Thread(target=self._work, name="gsb-store")
        self._checkpointer = Checkpointer(path, steady)
        self._not_written, self._not_tidied, self._set_back = (
            Trouble(_log, over, steady)
            for over in (
                "the store can be written again",
                "what has run out is deleted again",
                "calls can be told from replays again",
            )
        )
        self._loop = asyncio.get_running_loop()
        self._db: sqlite3.Connection | None = rows.connect(path, writes=True)
        self.memory = Memory(self._db, steady)
        self._journal = 0
        self._purged_at = -PURGE_EVERY
        self._next_piece: float | None = None
        """From when on to delete more in quiet times, by the monotonic clock; None when there is nothing more now."""
        self._calls = 0
        """How many there were since something was deleted."""
        self._open = True

    def start(self) -> None:
        self._checkpointer.start()
        self._thread.start()

    def ask(self, ask: Ask) -> asyncio.Future[Any]:
        """Becomes what the call's decision answered, once it is durable; or its typed error, or StoreUnavailable."""
        if not self._open:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[Any] = self._loop.create_future()
        if not (self._asked or self._busy):
            # What is asked in the same turn of the event loop is handed over together: one switch of threads for all.
            self._loop.call_soon(self._hand_over)
        self._asked.append((ask, future))
        return future

    def _hand_over(self) -> None:
        if self._asked and not self._busy:
            self._busy = True
            self._queue.put(self._asked[:GROUP])
            del self._asked[:GROUP]

    def _answer(self, asked: Sequence[Asked], answers: Sequence[Any]) -> None:
        self._busy = False
        for (_, future), answer in zip(asked, answers, strict=True):
            if future.done():
                continue  # whoever asked was cancelled meanwhile
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
        self._loop.call_soon(self._hand_over)

    def wipe(self) -> None:
        """Let the journal hold nothing of what was deleted, soon."""
        self._checkpointer.wipe()

    async def close(self) -> None:
        """Commit what was asked, then end both threads."""
        self._open = False
        while self._asked:
            self._busy = False
            self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._checkpointer.stop)

    def _work(self) -> None:
        while (asked := self._take()) is not None:
            self._calls += len(asked)
            if asked:
                answers = self._commit([ask for ask, _ in asked])
                self._loop.call_soon_threadsafe(self._answer, asked, answers)
            self._tidy(quiet=not (asked or self._asked))
        if self._db is not None:
            self._db.close()

    def _take(self) -> list[Asked] | None:
        """The next group; waits for it, while there is more to delete only until it is quiet, and then there is nothing
        in it. None when there will be no group any more."""
        pause = None if self._next_piece is None else max(PURGE_QUIET, self._next_piece - time.monotonic())
        if not self.memory.reserved.full:
            pause = PURGE_QUIET
        try:
            return self._queue.get(timeout=pause)
        except Empty:
            return []

    def _commit(self, asks: Sequence[Ask]) -> list[Any]:
        try:
            return self._transact(asks)
        except Exception as error:
            if type(error) in OF_THE_DATABASE:
                self._not_written.is_there(
                    f"the store cannot be written ({error}): calls that need it are answered 503; make room for "
                    f"{self._path} or mend its file system, and service resumes by itself"
                )
                return [StoreUnavailable() for _ in asks]
            # One call brought something that cannot be written: the others must not suffer for it.
            if len(asks) > 1:
                return [answer for ask in asks for answer in self._commit([ask])]
            _log.exception("a call on the store failed")
            return [StoreUnavailable() if isinstance(error, sqlite3.Error) else error]

    def _transact(self, asks: Sequence[Ask]) -> list[Any]:
        if not asks:
            return []
        db, began = self._connected(), time.perf_counter()
        try:
            db.execute("BEGIN IMMEDIATE")
            batch = Batch(db, self.memory, self._leases, self._clock(), self._ages.keys)
            batch.load([id_ for ask in asks for id_ in ask.ids()], [key for ask in asks for key in ask.hashes()])
            answers = [_decide(ask, batch) for ask in asks]
            self._journal += batch.write()
            db.execute("COMMIT")
        except BaseException:
            self._settle()
            raise
        batch.remember()
        self._not_written.is_over()
        if batch.set_back:
            self._set_back.is_there(SET_BACK)
        elif any(batch.spent.values()):
            self._set_back.is_over()
        self._committed(len(asks), time.perf_counter() - began)
        return answers

    def _connected(self) -> sqlite3.Connection:
        if self._db is None:
            with ExitStack() as failed:
                failed.callback((db := rows.connect(self._path, writes=True)).close)
                self.memory.reload(db)  # before it is used: the last commit may have been made after all
                failed.pop_all()
            self._db = db
        return self._db

    def _settle(self) -> None:
        """Undo a transaction that failed, so that its fate is known; by closing the connection if need be."""
        self.memory.open.clear()
        try:
            if self._db is not None and self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            self._let_go()

    def _let_go(self) -> None:
        """Close the connection; the next transaction opens another."""
        db, self._db = self._db, None
        with suppress(sqlite3.Error):
            if db is not None:
                db.close()

    def _tidy(self, *, quiet: bool) -> None:
        """Between two transactions, after everybody was answered."""
        if self._db is None:
            return
        try:
            self.memory.reserved.read_on(self._db)
            self._purge(self._db, self._clock(), quiet=quiet)
            if self._checkpointer.carried:
                self._checkpointer.carried = False
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._not_tidied.is_over()
        except Exception as error:
            # Another connection is sure to wait for the disk again, whatever became of this one's settings.
            self._let_go()
            self._not_tidied.is_there(f"what has run out cannot be deleted ({error}): it stays in {self._path}")
        if self._journal > CHECKPOINT:
            self._journal = 0
            self._checkpointer.wake()

    def _purge(self, db: sqlite3.Connection, now: float, *, quiet: bool) -> None:
        steady = self._steady()
        if self._next_piece is None and steady < self._purged_at + PURGE_EVERY:
            return
        if self._next_piece is not None and not quiet and self._calls < PURGE_CALLS:
            return
        spent_before = min(now, self.memory.spent.forget(now))
        began = time.monotonic()
        # What a power cut brings back is deleted again, so nobody waits for the disk.
        careful = rows.pragma(db, "synchronous")
        db.execute("PRAGMA synchronous=NORMAL")
        try:
            piece = rows.purge(db, now, self._ages, spent_before)
        finally:
            db.execute(f"PRAGMA synchronous={careful}")
        self._journal += piece.written
        self._purged_at = steady
        ended = time.monotonic()
        self._next_piece = ended + PURGE_REST * (ended - began) if piece.more else None
        self._calls = 0


def _decide(ask: Ask, batch: Batch) -> Any:
    try:
        return ask.decide(batch)
    except Problem as problem:
        return problem
