"""The chart: what it renders for each scenario, held against files, Kubernetes' schemas and rules that hold for all.

The scenarios are in ``tests/chart/values``. GSB_RENEW_GOLDEN=1 writes what they render to as the files to compare with.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.charting import (
    GOLDEN,
    KUBERNETES,
    NEWEST,
    OLDEST,
    SCENARIOS,
    documents,
    folder_as_values,
    helm,
    named,
    of,
    oldest,
    pods,
    rendered,
    selects,
)
from tests.support.needs import needs

BUILT_IN = re.compile(r"v1|(apps|batch|policy|autoscaling)/v[0-9]+|networking\.k8s\.io/v1")
each_scenario = pytest.mark.parametrize("scenario", SCENARIOS)


# --- what is rendered


@each_scenario
def test_a_scenario_renders_as_it_did(scenario: str) -> None:
    golden = GOLDEN / f"{scenario}.yaml"
    if os.environ.get("GSB_RENEW_GOLDEN"):
        golden.write_text(rendered(scenario), "utf-8")
    assert rendered(scenario) == golden.read_text("utf-8"), "if this is wanted: GSB_RENEW_GOLDEN=1 make chart"


def test_no_scenario_is_left_out() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(SCENARIOS)
    assert len(SCENARIOS) >= 12


@each_scenario
def test_helm_finds_nothing_wrong(scenario: str) -> None:
    done = helm("lint", scenario, "--strict")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kubernetes", [OLDEST, NEWEST])
def test_kubernetes_would_take_it(kubernetes: str, tmp_path: Path) -> None:
    needs(
        (KUBERNETES / "kubernetes-validate").is_file(), "kubernetes-validate is not installed: make deps-test does it"
    )
    for scenario in SCENARIOS:
        if oldest(scenario) > kubernetes:
            continue  # is refused there by the chart itself
        done = helm("template", scenario, kubernetes=kubernetes)
        assert done.returncode == 0, done.stderr
        known = [each for each in yaml.safe_load_all(done.stdout) if each and BUILT_IN.fullmatch(each["apiVersion"])]
        assert known
        (tmp_path / f"{scenario}.yaml").write_text(yaml.safe_dump_all(known), "utf-8")
    assert validated(kubernetes, *sorted(tmp_path.glob("*.yaml"))) == []


def validated(kubernetes: str, *files: Path) -> list[str]:
    command = [str(KUBERNETES / "kubernetes-validate"), "--strict", "--quiet", "--no-warn", "-k", kubernetes]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    found = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert bool(found) == bool(done.returncode)
    return found


def test_the_schemas_of_kubernetes_bite(tmp_path: Path) -> None:
    needs(
        (KUBERNETES / "kubernetes-validate").is_file(), "kubernetes-validate is not installed: make deps-test does it"
    )
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(rendered("single").replace("enableServiceLinks", "enableServiceLinkz"), "utf-8")
    assert validated(NEWEST, wrong)


# --- what is refused


@pytest.mark.parametrize(
    ("scenario", "more", "why"),
    [
        ("single", "single.replicas=2", "single.replicas"),
        ("single", "mode=distributed", 'needs [broker] with kind = "kafka"'),
        ("single", "mode=none", "set witness.enabled=true"),
        ("single", "sinlge.replicas=1", "Additional property sinlge is not allowed"),
        ("single", "single.replica=1", "Additional property replica is not allowed"),
        ("single", "image.tag=latest,image.digest=", "image.tag"),
        ("single", "drainSeconds=10", "drainSeconds is less than limits.drain"),
        ("single", "config.claim=also", "exactly one of config.files, config.claim and config.image"),
        ("single", "secrets.tax.keys=null", "keys"),
        ("single", "ingress.enabled=true", "not served without TLS"),
        ("single", "test.enabled=true", "helm test needs test.bus"),
        ("smoke", "test.url=http://other:8080", "must be one of bus.base_urls"),
        ("distributed", "kafka.partitions=12", "kafka.partitions is 12, but gsb.toml says 6"),
        ("distributed", "kafka.topicPrefix=gsb", "gsb.toml says bus"),
        ("gateway-api", "gatewayApi.parentRefs[0].nmae=x", "Additional property nmae is not allowed"),
        ("autoscaling", "workers.all.keda.max=7", "topics have 6 partitions"),
        ("pools", "workers.tax=null", "no pool of workers works for the system tax"),
        ("pools", "workers.tax.systems[0]=taxes", "names the system taxes, which is not there"),
        ("witness", "witness.file=", "the witness needs witness.file"),
        ("witness", "backup.enabled=true", "mode none has nothing to back up"),
        ("single", "backup.enabled=true", "backup.recipients, or nobody could open it"),
        ("backup", "backup.recipients[0]=age1", "backup.recipients.0"),
        ("backup", "backup.schedule=nightly", "backup.schedule"),
    ],
)
def test_what_would_lose_data_or_work_is_refused(scenario: str, more: str, why: str) -> None:
    done = helm("template", scenario, "--set", more)
    assert done.returncode != 0
    assert why in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('host = "0.0.0.0"', 'host = "127.0.0.1"', "nothing reaches a loopback address"),
        ('tls = "upstream"', "", "TLS ends at the Ingress"),
        ("[adapters]", "[limits]\ndrain = 60\n[adapters]", "drainSeconds is less than limits.drain"),
    ],
)
def test_a_gsb_toml_that_does_not_fit_pods_is_refused(old: str, new: str, why: str, tmp_path: Path) -> None:
    files = json.loads(folder_as_values())
    text = files["config"]["files"]["gsb.toml"]
    assert old in text
    files["config"]["files"]["gsb.toml"] = text.replace(old, new)
    (tmp_path / "files.json").write_text(json.dumps(files), "utf-8")
    done = helm("template", "single", "--values", str(tmp_path / "files.json"))
    assert done.returncode != 0
    assert why in done.stderr


@pytest.mark.parametrize(
    ("scenario", "names"),
    [
        ("ingress", ["host", "tlsSecret", "ingress.className", "certificate.issuer", "image.pullSecrets[0]"]),
        ("gateway-api", ["host", "tlsSecret", "gatewayApi.className", "gatewayApi.clientCaConfigMap"]),
        ("strimzi", ["kafka.strimziCluster", "log.claim"]),
        ("autoscaling", ["kafka.kedaAuthentication", "log.storageClass"]),
        ("external-secrets", ["externalSecrets.store", "secrets.bus.secretName", "single.storageClass"]),
        ("single-claim", ["config.claim"]),
        ("witness", ["witness.secretName", "witness.storageClass"]),
        ("smoke", ["test.keySecret"]),
        ("backup", ["backup.claim"]),
    ],
)
def test_a_name_of_digits_is_no_number(scenario: str, names: list[str]) -> None:
    done = helm("template", scenario, "--set-string", ",".join(f"{name}=4711" for name in names))
    assert done.returncode == 0, done.stderr
    assert 4711 not in set(values_of(list(yaml.safe_load_all(done.stdout))))
    assert "4711" in done.stdout


def values_of(value: object) -> Iterator[object]:
    """Every value in a document that is neither a map nor a list."""
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from values_of(each)
    if not isinstance(value, dict | list):
        yield value


def test_an_old_kubernetes_has_no_volumes_made_of_images() -> None:
    assert "config.image needs Kubernetes 1.33" in helm("template", "single-image", kubernetes="1.32.0").stderr
    assert "incompatible with Kubernetes" in helm("template", "single", kubernetes="1.30.0").stderr


# --- what holds for every pod


@each_scenario
def test_every_pod_is_restricted(scenario: str) -> None:
    assert pods(scenario)
    for name, pod in pods(scenario).items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        allowed = {"name", "projected", "persistentVolumeClaim", "image", "emptyDir", "configMap", "secret"}
        assert all(volume.keys() <= allowed for volume in spec["volumes"])
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
            }
            assert not container["image"].endswith(":latest")
            assert container["resources"]["limits"].keys() == container["resources"]["requests"].keys()


@each_scenario
def test_every_pod_has_what_it_mounts(scenario: str) -> None:
    claims = {
        claim["metadata"]["name"]
        for each in documents(scenario)
        for claim in each.get("spec", {}).get("volumeClaimTemplates", [])
    }
    for name, pod in pods(scenario).items():
        there = claims | {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= there, name


@each_scenario
def test_every_pod_that_stays_has_probes_and_a_budget(scenario: str) -> None:
    budgets = [each["spec"] for each in of(scenario, "PodDisruptionBudget")]
    for name, pod in pods(scenario).items():
        if name.startswith(("Job/", "CronJob/", "Pod/")):
            continue
        (container,) = pod["spec"]["containers"]
        assert {"livenessProbe", "readinessProbe"} <= container.keys()
        (budget,) = [each for each in budgets if selects(each["selector"], pod)]
        assert budget["maxUnavailable"] == 1
        if container["name"] == "gsb":
            pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert pod["spec"]["terminationGracePeriodSeconds"] > pause + 25
            assert [each["topologyKey"] for each in pod["spec"]["topologySpreadConstraints"]] == [
                "topology.kubernetes.io/zone",
                "kubernetes.io/hostname",
            ]
            # A large store's tables may take as long as the hook before an upgrade has.
            start = container["startupProbe"]
            assert start["periodSeconds"] * start["failureThreshold"] >= 3600
            (check,) = pod["spec"]["initContainers"]
            assert check["command"] == ["gsb", "check", "/etc/gsb"]
            assert check["volumeMounts"] == container["volumeMounts"]
            assert re.fullmatch("[0-9a-f]{64}", pod["metadata"]["annotations"]["checksum/config"])


@each_scenario
def test_nothing_goes_in_or_out_but_what_is_named(scenario: str) -> None:
    policies = [each["spec"] for each in of(scenario, "NetworkPolicy")]
    assert bool(policies) == (scenario != "open-network")
    for policy in policies:
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        for rule in policy.get("ingress") or []:
            assert rule["from"]
            assert rule["ports"]
        for rule in policy.get("egress") or []:
            assert rule["to"]
            assert rule["ports"]
    for name, pod in pods(scenario).items():
        found = [each for each in policies if selects(each["podSelector"], pod)]
        # The one that denies everything, and its own.
        assert len(found) == (2 if policies else 0), name


def test_only_workers_of_a_system_reach_it_and_have_its_secrets() -> None:
    for role in ("gateway", "recorder", "worker-tax", "worker-registry"):
        pod = pods("pools")[f"Deployment/gsb-{role}"]
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert volumes["secret-bus"]["secret"]["secretName"] == "gsb-bus"
        assert ("secret" in volumes["secret-tax"]) == (role == "worker-tax")
        if role != "worker-tax":
            empty = volumes["secret-tax"]["configMap"]
            assert empty == {"name": "gsb-withheld", "items": [{"key": "empty", "path": "authority.pem"}]}
        ways = named("pools", "NetworkPolicy", f"gsb-{role}")["spec"]["egress"]
        assert ({"ipBlock": {"cidr": "10.3.0.0/24"}} in [to for way in ways for to in way["to"]]) == (
            role == "worker-tax"
        )
    command = pods("pools")["Deployment/gsb-worker-tax"]["spec"]["containers"][0]["command"]
    assert command == ["gsb", "serve", "/etc/gsb", "--role", "worker", "--system", "tax"]


def test_one_node_alone_has_its_volume_and_every_secret() -> None:
    node = named("single", "StatefulSet", "gsb")["spec"]
    assert node["replicas"] == 1
    assert node["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert len([volume for volume in node["template"]["spec"]["volumes"] if "secret" in volume]) == 2


def test_who_only_reads_the_log_cannot_write_it() -> None:
    mounts = {
        role: [
            mount.get("readOnly", False)
            for mount in pods("distributed")[f"Deployment/gsb-{role}"]["spec"]["containers"][0]["volumeMounts"]
            if mount["name"] == "data"
        ]
        for role in ("gateway", "recorder", "worker-all")
    }
    assert mounts == {"gateway": [True], "recorder": [False], "worker-all": [True]}
    volumes = [
        each for pod in pods("distributed").values() for each in pod["spec"]["volumes"] if each["name"] == "data"
    ]
    # The same for all: who does not see what was published would begin an old store's work again.
    assert volumes == [{"name": "data", "persistentVolumeClaim": {"claimName": "gsb-log"}}] * 3
    (claim,) = of("distributed", "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_what_is_merged_stands_beside_what_is_there() -> None:
    (pod,) = pods("merged").values()
    (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == "hsm")
    assert volume["persistentVolumeClaim"] == {"claimName": "hsm-module", "readOnly": True}
    for container in (*pod["spec"]["containers"], *pod["spec"]["initContainers"]):
        assert {"name": "hsm", "mountPath": "/opt/hsm", "readOnly": True} in container["volumeMounts"]
    assert pod["spec"]["nodeSelector"] == {"government/zone": "core"}
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
