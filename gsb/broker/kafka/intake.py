"""One system's work for one node: read from its topic as a member of the system's group, and committed when finished.

Many exchanges of a partition are under way at once; what is committed is the lowest position that is not finished, and
a partition with too many of them is paused, so that memory is bounded. When partitions move to another node, what was
finished is committed first; what was begun is finished here, and ``begin`` keeps the other node from beginning it too.
Without Kafka, or after an error of its own, it begins again, for ever. A killed node's partitions move to others within
``SESSION``, which are given again whatever it had not committed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import ConsumerRecord

from gsb.broker.contract import Delivery
from gsb.broker.kafka.clients import GONE, LAST, Consumer, forever
from gsb.broker.kafka.events import DISPATCH, read
from gsb.broker.kafka.outbox import MISSING
from gsb.broker.kafka.positions import Positions
from gsb.broker.kafka.turns import Turns, Waiting
from gsb.trouble import Trouble

log = logging.getLogger("gsb.broker.kafka")

WINDOW = 1_000
"""Exchanges of one partition that are read and not finished; beyond it the partition is paused until half are."""
AT_ONCE = 500
"""Messages taken from the client at once."""
FETCH = 65_536
"""Bytes of one partition that the client holds ready."""
SESSION = 10_000
"""Milliseconds without a sign of life after which a group gives a node's partitions to others."""
BEAT = 1_000
"""Milliseconds between signs of life, and after which a node learns that partitions move."""
COMMIT = 1.0
"""Seconds between commits: after a kill, what was finished in them is handed out again for nothing."""
WAIT = 1_000
"""Milliseconds to wait for messages before looking at what else there is to do."""
GLANCE = 100
"""The same while a partition is paused."""


class Intake(ConsumerRebalanceListener):  # type: ignore[misc]
    """``topic`` is the group's name too; ``changed`` is called when there is something to take."""

    def __init__(self, arguments: dict[str, Any], system: str, topic: str, changed: Callable[[], None]) -> None:
        self._arguments = arguments
        self._system, self._topic, self._changed = system, topic, changed
        self._turns = Turns()
        self._partitions: dict[int, Positions] = {}
        """Those that this node has."""
        self._consumer: Consumer | None = None
        self._committed_at = 0.0
        self._stumbled = False
        """Whether the client could not decode a message: a name of a header that is not UTF-8."""
        self._passed = False
        """Whether that message was passed."""
        self._trouble = Trouble(log, f"work for {system} is read again")

    def take(self) -> Delivery | None:
        """The next one for a worker, if any is here."""
        waiting = self._turns.take()
        if waiting is None:
            return None
        positions = self._partitions[waiting.partition]
        done = partial(positions.finish, waiting.position)
        return Delivery(self._system, waiting.exchange, waiting.agency, done, waiting.trace)

    async def run(self) -> None:
        """Until cancelled; then it commits what is finished and leaves the group."""
        await forever(self._keep, self._tell)

    async def _keep(self) -> None:
        """One membership of the group, from joining it to leaving it."""
        consumer = self._consumer = self._make()
        try:
            async with consumer.watched() as watch:
                await consumer.start()
                while not watch.expired():
                    await self._read(consumer)
        finally:
            try:
                await self._commit_last(consumer)
            finally:
                self._own(())
                await consumer.end()

    def _make(self) -> Consumer:
        consumer = Consumer(
            **self._arguments,
            group_id=self._topic,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION,
            heartbeat_interval_ms=BEAT,
            max_partition_fetch_bytes=FETCH,
        )
        consumer.subscribe([self._topic], listener=self)
        return consumer

    async def _read(self, consumer: Consumer) -> None:
        """Whatever has come, paused where there is too much, and committed when it is time to."""
        if self._stumbled:
            await self._pick(consumer)
        else:
            await self._take(consumer)
        self._pace(consumer)
        now = asyncio.get_running_loop().time()
        if now >= self._committed_at + COMMIT:
            self._committed_at = now
            with suppress(CommitFailedError, IllegalStateError):  # partitions are moving; it is committed after that
                await self._commit(consumer)
            self._look_for_topic(consumer)

    async def _take(self, consumer: Consumer) -> None:
        wait = GLANCE if consumer.paused() else WAIT
        try:
            found = await consumer.getmany(timeout_ms=wait, max_records=AT_ONCE)
        except UnicodeDecodeError as error:
            self._tell(error)
            self._stumbled, self._passed = True, False
            await self._go_back(consumer)
            return
        for partition, records in found.items():
            self._take_in(partition.partition, records)
            self._changed()

    async def _go_back(self, consumer: Consumer) -> None:
        """What the client had read together with what it could not decode is lost to it: to where this has read."""
        for partition in consumer.assignment():
            positions = self._partitions.get(partition.partition)
            at = positions.next if positions is not None else None
            if at is None:
                at = await consumer.committed(partition)
            if at is None:
                await consumer.seek_to_beginning(partition)
            else:
                consumer.seek(partition, at)

    async def _pick(self, consumer: Consumer) -> None:
        """One message of each partition, and past those that the client cannot decode: only a stranger writes them. It
        is over when one was passed and no other follows, or nothing is left to read."""
        stumbled = found = False
        for partition in consumer.assignment():
            try:
                records = (await consumer.getmany(partition, timeout_ms=GLANCE, max_records=1)).get(partition, ())
            except UnicodeDecodeError:
                stumbled = self._passed = True
                at = await consumer.position(partition)
                consumer.seek(partition, at + 1)
                if (positions := self._partitions.get(partition.partition)) is not None:
                    positions.read(at)
            else:
                found = found or bool(records)
                self._take_in(partition.partition, records)
                self._changed()
        self._stumbled = stumbled or (found and not self._passed)

    def _take_in(self, number: int, records: Sequence[ConsumerRecord]) -> None:
        positions = self._partitions.get(number)
        if positions is None:
            return  # it went to another node meanwhile
        for record in records:
            positions.read(record.offset)
            event = read(record.headers, DISPATCH)
            if event is not None and self._turns.put(Waiting(number, record.offset, *event)):
                positions.begin(record.offset)

    def _pace(self, consumer: Consumer) -> None:
        paused = consumer.paused()
        for partition in consumer.assignment():
            count = len(self._partitions.get(partition.partition, ()))
            if count >= WINDOW and partition not in paused:
                consumer.pause(partition)
            elif count <= WINDOW // 2 and partition in paused:
                consumer.resume(partition)

    async def _commit(self, consumer: Consumer) -> None:
        """Raises what aiokafka does; what could not be committed now is at the next time."""
        safe = {number: at for number, each in self._partitions.items() if (at := each.safe) is not None}
        if safe:
            await consumer.commit({TopicPartition(self._topic, number): at for number, at in safe.items()})
        for number, at in safe.items():
            if (positions := self._partitions.get(number)) is not None:
                positions.committed = at

    async def _commit_last(self, consumer: Consumer) -> None:
        """Before partitions go: what does not succeed costs others a look at what is finished."""
        with suppress(*GONE):
            async with asyncio.timeout(LAST):
                await self._commit(consumer)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """The group changes: all members say how far they are before anybody is given anything."""
        if (consumer := self._consumer) is not None:
            await self._commit_last(consumer)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """What this node keeps goes on where it was; what it lost is no more its business."""
        self._own([each.partition for each in assigned])
        for each in assigned:
            positions = self._partitions[each.partition]
            if positions.next is not None and self._consumer is not None:
                self._consumer.seek(each, positions.next)

    def _own(self, numbers: Collection[int]) -> None:
        self._partitions = {number: self._partitions.get(number) or Positions() for number in numbers}
        self._turns.keep(lambda waiting: waiting.partition in self._partitions)

    def _look_for_topic(self, consumer: Consumer) -> None:
        if consumer.partitions_for_topic(self._topic):
            self._trouble.is_over()
        else:
            self._trouble.is_there(MISSING.format(self._topic))

    def _tell(self, error: Exception) -> None:
        """That Kafka is away is told by who sends; here only what concerns this topic and group."""
        if not isinstance(error, GONE) or (isinstance(error, KafkaError) and not error.retriable):
            self._trouble.is_there(
                f"work for {self._system} cannot be read ({error!r}); look at what Kafka allows whom"
            )
