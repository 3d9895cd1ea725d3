"""What the bus's user may do on Kafka: with the rights that the chart gives it, on a real Kafka that asks for them,
work gets done, and doctor finds nothing in trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.protocol.admin import CreateAclsRequest

from gsb.backends import KafkaTable
from gsb.broker.kafka.admin import Topics
from gsb.broker.topics import topics
from gsb.catalogue import build
from gsb.doctor import Found, Grade
from gsb.doctor.standing import kafka as examine
from tests.broker_contract import take
from tests.support.deployment import standard
from tests.support.kafka import Cluster, own_cluster
from tests.test_broker_kafka import opened

PASSWORD = "correct-horse-battery"
EXTRA = {
    "listener.security.protocol": "SASL_PLAINTEXT",
    "listener.name.extra.scram-sha-512.sasl.jaas.config": (
        "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    ),
    "sasl.enabled.mechanisms": "SCRAM-SHA-512",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    # Who comes by the listener that asks for no password: the broker itself, and whoever makes topics here.
    "super.users": "User:ANONYMOUS",
    "allow.everyone.if.no.acl.found": "false",
}
RESOURCES = {"topic": 2, "group": 3}
OPERATIONS = {"Read": 3, "Write": 4, "Describe": 8}
LITERAL, ALLOW = 3, 3
"""In Kafka's requests (Kafka protocol, CreateAcls)."""
RENDERED = Path(__file__).parent / "chart/golden/strimzi.yaml"


def chart_user() -> list[dict[str, Any]]:
    """The rights of the KafkaUser that the chart makes."""
    (user,) = [each for each in yaml.safe_load_all(RENDERED.read_text("utf-8")) if each and each["kind"] == "KafkaUser"]
    return list(user["spec"]["authorization"]["acls"])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with own_cluster(extra=EXTRA, scram=[f"SCRAM-SHA-512=[name=gsb,password={PASSWORD}]"]) as made:
        yield made


@asynccontextmanager
async def client(brokers: str) -> AsyncIterator[AIOKafkaClient]:
    made = AIOKafkaClient(bootstrap_servers=brokers)
    await made.bootstrap()
    try:
        yield made
    finally:
        await made.close()


async def grant(brokers: str, acls: list[dict[str, Any]]) -> None:
    async with client(brokers) as kafka:
        for acl in acls:
            resource = acl["resource"]
            assert resource["patternType"] == "literal"
            for operation in acl["operations"]:
                rule = RESOURCES[resource["type"]], resource["name"], LITERAL, "User:gsb", "*", OPERATIONS[operation]
                answer = await kafka.send(kafka.get_random_node(), CreateAclsRequest(*rule, ALLOW))
                assert [code for code, *_ in answer.creation_responses] == [0]


def table(folder: Path, broker: str) -> dict[str, Any]:
    (folder / "password").write_text(PASSWORD, "utf-8")
    sasl = {"mechanism": "SCRAM-SHA-512", "user": "gsb", "password": str(folder / "password")}
    return {
        "kind": "kafka",
        "brokers": [broker],
        "replication": 1,
        "partitions": 1,
        "topic_prefix": "bus",
        "sasl": sasl,
    }


async def test_the_rights_that_the_chart_gives_are_enough(tmp_path: Path, cluster: Cluster) -> None:
    deployment = standard(tmp_path)
    given = table(tmp_path, cluster.nodes[0].extra_address)
    deployment.gsb["broker"] = given
    catalogue = build(deployment.write())
    as_user = KafkaTable.model_validate(given)
    as_admin = KafkaTable.model_validate(given | {"brokers": [cluster.brokers], "sasl": None})
    wanted = topics(as_user, ["registry"])
    async with Topics(as_admin) as admin:
        await admin.apply(wanted[:1])

    missing = [each.what async for each in examine(catalogue)]
    assert missing == ["kafka", *(f"topic: {each.name}" for each in wanted)]  # it may see none
    await grant(cluster.brokers, chart_user())
    told = [each async for each in examine(catalogue)]
    assert [(each.what, each.grade) for each in told] == [
        ("kafka", Grade.WELL),
        (f"topic: {wanted[1].name}", Grade.TROUBLE),
    ]

    async with Topics(as_admin) as admin:
        await admin.apply(wanted)
    seen = "there; their settings may not be seen by this user"
    assert [each async for each in examine(catalogue)] == [
        Found("kafka", Grade.WELL, "its brokers answer"),
        Found("topics", Grade.WELL, f"all {len(wanted)} are {seen}"),
    ]
    async with Topics(as_user) as limited:
        with pytest.raises(TopicAuthorizationFailedError):
            await limited.plan(wanted)
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with opened(as_user) as gateway, opened(as_user) as worker:
        gateway.on_wake(heard.put_nowait)
        await gateway.dispatch("registry", "e-1", "payroll")
        assert await take(worker, ["registry"], 1) == [("registry", "e-1")]
        async with asyncio.timeout(90):
            while heard.empty():  # a listener hears nothing of before it is there
                await worker.wake("e-1")
                await asyncio.sleep(0.05)
