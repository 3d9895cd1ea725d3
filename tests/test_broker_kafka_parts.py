"""The parts of the broker on Kafka that need no Kafka: positions, turns, events, the table of topics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsb.backends import KafkaTable
from gsb.broker.kafka.events import DISPATCH, WAKE, Speaker, read
from gsb.broker.kafka.outbox import partition
from gsb.broker.kafka.positions import Positions
from gsb.broker.kafka.turns import Turns, Waiting
from gsb.broker.topics import topics, wake_topic, work_topic

TABLE = KafkaTable(kind="kafka", brokers=["localhost:9092"], topic_prefix="bus", partitions=7)


# --- positions


@given(st.lists(st.tuples(st.sampled_from(["read", "begin", "finish"]), st.integers(0, 20)), max_size=80))
def test_a_commit_never_passes_over_what_is_not_finished(steps: list[tuple[str, int]]) -> None:
    positions, begun, finished = Positions(), set[int](), set[int]()
    next_ = 0
    for step, number in steps:
        if step == "finish":
            positions.finish(number)
            finished.add(number)
        else:
            positions.read(next_)
            if step == "begin":
                positions.begin(next_)
                begun.add(next_)
                finished.discard(next_)
            next_ += 1
        safe = positions.safe
        expected = min(begun - finished, default=next_ if next_ else None)
        assert safe == expected
        assert len(positions) == len(begun - finished)


def test_what_was_committed_is_not_committed_again() -> None:
    positions = Positions()
    positions.read(4)
    assert positions.safe == 5
    positions.committed = 5
    assert positions.safe is None


# --- turns


def waiting(agency: str, number: int) -> Waiting:
    return Waiting(number % 2, number, f"{agency}-{number}", agency)


def taken(turns: Turns) -> list[str]:
    found = []
    while (each := turns.take()) is not None:
        found.append(each.exchange)
    return found


def test_agencies_take_turns_each_in_its_own_order() -> None:
    turns = Turns()
    for number in range(4):
        turns.put(waiting("flood", number))
    for number in range(2):
        turns.put(waiting("calm", number))
    assert taken(turns) == ["flood-0", "calm-0", "flood-1", "calm-1", "flood-2", "flood-3"]


def test_what_waits_already_waits_once_and_may_come_again_later() -> None:
    turns = Turns()
    assert turns.put(waiting("a", 1))
    assert not turns.put(waiting("a", 1))
    assert taken(turns) == ["a-1"]
    assert turns.put(waiting("a", 1))


def test_what_is_not_kept_is_forgotten_and_may_come_again() -> None:
    turns = Turns()
    for number in range(4):
        turns.put(waiting("a", number))
    turns.keep(lambda each: each.partition == 1)
    assert turns.put(waiting("a", 0))
    assert taken(turns) == ["a-1", "a-3", "a-0"]


# --- events


def test_what_is_said_is_read_and_known_as_one_s_own() -> None:
    speaker = Speaker("bus")
    dispatch, wake = speaker.dispatch("e-1", "payroll"), speaker.wake("e-1")
    assert read(dispatch, DISPATCH) == ("e-1", "payroll", None)
    assert read(wake, WAKE) == ("e-1", "", None)
    assert read(wake, DISPATCH) is None
    assert read(dispatch, WAKE) is None
    assert speaker.said(wake)
    assert not Speaker("bus").said(wake)


@given(st.lists(st.tuples(st.sampled_from(["ce_specversion", "ce_type", "ce_subject", "ce_agency", "x"]), st.binary())))
def test_nothing_that_a_stranger_writes_is_an_error(headers: list[tuple[str, bytes]]) -> None:
    good = Speaker("bus").dispatch("e-1", "payroll")
    found = read([*good, *headers], DISPATCH)
    assert found is None or len(found.exchange) <= 64


# --- topics


def test_the_same_exchange_goes_to_the_same_partition_and_many_go_to_all() -> None:
    every = list(range(7))
    places = [partition(b"e-%d" % number, every, every) for number in range(1_000)]
    assert places == [partition(b"e-%d" % number, every, every) for number in range(1_000)]
    assert set(places) == set(every)


def test_the_table_has_a_topic_for_each_system_and_one_for_wakes() -> None:
    found = topics(TABLE, ["tax", "hrmis"])
    assert [each.name for each in found] == ["bus.work.hrmis", "bus.work.tax", "bus.wakes"]
    assert [each.partitions for each in found] == [7, 7, 3]
    assert {each.replication for each in found} == {3}
    assert {each.settings["min.insync.replicas"] for each in found} == {"2"}
    assert (work_topic(TABLE, "tax"), wake_topic(TABLE)) == ("bus.work.tax", "bus.wakes")


@pytest.mark.parametrize(("replication", "enough"), [(1, "1"), (2, "1"), (3, "2"), (5, "4")])
def test_all_copies_but_one_must_have_a_message(replication: int, enough: str) -> None:
    table = TABLE.model_copy(update={"replication": replication})
    assert topics(table, [])[0].settings["min.insync.replicas"] == enough
