"""What the broker does when Kafka goes away, is not there yet, or lacks a topic: nobody waits, and it flows again."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator

import pytest

from gsb.backends import KafkaTable
from gsb.broker.kafka import KafkaBroker, clients, outbox
from gsb.broker.kafka.admin import Topics
from gsb.broker.topics import topics, work_topic
from tests.support.kafka import Cluster, own_cluster
from tests.test_broker_kafka import SOON, SYSTEMS, Worker, eventually, made, names, opened


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with own_cluster() as found:
        yield found


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka may take its time: where that is not what is tested, it is not said to take nothing meanwhile."""
    monkeypatch.setattr(outbox, "STALLED", SOON)


async def back(cluster: Cluster) -> None:
    cluster.nodes[0].start()
    await asyncio.to_thread(cluster.wait)


def open_consumers() -> list[clients.Consumer]:
    return [each for each in gc.get_objects() if isinstance(each, clients.Consumer) and not each._closed]


async def given_up(broker: KafkaBroker) -> None:
    """Returns when another producer has taken the place of its own, as after an error of the connection."""
    producer = broker._outbox._producer
    broker._outbox._broken.set()
    await eventually(lambda: broker._outbox._producer is not producer)


async def at_work(broker: KafkaBroker) -> Worker:
    """A worker that was given its first exchange."""
    worker = Worker(broker)
    await broker.dispatch("tax", "before", "payroll")
    await worker.until_given("before")
    return worker


async def test_kafka_goes_away_and_comes_back(cluster: Cluster, told: pytest.LogCaptureFixture) -> None:
    table = await made(cluster.brokers, 2)
    async with opened(table) as broker:
        worker = await at_work(broker)
        cluster.nodes[0].kill()
        for exchange in names(2_000):
            await broker.dispatch("tax", exchange, "payroll")
            await broker.wake(exchange)
        worker.deliveries[0].done()
        await eventually(lambda: bool(told.messages))
        await back(cluster)
        await worker.until_given(*names(2_000))
        await eventually(lambda: len(told.messages) == 2)
        await broker.dispatch("tax", "after", "payroll")
        await worker.until_given("after")
    gone, again = told.messages
    assert gone.startswith("Kafka cannot be reached")
    assert again == "Kafka is back"


async def test_clients_that_do_not_look_after_themselves_any_more_are_replaced(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are left by a connection that is lost just before it is written to: their own task has ended."""
    monkeypatch.setattr(clients, "LOST", 1.0)
    monkeypatch.setattr(clients, "METADATA_AGE", 500)
    async with opened(await made(cluster.brokers, 2)) as broker:
        worker = await at_work(broker)
        producer = broker._outbox._producer
        assert producer is not None
        consumers = open_consumers()
        assert len(consumers) == 2  # of wakes, and of the work for one system
        for client in (producer.client, *(each._client for each in consumers)):
            client._sync_task.cancel()
        await eventually(lambda: broker._outbox._producer not in (None, producer))
        await eventually(lambda: all(each._closed for each in consumers))
        await broker.dispatch("tax", "after", "payroll")
        await worker.until_given("after")


async def test_one_that_waits_for_ever_to_commit_is_replaced(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever commits waits until the group's broker is found, and nobody looks for it any more."""
    monkeypatch.setattr(clients, "LOST", 1.0)
    monkeypatch.setattr(clients, "METADATA_AGE", 500)
    async with opened(await made(cluster.brokers, 2)) as broker:
        worker = await at_work(broker)
        (consumer,) = (each for each in open_consumers() if each._group_id)
        consumer._client._sync_task.cancel()
        cluster.nodes[0].kill()
        worker.deliveries[0].done()
        await eventually(lambda: consumer._coordinator.coordinator_id is None)
        await back(cluster)
        await broker.dispatch("tax", "after", "payroll")
        await worker.until_given("after")


async def test_what_a_producer_had_and_kafka_had_not_is_said_by_the_next_one(cluster: Cluster) -> None:
    async with opened(await made(cluster.brokers, 2)) as broker:
        worker = await at_work(broker)
        sent = broker._outbox._sent
        await eventually(lambda: not sent)
        cluster.nodes[0].kill()
        await broker.dispatch("tax", "under-way", "payroll")
        await eventually(lambda: len(sent) == 1)
        await given_up(broker)
        await back(cluster)
        await worker.until_given("under-way")


async def test_what_waited_for_a_producer_that_was_full_is_said_by_the_next_one(cluster: Cluster) -> None:
    """And not offered to the one that is gone, message after message, each for as long as that one may take."""
    async with opened(await made(cluster.brokers, 1)) as broker:
        worker = await at_work(broker)
        sent, line = broker._outbox._sent, broker._outbox._lines[work_topic(broker._table, "tax")]
        await eventually(lambda: not sent)
        cluster.nodes[0].kill()
        for exchange in names(500):
            await broker.dispatch("tax", exchange, "payroll")
        await eventually(lambda: 0 < len(line.waiting) < 500 == len(line.waiting) + len(sent) + 1)
        await given_up(broker)
        await back(cluster)
        await worker.until_given(*names(500))


@pytest.mark.parametrize("others", [False, True])
async def test_one_that_has_lost_what_it_was_to_send_is_replaced(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    """Also one that has lost it for one partition alone, while others go on."""
    monkeypatch.setattr(outbox, "LOST", 1.0)
    monkeypatch.setattr(outbox, "PULSE", 0.1)
    async with opened(await made(cluster.brokers, 2)) as broker:
        worker = await at_work(broker)
        await eventually(lambda: not broker._outbox._sent)
        producer, line = broker._outbox._producer, broker._outbox._lines[work_topic(broker._table, "tax")]
        loop = asyncio.get_running_loop()
        lost: asyncio.Future[None] = loop.create_future()
        said = outbox._Said(line, b"lost", broker._speaker.dispatch("lost", "payroll"), loop.time())
        broker._outbox._sent[lost] = said

        def replaced() -> bool:
            if others:  # a fresh one each time, which this one sends
                broker._outbox.put(line.topic, f"other-{loop.time()}", said.headers)
            return broker._outbox._producer not in (None, producer)

        await eventually(replaced)
        await worker.until_given("lost")


async def test_while_kafka_takes_nothing_no_other_producer_says_that_it_is_back(
    cluster: Cluster, told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers, and acknowledges nothing."""
    for name, seconds in (("STALLED", 2.0), ("LOST", 3.0), ("PULSE", 0.1)):
        monkeypatch.setattr(outbox, name, seconds)
    async with opened(await made(cluster.brokers, 1)) as broker:
        worker = await at_work(broker)
        with monkeypatch.context() as patched:
            patched.setattr(clients.Producer, "send", unheard)
            await broker.dispatch("tax", "kept", "payroll")
            await eventually(lambda: not broker.reached())
            producers: list[object] = []
            reached: list[bool] = []

            def replaced_twice() -> bool:
                reached.append(broker.reached())
                if (now := broker._outbox._producer) is not None and now not in producers:
                    producers.append(now)
                return len(producers) == 3

            await eventually(replaced_twice)
        assert not any(reached)
        await worker.until_given("kept")
        await eventually(broker.reached)
    assert told.messages.count("Kafka is back") == 1


async def unheard(*message: object, **parts: object) -> asyncio.Future[None]:
    """As a producer sends what is never acknowledged."""
    return asyncio.get_running_loop().create_future()


async def test_a_node_starts_before_kafka_does(cluster: Cluster) -> None:
    table = await made(cluster.brokers, 2)
    cluster.nodes[0].kill()
    async with opened(table) as broker:
        worker = Worker(broker)
        await broker.dispatch("tax", "early", "payroll")
        await back(cluster)
        await worker.until_given("early")


@pytest.mark.usefixtures("patient")
async def test_a_missing_topic_is_told_once_and_used_once_it_is_there(
    cluster: Cluster, told: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "TIMEOUT", 5_000)
    monkeypatch.setattr(clients, "METADATA_AGE", 1_000)
    table = KafkaTable(
        kind="kafka", brokers=cluster.brokers.split(","), topic_prefix="missing", partitions=1, replication=1
    )
    async with opened(table) as broker:
        worker = Worker(broker)
        await broker.dispatch("tax", "e-0", "payroll")
        await broker.dispatch("hrmis", "h-0", "payroll")
        await eventually(lambda: any("missing.work.hrmis is not there" in each for each in told.messages))
        await eventually(lambda: any("missing.work.tax is not there" in each for each in told.messages))
        async with Topics(table) as admin:
            await admin.apply(topics(table, SYSTEMS))
        await broker.dispatch("tax", "e-1", "payroll")
        await worker.until_given("e-1")
        await broker.wake("e-1")
    about = [each for each in told.messages if "is not there" in each]
    assert len(about) <= 4
    assert not [each for each in told.messages if each.startswith("Kafka")]


@pytest.mark.usefixtures("patient")
async def test_a_broker_of_three_dies_and_nothing_that_was_said_is_lost(told: pytest.LogCaptureFixture) -> None:
    with own_cluster(3) as three:
        table = await made(three.brokers, 3, replication=3)
        async with opened(table) as broker:
            worker = Worker(broker)
            await broker.dispatch("tax", "first", "payroll")
            await worker.until_given("first")
            leader = await asyncio.to_thread(three.leader, work_topic(table, "tax"))
            for number, exchange in enumerate(names(300)):
                await broker.dispatch("tax", exchange, "payroll")
                if number == 100:
                    leader.kill()
            await worker.until_given(*names(300))
    assert not [each for each in told.messages if each.startswith("Kafka")]


async def test_a_node_stops_although_kafka_is_away(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one, since Kafka stays away."""
    monkeypatch.setattr(outbox, "LAST", 1.0)
    table = await made(cluster.brokers, 2)
    broker = KafkaBroker(table)
    await broker.open()
    worker = Worker(broker)
    await broker.dispatch("tax", "before", "payroll")
    await worker.until_given("before")
    cluster.nodes[0].kill()
    await broker.dispatch("tax", "lost", "payroll")
    async with asyncio.timeout(SOON):
        await broker.close()
        await worker.ended()


async def test_whoever_is_to_end_ends_whatever_its_last_words_raise() -> None:
    begun = asyncio.Event()

    async def attempt() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            raise OSError("the connection is gone already")

    errors: list[Exception] = []
    task = asyncio.create_task(clients.forever(attempt, errors.append))
    await begun.wait()
    task.cancel()
    async with asyncio.timeout(SOON):
        await asyncio.wait([task])
    assert task.cancelled()
    assert len(errors) == 1
