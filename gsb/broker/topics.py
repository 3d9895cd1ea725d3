"""The topics and groups of a bus on Kafka, in one table: what ``gsb topics`` makes, nodes use and a chart may show.

Nothing is asked or made here. Whoever may write to these topics can make workers look at an exchange for nothing, and
whoever may read them learns ids; so a bus's own users are the only ones to be allowed either. A crash is a defect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gsb.backends import KafkaTable

HOUR = 3_600_000
"""Milliseconds, as Kafka counts."""
WORK_KEPT = 24 * HOUR
"""Dispatches are of use until their exchange has ended. What waited longer is dispatched again by the sweeper."""
WAKES_KEPT = HOUR // 6
"""Wakes are of use for the second or so for which somebody waits."""
WAKE_PARTITIONS = 3
"""Every gateway reads all of them; more than one only spreads them over brokers."""


class Topic(NamedTuple):
    """What a topic should be. ``settings`` are topic configurations by Kafka's own names."""

    name: str
    partitions: int
    replication: int
    settings: Mapping[str, str]


def work_topic(table: KafkaTable, system: str) -> str:
    """Where dispatches for a system's workers go; their consumer group is called the same."""
    return f"{table.topic_prefix}.work.{system}"


def wake_topic(table: KafkaTable) -> str:
    """Where gateways hear that an exchange has changed."""
    return f"{table.topic_prefix}.wakes"


def topics(table: KafkaTable, systems: Iterable[str]) -> list[Topic]:
    """All that a bus with these systems needs."""
    work = _settings(table, WORK_KEPT, HOUR)
    wakes = _settings(table, WAKES_KEPT, WAKES_KEPT)
    return [
        *(Topic(work_topic(table, each), table.partitions, table.replication, work) for each in sorted(systems)),
        Topic(wake_topic(table), WAKE_PARTITIONS, table.replication, wakes),
    ]


def _settings(table: KafkaTable, kept: int, segment: int) -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "min.insync.replicas": str(max(1, table.replication - 1)),
        "retention.ms": str(kept),
        "segment.ms": str(segment),  # only whole segments are deleted
    }
