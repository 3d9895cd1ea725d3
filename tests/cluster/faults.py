"""What may happen to a cluster: each kind of fault, drawn again and again from a seeded list.

    for kind in drawn(5, seed=1):
        await it.survive(FAULTS[kind](it))

A fault returns when what it has ended is started again and what it has broken is mended. How long it lasts, and whom of
several it hits, is chance.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from tests.cluster.battle import LOOK, Battle
from tests.cluster.members import PARTITIONS, Member
from tests.cluster.proxy import Wire

Fault = Callable[[Battle], Awaitable[None]]
ROLES = ("gateway", "worker", "recorder")
BRIEF = (0.2, 1.0)
"""Seconds, from and to, for which most faults last."""
LONG = (5.5, 7.5)
"""Seconds for which some last: memberships, connections and the recorder's lease run out."""
FOR_GOOD = 32.0
"""Seconds for which a few nodes are halted while others go on failing: the leases of what they perform run out."""
RARELY = 0.15
"""How often a fault is a long one."""
SILENT, DEAF = 0.3, 0.7
"""How often a way is not cut at once: up to the first it is only silent, up to the second answers are lost first."""
CONNECTS_WITHIN = 60.0
"""Seconds within which a member that was cut off is connected again, on a machine that is busy with other things."""
WORK = "gsb.work.ledger"
"""The topic on which the system's work is."""
SLOW = (0.02, 0.3)
"""Seconds by which each piece of a slow stream arrives later."""


async def lasting(it: Battle, rarely: float = RARELY) -> None:
    """Let it last."""
    least, most = LONG if it.random.random() < rarely else BRIEF
    await asyncio.sleep(it.random.uniform(least, most))


# --- members


async def killed(it: Battle, role: str) -> None:
    # Of the recorders always the one at work: nobody takes anything over from the other.
    member = await it.on_duty() if role == "recorder" else it.one_of(role)
    await member.kill()
    await lasting(it)
    await member.start()


async def halted(it: Battle, role: str) -> None:
    member = it.one_of(role)
    member.process.send_signal(signal.SIGSTOP)
    # Of a gateway nobody takes anything over, and its callers would only wait.
    if role != "gateway" and len(it.of(role)) > 1 and it.random.random() < RARELY:
        it.go_on(member, FOR_GOOD)
        return
    try:
        await lasting(it, 0.5)
    finally:
        member.process.send_signal(signal.SIGCONT)


# --- the network


async def disturbed(
    it: Battle, role: str, server: str, disturb: Callable[[Battle, list[Wire]], Awaitable[None]]
) -> None:
    """What leads from one member of the role, or from all, to the server."""
    members: Iterable[Member] = it.of(role) if it.random.random() < 0.5 else [it.one_of(role)]
    wires = [wire for member in members for wire in member.wires[server]]
    # After a fault of the same kind it may still be about to connect again; one that never does is a finding.
    end = time.monotonic() + CONNECTS_WITHIN
    while not any(wire.connections for wire in wires):
        assert time.monotonic() < end, f"no {role} is connected to {server}"
        await asyncio.sleep(LOOK)
    try:
        await disturb(it, wires)
        await lasting(it)
    finally:
        for wire in wires:
            wire.restore()


async def cut(it: Battle, wires: Iterable[Wire]) -> None:
    """Reset and refused; or silent, as if packets were lost; or cut after questions have arrived, not their answers."""
    chance = it.random.random()
    for wire in wires:
        if chance < SILENT:
            wire.hang()
        elif chance < DEAF:
            wire.deafen()
        else:
            wire.cut()
    if SILENT <= chance < DEAF:
        await asyncio.sleep(it.random.uniform(*BRIEF))
        for wire in wires:
            wire.cut()


async def slow(it: Battle, wires: Iterable[Wire]) -> None:
    delay = it.random.uniform(*SLOW)
    for wire in wires:
        wire.slow(delay)


# --- PostgreSQL


async def restarted(it: Battle) -> None:
    await asyncio.to_thread(it.postgres.stop)
    await lasting(it)
    await asyncio.to_thread(it.postgres.start)


async def crashed(it: Battle) -> None:
    if it.random.random() < 0.5:
        await asyncio.to_thread(it.postgres.kill)
    else:
        await asyncio.to_thread(it.postgres.stop, signal.SIGQUIT)
    await lasting(it)
    await asyncio.to_thread(it.postgres.start)


# --- Kafka


async def broker_killed(it: Battle, *, leader: bool) -> None:
    """The one that leads a partition of the system's work, or one that does not."""
    assert it.kafka is not None
    await asyncio.to_thread(it.kafka.wait)  # whoever died last is back
    partition = it.random.randrange(PARTITIONS)
    led = await asyncio.to_thread(it.kafka.leader, WORK, partition)
    node = led if leader else it.random.choice([each for each in it.kafka.nodes if each is not led])
    await asyncio.to_thread(node.kill)
    await lasting(it)
    node.start()


# --- all of them

MEMBERS: dict[str, Fault] = {
    **{f"{role} killed": partial(killed, role=role) for role in ROLES},
    **{f"{role} halted": partial(halted, role=role) for role in ROLES},
}


def network(role: str, server: str) -> dict[str, Fault]:
    return {
        f"{role} - {server} {how.__name__}": partial(disturbed, role=role, server=server, disturb=how)
        for how in (cut, slow)
    }


POSTGRES: dict[str, Fault] = {
    "postgres restarted": restarted,
    "postgres killed": crashed,
    **network("gateway", "postgres"),
    **network("worker", "postgres"),
    **network("recorder", "postgres"),
}
KAFKA: dict[str, Fault] = {
    "broker killed": partial(broker_killed, leader=False),
    "leader killed": partial(broker_killed, leader=True),
    **network("gateway", "kafka"),
    **network("worker", "kafka"),
}
FAULTS = MEMBERS | POSTGRES | KAFKA


def drawn(faults: Iterable[str], times: int, seed: int) -> list[str]:
    """Each of these faults so many times, in an order that nobody chose."""
    found = list(faults) * times
    random.Random(seed).shuffle(found)
    return found
