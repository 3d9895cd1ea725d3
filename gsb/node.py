"""A node: everything put together, started and stopped in one order.

Start: catalogue, store, broker, adapters, recorder, workers and sweeper, operations port, API, and of these what
belongs to the roles that the node plays: nothing is admitted before it can be proved and carried out. Stop: not ready,
no work taken that others can do, calls taken until others get them, no new connection, what was begun is finished and
recorded, then everything in reverse.
A killed node needs no clean-up: the next start, or another node, finds what is due in the store.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

from gsb import signing
from gsb.backends import KafkaTable
from gsb.bus import Bus
from gsb.catalogue import Catalogue, SystemInfo, build
from gsb.config import Listen, Tls
from gsb.duty import Duty
from gsb.errors import StoreUnavailable
from gsb.forms import is_loopback
from gsb.foundation import broker_of, shares_of, store_of, tracer_of
from gsb.jwks import KeySets
from gsb.record import Recorder
from gsb.reload import Reloader
from gsb.roles import ALL, Role, Roles
from gsb.runtime import Runtime
from gsb.shares.budgets import SharedBudgets
from gsb.shares.places import Dealer
from gsb.skew import measure, watch
from gsb.stamp import Stamper
from gsb.store.contract import Store, StoreUnfit
from gsb.sweep import BATCH, INTERVAL, sweep
from gsb.trouble import Trouble
from gsb.web.app import API, OPERATIONS, Edge
from gsb.web.server import renew, tls_context
from gsb.workers import Workers

log = logging.getLogger("gsb.node")

LAST_LOOK = 5.0
"""Seconds for the recorder's last look: a disk that hangs must not keep the node from stopping."""
SHUTDOWN = 1.0
"""Seconds for connections to end: handlers have had their time to drain before."""
BACKLOG = 1024
"""Connections that wait for the node to take them."""
NO_DESCRIPTORS = (
    "no file can be opened ({}): new connections are closed without an answer, and systems cannot be reached; allow "
    "the process more open files (ulimit -n, LimitNOFILE=) or lower limits.connections; service resumes by itself"
)


class Ports(NamedTuple):
    """Where this node listens instead of the ports in ``gsb.toml``, which all nodes of a deployment have in common."""

    api: int | None = None
    operations: int | None = None
    held: socket.socket | None = None
    """Where the API's callers are already: another process listens there, and goes on to when this node has ended."""


AS_CONFIGURED = Ports()


def check_held(held: socket.socket, listen: Listen) -> None:
    """The rule for ``listen.host``, for an address that somebody else has chosen. Raises ValueError."""
    if held.family not in (socket.AF_INET, socket.AF_INET6) or held.type != socket.SOCK_STREAM:
        raise ValueError("the socket that is handed over is not of TCP: ListenStream= takes ADDRESS:PORT")
    if listen.tls is None and not is_loopback(host := str(held.getsockname()[0])):
        raise ValueError(
            f"the socket that is handed over listens on {host}; plain HTTP is only for loopback addresses: set "
            'listen.tls, or listen.tls = "upstream"'
        )


class Node:
    """One process of the bus, with the roles that it plays."""

    def __init__(
        self,
        folder: Path,
        *,
        roles: Roles = ALL,
        ports: Ports = AS_CONFIGURED,
        make_store: Callable[[Catalogue], Store] | None = None,
        reload: asyncio.Event | None = None,
    ) -> None:
        """Set ``reload`` to have ``folder`` read again. Raises ConfigInvalid when the deployment in it is not right,
        RolesUnfit, StoreUnfit, BrokerUnfit; ValueError for a socket from which no call may be taken."""
        catalogue = build(folder)
        roles.check(catalogue)
        if ports.held is not None:
            check_held(ports.held, catalogue.gsb.listen)
        runtime = Runtime(works_for=roles.works_for)
        store = make_store(catalogue) if make_store else store_of(catalogue, runtime.metrics)
        broker, shares = broker_of(catalogue, roles), shares_of(store)
        self.bus = Bus(catalogue, store, broker, runtime, roles=roles, shares=shares)
        self._ports = ports
        self.api = Edge(self.bus, API, guarded=True)
        self.operations = Edge(self.bus, OPERATIONS, guarded=False)
        self._duty = Duty(shares, self.bus.node)
        self.recorder = Recorder(self.bus, fence=self._duty.fence)
        self._stack = AsyncExitStack()
        self._workers = Workers(self.bus)
        self._dealer: Dealer | None = None
        if not shares.alone:
            self.bus.budgets = SharedBudgets(shares, self.bus.clock)
            self._dealer = Dealer(shares, self.bus.node, self._systems, self._workers.look_again)
            runtime.places = self._dealer.places
        self._no_descriptors = Trouble(log, "files and connections can be opened again")
        self.reloader = Reloader(self.bus, folder, reload or asyncio.Event(), self._swapped)
        self._tls: ssl.SSLContext | None = None
        """Of the API, if this node ends TLS there."""
        self._listening: dict[str, int] = {}
        self._doors = web.ServerRunner(self.api.server(), shutdown_timeout=SHUTDOWN)
        """Where the API listens, on a gateway."""
        self.failed = asyncio.Event()
        """Set when a part of the node ended by itself: it should be stopped and started anew."""

    async def start(self) -> None:
        """Everything up, or nothing: what a failing start has opened is closed again."""
        async with AsyncExitStack() as stack:
            self._trace(stack)
            await self.bus.store.open()
            stack.push_async_callback(self.bus.store.close)
            self.bus.withheld = await self.bus.store.withheld()
            await self.bus.shares.open()
            stack.push_async_callback(self.bus.shares.close)
            await self.bus.broker.open()
            stack.push_async_callback(self.bus.broker.close)
            await self.bus.runtime.open(self.bus.catalogue)
            stack.push_async_callback(self.bus.runtime.close)
            await measure(self.bus)
            self._background(stack, watch(self.bus))
            await signing.look(self.bus)
            self._background(stack, signing.watch(self.bus))
            key_sets = KeySets(self.bus)
            await key_sets.first()
            self._background(stack, key_sets.run())
            await self._record(stack)
            if Role.WORKER in self.bus.roles:
                if self._dealer is not None:
                    self._background(stack, self._dealer.run())
                self._background(stack, self._workers.run())
            if Role.GATEWAY in self.bus.roles:
                self._background(stack, self._sweep())
            await self._listen(stack)
            self._background(stack, self.reloader.run())
            self._stack = stack.pop_all()
        catalogue = self.bus.catalogue
        facts = {"bus": catalogue.gsb.bus.id, "catalogue": catalogue.digest, "node": self.bus.node}
        log.info("started", extra={"facts": facts | {"roles": sorted(self.bus.roles.played), **self._listening}})

    def _trace(self, stack: AsyncExitStack) -> None:
        """Before and after everything else, so that no span is lost."""
        self.bus.tracer = tracer_of(self.bus.catalogue, self.bus.node, self.bus.metrics)
        if self.bus.tracer is not None:
            stack.push_async_callback(self.bus.tracer.close)

    def _swapped(self) -> None:
        """There is another catalogue."""
        self._workers.swapped.set()
        tls = self.bus.catalogue.gsb.listen.tls
        if self._tls is not None and isinstance(tls, Tls):
            renew(self._tls, self.bus.catalogue.folder, tls)

    def _systems(self) -> list[SystemInfo]:
        """Those that this node works for by now."""
        return [system for system in self.bus.catalogue.systems.values() if self.bus.roles.works_for(system.id)]

    async def _record(self, stack: AsyncExitStack) -> None:
        """As a recorder, keep the log as long as that is this node's duty; else see whether somebody does. Every node
        ends when the store goes back: a worker would begin again what has taken effect."""
        if Role.RECORDER not in self.bus.roles:
            await self.recorder.examine()
            self._background(stack, self.recorder.lag.watch())
            return
        await self._duty.take()
        stack.push_async_callback(self._duty.leave)
        self._background(stack, self._duty.run())  # to take up a long log takes longer than a lease
        await self.recorder.open()
        stack.push_async_callback(self.recorder.close)
        self._background(stack, self.recorder.watch())
        self._background(stack, self.recorder.run())
        if (table := self.bus.catalogue.gsb.log).timestamp is not None:
            stamper = Stamper(self.bus.store, table.path, table.timestamp, self.bus.clock)
            self._background(stack, stamper.run(self._duty.held))

    async def stop(self) -> None:
        """Drain for at most ``limits.drain`` seconds, then let go. Exchanges not finished by then stay in the store."""
        self.bus.draining = True
        workers, limits = self._workers, self.bus.catalogue.gsb.limits
        until = asyncio.get_running_loop().time() + limits.drain
        # Where a part has failed, as when the store went back, what has begun is finished and nothing more begins.
        self.api.closed = failed = self.failed.is_set()
        workers.let_go_at = float("-inf") if failed else until
        if isinstance(self.bus.catalogue.gsb.broker, KafkaTable):
            workers.go()
        log.info("draining", extra={"facts": {"calls": self.api.in_flight, "performing": workers.performing}})
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._give_notice(limits.notice)
                await workers.done()
                workers.let_go_at = float("-inf")
                # Whoever still waits, waits for what this node cannot finish: they are told to ask again.
                self.bus.leave()
                await self.api.idle.wait()
        self.bus.leave()
        # Connections that were kept and brought nothing since are ended only now, when they hold up nobody.
        await self._doors.cleanup()
        with suppress(StoreUnavailable):
            await self.bus.refusals.flush(every=True)
        # What is committed is published before the node goes; where that cannot be, the next start does it.
        if self._duty.held():
            with suppress(TimeoutError, StoreUnfit):
                async with asyncio.timeout(LAST_LOOK):
                    await self.recorder.look()
        await self._stack.aclose()
        log.info("stopped")

    async def _give_notice(self, seconds: float) -> None:
        """Go on taking calls until whoever spreads them over the nodes has seen that this one goes, as far as there are
        others; then take no new connection. Those that are there may bring a last call each."""
        if self.api.closed:
            return
        if Role.GATEWAY in self.bus.roles and not self.bus.shares.alone:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.failed.wait()
        for site in self._doors.sites:
            await site.stop()

    def _background(self, stack: AsyncExitStack, work: Coroutine[None, None, None]) -> None:
        """Run ``work`` until the stack closes. If it ends by itself the node has failed, and says so."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._ended)

        async def stop() -> None:
            task.remove_done_callback(self._ended)
            task.cancel()
            await asyncio.wait([task])  # what it failed with was told when it did

        stack.push_async_callback(stop)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        # What is wrong with a store is told in words; the trace is for defects.
        trace, facts = (None, {"error": str(error)}) if isinstance(error, StoreUnfit) else (error, {})
        log.critical("a part of the node ended", exc_info=trace, extra={"facts": facts})
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
        listen = self.bus.catalogue.gsb.listen
        port = listen.operations_port if self._ports.operations is None else self._ports.operations
        runner = web.ServerRunner(self.operations.server(), shutdown_timeout=SHUTDOWN)
        self._listening["operations_port"] = await _serve(stack, runner, listen.operations_host, port, None)
        if Role.GATEWAY in self.bus.roles:
            if isinstance(listen.tls, Tls):
                self._tls = tls_context(self.bus.catalogue.folder, listen.tls)
            port = listen.port if self._ports.api is None else self._ports.api
            self._listening["port"] = await _serve(stack, self._doors, listen.host, port, self._tls, self._ports.held)


async def _serve(
    stack: AsyncExitStack,
    runner: web.ServerRunner,
    host: str,
    port: int,
    context: ssl.SSLContext | None,
    held: socket.socket | None = None,
) -> int:
    """The port, also where any free one was asked for."""
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    if held is None:
        await web.TCPSite(runner, host, port, ssl_context=context, backlog=BACKLOG).start()
    else:
        await web.SockSite(runner, held, ssl_context=context, backlog=BACKLOG).start()
    return int(runner.addresses[0][1])


async def run(node: Node, stopped: Awaitable[object]) -> bool:
    """Start the node, serve until ``stopped`` or until a part of it fails, stop it. Whether it stopped as asked."""
    await node.start()
    failed = asyncio.create_task(node.failed.wait())
    asked = asyncio.ensure_future(stopped)
    await asyncio.wait({failed, asked}, return_when=asyncio.FIRST_COMPLETED)
    failed.cancel()
    await node.stop()
    return asked.done() and not node.failed.is_set()
