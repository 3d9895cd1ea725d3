"""How long one synchronous exchange takes, and how long the bare parts of it do: three commits, and there and back over
Kafka.

One call after the other, nothing else under way. The commits are those of ``gsb.bench.cluster.raw``, one exchange at a
time; the way over Kafka is a message of an exchange's size to somebody who answers it, with clients set up as the bus's
are, in this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median

from gsb.bench.cluster import raw
from gsb.bench.cluster.ground import PING, PONG, Ground
from gsb.bench.load import Target, load
from gsb.bench.place import WRITE
from gsb.broker.kafka.clients import Consumer, Producer, access
from gsb.broker.kafka.events import Speaker
from gsb.model import new_id

LONG = 3_600.0
PATIENCE = 15.0
"""Seconds for which a message is waited for before it counts as lost."""


async def synchronous(made: Ground, calls: int) -> float:
    """Seconds from a call to its outcome, in the median."""
    counted = await load(Target(made.place, made.place.url, WRITE), in_flight=1, seconds=LONG, most=calls)
    return median(counted.times)


async def commits(made: Ground, schema: str, exchanges: Sequence[raw.Exchange]) -> float:
    """Seconds for the three commits of an exchange, in the median."""
    db = await made.connect(schema)
    taken = []
    for each in exchanges:
        began = time.perf_counter()
        for transaction in (raw.accept, raw.begin, raw.end):
            await transaction(db, [each])
        taken.append(time.perf_counter() - began)
    await db.close()
    return median(taken)


class Way:
    """A way over Kafka: ``PING`` leads to somebody who answers by ``PONG``."""

    def __init__(self, made: Ground, producer: Producer, back: Consumer) -> None:
        self._made, self._producer, self._back = made, producer, back
        self._speaker = Speaker(made.table.topic_prefix)

    async def there_and_back(self, times: int) -> float:
        """Seconds, in the median."""
        taken = []
        for _ in range(times):
            exchange = new_id()
            headers = self._speaker.dispatch(exchange, "consumer")
            began = time.perf_counter()
            await self._producer.send(self._made.topic(PING), key=exchange.encode(), headers=headers)
            await asyncio.wait_for(self._back.getone(), PATIENCE)
            taken.append(time.perf_counter() - began)
        return median(taken)


@asynccontextmanager
async def way(made: Ground) -> AsyncIterator[Way]:
    """Clients that are connected, and somebody who answers."""
    arguments = access(made.table)
    async with AsyncExitStack() as stack:
        producers = [Producer(**arguments, enable_idempotence=True, acks="all") for _ in range(2)]
        consumers = [Consumer(made.topic(name), **arguments, auto_offset_reset="earliest") for name in (PING, PONG)]
        clients: list[Producer | Consumer] = [*producers, *consumers]
        for client in clients:
            await client.start()
            stack.push_async_callback(client.end)
        answering = asyncio.create_task(_answer(consumers[0], producers[1], made.topic(PONG)))
        stack.callback(answering.cancel)
        yield Way(made, producers[0], consumers[1])


async def _answer(asked: Consumer, producer: Producer, topic: str) -> None:
    async for message in asked:
        await producer.send(topic, key=message.key, headers=list(message.headers))
