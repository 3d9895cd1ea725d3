"""Topics as they are against topics as they should be: what differs, and making it so.

Nothing is ever deleted or made smaller, and copies are not moved: that is for Kafka's own tools, and said. Applying
twice, or being killed in between, does no harm: the next look finds what is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from gsb.backends import KafkaTable
from gsb.broker.kafka.clients import access
from gsb.broker.topics import Topic

OF_TOPIC = 1
"""In Kafka's replies: the source of a setting that was made for the topic."""


@dataclass(frozen=True)
class Difference:
    """One thing to do. ``what``: topic, partitions, a setting's own name, or replication, which is not done here."""

    topic: str
    what: str
    now: str | None
    wanted: str

    @property
    def by_hand(self) -> bool:
        return self.what == "replication"

    def __str__(self) -> str:
        if self.what == "topic":
            return f"{self.topic}: make it, {self.wanted}"
        by_hand = ", which needs Kafka's own kafka-reassign-partitions" if self.by_hand else ""
        return f"{self.topic}: {self.what} is {self.now}, should be {self.wanted}{by_hand}"


@dataclass(frozen=True)
class _Found:
    """A topic as it is. ``own``: settings that were made for it, all of which a change must name again."""

    partitions: int
    replication: int
    settings: Mapping[str, str]
    own: Mapping[str, str]

    @classmethod
    def of(cls, told: Any, settings: Mapping[str, str], own: Mapping[str, str]) -> _Found:
        """``told``: the topic as Kafka describes it."""
        partitions = told["partitions"]
        return cls(len(partitions), min(len(each["replicas"]) for each in partitions), settings, own)


class Topics:
    """A connection to Kafka for the time of an ``async with``. Raises KafkaError, OSError or TimeoutError."""

    def __init__(self, table: KafkaTable) -> None:
        self._arguments = access(table)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Topics:
        self._client = AIOKafkaAdminClient(**self._arguments)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._client.close)
            await self._client.start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def plan(self, wanted: Sequence[Topic]) -> list[Difference]:
        """What differs, in the order of ``wanted``."""
        found = await self._found([each.name for each in wanted])
        return [each for topic in wanted for each in _compare(topic, found.get(topic.name))]

    async def outline(self, wanted: Sequence[Topic]) -> list[Difference]:
        """What differs of topics, partitions and copies: all that a user sees who may only Describe."""
        found = {
            name: _Found.of(told, {}, {}) for name, told in (await self._told(each.name for each in wanted)).items()
        }
        differences = [each for topic in wanted for each in _compare(topic, found.get(topic.name))]
        settings = {name for topic in wanted for name in topic.settings}
        return [each for each in differences if each.what not in settings]

    async def apply(self, wanted: Sequence[Topic]) -> list[Difference]:
        """Do all that can be done; what was different."""
        found = await self._found([each.name for each in wanted])
        differences = await self.plan(wanted)
        for topic in wanted:
            mine = [each for each in differences if each.topic == topic.name]
            whats = {each.what for each in mine}
            if "topic" in whats:
                await self._make(topic)
            if "partitions" in whats:
                await self._client.create_partitions({topic.name: NewPartitions(topic.partitions)})
            if whats & topic.settings.keys():
                await self._set(topic, found[topic.name].own)
        return differences

    async def _found(self, names: Sequence[str]) -> dict[str, _Found]:
        told = await self._told(names)
        settings = await self._settings(list(told))
        return {name: _Found.of(each, *settings[name]) for name, each in told.items()}

    async def _told(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of the names that are there, each as Kafka describes it."""
        # All are asked for: where brokers make topics by themselves, to ask for one that is missing would make it.
        told = {each["topic"]: each for each in await self._client.describe_topics()}
        return {name: told[name] for name in names if name in told}

    async def _settings(self, names: Sequence[str]) -> dict[str, tuple[dict[str, str], dict[str, str]]]:
        """Of each topic all settings, and those of its own."""
        asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        found = {}
        for answer in await self._client.describe_configs(asked) if asked else ():
            for code, message, _, name, entries in answer.resources:
                _raise(code, message)
                every = {entry[0]: entry[1] for entry in entries}
                found[name] = every, {entry[0]: entry[1] for entry in entries if entry[3] == OF_TOPIC}
        return found

    async def _make(self, topic: Topic) -> None:
        new = NewTopic(topic.name, topic.partitions, topic.replication, topic_configs=dict(topic.settings))
        answer = await self._client.create_topics([new])
        for _, code, message in answer.topic_errors:
            _raise(code, message)

    async def _set(self, topic: Topic, own: Mapping[str, str]) -> None:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic.name, {**own, **topic.settings})
        for answer in await self._client.alter_configs([resource]):
            for code, message, *_ in answer.resources:
                _raise(code, message)


def _compare(topic: Topic, found: _Found | None) -> list[Difference]:
    if found is None:
        said = ", ".join(f"{name}={value}" for name, value in topic.settings.items())
        return [Difference(topic.name, "topic", None, f"{topic.partitions} partitions x {topic.replication}, {said}")]
    differences = []
    if found.partitions < topic.partitions:
        differences.append(Difference(topic.name, "partitions", str(found.partitions), str(topic.partitions)))
    if found.replication < topic.replication:
        differences.append(Difference(topic.name, "replication", str(found.replication), str(topic.replication)))
    for name, value in topic.settings.items():
        if name == "min.insync.replicas" and found.replication < topic.replication:
            continue  # with fewer copies than that nothing could be written: first the copies
        if (now := found.settings.get(name)) != value:
            differences.append(Difference(topic.name, name, now, value))
    return differences


def _raise(code: int, message: str | None) -> None:
    if code:
        error: KafkaError = for_code(code)(message or "")
        raise error
