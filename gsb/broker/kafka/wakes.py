"""What a gateway hears: that exchanges have changed, from the topic that all gateways read, from its end on.

It belongs to no group and commits nothing. What is said while it does not listen is lost; whoever waits reads the store
each second anyway. A crash means just that.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gsb.broker.kafka.clients import Consumer, forever
from gsb.broker.kafka.events import WAKE, Speaker, read

log = logging.getLogger("gsb.broker.kafka")

AT_ONCE = 1_000
"""Messages taken from the client at once."""
WAIT = 10_000
"""Milliseconds to wait for messages before asking for them again."""


class Listener:
    """``speaker`` is this process's own, whose wakes it need not hear; ``heard`` is called with each exchange's id."""

    def __init__(self, arguments: dict[str, Any], topic: str, speaker: Speaker, heard: Callable[[str], None]) -> None:
        self._arguments, self._topic = arguments, topic
        self._speaker, self._heard = speaker, heard

    async def run(self) -> None:
        """Until cancelled, whatever happens to Kafka."""
        await forever(self._keep, lambda error: log.debug("wakes are not heard: %r", error))

    async def _keep(self) -> None:
        consumer = Consumer(self._topic, **self._arguments, auto_offset_reset="latest")
        try:
            async with consumer.watched() as watch:
                await consumer.start()
                while not watch.expired():
                    await self._hear(consumer)
        finally:
            await consumer.end()

    async def _hear(self, consumer: Consumer) -> None:
        for records in (await consumer.getmany(timeout_ms=WAIT, max_records=AT_ONCE)).values():
            for record in records:
                if not self._speaker.said(record.headers) and (event := read(record.headers, WAKE)) is not None:
                    self._heard(event.exchange)
