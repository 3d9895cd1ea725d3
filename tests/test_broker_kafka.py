"""The broker on Kafka keeps the contract on a real Kafka, and what only it can promise: see each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from gsb.backends import KafkaTable
from gsb.broker.contract import Broker
from gsb.broker.kafka import KafkaBroker
from gsb.broker.kafka.admin import Topics
from gsb.broker.topics import topics
from tests.broker_contract import BrokerContract
from tests.support.kafka import some_cluster

SYSTEMS = ("tax", "hrmis", "nobody", "slow", "quick")


@pytest.fixture(scope="module")
def brokers() -> Iterator[str]:
    with some_cluster() as found:
        yield found


@pytest.fixture
async def table(brokers: str) -> KafkaTable:
    """Topics of a test's own."""
    prefix = f"t{uuid.uuid4().hex[:12]}"
    made = KafkaTable(kind="kafka", brokers=brokers.split(","), topic_prefix=prefix, partitions=4, replication=1)
    async with Topics(made) as admin:
        await admin.apply(topics(made, SYSTEMS))
    return made


class TestContract(BrokerContract):
    @pytest.fixture(autouse=True)
    def _table(self, table: KafkaTable) -> None:
        self.table = table

    def make(self) -> Broker:
        return KafkaBroker(self.table)
