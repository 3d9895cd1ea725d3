"""A worker in a process of its own, to be killed: takes work from a broker on Kafka, says so, and finishes none of it.

    python -m tests.support.kafka_worker TABLE SYSTEM

``TABLE`` is a ``KafkaTable`` as JSON. Each exchange that it was given is one line on standard output.
"""

from __future__ import annotations

import asyncio
import sys

from gsb.backends import KafkaTable
from gsb.broker.kafka import KafkaBroker, intake


async def main(table: str, system: str) -> None:
    intake.SESSION = 2_000  # who waits for its death should not wait long
    broker = KafkaBroker(KafkaTable.model_validate_json(table))
    await broker.open()
    async for delivery in broker.deliveries([system]):
        print(delivery.exchange, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
