"""The log's witnesses: each checkpoint is offered to all of them at once, and what they cosign stands in its note.

Nobody waits long: a checkpoint waits for those that answered the last time, for ``log.cosign_wait`` seconds at most,
and is published with what there is; what comes later is published with the same checkpoint. A witness that does not
answer is asked again, by growing pauses. One that has cosigned more or other entries than the log has ends all
publishing: the store was rolled back, or replaced, and to go on would be a second history. A crash forgets offers and
late cosignatures; the next start offers the published checkpoints again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

import aiohttp

from gsb.ask import Asking, Contradicted, Failed, Wanted
from gsb.config import LogTable
from gsb.evidence.checkpoint import Note, Signature, Verifier, parse_note
from gsb.metrics import Metrics
from gsb.resume import RESTORE
from gsb.trouble import Trouble

log = logging.getLogger("gsb.witness")

ASK_FOR = 5.0
"""Seconds for which a start waits to hear whether the store is behind what was cosigned."""
PAUSES = (1.0, 60.0)
"""Seconds before a witness that failed is asked again: at first, and at most."""


class Witness:
    """One witness, and what it is to cosign. It works on the newest offer of each log."""

    def __init__(self, asking: Asking, metrics: Metrics, changed: asyncio.Event, steady: Callable[[], float]) -> None:
        self.verifier = asking.verifier
        self._asking, self._metrics, self._changed, self._steady = asking, metrics, changed, steady
        self._wanted: dict[str, Wanted] = {}
        self._there = asyncio.Event()
        self._given: dict[str, tuple[str, Signature, float]] = {}
        """By origin: the text that it cosigned last, its cosignature, and when that came."""
        self.prompt = True
        """Whether it answered the last time, and in time."""
        self.asked = False
        """Whether it has answered anything at all."""
        self._silent = Trouble(log, f"the witness {self.verifier.name} cosigns again", steady)

    def offer(self, wanted: Wanted) -> None:
        self._wanted[wanted.checkpoint.origin] = wanted
        self._there.set()

    def owes(self, wanted: Wanted) -> bool:
        return self._wanted.get(wanted.checkpoint.origin) is wanted

    def given(self, text: str) -> tuple[Signature, float] | None:
        """Its newest cosignature of this text, and when it came by the steady clock."""
        for of, signature, at in self._given.values():
            if of == text:
                return signature, at
        return None

    async def run(self, http: aiohttp.ClientSession) -> None:
        """Ask until cancelled. Raises Contradicted."""
        pause, most = PAUSES
        while True:
            await self._there.wait()
            self._there.clear()
            for wanted in list(self._wanted.values()):
                if not self.owes(wanted):
                    continue  # while another log's was asked for, or after a pause, there is a newer one
                if await self._ask(http, wanted):
                    pause = PAUSES[0]
                else:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, most)

    async def _ask(self, http: aiohttp.ClientSession, wanted: Wanted) -> bool:
        try:
            signature = await self._asking.cosign(http, wanted)
        except Failed as failed:
            self._failed(failed)
            return False
        except Contradicted:
            self._metrics.witness_failed(self.verifier.name, "contradiction")
            raise
        self._silent.is_over()
        self.prompt = self.asked = True
        if signature is not None:
            self._given[wanted.checkpoint.origin] = (wanted.text, signature, self._steady())
        if self.owes(wanted):
            del self._wanted[wanted.checkpoint.origin]
        self._changed.set()
        return True

    def _failed(self, failed: Failed) -> None:
        self._metrics.witness_failed(self.verifier.name, failed.reason)
        self._silent.is_there(f"the witness {self.verifier.name} {failed}; it is asked again, and nothing waits for it")
        self.prompt = False
        self._there.set()
        self._changed.set()


class Witnesses:
    """All witnesses of a bus's logs. ``clock``: seconds since 1970; ``steady``: seconds that only grow; ``at_work``:
    whether nobody else may have published since."""

    def __init__(
        self,
        table: LogTable,
        metrics: Metrics,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        at_work: Callable[[], bool] = lambda: True,
    ) -> None:
        self._table, self._metrics, self._clock, self._steady = table, metrics, clock, steady
        self._at_work = at_work
        self._changed = asyncio.Event()
        self._all = [
            Witness(Asking(each.url, Verifier.of(each.key)), metrics, self._changed, steady) for each in table.witnesses
        ]
        metrics.witnesses([each.verifier.name for each in self._all])
        self._http: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.contradiction: str | None = None
        """Why nothing may be published any more, in one line."""
        self._enough_at = steady()
        """When a published checkpoint had enough cosignatures last, as far as is known; at first, the start."""
        self._stopped = Trouble(log, "the log's checkpoints are cosigned again", steady)

    async def open(self) -> None:
        """Begin to ask. There may be no witness: then all of this is nothing."""
        if self._all:
            self._http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
            self._tasks = [asyncio.create_task(self._run(each, self._http)) for each in self._all]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._http is not None:
            await self._http.close()

    async def _run(self, witness: Witness, http: aiohttp.ClientSession) -> None:
        try:
            await witness.run(http)
        except Contradicted as contradicted:
            if not self._at_work():
                return  # what this recorder knows of the log is old: another has published more since
            self.contradiction = (
                f"the witness {witness.verifier.name} {contradicted}: the store was rolled back or is another one, and "
                "whoever went on with it would sign a second history. Nothing more is published or admitted. Stop the "
                f"node and give it the newer store, {RESTORE}"
            )
            log.error(self.contradiction)
            self._changed.set()

    # --- for the recorder

    async def ask(self, wanted: Wanted) -> None:
        """At a start: whether the log is behind what was cosigned of it. Who cannot be reached is told of, and hears of
        the next checkpoint as soon as it can be. Raises Contradicted."""
        self._enough_since(parse_note(wanted.note))
        await self._offer(wanted, ASK_FOR)
        if silent := [each.verifier.name for each in self._all if not each.asked]:
            text = "witnesses could not be asked whether the store is behind what they have cosigned"
            log.warning(text, extra={"facts": {"log": wanted.checkpoint.origin, "witnesses": silent}})

    async def gather(self, wanted: Wanted) -> bytes:
        """The checkpoint's note with the cosignatures that come in time. Raises Contradicted."""
        await self._offer(wanted, self._table.cosign_wait)
        return self.cosigned(wanted.note)

    def offer(self, wanted: Wanted) -> None:
        """A checkpoint for which nobody waits."""
        for each in self._all:
            each.offer(wanted)

    def cosigned(self, note: bytes) -> bytes:
        """The note with the newest cosignature of each witness that there is."""
        if not self._all:
            return note
        held = parse_note(note)
        given = {each.verifier: found[0] for each in self._all if (found := each.given(held.text)) is not None}
        return Note(held.text, (*_others(held.signatures, given), *given.values())).encode()

    def published(self, note: bytes) -> None:
        """This note was published; whether it counts as cosigned depends on when its cosignatures came."""
        if self._all:
            text = parse_note(note).text
            last = self._last(found[1] for each in self._all if (found := each.given(text)) is not None)
            self._enough_at = self._enough_at if last is None else max(self._enough_at, last)

    def cosigning(self) -> bool:
        """Whether checkpoints get enough cosignatures, or did so lately. Tells it when that changes."""
        age = self._steady() - self._enough_at if self._all else 0.0
        self._metrics.cosigned(age)
        needed, within = self._table.cosignatures, self._table.cosigned_within
        if not needed or age <= within:
            self._stopped.is_over()
            return True
        self._stopped.is_there(
            f"no checkpoint has had {needed} cosignatures for {age:.0f} s; the node is not ready until one has"
        )
        return False

    # --- within

    async def _offer(self, wanted: Wanted, wait: float) -> None:
        self.offer(wanted)
        for task in self._tasks:
            if task.done():
                task.result()  # it ends by a contradiction, or by a defect that must not pass for silence
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while self.contradiction is None and any(each.prompt and each.owes(wanted) for each in self._all):
                    self._changed.clear()
                    await self._changed.wait()
        for each in self._all:
            each.prompt = each.prompt and not each.owes(wanted)
        if self.contradiction is not None:
            raise Contradicted(self.contradiction)

    def _enough_since(self, note: Note) -> None:
        """What the published note tells of the time before this start, by the witnesses' clocks."""
        at = [max(times) for each in self._all if (times := each.verifier.times(note))]
        if (last := self._last(at)) is not None:
            self._enough_at -= max(self._clock() - last, 0.0)

    def _last(self, moments: Iterable[float]) -> float | None:
        """Of the moments at which a checkpoint was cosigned, the one at which it was by enough witnesses."""
        newest, needed = sorted(moments, reverse=True), max(self._table.cosignatures, 1)
        return newest[needed - 1] if len(newest) >= needed else None


def _others(signatures: Sequence[Signature], given: Iterable[Verifier]) -> Iterator[Signature]:
    """The signatures of all others: what a witness gives anew takes the place of what it gave before."""
    mine = {(verifier.name, verifier.key_id) for verifier in given}
    return (each for each in signatures if (each.name, each.key_id) not in mine)
