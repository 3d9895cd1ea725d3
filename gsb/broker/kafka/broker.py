"""The broker of many machines, on Apache Kafka: a topic for each system's work and one for wakes.

Nothing here is the truth: dispatches and wakes that are lost, repeated or late cost time, never an exchange. While
Kafka is away the bus accepts, keeps and, if its workers have work, performs; what it could not say the sweeper says
again. A crash means what it means to its parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine

from gsb.backends import KafkaTable
from gsb.broker.contract import Delivery
from gsb.broker.kafka.clients import access
from gsb.broker.kafka.events import Speaker
from gsb.broker.kafka.intake import Intake
from gsb.broker.kafka.outbox import Outbox
from gsb.broker.kafka.wakes import Listener
from gsb.broker.topics import wake_topic, work_topic


class KafkaBroker:
    """See ``gsb.broker.contract.Broker``. All calls come from one event loop.

    ``listens``: whether somebody here waits to be woken, as at a gateway. Raises BrokerUnfit for files of the table
    that cannot be used. It opens whether or not Kafka is there.
    """

    def __init__(self, table: KafkaTable, *, listens: bool = True) -> None:
        self._table, self._listens = table, listens
        self._arguments = access(table)
        self._callbacks: list[Callable[[str], None]] = []
        self._consumers: list[asyncio.Event] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self) -> None:
        self._closed = False
        self._speaker = Speaker(self._table.topic_prefix)
        self._outbox = Outbox(self._arguments)
        self._begin(self._outbox.run())
        if self._listens:
            self._begin(Listener(self._arguments, wake_topic(self._table), self._speaker, self._heard).run())

    async def close(self) -> None:
        """What is finished is committed and groups are left; what waits to be said has a last chance."""
        self._closed = True
        for changed in self._consumers:
            changed.set()
        await self._outbox.close()
        await _end(*self._tasks)

    async def dispatch(self, system: str, exchange: str, agency: str) -> None:
        self._outbox.put(work_topic(self._table, system), exchange, self._speaker.dispatch(exchange, agency))

    async def deliveries(self, systems: Collection[str]) -> AsyncIterator[Delivery]:
        changed = asyncio.Event()
        intakes = [Intake(self._arguments, each, work_topic(self._table, each), changed.set) for each in systems]
        tasks = [self._begin(intake.run()) for intake in intakes]
        self._consumers.append(changed)
        try:
            while not self._closed:
                changed.clear()
                for intake in intakes:
                    if not self._closed and (delivery := intake.take()):
                        changed.set()
                        yield delivery
                await changed.wait()
        finally:
            self._consumers.remove(changed)
            await _end(*tasks)

    def reached(self) -> bool:
        return not self._outbox.away

    async def wake(self, exchange: str) -> None:
        self._heard(exchange)
        self._outbox.put(wake_topic(self._table), exchange, self._speaker.wake(exchange))

    def on_wake(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    def _heard(self, exchange: str) -> None:
        for callback in self._callbacks:
            callback(exchange)

    def _begin(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        if not task.cancelling():  # a second time would break off how it ends
            task.cancel()
    if tasks:
        await asyncio.wait(tasks)
