"""The command ``gsb topics`` on a real Kafka: what it shows, what it makes, what it leaves alone, how it exits."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from typer.testing import CliRunner

from gsb.cli.cluster.topics import topics
from tests.support.deployment import Deployment, standard

Run = tuple[int, str, str]


@pytest.fixture
def deployment(tmp_path: Path, kafka: str) -> Deployment:
    made = standard(tmp_path)
    prefix = f"t{uuid.uuid4().hex[:12]}"
    made.gsb["broker"] = {
        "kind": "kafka",
        "brokers": kafka.split(","),
        "topic_prefix": prefix,
        "partitions": 3,
        "replication": 1,
    }
    return made


def run(deployment: Deployment, *words: str) -> Run:
    command, *more = words
    result = CliRunner().invoke(topics, [command, str(deployment.write()), *more])
    return result.exit_code, result.stdout, result.stderr


def until(deployment: Deployment, command: str, right: Callable[[Run], bool]) -> Run:
    """Brokers learn of what a controller has done a moment later."""
    bound = time.monotonic() + 90
    while not right(said := run(deployment, command)):
        assert time.monotonic() < bound, said
    return said


def ask(deployment: Deployment, what: Callable[[AIOKafkaAdminClient], Any]) -> Any:
    async def asked() -> Any:
        admin = AIOKafkaAdminClient(bootstrap_servers=deployment.gsb["broker"]["brokers"])
        await admin.start()
        try:
            return await what(admin)
        finally:
            await admin.close()

    return asyncio.run(asked())


def test_what_is_planned_is_made_and_then_nothing_is_left_to_do(deployment: Deployment) -> None:
    prefix = deployment.gsb["broker"]["topic_prefix"]
    code, out, err = run(deployment, "plan")
    assert (code, err) == (1, "")
    work = "cleanup.policy=delete, min.insync.replicas=1, retention.ms=86400000, segment.ms=3600000"
    wakes = "cleanup.policy=delete, min.insync.replicas=1, retention.ms=600000, segment.ms=600000"
    assert out.splitlines() == [
        f"to do: {prefix}.work.registry: make it, 3 partitions x 1, {work}",
        f"to do: {prefix}.wakes: make it, 3 partitions x 1, {wakes}",
    ]
    assert run(deployment, "apply") == (0, out.replace("to do", "done"), "")
    assert until(deployment, "plan", lambda said: said[0] == 0) == (0, "nothing to do\n", "")
    assert run(deployment, "apply") == (0, "nothing to do\n", "")


def test_partitions_are_raised_never_lowered_and_other_settings_are_kept(deployment: Deployment) -> None:
    table = deployment.gsb["broker"]
    name = f"{table['topic_prefix']}.work.registry"
    own = {"retention.ms": "5", "max.message.bytes": "12345"}
    ask(deployment, lambda admin: admin.create_topics([NewTopic(name, 2, 1, topic_configs=own)]))
    code, out, _ = until(deployment, "plan", lambda said: "retention.ms is 5" in said[1])
    assert f"to do: {name}: partitions is 2, should be 3" in out.splitlines()
    assert f"to do: {name}: retention.ms is 5, should be 86400000" in out.splitlines()
    assert (code, run(deployment, "apply")[0]) == (1, 0)
    until(deployment, "plan", lambda said: said[0] == 0)
    resource = ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": ""})
    (answer,) = ask(deployment, lambda admin: admin.describe_configs([resource]))
    assert answer.resources[0][4][0][1] == "12345"
    table["partitions"] = 1
    assert run(deployment, "plan")[0] == 0


def test_copies_are_left_to_kafka_s_own_tool(deployment: Deployment) -> None:
    assert run(deployment, "apply")[0] == 0
    until(deployment, "plan", lambda said: said[0] == 0)
    deployment.gsb["broker"]["replication"] = 2
    name = f"{deployment.gsb['broker']['topic_prefix']}.wakes"
    code, out, _ = run(deployment, "apply")
    assert code == 1
    line = f"by hand: {name}: replication is 1, should be 2, which needs Kafka's own kafka-reassign-partitions"
    assert line in out.splitlines()
    assert "min.insync" not in out


def test_plans_are_told_to_machines_too(deployment: Deployment) -> None:
    code, out, _ = run(deployment, "plan", "--json")
    found = json.loads(out)
    assert code == 1
    assert [(each["what"], each["now"], each["by_hand"]) for each in found] == [("topic", None, False)] * 2
    assert found[1]["topic"] == f"{deployment.gsb['broker']['topic_prefix']}.wakes"


def test_without_kafka_there_is_one_line_and_exit_2(deployment: Deployment, tmp_path: Path) -> None:
    def told(*words: str) -> str:
        code, out, err = run(deployment, *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        return err

    broker = deployment.gsb["broker"]
    broker["brokers"] = ["127.0.0.1:1"]
    assert told("plan").startswith("gsb: Kafka at 127.0.0.1:1: KafkaConnectionError")
    assert told("apply").startswith("gsb: Kafka at 127.0.0.1:1: KafkaConnectionError")
    broker["brokers"] = ["no address"]
    said = told("plan")
    assert "a broker is host:port" in said
    assert said.endswith(f"; gsb check {deployment.folder} says all\n")
    broker["brokers"] = ["127.0.0.1:1"]
    secret = tmp_path / "secret"
    secret.write_bytes(b"\xff")
    broker["sasl"] = {"user": "gsb", "password": str(secret)}
    assert told("plan").startswith(f"gsb: cannot read {secret}")
    deployment.gsb["broker"] = {"kind": "local"}
    assert "has no Kafka" in told("plan")
