"""What the chart runs beside nodes: the hook that begins an upgrade, and backups. Their commands run as rendered."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest

from tests.chart.charting import SCENARIOS, Document, documents, helm, named, of, pods, selects, values
from tests.support.backups import process
from tests.support.layouts import before, versions
from tests.support.node import node_in_process
from tests.support.old_layout import KEY
from tests.support.reading import published
from tests.support.stores import PostgresMaker

WITH_HOOK = [
    each
    for each in SCENARIOS
    if values(each).get("mode") == "distributed" and not {"migration", "restore"} & values(each).keys()
]
HOOK = "helm.sh/hook"


def weight(made: Document) -> int:
    return int(made["metadata"]["annotations"][f"{HOOK}-weight"])


def hooks(scenario: str) -> list[Document]:
    """What Helm makes before an upgrade replaces anything, as it makes it: by weight."""
    found = [each for each in documents(scenario) if each["metadata"].get("annotations", {}).get(HOOK) == "pre-upgrade"]
    return sorted(found, key=weight)


def volumes(pod: Document) -> dict[str, Any]:
    return {volume["name"]: volume for volume in pod["spec"]["volumes"]}


# --- before an upgrade


@pytest.mark.parametrize("scenario", WITH_HOOK)
def test_what_runs_before_an_upgrade_needs_nothing_of_a_release(scenario: str) -> None:
    *first, job = hooks(scenario)
    assert job["kind"] == "Job"
    assert weight(job) > max(weight(each) for each in first)
    for each in (*first, job):
        # Deleted when all is well; and what failed stays, and is in nobody's way the next time.
        assert each["metadata"]["annotations"][f"{HOOK}-delete-policy"] == "before-hook-creation,hook-succeeded"
    said, pod = values(scenario), job["spec"]["template"]
    assert pod["spec"]["serviceAccountName"] == "default"
    made = {(each["kind"], each["metadata"]["name"]) for each in first}
    given = {secret["secretName"]: secret for secret in said["secrets"].values()}
    for volume in pod["spec"]["volumes"]:
        match volume:
            case {"configMap": {"name": name}}:
                assert ("ConfigMap", name) in made
            case {"persistentVolumeClaim": {"claimName": name}}:
                assert name == said["config"]["claim"]
            case {"secret": {"secretName": name, "optional": True}}:
                assert "systems" not in given[name]
            case _:
                assert volume.keys() == {"name", "emptyDir"}
    policies = [each["spec"] for each in first if each["kind"] == "NetworkPolicy"]
    assert len(policies) == said.get("networkPolicy", {}).get("enabled", True)
    for policy in policies:
        assert selects(policy["podSelector"], pod)
        assert not policy["ingress"]
        ways = named(scenario, "NetworkPolicy", "gsb-recorder")["spec"]["egress"]
        # Names and PostgreSQL, and nothing else.
        assert policy["egress"] == [way for way in ways if {53, 5432} & {port["port"] for port in way["ports"]}]


def test_a_release_without_the_hook_has_nothing_of_it() -> None:
    assert hooks("external-secrets") == []
    assert hooks("single") == []
    assert "migration" not in helm("template", "external-secrets").stdout


def test_nothing_makes_tables_where_a_restore_is_to_lay_the_store() -> None:
    assert "pre-upgrade" in helm("template", "backup").stdout
    stopped = helm(
        "template", "backup", "--set", "gateway.replicas=0,workers.all.replicas=0,recorder.replicas=0"
    ).stdout
    assert "pre-upgrade" not in stopped
    assert "  suspend: true\n" in stopped
    assert of("backup", "CronJob")[0]["spec"]["suspend"] is False
    assert "  suspend: true\n" in helm("template", "backup-single", "--set", "single.replicas=0").stdout


def laid(maker: PostgresMaker, folder: Path) -> list[str | Path]:
    """The files that the hook's pod finds, but with this PostgreSQL; answers its command."""
    pod, secrets = pods("distributed")["Job/gsb-migration"], folder / "secrets"
    (container,) = pod["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"config": "/etc/gsb", "secret-bus": "/run/secrets/gsb/bus", "tmp": "/tmp"}
    bus = secrets / "bus"
    bus.mkdir(parents=True)
    (bus / "dsn").write_text(maker.dsn, "utf-8")
    (bus / "store.key").write_text(urlsafe_b64encode(KEY).decode(), "utf-8")
    (folder / "etc").mkdir()
    for name, text in named("distributed", "ConfigMap", volumes(pod)["config"]["configMap"]["name"])["data"].items():
        here = text.replace("/run/secrets/gsb", str(secrets)).replace(
            "[store]\n", f'[store]\nschema_name = "{maker.schema}"\n'
        )
        (folder / "etc" / name).write_text(here, "utf-8")
    program, *words = container["command"]
    assert program == "gsb"
    return [folder / "etc" if word == mounts["config"] else word for word in words]


async def test_an_upgrade_begins_with_the_tables(maker: PostgresMaker, tmp_path: Path) -> None:
    command = laid(maker, tmp_path)
    await before(maker)
    assert (await versions(maker))[0] == 1
    code, told, error = await process(*command)
    assert (code, told.count("\n")) == (0, 1), error
    newest, oldest = await versions(maker)
    assert (newest, oldest) != (1, 1)
    assert oldest == 1, "whoever runs now goes on"
    assert (await process(*command))[0] == 0
    assert await versions(maker) == (newest, oldest)


async def test_a_secret_that_is_missing_ends_the_upgrade_with_a_word(maker: PostgresMaker, tmp_path: Path) -> None:
    command = laid(maker, tmp_path)
    for file in (tmp_path / "secrets/bus").iterdir():
        file.unlink()
    code, told, error = await process(*command)
    assert (code, told) == (2, "")
    assert "secrets/bus/" in error


# --- backups


def backup(scenario: str) -> tuple[Document, Document]:
    """The CronJob, and the pod that it makes."""
    (made,) = of(scenario, "CronJob")
    return made["spec"], pods(scenario)["CronJob/gsb-backup"]


@pytest.mark.parametrize("scenario", ["backup", "backup-single"])
def test_a_backup_has_what_it_backs_up_and_one_is_made_at_a_time(scenario: str) -> None:
    cron, pod = backup(scenario)
    said = values(scenario)
    assert (cron["concurrencyPolicy"], cron["timeZone"]) == ("Forbid", "Etc/UTC")
    assert cron["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 24 * 3600
    there = volumes(pod)
    secrets = {volume["secret"]["secretName"] for volume in there.values() if "secret" in volume}
    assert secrets == {each["secretName"] for each in said["secrets"].values()}
    (policy,) = [each["spec"] for each in of(scenario, "NetworkPolicy") if each["metadata"]["name"] == "gsb-backup"]
    assert not policy["ingress"]
    assert {port["port"] for way in policy["egress"] for port in way["ports"]} <= {53, 5432}


def test_where_there_are_many_nodes_the_log_is_only_read() -> None:
    _, pod = backup("backup")
    (container,) = pod["spec"]["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["data"] == {"name": "data", "mountPath": "/var/lib/gsb", "readOnly": True}
    claims = {
        name: each["persistentVolumeClaim"]["claimName"]
        for name, each in volumes(pod).items()
        if "persistentVolumeClaim" in each
    }
    assert claims == {"config": "deployment", "data": "evidence", "backups": "backups"}
    assert of("backup", "PersistentVolumeClaim") == []


def test_the_backup_of_one_node_is_made_where_it_runs() -> None:
    _, pod = backup("backup-single")
    node = pods("backup-single")["StatefulSet/gsb"]
    (near,) = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert near["topologyKey"] == "kubernetes.io/hostname"
    assert selects(near["labelSelector"], node)
    assert not selects(near["labelSelector"], pod)
    assert pod["spec"]["tolerations"] == node["spec"]["tolerations"]
    (template,) = named("backup-single", "StatefulSet", "gsb")["spec"]["volumeClaimTemplates"]
    claim = f"{template['metadata']['name']}-gsb-0"
    assert volumes(pod)["data"]["persistentVolumeClaim"] == {"claimName": claim}
    (container,) = pod["spec"]["containers"]
    assert {"name": "data", "mountPath": "/var/lib/gsb"} in container["volumeMounts"]
    kept = named("backup-single", "PersistentVolumeClaim", "gsb-backups")
    assert kept["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


async def test_the_command_makes_a_backup_beside_a_node(tmp_path: Path) -> None:
    _, pod = backup("backup")
    (container,) = pod["spec"]["containers"]
    program, *words = container["command"]
    assert program == "gsb"
    target = tmp_path / "backups"
    target.mkdir()
    async with node_in_process(tmp_path) as node:
        await published(node)
        places = {"/etc/gsb": node.deployment.folder, "/backups": target}
        code, told, error = await process(*(places.get(word, word) for word in words))
        assert code == 0, error
    (file,) = target.iterdir()
    assert told.startswith(f"{file}: bus {node.bus_id}")
    recipients = values("backup")["backup"]["recipients"]
    assert set(recipients) <= set(words)
    assert file.read_bytes().count(b"-> X25519 ") == len(recipients) == 2


# --- ways of nodes that no job has


@pytest.mark.parametrize("what", ["tracing", "jwks"])
def test_every_node_has_a_way_to_traces_and_keys_of_agencies_and_no_job_has(what: str) -> None:
    (way,) = values("monitoring")["networkPolicy"][what]
    having = {
        each["metadata"]["name"]
        for each in of("monitoring", "NetworkPolicy")
        if way in (each["spec"].get("egress") or [])
    }
    assert having == {"gsb-gateway", "gsb-recorder", "gsb-worker-all"}
    done = helm(
        "template",
        "single",
        "--set-json",
        f'networkPolicy.{what}=[{{"to":[{{"ipBlock":{{"cidr":"10.9.0.0/24"}}}}],"ports":[{{"port":4318}}]}}]',
    )
    assert done.stdout.count("10.9.0.0/24") == 1
