"""A cluster whose nodes are replaced one after the other while an agency calls it through a balancer.

    async with rolling(tmp_path) as it:
        await it.replace(it.member("gateway-1"))
        await it.conclude()
        assert it.findings == []

Strict: each HTTP call must be answered, signed, and by something that the client need not repeat; the balancer must not
have lost a connection; and everything that is held to a cluster under faults (``tests.cluster``) must hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.cluster.battle import ENDS_WITHIN, Battle, battle
from tests.cluster.members import Member, Names
from tests.histories.desk import Operator
from tests.histories.load import Load
from tests.upgrade.balancer import Balancer, balancer
from tests.upgrade.strict import WIDTH, Sent, Strict, session, strict
from tests.upgrade.version import PREVIOUS_DRAINS

NOTHING: Mapping[str, str] = {}
FLOWS = 6
"""Calls begun after nodes were replaced that must end well before the next ones are."""
FLOWS_WITHIN = 90.0
"""Seconds within which work must flow after nodes were replaced, on a machine that is busy with other things."""


class Roll:
    """``findings`` is everything that was wrong so far."""

    def __init__(self, it: Battle, before: Balancer, clients: list[Strict], sent: Sent) -> None:
        self._it, self._before, self._clients, self._sent = it, before, clients, sent
        self.load = it.load

    def member(self, name: str) -> Member:
        (found,) = (each for each in self._it.members if each.name == name)
        return found

    @property
    def members(self) -> list[Member]:
        return self._it.members

    async def start(self) -> None:
        """Everybody up, found ready, and the load on."""
        for member in self.members:
            await member.start()
        await asyncio.gather(*(self._before.takes(each.name) for each in self._it.of("gateway")))
        self._it.operator.start()
        self.load.new_life()
        await self.load.full()

    async def replace(self, *members: Member, version: Mapping[str, str] = NOTHING, taken_out: bool = False) -> None:
        """Stop these, each by SIGTERM, and start them again, of that version; return when work flows.

        ``taken_out``: the balancer knows before the node does, as in Kubernetes; else it must see that the node is not
        ready any more.
        """
        await asyncio.gather(*(self._replace(each, version, taken_out) for each in members))
        begun = len(self.load.ops)

        def enough() -> bool:
            later = [op.ended for op in self.load.ops[begun:] if op.ended]
            return sum(end.state == "done" for end in later) >= FLOWS

        async with asyncio.timeout(FLOWS_WITHIN):
            await self.load.until(enough)

    async def _replace(self, member: Member, version: Mapping[str, str], taken_out: bool) -> None:
        at_the_front = member.role == "gateway"
        if at_the_front and taken_out:
            self._before.take_out(member.name)
            if member.version and not PREVIOUS_DRAINS:
                # It refuses what it reads after it was told to stop, which the pause before that must outlast.
                await self._before.left(member.name)
        await member.stop()
        member.become(version)
        await member.start()
        if at_the_front:
            self._before.put_back(member.name)
            await self._before.takes(member.name)

    async def terms(self) -> int:
        """How many nodes have had the recorder's duty, one after the other."""
        return await self._it.terms()

    async def conclude(self) -> list[str]:
        """Let everything end, and hold it to every promise; what is wrong."""
        self.load.stop()
        async with asyncio.timeout(ENDS_WITHIN):
            await self.load.settled()
        # What is asked from here on is asked by the checker, while members end.
        await self._it.operator.stop()
        wrong = [fault for each in self._clients for fault in each.faults]
        wrong += [f"{count} times {name}" for name, count in self._before.wrong().items()]
        if (calls := sum(each.calls for each in self._clients)) != self._sent.times:
            wrong.append(f"{calls} calls were sent {self._sent.times} times")
        await self._it.conclude()
        return wrong + [str(each) for each in self._it.findings]


@asynccontextmanager
async def rolling(
    root: Path, limits: Mapping[str, float], *, kept: bool = True, version: Mapping[str, str] = NOTHING
) -> AsyncIterator[Roll]:
    """Two nodes of each role over PostgreSQL and Kafka, not yet started, of that version. ``kept``: callers keep their
    connections, as they do unless told otherwise."""
    async with AsyncExitStack() as stack:
        it = await stack.enter_async_context(battle(root, kafka_nodes=1))
        for member in it.members:
            member.deployment.gsb["limits"] = dict(limits)
            member.deployment.write()
            member.become(version)
        gateways = {member.name: member.deployment for member in it.of("gateway")}
        before = stack.enter_context(balancer(gateways))
        sent = Sent()
        there = await stack.enter_async_context(session(sent, Names([before], 1), kept=kept))
        clients = [strict(it.deployment, owner, there) for owner in ("payroll", "olive")]
        it.load = Load(clients[0], 1, WIDTH)
        it.operator = Operator(clients[1], it.effects, it.core)
        stack.push_async_callback(it.close)
        yield Roll(it, before, clients, sent)
