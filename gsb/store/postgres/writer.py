"""What writes to PostgreSQL: whatever was asked while the last commit ran goes into the next transaction.

No timer: a lone call is committed at once, and under load the groups grow by themselves. One connection, one
transaction at a time; other nodes have theirs. A transaction that is known to have been undone (a deadlock, a server
that went away before the commit was asked for) is tried again on whatever connection there is; one whose commit was
asked for and not answered is not, and its callers are told that nothing can be said of it. Between two transactions
what has reached its age is deleted, piece by piece. A crash loses only what nobody was told of.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from gsb.errors import Problem, StoreUnavailable
from gsb.store.contract import Ages
from gsb.store.postgres.aging import Jtis, purge
from gsb.store.postgres.batch import Ask, Batch, only_move
from gsb.store.postgres.layout.portions import Portions
from gsb.store.postgres.sessions import CONNECT, LOST, OF_THE_DATABASE, Clock, Sessions, database_clock
from gsb.trouble import Trouble

GROUP = 256
"""Calls in one transaction at most: bounds how long the first of them waits."""
TRIES = 3
"""Times that a transaction is tried whose undoing is known."""
PURGE_EVERY, PURGE_REST = 1.0, 0.02
"""Seconds between two looks for what has reached its age, and between two pieces while there is more."""
SET_BACK = (
    "the database's clock was set back: calls that nobody can tell from replays are answered 503 until it has passed "
    "that time again; if it is wrong now, set it right, and service resumes by itself"
)
HANGS = (
    "a call on the store wanted what another node holds for too long, and is answered 503: that node hangs, or its way "
    "to the server does; the server gives it up within seconds"
)
_AGAIN = (asyncpg.TransactionRollbackError, *LOST)
_OF_ONE_CALL = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.LockNotAvailableError)
"""What one call brought, or what only it wants and another node does not let go of."""

_log = logging.getLogger(__name__)

Asked = tuple[Ask, "asyncio.Future[Any]"]
Committed = Callable[[int, float], None]


class FateUnknown(Exception):
    """The commit was asked for and not answered."""


class Writer:
    """Decides and commits in groups, in the event loop in which it was started."""

    def __init__(
        self, sessions: Sessions, ages: Ages, clock: Clock, steady: Callable[[], float], committed: Committed
    ) -> None:
        self._sessions, self._ages, self._clock, self._steady = sessions, ages, clock, steady
        self._committed = committed
        self.jtis, self._portions = Jtis(steady), Portions(steady)
        self._asked: list[Asked] = []
        self._wake = asyncio.Event()
        self._open = True
        self._db: asyncpg.Connection | None = None
        self._purged_at = -PURGE_EVERY
        self._more = False
        """There is more to delete that has reached its age."""
        self._not_written, self._not_tidied, self._set_back = (
            Trouble(_log, over, steady)
            for over in (
                "the store can be written again",
                "what has run out is deleted again",
                "calls can be told from replays again",
            )
        )
        self._task = asyncio.create_task(self._work(), name="gsb-store")

    def ask(self, ask: Ask) -> asyncio.Future[Any]:
        """Becomes what the call's decision answered, once it is durable; or its typed error, or StoreUnavailable."""
        if not self._open:
            raise StoreUnavailable("the store is closed")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._asked.append((ask, future))
        self._wake.set()
        return future

    async def close(self) -> None:
        """Commit what was asked, then let go of the connection."""
        self._open = False
        self._wake.set()
        await self._task

    async def _work(self) -> None:
        while self._open or self._asked:
            if not self._asked:
                self._wake.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), PURGE_REST if self._more else None)
            # What is asked in the same turn of the event loop goes together.
            await asyncio.sleep(0)
            asked = self._asked[:GROUP]
            del self._asked[:GROUP]
            if asked:
                _answer(asked, await self._commit([ask for ask, _ in asked]))
            await self._tidy()
        if self._db is not None:
            with suppress(*OF_THE_DATABASE):
                await self._db.close(timeout=CONNECT)

    async def _commit(self, asks: Sequence[Ask]) -> list[Any]:
        try:
            return await self._tried(asks)
        except Exception as error:
            if isinstance(error, (*OF_THE_DATABASE, FateUnknown)) and not isinstance(error, _OF_ONE_CALL):
                why = error.__cause__ or error
                self._not_written.is_there(
                    f"the store on PostgreSQL cannot be written ({why}): calls that need it are answered 503; mend the "
                    "server or the way to it, and service resumes by itself"
                )
                return [StoreUnavailable() for _ in asks]
            # The others must not suffer for one call.
            if len(asks) > 1:
                return [answer for ask in asks for answer in await self._commit([ask])]
            if isinstance(error, asyncpg.LockNotAvailableError):
                _log.warning(HANGS)
            else:
                _log.exception("a call on the store failed")
            return [StoreUnavailable() if isinstance(error, OF_THE_DATABASE) else error]

    async def _tried(self, asks: Sequence[Ask]) -> list[Any]:
        for _ in range(TRIES - 1):
            try:
                return await self._transact(asks)
            except TimeoutError:
                raise  # who asked has waited long enough
            except _AGAIN:
                continue
        return await self._transact(asks)

    async def _transact(self, asks: Sequence[Ask]) -> list[Any]:
        began = time.perf_counter()
        db = await self._connected()
        if only_move(asks) and (answers := await self._moved(db, asks, began)) is not None:
            return answers
        transaction = db.transaction()
        try:
            await transaction.start()
            batch = Batch(db, self.jtis, self._clock, self._ages.keys)
            await batch.load(asks)
            answers = [_decide(ask, batch) for ask in asks]
            await batch.write(asks)
        except BaseException as error:
            await self._undo(transaction, error)
            raise
        try:
            await transaction.commit()
        except OF_THE_DATABASE as error:
            self._drop()
            raise FateUnknown from error
        self._tell(batch, len(asks), time.perf_counter() - began)
        return answers

    async def _moved(self, db: asyncpg.Connection, asks: Sequence[Ask], began: float) -> list[Any] | None:
        """By two statements without a transaction around them, which would cost as many again; None, and nothing is
        written, when somebody else has moved one of the exchanges meanwhile."""
        batch = Batch(db, self.jtis, self._clock, self._ages.keys)
        try:
            await batch.read(asks)
        except LOST:
            self._drop()
            raise
        answers = [_decide(ask, batch) for ask in asks]
        try:
            written = await batch.write_if_unchanged(asks)
        except LOST as error:
            self._drop()
            raise FateUnknown from error
        if written:
            self._tell(batch, len(asks), time.perf_counter() - began)
        return answers if written else None

    def _tell(self, batch: Batch, calls: int, seconds: float) -> None:
        self._not_written.is_over()
        if batch.set_back:
            self._set_back.is_there(SET_BACK)
        else:
            self._set_back.is_over()
        self._committed(calls, seconds)

    async def _connected(self) -> asyncpg.Connection:
        if self._db is None or self._db.is_closed():
            self._db = await self._sessions.connect()
        return self._db

    async def _undo(self, transaction: Any, error: BaseException) -> None:
        """Undo a transaction that failed; by dropping the connection if need be, which has the server do it."""
        if isinstance(error, LOST):
            self._drop()
            return
        try:
            await transaction.rollback()
        except OF_THE_DATABASE:
            self._drop()

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.terminate()

    async def _tidy(self) -> None:
        """Between two transactions, after everybody was answered."""
        steady = self._steady()
        if self._db is None or (not self._more and steady < self._purged_at + PURGE_EVERY):
            return
        self._purged_at = steady
        try:
            now = self._clock(await database_clock(self._db))
            self._more = await purge(self._db, self.jtis, self._ages, now)
            if not self._more:
                await self._portions.tend(self._db, self._ages, now)
            self._not_tidied.is_over()
        except Exception as error:
            self._more = False
            self._drop()
            self._not_tidied.is_there(f"what has run out cannot be deleted ({error}): it stays in the database")


def _answer(asked: Sequence[Asked], answers: Sequence[Any]) -> None:
    for (_, future), answer in zip(asked, answers, strict=True):
        if future.done():
            continue  # whoever asked was cancelled meanwhile
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


def _decide(ask: Ask, batch: Batch) -> Any:
    try:
        return ask.decide(batch)
    except Problem as problem:
        return problem
