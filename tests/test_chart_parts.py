"""What the chart makes of the bus's own tables: its files, topics and metrics; its test; and its page and values."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from gsb.backends import KafkaTable
from gsb.broker.topics import topics
from gsb.catalogue import build
from gsb.cli.main import app
from gsb.evidence.checkpoint import Signer
from gsb.metrics import TABLE
from gsb.runtime import Runtime
from gsb.witness.settings import read_settings
from tests.chart import readme
from tests.chart.charting import (
    CHART,
    DEPLOYMENT,
    HERE,
    Document,
    documents,
    named,
    of,
    pods,
)
from tests.support.bus import PERSON_BODY, READ
from tests.support.node import GSB, node_in_process
from tests.support.reading import published

# --- files


def projected(scenario: str, pod: str) -> Iterator[tuple[str, str]]:
    """Path and content of what a pod finds in /etc/gsb."""
    (config,) = (each for each in pods(scenario)[pod]["spec"]["volumes"] if each["name"] == "config")
    for source in config["projected"]["sources"]:
        data = named(scenario, "ConfigMap", source["configMap"]["name"])["data"]
        for item in source["configMap"]["items"]:
            yield item["path"], data[item["key"]]


def test_a_pod_finds_the_deployment_byte_for_byte() -> None:
    there = {
        path.relative_to(DEPLOYMENT).as_posix(): path.read_text("utf-8")
        for path in DEPLOYMENT.rglob("*")
        if path.is_file()
    }
    assert dict(projected("single", "StatefulSet/gsb")) == there
    there["gsb.toml"] = (HERE / "distributed.toml").read_text("utf-8")
    assert dict(projected("distributed", "Deployment/gsb-gateway")) == there


def laid(scenario: str, pod: str, folder: Path) -> Path:
    """The folder as a pod finds it, with secrets of its own and an empty file for what is withheld from it."""
    secrets, data = folder / "secrets", folder / "data"
    for each in (secrets / "bus", secrets / "tax", data):
        each.mkdir(parents=True)
    for words in (["bus.jwk"], ["--alg", "Ed25519", "log.jwk"], ["--store", "store.key"]):
        subprocess.run([GSB, "keygen", *words], cwd=secrets / "bus", check=True, stdout=subprocess.DEVNULL)
    (secrets / "bus/dsn").write_text("postgresql://gsb:secret@/gsb?host=/run/postgresql", "utf-8")
    (secrets / "bus/kafka").write_text("secret", "utf-8")
    (secrets / "tax/authority.pem").touch()
    for name, text in projected(scenario, pod):
        file = folder / "etc" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        here = text.replace("/run/secrets/gsb", str(secrets)).replace("/var/lib/gsb", str(data))
        file.write_text(here, "utf-8")
    return folder / "etc"


@pytest.mark.parametrize(
    ("scenario", "pod"), [("single", "StatefulSet/gsb"), ("pools", "Deployment/gsb-worker-registry")]
)
async def test_what_a_pod_finds_is_right(scenario: str, pod: str, tmp_path: Path) -> None:
    """``gsb check`` has nothing to say, and of a worker's adapters only that for its system is opened."""
    folder = laid(scenario, pod, tmp_path)
    done = CliRunner().invoke(app, ["check", str(folder)])
    assert done.exit_code == 0, done.output
    runtime = Runtime(works_for=frozenset({"registry"}).__contains__)
    prepared = await runtime.prepare(build(folder))
    assert [line.name for line in prepared.opened] == ["registry"]
    await runtime.discard(prepared)


def test_no_private_key_becomes_a_value(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config.toml").write_text("hidden", "utf-8")
    (tmp_path / "keys").mkdir()
    subprocess.run([GSB, "keygen", "bus.jwk.json"], cwd=tmp_path / "keys", check=True, stdout=subprocess.DEVNULL)
    pem = "-----BEGIN PRIVATE KEY-----\n"
    for name, text in {"gsb.toml": "[bus]\n", "tls.pem": pem, "secrets.txt": "hunter2"}.items():
        (tmp_path / name).write_text(text, "utf-8")
    command = [sys.executable, str(CHART / "deployment.py")]
    done = subprocess.run([*command, tmp_path], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)["config"]["files"]) == {"gsb.toml", "keys/bus.pub.jwk.json"}
    assert done.stderr.splitlines() == [f"left out: {name}" for name in ("keys/bus.jwk.json", "secrets.txt", "tls.pem")]
    missing = subprocess.run([*command, tmp_path / "keys"], capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stdout) == (2, "")


# --- Kafka


def kafka_of_deployment() -> KafkaTable:
    # A reader of TOML of its own, since the secrets that it names are not there.
    text = (HERE / "distributed.toml").read_text("utf-8")
    (partitions,) = re.findall("^partitions = ([0-9]+)", text, re.MULTILINE)
    table = {
        "kind": "kafka",
        "brokers": ["k:1"],
        "topic_prefix": "bus",
        "partitions": int(partitions),
        "tls": "upstream",
    }
    return KafkaTable.model_validate(table)


def test_strimzi_makes_the_topics_of_the_table() -> None:
    made = {
        each["metadata"]["name"]: (each["spec"]["partitions"], each["spec"]["replicas"], each["spec"]["config"])
        for each in of("strimzi", "KafkaTopic")
    }
    wanted = topics(kafka_of_deployment(), ["registry", "tax"])
    assert made == {each.name: (each.partitions, each.replication, each.settings) for each in wanted}


def test_the_user_may_use_these_topics_and_nothing_else() -> None:
    (user,) = of("strimzi", "KafkaUser")
    wanted = topics(kafka_of_deployment(), ["registry", "tax"])
    rules = {
        (rule["resource"]["type"], rule["resource"]["name"], *rule["operations"])
        for rule in user["spec"]["authorization"]["acls"]
    }
    groups = [each.name for each in wanted if ".work." in each.name]
    assert rules == {
        *(("topic", each.name, "Read", "Write", "Describe") for each in wanted),
        *(("group", name, "Read") for name in groups),
    }
    assert {rule["resource"]["patternType"] for rule in user["spec"]["authorization"]["acls"]} == {"literal"}


def test_workers_follow_the_lag_of_their_topics_up_to_the_partitions() -> None:
    (scaled,) = of("autoscaling", "ScaledObject")
    table = kafka_of_deployment()
    assert scaled["spec"]["maxReplicaCount"] <= table.partitions
    asked = {(each["metadata"]["topic"], each["metadata"]["consumerGroup"]) for each in scaled["spec"]["triggers"]}
    assert asked == {(f"bus.work.{system}", f"bus.work.{system}") for system in ("registry", "tax")}
    # Who scales a Deployment decides about its replicas alone.
    for role in ("gateway", "worker-all"):
        assert "replicas" not in named("autoscaling", "Deployment", f"gsb-{role}")["spec"]


# --- metrics


EXPORTED = {metric.name: metric for metric in TABLE}


def test_gateways_scale_by_a_metric_that_is_exported() -> None:
    (scaler,) = of("autoscaling", "HorizontalPodAutoscaler")
    _, by_calls = scaler["spec"]["metrics"]
    metric = by_calls["pods"]["metric"]
    assert set(metric["selector"]["matchLabels"]) == set(EXPORTED[metric["name"]].labels)


def test_the_rules_are_the_file() -> None:
    (rule,) = of("monitoring", "PrometheusRule")
    spec = json.dumps(yaml.safe_load((CHART / "rules/alerts.yaml").read_bytes()))
    # What can only be asked of one bus is asked of this release.
    here = {"absent(gsb_info)": 'absent(gsb_info{namespace=\\"bus\\"})'}
    here |= {'cronjob=\\"gsb-backup\\"': 'cronjob=\\"gsb-backup\\", namespace=\\"bus\\"'}
    for general, narrow in here.items():
        assert spec.count(general) >= 1
        spec = spec.replace(general, narrow)
    assert rule["spec"] == json.loads(spec)
    assert "{{ $labels.instance }}" in json.dumps(rule["spec"])


def test_every_metric_of_a_dashboard_is_exported_with_its_labels() -> None:
    data = named("monitoring", "ConfigMap", "gsb-dashboards")["data"]
    assert len(data) == len(list((CHART / "dashboards").iterdir())) >= 3
    asked = []
    for name, text in data.items():
        board = json.loads(text)
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]), name
        asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for expression in asked:
        assert strangers(expression) == [], expression


def strangers(expression: str) -> list[str]:
    """Metrics that are not exported, and labels that none of its metrics has."""
    names = re.findall(r"\b(?:gsb|process)_[a-z_]+", expression)
    own = [name.removesuffix("_bucket") for name in names if name.startswith("gsb_")]
    wrong = [name for name in own if name not in EXPORTED]
    known = {"instance", "le", *(label for name in own if name in EXPORTED for label in EXPORTED[name].labels)}
    asked = re.findall(r"by \(([a-z, ]*)\)", expression) + re.findall(r"([a-z_]+)!?=[\"~]", expression)
    return wrong + [label for each in asked for label in each.split(", ") if label not in known]


def test_a_stranger_in_a_dashboard_is_found() -> None:
    assert strangers("sum by (colour) (gsb_calls_total)") == ["colour"]
    assert strangers('rate(gsb_calls_totals{port="api"}[5m])') == ["gsb_calls_totals", "port"]


def test_prometheus_finds_every_node() -> None:
    (monitor,) = of("monitoring", "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = [each for each in of("monitoring", "Service") if wanted <= each["metadata"]["labels"].items()]
    nodes = [pod for pod in pods("monitoring").values() if service["spec"]["selector"].items() <= labels(pod).items()]
    assert len(nodes) == len(of("monitoring", "Deployment")) == 3
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}


def labels(pod: Document) -> dict[str, str]:
    found: dict[str, str] = pod["metadata"]["labels"]
    return found


# --- what stands in front


def test_client_certificates_are_required_in_front() -> None:
    (ingress,) = of("ingress", "Ingress")
    said = ingress["metadata"]["annotations"]
    assert said["nginx.ingress.kubernetes.io/auth-tls-secret"] == "bus/agencies-ca"
    assert said["nginx.ingress.kubernetes.io/auth-tls-verify-client"] == "on"
    (gateway,) = of("gateway-api", "Gateway")
    (authority,) = gateway["spec"]["tls"]["frontend"]["default"]["validation"]["caCertificateRefs"]
    assert authority["name"] == "agencies-ca"
    for scenario, kind in (("ingress", "Certificate"), ("gateway-api", "Gateway")):
        assert "bus-tls" in json.dumps(of(scenario, kind))


def test_secrets_are_named_and_never_held() -> None:
    (bus, _) = sorted(of("external-secrets", "ExternalSecret"), key=lambda each: str(each["metadata"]["name"]))
    assert bus["spec"]["target"]["name"] == "gsb-bus"
    for scenario in ("single", "external-secrets", "witness"):
        assert not [each for each in documents(scenario) if each["kind"] == "Secret"]


def test_the_witness_finds_its_file(tmp_path: Path) -> None:
    subprocess.run([GSB, "keygen", "--alg", "Ed25519", "key.jwk"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    text = named("witness", "ConfigMap", "gsb-witness")["data"]["witness.toml"]
    text = text.replace("/run/secrets/witness", str(tmp_path)).replace("/var/lib/gsb", str(tmp_path))
    (tmp_path / "witness.toml").write_text(text, "utf-8")
    listen = read_settings(tmp_path).file.listen
    (container,) = pods("witness")["StatefulSet/gsb-witness"]["spec"]["containers"]
    assert (listen.host, listen.port) == ("0.0.0.0", container["ports"][0]["containerPort"])
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/etc/gsb", "/run/secrets/witness", "/var/lib/gsb"}


# --- helm test


async def smoke(node: Any, folder: Path, log_key: str) -> tuple[int, str]:
    """What ``files/smoke.py`` does against a bus, with the variables that the pod gives it."""
    (container,) = pods("smoke")["Pod/gsb-test"]["spec"]["containers"]
    said = {
        "GSB_URL": node.url,
        "GSB_BUS": node.bus_id,
        "GSB_AGENCY": "payroll",
        "GSB_KEY": str(node.deployment.key_file("payroll")),
        "GSB_LOG_KEY": log_key,
        "SMOKE_SERVICE": READ,
        "SMOKE_PURPOSE": "payroll",
        "SMOKE_BODY": json.dumps(PERSON_BODY),
    }
    assert {each["name"] for each in container["env"]} == set(said)
    script = folder / "smoke.py"
    script.write_text(named("smoke", "ConfigMap", "gsb-test")["data"]["smoke.py"], "utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        script,
        env=said | {"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    async with asyncio.timeout(120):
        out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_helm_test_makes_a_call_and_verifies_its_receipt(tmp_path: Path) -> None:
    async with node_in_process(tmp_path) as node:
        origin = (await published(node)).split(b"\n")[0].decode()
        right = Signer(origin, node.node.bus.catalogue.log_key).vkey
        code, told = await smoke(node, tmp_path, right)
        assert code == 0, told
        assert "its receipt is in the evidence log" in told
        wrong = Signer(origin, Ed25519PrivateKey.generate()).vkey
        code, told = await smoke(node, tmp_path, wrong)
        assert code == 1
        assert "LogWrong" in told


# --- values and page


def test_every_value_is_explained() -> None:
    text = (CHART / "values.yaml").read_text("utf-8")
    assert len(text.splitlines()) <= 350
    found = list(readme.values(text))
    assert [".".join(each.path) for each in found if not each.comment.endswith(".")] == []
    schema = json.loads((CHART / "values.schema.json").read_bytes())
    assert {each.path[0] for each in found} == schema["properties"].keys() - {"global"}
    for each in found:
        if each.opened and each.path[0] != "workers":  # whose pools have names of their own
            inside = schema
            for step in each.path:
                inside = inside["properties"][step]
            there = {other.path[-1] for other in found if other.path[:-1] == each.path}
            assert inside["properties"].keys() == there, each.path
            assert inside["additionalProperties"] is False


def test_a_value_without_a_word_is_found() -> None:
    bare = [each for each in readme.values("# What it is.\na: 1\nb:\n  # Inside.\n  c: 2\n") if not each.comment]
    assert [each.path for each in bare] == [("b",)]


def test_the_page_of_the_chart_is_fresh() -> None:
    page = readme.PAGE.read_text("utf-8")
    assert readme.renewed(page) == page, "python -m tests.chart.readme"


def test_the_chart_is_of_this_version() -> None:
    (version,) = re.findall('^version = "(.*)"', (CHART.parents[1] / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_bytes())
    assert chart["appVersion"] == version
