"""What a node has to say and Kafka has not yet taken: said in the background, for ever, and never waited for.

Each topic has its own line, so that one whose leader is away holds up no other. A line that is full takes no more: what
it would have said is a wake, which nobody relies on, or a dispatch, which the sweeper repeats. The producer is
idempotent and waits for all copies that are in step, so a broker that dies loses nothing that it had acknowledged. A
crash loses what is here.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from aiokafka.errors import (
    InvalidTopicError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from gsb.broker.kafka.clients import GONE, LAST, LOST, PULSE, Producer, forever
from gsb.broker.kafka.events import Headers
from gsb.trouble import Trouble

log = logging.getLogger("gsb.broker.kafka")

LIMIT = 10_000
"""Messages that wait in one line."""
AT_ONCE = 100
"""Messages of a line that are handed to the producer before others have their turn."""
STALLED = 10.0
"""Seconds without an acknowledgement after which Kafka is said not to take messages, although it answers."""
WRONG = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidTopicError)
"""What no other producer could say either."""
AWAY = (
    "Kafka {}; exchanges are accepted and wait in the store, and callers are answered 202; look at its brokers and at "
    "what lies between; the bus goes on by itself"
)
MISSING = "the topic {} is not there: make it with gsb topics apply"


def partition(key: bytes, every: Sequence[int], _available: Sequence[int]) -> int:
    """By content, so that what is dispatched again goes to the node that has it waiting, which sees the repeat."""
    return every[zlib.crc32(key) % len(every)]


class _Line:
    """What waits for one topic."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.waiting: OrderedDict[bytes, Headers] = OrderedDict()
        """By key, the oldest first: what is said again while it waits is said once."""
        self.filled = asyncio.Event()
        self._trouble = Trouble(log, f"the topic {topic} is written again")

    def tell(self, error: Exception) -> None:
        """What concerns this topic alone; that Kafka is away is told for all."""
        if isinstance(error, UnknownTopicOrPartitionError):
            self._trouble.is_there(MISSING.format(self.topic))
        elif isinstance(error, TopicAuthorizationFailedError) or not isinstance(error, GONE):
            self._trouble.is_there(
                f"the topic {self.topic} cannot be written ({error!r}); look at what Kafka allows whom"
            )

    def written(self) -> None:
        self._trouble.is_over()


class _Said(NamedTuple):
    """A message that a producer has."""

    line: _Line
    key: bytes
    headers: Headers
    since: float
    """When the producer was given it, by the loop's clock."""

    def again(self) -> None:
        """Let it wait for the next producer. Whether Kafka has it already nobody knows, and to say it twice does no
        harm: left to the sweeper it could wait for minutes."""
        if len(self.line.waiting) < LIMIT:
            self.line.waiting.setdefault(self.key, self.headers)
            self.line.filled.set()


class Outbox:
    """See the module. ``arguments`` are those of ``access``."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self._arguments = arguments
        self._lines: dict[str, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._producer: Producer | None = None
        self._ready = asyncio.Event()
        self._broken = asyncio.Event()
        """Set when the producer cannot go on: another takes its place."""
        self._sent: dict[asyncio.Future[Any], _Said] = {}
        """What the producer has and Kafka has not acknowledged."""
        self._moved_at = 0.0
        """When something was last acknowledged, or began to wait while nothing did."""
        self._emptied = asyncio.Event()
        self._away = Trouble(log, "Kafka is back")

    @property
    def away(self) -> bool:
        """Whether Kafka was not there, or took nothing, when it was looked for last."""
        return self._away.there

    def put(self, topic: str, key: str, headers: Headers) -> None:
        """Never waits and never fails; ``key`` decides the partition."""
        line = self._lines.get(topic)
        if line is None:
            line = self._lines[topic] = _Line(topic)
            self._tasks.add(asyncio.create_task(forever(partial(self._say, line), line.tell)))
        if len(line.waiting) >= LIMIT or (name := key.encode()) in line.waiting:
            return
        if not self._pending():
            self._moved()
        line.waiting[name] = headers
        line.filled.set()
        self._emptied.clear()

    async def run(self) -> None:
        """Until cancelled: keep a producer, and tell once when Kafka goes away and when it is back."""
        await forever(self._keep, lambda error: self._away.is_there(AWAY.format(f"cannot be reached ({error!r})")))

    async def close(self) -> None:
        """Say what waits, if Kafka takes it within ``LAST`` seconds. ``run`` is to be cancelled after it."""
        if self._pending():
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST):
                    await self._emptied.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self) -> None:
        """One producer, from its start until it is of no more use."""
        producer = Producer(**self._arguments, enable_idempotence=True, acks="all", partitioner=partition)
        try:
            async with asyncio.timeout(STALLED):
                await producer.start()
            self._producer = producer
            self._broken.clear()
            self._ready.set()
            await self._watch(producer)
        finally:
            self._ready.clear()
            self._producer = None
            try:
                await producer.end()
            finally:
                for said in self._sent.values():
                    said.again()  # this producer never tells what became of it
                self._sent.clear()

    async def _watch(self, producer: Producer) -> None:
        """Until the producer is of no more use."""
        while not producer.lost and not self._broken.is_set():
            answers = await producer.answers()
            now = asyncio.get_running_loop().time()
            waited = now - self._moved_at
            # The oldest stands first. Others may go on meanwhile: what is lost may be that of one partition alone.
            if answers and self._sent and now - next(iter(self._sent.values())).since > LOST:
                return  # Kafka is there, and this one may have lost what it has to send
            if not answers:
                self._away.is_there(AWAY.format("cannot be reached"))
            elif self._pending() and waited > STALLED:
                self._away.is_there(AWAY.format("takes no messages"))
            else:
                self._away.is_over()
            with suppress(TimeoutError):
                async with asyncio.timeout(PULSE):
                    await self._broken.wait()

    async def _say(self, line: _Line) -> None:
        while True:
            await line.filled.wait()
            await self._ready.wait()
            if (producer := self._producer) is None:
                continue
            for _ in range(min(AT_ONCE, len(line.waiting))):
                if producer is not self._producer:
                    break  # it is gone, and would let each of them wait for a place that is never free
                await self._send(line, producer)
            if not line.waiting:
                line.filled.clear()
            await asyncio.sleep(0)  # what can be sent at once suspends nothing

    async def _send(self, line: _Line, producer: Producer) -> None:
        key, headers = line.waiting.popitem(last=False)
        try:
            async with asyncio.timeout(LOST):
                acknowledged = await producer.send(line.topic, key=key, headers=headers)
        except KafkaTimeoutError:
            line.waiting[key] = headers  # the producer is full and goes on trying
        except UnknownTopicOrPartitionError:
            line.waiting.clear()
            self._look_whether_empty()
            raise
        except GONE:
            if producer is self._producer:
                self._broken.set()
            line.waiting[key] = headers
            raise
        else:
            self._sent[acknowledged] = _Said(line, key, headers, asyncio.get_running_loop().time())
            acknowledged.add_done_callback(self._acknowledged)

    def _acknowledged(self, future: asyncio.Future[Any]) -> None:
        if (said := self._sent.pop(future, None)) is None:
            return
        if future.cancelled():
            said.again()
            return
        line = said.line
        if (error := future.exception()) is None:
            line.written()
            self._moved()
        elif isinstance(error, TopicAuthorizationFailedError):
            line.tell(error)
        else:
            self._broken.set()
            if not isinstance(error, WRONG):
                said.again()
        self._look_whether_empty()

    def _pending(self) -> bool:
        return bool(self._sent) or any(line.waiting for line in self._lines.values())

    def _moved(self) -> None:
        self._moved_at = asyncio.get_running_loop().time()

    def _look_whether_empty(self) -> None:
        if not self._sent and not self._pending():
            self._emptied.set()
