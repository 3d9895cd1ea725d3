"""A node: everything put together, started and stopped in one order.

Start: catalogue, store, broker, adapters, recorder, workers and sweeper, operations port, API: nothing is admitted
before it can be proved and carried out. Stop: not ready, nothing new admitted, what was begun is finished and
recorded, then everything in reverse.
A killed node needs no clean-up: the next start finds what is due in the store.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from aiohttp import web

from gsb.bus import Bus
from gsb.catalogue import Catalogue, build
from gsb.config import Tls
from gsb.errors import StoreUnavailable
from gsb.foundation import broker_of, store_of
from gsb.record import Recorder
from gsb.reload import Reloader
from gsb.runtime import Runtime
from gsb.stamp import Stamper
from gsb.store.contract import Store, StoreUnfit
from gsb.sweep import BATCH, INTERVAL, sweep
from gsb.trouble import Trouble
from gsb.web.app import API, OPERATIONS, Edge
from gsb.web.server import tls_context
from gsb.workers import Workers

log = logging.getLogger("gsb.node")

LAST_LOOK = 5.0
"""Seconds for the recorder's last look: a disk that hangs must not keep the node from stopping."""
NO_DESCRIPTORS = (
    "no file can be opened ({}): new connections are closed without an answer, and systems cannot be reached; allow "
    "the process more open files (ulimit -n, LimitNOFILE=) or lower limits.connections; service resumes by itself"
)


class Node:
    """One process of the bus, playing all roles."""

    def __init__(
        self,
        folder: Path,
        *,
        make_store: Callable[[Catalogue], Store] | None = None,
        reload: asyncio.Event | None = None,
    ) -> None:
        """Set ``reload`` to have ``folder`` read again. Raises ConfigInvalid when the deployment in it is not right."""
        catalogue = build(folder)
        runtime = Runtime()
        self.bus = Bus(
            catalogue=catalogue,
            store=make_store(catalogue) if make_store else store_of(catalogue, runtime.metrics),
            broker=broker_of(catalogue),
            runtime=runtime,
        )
        self.api = Edge(self.bus, API, guarded=True)
        self.operations = Edge(self.bus, OPERATIONS, guarded=False)
        self.recorder = Recorder(self.bus)
        self._stack = AsyncExitStack()
        self._workers = Workers(self.bus)
        self._no_descriptors = Trouble(log, "files and connections can be opened again")
        self.reloader = Reloader(self.bus, folder, reload or asyncio.Event(), self._workers.swapped.set)
        self.failed = asyncio.Event()
        """Set when a part of the node ended by itself: it should be stopped and started anew."""

    async def start(self) -> None:
        """Everything up, or nothing: what a failing start has opened is closed again."""
        async with AsyncExitStack() as stack:
            await self.bus.store.open()
            stack.push_async_callback(self.bus.store.close)
            await self.bus.broker.open()
            stack.push_async_callback(self.bus.broker.close)
            await self.bus.runtime.open(self.bus.catalogue)
            stack.push_async_callback(self.bus.runtime.close)
            await self.recorder.open()
            stack.push_async_callback(self.recorder.close)
            self._background(stack, self.recorder.watch())
            self._background(stack, self.recorder.run())
            if (table := self.bus.catalogue.gsb.log).timestamp is not None:
                stamper = Stamper(self.bus.store, table.path, table.timestamp, self.bus.clock)
                self._background(stack, stamper.run())
            self._background(stack, self._workers.run())
            self._background(stack, self._sweep())
            await self._listen(stack)
            self._background(stack, self.reloader.run())
            self._stack = stack.pop_all()
        catalogue = self.bus.catalogue
        log.info("started", extra={"facts": {"bus": catalogue.gsb.bus.id, "catalogue": catalogue.digest}})

    async def stop(self) -> None:
        """Drain for at most ``limits.drain`` seconds, then let go. Exchanges not finished by then stay in the store."""
        self.bus.draining = True
        workers = self._workers
        workers.let_go_at = asyncio.get_running_loop().time() + self.bus.catalogue.gsb.limits.drain
        log.info("draining", extra={"facts": {"calls": self.api.in_flight, "performing": workers.performing}})
        with suppress(TimeoutError):
            async with asyncio.timeout_at(workers.let_go_at):
                await workers.done()
                workers.let_go_at = float("-inf")
                # Whoever still waits, waits for what this node cannot finish: they are told to ask again.
                self.bus.leave()
                await self.api.idle.wait()
        self.bus.leave()
        with suppress(StoreUnavailable):
            await self.bus.refusals.flush(every=True)
        # What is committed is published before the node goes; where that cannot be, the next start does it.
        with suppress(TimeoutError, StoreUnfit):
            async with asyncio.timeout(LAST_LOOK):
                await self.recorder.look()
        await self._stack.aclose()
        log.info("stopped")

    def _background(self, stack: AsyncExitStack, work: Coroutine[None, None, None]) -> None:
        """Run ``work`` until the stack closes. If it ends by itself the node has failed, and says so."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)

        async def stop() -> None:
            task.remove_done_callback(self._ended)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

        stack.push_async_callback(stop)

    def _ended(self, task: asyncio.Task[None]) -> None:
        log.critical("a part of the node ended", exc_info=None if task.cancelled() else task.exception())
        self.failed.set()

    async def _sweep(self) -> None:
        while True:
            try:
                found = await sweep(self.bus)
                await self.bus.refusals.flush()
            except StoreUnavailable:
                found = 0  # the store has told it
            self._descriptors()
            if found < BATCH:
                await asyncio.sleep(INTERVAL)

    def _descriptors(self) -> None:
        """Tell when files, and so connections, cannot be opened: what refuses connections then says nothing."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            self._no_descriptors.is_there(NO_DESCRIPTORS.format(error.strerror))
        else:
            self._no_descriptors.is_over()

    async def _listen(self, stack: AsyncExitStack) -> None:
        catalogue = self.bus.catalogue
        listen = catalogue.gsb.listen
        context = tls_context(catalogue.folder, listen.tls) if isinstance(listen.tls, Tls) else None
        await self._serve(stack, self.operations, listen.operations_host, listen.operations_port, None)
        await self._serve(stack, self.api, listen.host, listen.port, context)

    async def _serve(
        self, stack: AsyncExitStack, edge: Edge, host: str, port: int, context: ssl.SSLContext | None
    ) -> None:
        # The handlers have had their time to drain when the runner is cleaned up, so it need not wait long.
        runner = web.ServerRunner(edge.server(), shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, host, port, ssl_context=context, backlog=1024).start()


async def run(node: Node, stopped: Awaitable[object]) -> bool:
    """Start the node, serve until ``stopped`` or until a part of it fails, stop it. Whether it stopped as asked."""
    await node.start()
    failed = asyncio.create_task(node.failed.wait())
    asked = asyncio.ensure_future(stopped)
    await asyncio.wait({failed, asked}, return_when=asyncio.FIRST_COMPLETED)
    failed.cancel()
    await node.stop()
    return asked.done() and not node.failed.is_set()
