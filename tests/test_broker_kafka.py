"""The broker on Kafka keeps the contract on a real Kafka, and what only it can promise: see each test."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka
from cloudevents.core.formats.json import JSONFormat

from gsb.backends import KafkaTable
from gsb.broker.contract import Broker, Delivery
from gsb.broker.kafka import KafkaBroker, intake
from gsb.broker.kafka.admin import Topics
from gsb.broker.topics import topics, wake_topic, work_topic
from gsb.telemetry import trace
from tests.broker_contract import BrokerContract, take

SYSTEMS = ("tax", "hrmis", "nobody", "slow", "quick")
HEADERS = {f"ce_{name}" for name in ("specversion", "id", "source", "type", "subject", "agency", "traceparent")}
SOON = 60.0
"""Seconds within which whatever must happen happens, on a busy machine too."""


async def made(brokers: str, partitions: int, replication: int = 1) -> KafkaTable:
    """Topics of a test's own."""
    prefix = f"t{uuid.uuid4().hex[:12]}"
    table = KafkaTable(
        kind="kafka",
        brokers=brokers.split(","),
        topic_prefix=prefix,
        partitions=partitions,
        replication=replication,
    )
    async with Topics(table) as admin:
        await admin.apply(topics(table, SYSTEMS))
    return table


@pytest.fixture
async def table(kafka: str) -> KafkaTable:
    return await made(kafka, 4)


@pytest.fixture
async def single(kafka: str) -> KafkaTable:
    """With one partition for each system, so that there is an order to break."""
    return await made(kafka, 1)


@asynccontextmanager
async def opened(table: KafkaTable, *, listens: bool = True) -> AsyncIterator[KafkaBroker]:
    broker = KafkaBroker(table, listens=listens)
    await broker.open()
    try:
        yield broker
    finally:
        await broker.close()


class Worker:
    """Takes whatever it is given and keeps it; finishes nothing by itself, and ends with its broker."""

    def __init__(self, broker: Broker) -> None:
        self.deliveries: list[Delivery] = []
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._take(broker))

    async def _take(self, broker: Broker) -> None:
        async for delivery in broker.deliveries(["tax"]):
            self.deliveries.append(delivery)
            self._changed.set()

    @property
    def exchanges(self) -> list[str]:
        return [delivery.exchange for delivery in self.deliveries]

    async def ended(self) -> None:
        await self._task

    async def until_given(self, *exchanges: str) -> None:
        async with asyncio.timeout(SOON):
            while not set(exchanges) <= set(self.exchanges):
                self._changed.clear()
                await self._changed.wait()


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while True:
            if holds():
                return
            await asyncio.sleep(0.05)


async def taken(broker: KafkaBroker) -> None:
    """Returns when Kafka has everything that was said."""
    await eventually(lambda: not broker._outbox._pending())


def names(count: int) -> list[str]:
    return [f"e-{number}" for number in range(count)]


class TestContract(BrokerContract):
    @pytest.fixture(autouse=True)
    def _table(self, table: KafkaTable) -> None:
        self.table = table

    def make(self) -> Broker:
        return KafkaBroker(self.table)

    async def kept(self, broker: Broker) -> None:
        assert isinstance(broker, KafkaBroker)
        await taken(broker)


async def test_nothing_is_lost_because_a_later_one_was_finished(single: KafkaTable) -> None:
    async with opened(single) as first:
        worker = Worker(first)
        for exchange in names(10):
            await first.dispatch("tax", exchange, "payroll")
        await worker.until_given(*names(10))
        for delivery in worker.deliveries:
            if delivery.exchange != "e-3":
                delivery.done()
    async with opened(single) as second:
        worker = Worker(second)
        await worker.until_given("e-3")
        assert not {"e-0", "e-1", "e-2"} & set(worker.exchanges)


async def test_what_was_finished_in_any_order_is_not_given_again(single: KafkaTable) -> None:
    async with opened(single) as first:
        worker = Worker(first)
        for exchange in names(10):
            await first.dispatch("tax", exchange, "payroll")
        await worker.until_given(*names(10))
        for delivery in reversed(worker.deliveries):
            delivery.done()
    async with opened(single) as second:
        await second.dispatch("tax", "last", "payroll")
        assert await take(second, ["tax"], 1) == [("tax", "last")]


async def test_what_a_killed_worker_had_begun_is_given_to_another(
    single: KafkaTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "SESSION", 2_000)
    command = [sys.executable, "-m", "tests.support.kafka_worker", single.model_dump_json(), "tax"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with opened(single) as broker:
            for exchange in names(3):
                await broker.dispatch("tax", exchange, "payroll")
            async with asyncio.timeout(SOON):
                assert [await process.stdout.readline() for _ in range(3)] == [b"e-0\n", b"e-1\n", b"e-2\n"]
            process.kill()
            assert await take(broker, ["tax"], 3) == [("tax", exchange) for exchange in names(3)]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_partitions_move_to_a_worker_that_joins_and_what_was_begun_stays(table: KafkaTable) -> None:
    async with opened(table) as one, opened(table) as other:
        first = Worker(one)
        for exchange in names(40):
            await one.dispatch("tax", exchange, "payroll")
        await first.until_given(*names(40))
        second = Worker(other)
        async with asyncio.timeout(SOON):
            while not second.deliveries:
                await one.dispatch("tax", uuid.uuid4().hex, "payroll")
                await asyncio.sleep(0.05)
        for delivery in first.deliveries:
            delivery.done()  # of partitions that it has lost, this means nothing
        late: set[str] = set()
        async with asyncio.timeout(SOON):
            # Whoever stands still for longer than a session leaves all partitions to the other until it is back.
            while not (late & {*first.exchanges} and late & {*second.exchanges}):
                more = [f"late-{len(late) + number}" for number in range(40)]
                late.update(more)
                await asyncio.gather(*(one.dispatch("tax", each, "payroll") for each in more))
                await eventually(lambda: late <= {*first.exchanges, *second.exchanges})


async def test_a_partition_with_too_much_under_way_is_paused(
    single: KafkaTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "WINDOW", 20)
    monkeypatch.setattr(intake, "AT_ONCE", 10)
    async with opened(single) as broker:
        worker = Worker(broker)
        for exchange in names(200):
            await broker.dispatch("tax", exchange, "payroll")
        await worker.until_given(*names(20))
        await broker.dispatch("tax", "behind", "payroll")
        given = 0
        while given < 200:
            assert len(worker.deliveries) - given <= 20 + 10
            for delivery in worker.deliveries[given:]:
                delivery.done()
            given = len(worker.deliveries)
            await worker.until_given(f"e-{min(given, 199)}")
        await worker.until_given("behind")


async def test_a_dispatch_repeated_while_it_waits_is_given_once(single: KafkaTable) -> None:
    async with opened(single) as broker:
        for exchange in ("e-0", *["e-1"] * 50, "e-2"):
            await broker.dispatch("tax", exchange, "payroll")
        await taken(broker)
        assert await take(broker, ["tax"], 3) == [("tax", "e-0"), ("tax", "e-1"), ("tax", "e-2")]


async def test_messages_that_are_none_of_ours_are_passed_over(single: KafkaTable) -> None:
    good = [("ce_specversion", b"1.0"), ("ce_type", b"gsb.dispatch.v1"), ("ce_subject", b"e-1"), ("ce_agency", b"a")]
    bad = [
        [],
        [("ce_specversion", b"0.3"), *good[1:]],
        [("ce_specversion", b"1.0"), ("ce_type", b"gsb.wake.v1"), *good[2:]],
        [*good[:2], ("ce_subject", b"e" * 65), good[3]],
        [*good[:2], ("ce_subject", b"e\n1"), good[3]],
        good[:3],
        [*good[:3], ("ce_agency", None)],
        [("ce_" * 10_000, b"long"), *good[1:]],
        [*good[:3], ("ce_agency", b"\xff")],
    ]
    async with opened(single) as broker, AIOKafkaProducer(bootstrap_servers=single.brokers) as stranger:
        for headers in bad:
            await stranger.send_and_wait(work_topic(single, "tax"), b"not ours", headers=headers)
        await stranger.send_and_wait(work_topic(single, "tax"), b"not read", headers=good)
        assert await take(broker, ["tax"], 1) == [("tax", "e-1")]


class NoUtf8(str):
    """A name of a header that no client of good will writes."""

    def encode(self, *_: object) -> bytes:
        return b"\xff\xfe"


async def test_a_message_that_the_client_cannot_decode_stops_nobody(single: KafkaTable) -> None:
    topic = work_topic(single, "tax")
    states = {"is_transactional": 0, "producer_id": -1, "producer_epoch": -1, "base_sequence": -1}
    async with opened(single) as broker, AIOKafkaProducer(bootstrap_servers=single.brokers) as stranger:
        await broker.dispatch("tax", "before", "payroll")
        await raw(single, topic, 1)
        for _ in range(2):
            batch = _DefaultRecordBatchBuilderPy(magic=2, compression_type=0, batch_size=1_000, **states)
            for number in range(3):
                batch.append(number, 1, b"key", b"value", [(NoUtf8("name"), b"value")])
            request = ProduceRequest(
                transactional_id=None, required_acks=1, timeout=5_000, topics=[(topic, [(0, bytes(batch.build()))])]
            )
            await stranger.partitions_for(topic)
            leader = stranger.client.cluster.leader_for_partition(TopicPartition(topic, 0))
            await stranger.client.send(leader, request)
            await broker.dispatch("tax", uuid.uuid4().hex, "payroll")
        worker = Worker(broker)
        await broker.dispatch("tax", "after", "payroll")
        await worker.until_given("before", "after")
        assert len(set(worker.exchanges)) == 4


async def test_wakes_reach_the_other_nodes_that_listen_and_only_once_one_s_own(table: KafkaTable) -> None:
    async with opened(table) as gateway, opened(table, listens=False) as worker:
        heard: asyncio.Queue[str] = asyncio.Queue()
        own: asyncio.Queue[str] = asyncio.Queue()
        gateway.on_wake(heard.put_nowait)
        worker.on_wake(own.put_nowait)
        async with asyncio.timeout(SOON):
            said = 0
            while heard.empty():
                await worker.wake(f"e-{said}")
                said += 1
                await asyncio.sleep(0.05)
            assert (await heard.get()).startswith("e-")
            await gateway.wake("own")
            await worker.wake("last")
            got = []
            while "last" not in got:
                got.append(await heard.get())
        assert got.count("own") == 1
        assert own.qsize() == said + 1


async def test_messages_are_cloudevents_with_ids_and_nothing_else(single: KafkaTable) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with opened(single) as broker:
        await broker.dispatch("tax", "e-1", "payroll")
        await broker.dispatch("tax", "e-2", "payroll")
        token = trace.set(parent)
        await broker.wake("e-1")
        trace.reset(token)
    work = await raw(single, work_topic(single, "tax"), 2)
    (wake,) = await raw(single, wake_topic(single), 1)
    for event, exchange in zip(work, ("e-1", "e-2"), strict=True):
        assert event.get_type() == "gsb.dispatch.v1"
        assert event.get_subject() == exchange
        assert event.get_extension("agency") == "payroll"
    assert (wake.get_type(), wake.get_subject()) == ("gsb.wake.v1", "e-1")
    assert wake.get_extension("traceparent") == parent
    assert len({(event.get_source(), event.get_id()) for event in (*work, wake)}) == 3
    assert [event.get_data() for event in (*work, wake)] == [None, None, None]


async def raw(table: KafkaTable, topic: str, count: int) -> list[Any]:
    """What lies in the topic, as the official SDK reads it."""
    events: list[Any] = []
    async with (
        asyncio.timeout(SOON),
        AIOKafkaConsumer(topic, bootstrap_servers=table.brokers, auto_offset_reset="earliest") as consumer,
    ):
        while len(events) < count:
            record = await consumer.getone()
            assert record.key == dict(record.headers)["ce_subject"]
            assert {name for name, _ in record.headers} <= HEADERS
            message = KafkaMessage(dict(record.headers), record.key, record.value or b"")
            events.append(from_kafka(message, JSONFormat()))
    return events
