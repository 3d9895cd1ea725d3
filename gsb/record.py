"""The recorder: gives committed entries their places, signs, writes the log's files and publishes the checkpoint.

One loop, the same from the first look after a crash to the last before the stop: what has its places is written and
published; what has none gets them, together with the signed checkpoint, in one commit. The order is the safety: no
checkpoint is seen before the store has it and the files under it are durable, and no file is trusted that can be made
again. A crash anywhere leaves work for the next look.

Of several recorders one is at work, for as long as its fence stands (``gsb.duty``); the others stand by. One that was
stopped in the middle and goes on after another took over does no harm. It signs nothing that anybody sees, since
``sequence`` compares and refuses it; whatever tile it still writes is made of entries that have their places, and so is
the same as anybody else's. It looks at its fence when all its files lie ready under names of its own, right before they
get theirs; if it is stopped in that very instant, all that it can do is to put an older checkpoint over a newer one:
true, but late. The store has the newer one, which is what gateways hand out, and the recorder at work sees at its next
look that the file is not the one that it wrote, and writes it again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass

from gsb.ask import Contradicted, Wanted
from gsb.bus import Bus
from gsb.cosign import Witnesses
from gsb.errors import StoreUnavailable
from gsb.evidence.checkpoint import Checkpoint
from gsb.evidence.log import CHECKPOINT, Edge, Folder, Mark, tiles_of
from gsb.evidence.merkle import EMPTY
from gsb.evidence.tiles import WIDTH
from gsb.lag import WATCH, Lag
from gsb.resume import BATCH, Ground, checkpoint_of, examine, has_ended, published, resume, rotate
from gsb.store.contract import StoreUnfit
from gsb.store.logs import LogMoved, LogState

log = logging.getLogger("gsb.record")

UNSEEN = "nothing of the store's log can be read at log.path, so this node cannot tell whether the store is an old one"


class Relieved(Exception):
    """It is not this recorder's duty any more: another may be at work, and knows better what is there."""


@dataclass(frozen=True, slots=True)
class Grown:
    """The edge of a log that has its places and is not published, and the files that it has changed."""

    origin: str
    since: int
    edge: Edge
    files: Mapping[str, bytes]


class Recorder:
    """A recorder of a store. ``steady`` gives seconds that only grow; ``fence`` the number of this recorder's time at
    work, and None while it stands by."""

    def __init__(
        self,
        bus: Bus,
        steady: Callable[[], float] = time.monotonic,
        fence: Callable[[], int | None] = lambda: 0,
    ) -> None:
        self._bus, self._steady, self._fence = bus, steady, fence
        self._number: int | None = None
        """The fence under which the log was taken up."""
        self._folder = Folder(bus.catalogue.gsb.log.path)
        self._table = bus.catalogue.gsb.log
        self._alone = asyncio.Lock()
        self._edges: dict[str, Edge] = {}
        """By the origin of the log: the edge of what is published of it."""
        self._grown: Grown | None = None
        self._more = True
        """Whether there may be entries without their places that were there when this look began."""
        self._broken: OSError | None = None
        """Why the files could not be written at the last attempt."""
        self._stated_at: float | None = None
        """When this process has written the checkpoint of the open log; None also when something is in doubt since."""
        self._marks: dict[str, Mark | None] = {}
        """By the origin of the log: how its checkpoint's file was when this recorder had written it."""
        self._witnesses = self._new_witnesses()
        self.lag = Lag(bus, steady)

    @property
    def _ground(self) -> Ground:
        """With the keys of the catalogue in force."""
        return Ground.of(self._bus.catalogue, self._bus.store, self._folder)

    def _new_witnesses(self) -> Witnesses:
        return Witnesses(self._table, self._bus.metrics, self._bus.clock, self._steady, self._at_work)

    async def open(self) -> None:
        """At work: make sure that the log may be continued, begin the first, make again what is missing of the files.
        Else only look whether the store is behind what was published. Raises StoreUnfit, StoreUnavailable, OSError."""
        if self._fence() is None:
            await self.examine()
        else:
            with suppress(Relieved):  # then another took over meanwhile, and this one stands by
                await self._take_up()

    async def examine(self) -> None:
        """Raises StoreUnfit when the store is behind what was published, as far as this node can read it, OSError."""
        if not await examine(self._ground):
            facts = {"folder": str(self._ground.folder)}
            log.warning(UNSEEN, extra={"facts": facts})

    async def _take_up(self) -> None:
        """Begin with nothing that is remembered: another recorder may have been at work."""
        async with self._alone:
            self._doubt()
            self._number = self._fence()
            with ExitStack() as failed:
                failed.callback(self._stand_by)
                await self._resume()
                failed.pop_all()

    def _stand_by(self) -> None:
        self._number = None

    async def _resume(self) -> None:
        await resume(self._ground, self._bus.clock())
        found = await asyncio.to_thread(published, self._ground.folder)
        there = {checkpoint.origin for checkpoint in found.values()}
        for state in await self._bus.store.logs():
            # Not where an operator has begun a new log instead: what was published of that one, the store cannot tell.
            if state.closed and state.origin not in there and await has_ended(self._bus.store, state):
                await self._make_again(state, "its files are missing")
        await self.close()
        self._witnesses = self._new_witnesses()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.close)
            await self._witnesses.open()
            await self._ask()
            stack.pop_all()

    async def close(self) -> None:
        """Ask nobody any more."""
        await self._witnesses.close()

    def _at_work(self) -> bool:
        """Whether the log was taken up, and nobody else may have done so since."""
        return self._number is not None and self._fence() == self._number

    def _stay(self) -> None:
        """Raises Relieved."""
        if not self._at_work():
            raise Relieved

    async def run(self) -> None:
        """Until cancelled. Raises StoreUnfit."""
        while True:
            await self.turn()
            # What is committed just after a look waits for the next one, and then for the writing.
            await asyncio.sleep(self._table.every / 2)

    async def turn(self) -> None:
        """One look, if it is this recorder's duty. Raises StoreUnfit."""
        if self._fence() is None:
            if self._number is not None:
                self._stand_by()
                await self.close()
            return
        if not self._at_work():
            try:
                await self._take_up()
            except (OSError, StoreUnavailable, LogMoved, Relieved) as error:
                facts = {"error": str(error) or type(error).__name__}
                log.warning("the log cannot be taken up yet", extra={"facts": facts})
                return
        await self.look()

    async def watch(self) -> None:
        """Until cancelled, let the bus know whether the log keeps up; also while a look hangs at the disk."""
        while True:
            await self.measure()
            await asyncio.sleep(WATCH)

    async def look(self) -> None:
        """Record everything that there is. What goes wrong is told, and tried again at the next look.

        What is committed meanwhile waits for the next one: under load there is always something, and to write files for
        a few entries costs nearly as much as for many.
        """
        async with self._alone:
            self._more = True
            try:
                while await self._step():
                    await self.measure()
            except OSError as error:
                # Without descriptors nothing is wrong with the disk: then only the limits count.
                self._broken = None if error.errno in (errno.EMFILE, errno.ENFILE) else error
                self._doubt()
            except Contradicted:
                self._doubt()
            except (LogMoved, Relieved, StoreUnavailable) as error:
                # The store has told of itself, and whatever it did with the last call is read from it anew.
                log.info("the log is read anew", extra={"facts": {"error": type(error).__name__}})
                self._doubt()
            await self.measure()

    def _doubt(self) -> None:
        """Trust nothing that is only remembered."""
        self._edges.clear()
        self._marks.clear()
        self._grown = self._stated_at = None

    async def measure(self) -> None:
        """See how far the log is behind, and whether too far to admit anything. Raises StoreUnfit."""
        self._bus.metrics.at_work(self._at_work())
        self._bus.cosigned = not self._at_work() or self._witnesses.cosigning()
        broken = None
        if self._at_work() and self._broken is not None:
            broken = f"cannot be written ({self._broken}): make room for {self._table.path} or mend its file system"
        await self.lag.measure(broken)
        if self._at_work() and self._witnesses.contradiction is not None:
            self._bus.behind = True  # for good; the witnesses have told why

    # --- one step

    async def _step(self) -> bool:
        """The next thing to do, if there is one. Raises Relieved, and StoreUnfit when the store has gone back."""
        self._stay()
        if self._witnesses.contradiction is not None:
            return False
        logs = await self.lag.logs()
        for state in logs:
            if state.published < state.size:
                await self._publish(state)
                return True
        if await rotate(self._ground, logs[-1], self._bus.clock()):
            self._stated_at, self._more = None, True
            return True
        if self._more and await self._sequence(logs):
            return True
        await self._add_cosignatures(logs)
        await self._mend(logs)
        await self._restate(logs[-1])
        return False

    async def _sequence(self, logs: Sequence[LogState]) -> bool:
        # Asked first because it opens nothing: an idle node needs no descriptors, however few are left.
        if not (await self._bus.store.backlog()).entries:
            return False
        given = await self._bus.store.unsequenced(BATCH)
        if given is None:
            return False
        state = next((state for state in logs if state.origin == given.origin), None)
        if state is None:
            raise LogMoved  # begun in between, by another recorder
        # After the last of a closed log come those of the next, which were not asked for.
        self._more = len(given.contents) == BATCH or state.closed
        edge = await self._edge(state)
        if edge.size != given.size:
            raise LogMoved  # in between, by another recorder: what would be signed is not what it is called
        # From here on the edge is ahead of what is published, and stands for nothing unless the store agrees.
        del self._edges[state.origin]
        files = await asyncio.to_thread(edge.extend, given.contents)
        self._stay()
        text = Checkpoint(given.origin, edge.size, edge.root()).text()
        await self._bus.store.sequence(given, self._ground.signer(given.origin, state.checkpoint).sign(text))
        self._grown = Grown(given.origin, given.size, edge, files)
        return True

    async def _publish(self, state: LogState) -> None:
        """Write the files of what has its places, and publish the checkpoint that the store signed with them."""
        grown, self._grown = self._grown, None
        if grown is None or (grown.origin, grown.since, grown.edge.size) != (state.origin, state.published, state.size):
            grown = await self._grow(state)
        agrees(grown.edge, state.checkpoint)
        await self._write(state.origin, grown.files)
        await self._publish_with(state, state.size, await self._witnesses.gather(self._wanted(state, state.checkpoint)))
        self._stated_at = self._steady()
        # Only now, when nobody is told of a checkpoint under which a partial file is the right one.
        full = [path for path in grown.files if ".p/" not in path]
        await asyncio.to_thread(self._ground.folder.files(state.origin).forget, full)
        self._edges[state.origin] = grown.edge

    async def _publish_with(self, state: LogState, size: int, note: bytes) -> None:
        """Let everybody read this note, for which the files of this size are there."""
        await self._write(state.origin, {CHECKPOINT: note})
        self._marks[state.origin] = self._ground.folder.files(state.origin).mark(CHECKPOINT)
        self._broken = None
        self._stay()
        await self._bus.store.publish(state.origin, size, note)
        self._witnesses.published(note)

    async def _write(self, origin: str, contents: Mapping[str, bytes]) -> None:
        """Raises Relieved, and then no file has changed."""
        await asyncio.to_thread(self._ground.folder.files(origin).write, contents, self._stay)

    async def _mend(self, logs: Sequence[LogState]) -> None:
        """Write every published checkpoint again whose file is not the one that was written here."""
        for state in logs:
            mark = self._marks.get(state.origin)
            if mark is not None and mark != self._ground.folder.files(state.origin).mark(CHECKPOINT):
                log.warning("the checkpoint's file was another", extra={"facts": {"log": state.origin}})
                await self._publish_with(state, state.published, state.published_note)

    async def _add_cosignatures(self, logs: Sequence[LogState]) -> None:
        """Publish checkpoints again that were cosigned after they were published; also the last one of a closed log."""
        for state in logs:
            if (
                state.published_note
                and (note := self._witnesses.cosigned(state.published_note)) != state.published_note
            ):
                await self._publish_with(state, state.published, note)

    async def _restate(self, state: LogState) -> None:
        """Publish the checkpoint once more when it is old, so that silence is seen to be silence, and when it is not
        certain that it could be written."""
        fresh = self._stated_at is not None and self._steady() < self._stated_at + self._table.idle
        if fresh or not state.published:
            return
        await self._edge(state)
        note = await self._witnesses.gather(self._wanted(state, state.published_note))
        await self._publish_with(state, state.published, note)
        self._stated_at = self._steady()

    # --- witnesses

    async def _ask(self) -> None:
        """Let the witnesses say whether the open log is behind what they have cosigned, and cosign what others lack."""
        *closed, last = await self._bus.store.logs()
        for state in closed:
            # Not where an operator has begun a new log instead: of that one witnesses may well have seen more.
            if state.published and await has_ended(self._bus.store, state):
                with suppress(StoreUnfit):  # its key was put away since
                    self._witnesses.offer(self._wanted(state, state.published_note))
        nothing = Checkpoint(last.origin, 0, EMPTY).text()
        note = last.published_note or self._ground.signer(last.origin, last.checkpoint).sign(nothing)
        try:
            await self._witnesses.ask(self._wanted(last, note))
        except Contradicted as contradicted:
            raise StoreUnfit(str(contradicted)) from contradicted

    def _wanted(self, state: LogState, note: bytes) -> Wanted:
        files = self._ground.folder.files(state.origin)
        signer = self._ground.signer(state.origin, state.checkpoint)
        return Wanted.of(signer.verifier, note, state.size, tiles_of(files))

    # --- the edge of a log

    async def _grow(self, state: LogState) -> Grown:
        """The edge and the files of entries that got their places without being published."""
        edge = await self._edge(state)
        del self._edges[state.origin]
        contents = await self._bus.store.entries(state.origin, state.published, state.size - state.published)
        return Grown(state.origin, state.published, edge, await asyncio.to_thread(edge.extend, contents))

    async def _edge(self, state: LogState) -> Edge:
        """The edge of what is published of a log, from its files if they are what the store says that they are."""
        edge = self._edges.get(state.origin)
        if edge is None or edge.size != state.published:
            edge = self._edges[state.origin] = await self._read_edge(state)
        return edge

    async def _read_edge(self, state: LogState) -> Edge:
        size, files = state.published, self._ground.folder.files(state.origin)
        tail = await self._bus.store.entries(state.origin, size - size % WIDTH, size % WIDTH)
        try:
            edge = await asyncio.to_thread(Edge.read, files, size, tail)
            agrees(edge, state.published_note)
        except (ValueError, StoreUnfit) as error:
            return await self._make_again(state, str(error))
        return edge

    async def _make_again(self, state: LogState, why: str) -> Edge:
        """Write every file of a log again, from the store. Raises StoreUnfit when the entries are not those signed."""
        log.warning("the files of a log are made again", extra={"facts": {"log": state.origin, "why": why}})
        edge = Edge()
        while edge.size < state.published:
            wanted = min(BATCH, state.published - edge.size)
            contents = await self._bus.store.entries(state.origin, edge.size, wanted)
            if not contents:
                break
            await self._write(state.origin, await asyncio.to_thread(edge.extend, contents))
        agrees(edge, state.published_note)
        await self._write(state.origin, {CHECKPOINT: state.published_note})
        return edge


def agrees(edge: Edge, note: bytes) -> None:
    """Raises StoreUnfit unless the entries make the tree that was signed; an empty note stands for the empty tree."""
    signed = checkpoint_of(note) if note else Checkpoint("nothing", 0, EMPTY)
    if signed is None or (signed.size, signed.root) != (edge.size, edge.root()):
        raise StoreUnfit(f"{edge.size} entries of the evidence log do not make the tree that was signed for them")
