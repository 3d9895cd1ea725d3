"""The ways to a Kafka that asks who is there: passwords and certificates over TLS, on real listeners."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from gsb.backends import KafkaTable
from gsb.broker.contract import BrokerUnfit
from gsb.broker.kafka import KafkaBroker
from gsb.broker.kafka.admin import Topics
from gsb.broker.topics import topics
from tests.broker_contract import take
from tests.support.certificates import certificate
from tests.support.kafka import own_cluster
from tests.test_broker_kafka import eventually, opened

PASSWORD = "correct-horse-battery"
TLS = "listener.name.extra.ssl."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of an authority, a broker and a node, and the authority's alone as ``ca.crt``."""
    made = tmp_path_factory.mktemp("certificates")
    for name, issuer in (("authority", None), ("broker", "authority"), ("node", "authority"), ("stranger", None)):
        certificate(made, name, issuer)
    for name in ("authority", "stranger"):
        pem = (made / f"{name}.pem").read_text("ascii")
        (made / f"{name}.crt").write_text(pem[pem.index("-----BEGIN CERTIFICATE") :], "ascii")
    (made / "password").write_text(f"{PASSWORD}\n", "utf-8")
    (made / "wrong").write_text("wrong", "utf-8")
    return made


def tls(folder: Path, protocol: str) -> dict[str, str]:
    return {
        "listener.security.protocol": protocol,
        f"{TLS}keystore.type": "PEM",
        f"{TLS}keystore.location": str(folder / "broker.pem"),
        f"{TLS}truststore.type": "PEM",
        f"{TLS}truststore.location": str(folder / "authority.crt"),
    }


@pytest.fixture(scope="module")
def scram(folder: Path) -> Iterator[str]:
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    mechanisms = ("SCRAM-SHA-256", "SCRAM-SHA-512")
    asked = {f"listener.name.extra.{each.lower()}.sasl.jaas.config": login for each in mechanisms}
    extra = {**tls(folder, "SASL_SSL"), **asked, "sasl.enabled.mechanisms": ",".join(mechanisms)}
    users = [f"{each}=[name=gsb,password={PASSWORD}]" for each in mechanisms]
    with own_cluster(extra=extra, scram=users) as cluster:
        yield cluster.nodes[0].extra_address


@pytest.fixture(scope="module")
def mutual(folder: Path) -> Iterator[str]:
    with own_cluster(extra={**tls(folder, "SSL"), f"{TLS}client.auth": "required"}) as cluster:
        yield cluster.nodes[0].extra_address


def table(broker: str, **more: Any) -> KafkaTable:
    return KafkaTable.model_validate({"kind": "kafka", "brokers": [broker], "replication": 1, "partitions": 1, **more})


async def works(found: KafkaTable) -> None:
    async with Topics(found) as admin:
        await admin.apply(topics(found, ["tax"]))
    async with opened(found) as broker:
        await broker.dispatch("tax", "e-1", "payroll")
        assert await take(broker, ["tax"], 1) == [("tax", "e-1")]


async def refused(found: KafkaTable) -> None:
    with pytest.raises(KafkaError):
        async with Topics(found):
            pass


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_password_over_tls(scram: str, folder: Path, mechanism: str) -> None:
    sasl = {"mechanism": mechanism, "user": "gsb", "password": folder / "password"}
    prefix = mechanism.lower()
    await works(table(scram, tls={"ca": folder / "authority.crt"}, sasl=sasl, topic_prefix=prefix))


async def test_a_wrong_password_and_a_strange_broker_are_refused_and_told_without_the_password(
    scram: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = {"user": "gsb", "password": folder / "wrong"}
    right = {"user": "gsb", "password": folder / "password"}
    await refused(table(scram, tls={"ca": folder / "stranger.crt"}, sasl=right))
    await refused(table(scram.replace("localhost", "127.0.0.1"), tls={"ca": folder / "authority.crt"}, sasl=right))
    found = table(scram, tls={"ca": folder / "authority.crt"}, sasl=wrong)
    await refused(found)
    async with opened(found) as broker:
        await broker.dispatch("tax", "e-1", "payroll")
        await eventually(lambda: bool(caplog.messages))
    assert re.match(r"Kafka cannot be reached \(.*\)", caplog.messages[0])
    assert PASSWORD not in caplog.text


async def test_certificates_on_both_sides(mutual: str, folder: Path) -> None:
    own = {"ca": folder / "authority.crt", "certificate": folder / "node.pem", "key": folder / "node.pem"}
    await works(table(mutual, tls=own))
    await refused(table(mutual, tls={"ca": folder / "authority.crt"}))
    strange = {"certificate": folder / "stranger.pem", "key": folder / "stranger.pem"}
    await refused(table(mutual, tls={**own, **strange}))


def test_files_that_cannot_be_used_are_named(folder: Path, tmp_path: Path) -> None:
    def told(**more: Any) -> str:
        with pytest.raises(BrokerUnfit) as caught:
            KafkaBroker(table("localhost:9092", **more))
        return str(caught.value)

    assert str(tmp_path / "gone") in told(tls={"ca": tmp_path / "gone"})
    assert "password" in told(tls={"ca": folder / "password"})
    pair = {"certificate": folder / "node.pem", "key": folder / "broker.pem"}
    assert "broker.pem" in told(tls={"ca": folder / "authority.crt", **pair})
    assert str(tmp_path / "gone") in told(sasl={"user": "gsb", "password": tmp_path / "gone"})


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"brokers": ["kafka.example:9092"]}, "tls is needed"),
        ({"brokers": ["localhost:9092", "10.0.0.1:9092"]}, "tls is needed"),
        ({"tls": {"certificate": "node.pem"}}, "come together"),
        ({"tls": {"key": "node.pem"}}, "come together"),
        ({"brokers": ["kafka.example"], "tls": "upstream"}, "host:port"),
        ({"brokers": []}, "at least 1"),
        ({"topic_prefix": "Upper"}, "match pattern"),
        ({"sasl": {"mechanism": "PLAIN", "user": "gsb", "password": "p"}}, "SCRAM-SHA-256"),
    ],
)
def test_tables_that_are_refused(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        KafkaTable.model_validate({"kind": "kafka", "brokers": ["localhost:9092"], **wrong})


def test_the_way_to_other_machines_is_protected_here_or_said_to_be() -> None:
    far = {"kind": "kafka", "brokers": ["kafka.example:9092", "[2001:db8::1]:9092"]}
    assert KafkaTable.model_validate({**far, "tls": "upstream"}).tls == "upstream"
    assert KafkaTable.model_validate({**far, "tls": {}}).tls is not None
    assert KafkaTable(kind="kafka", brokers=["[::1]:9092", "127.0.0.1:1", "localhost:2"]).tls is None
