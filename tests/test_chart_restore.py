"""A restore on Kubernetes: the Job that the chart makes while there are no nodes. Its commands run as rendered."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from gsb.admit import BEHIND_PAUSE
from gsb.client import BusProblem
from tests.chart.charting import CHART, LOADER, Document, documents, helm, named, of, selects, values
from tests.chart.cluster import cluster
from tests.support.backups import Kept, Said, process
from tests.support.deployment import Deployment
from tests.support.node import running_node
from tests.support.reading import published

NOTE, WRITE = "registry/note/v1", {"id": "P-0001", "text": "x"}
BOTH = pytest.mark.parametrize("scenario", ["restore", "restore-single"])


def job_in(found: list[Document]) -> Document:
    (job,) = (each for each in found if each["kind"] == "Job" and "-restore-" in each["metadata"]["name"])
    return job


def pod_of(job: Document) -> tuple[Document, Document]:
    """Its pod, and the one container."""
    pod: Document = job["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    return pod, container


# --- what is rendered


@BOTH
def test_the_pod_has_all_that_a_restore_reads_and_writes(scenario: str) -> None:
    pod, container = pod_of(job_in(documents(scenario)))
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    there = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    for place in ("/var/lib/gsb", "/restore", "/tmp"):
        assert "readOnly" not in mounts[place], place
    for place in ("/etc/gsb", "/backups", "/run/secrets/restore"):
        assert mounts[place]["readOnly"] is True
    said = values(scenario)
    secrets = {volume["secret"]["secretName"] for volume in there.values() if "secret" in volume}
    assert secrets == {"gsb-restore", *(each["secretName"] for each in said["secrets"].values())}
    # What is laid aside lies where nothing was, and goes with the pod.
    assert there[mounts["/restore"]["name"]]["emptyDir"] == {"sizeLimit": said["restore"].get("size", "20Gi")}
    assert pod["spec"]["tolerations"] == said["podTemplate"]["spec"]["tolerations"]
    # Nodes are away, so it is bound to none of their machines.
    assert "affinity" not in pod["spec"]
    (policy,) = (each["spec"] for each in of(scenario, "NetworkPolicy") if each["metadata"]["name"] == "gsb-restore")
    assert selects(policy["podSelector"], pod)
    assert not policy["ingress"]
    assert {port["port"] for way in policy["egress"] for port in way["ports"]} <= {53, 5432, 443}


def test_what_it_writes_is_what_nodes_use() -> None:
    claims = {
        scenario: {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in pod_of(job_in(documents(scenario)))[0]["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        }
        for scenario in ("restore", "restore-single")
    }
    assert claims == {
        "restore": {"data": "gsb-log", "backups": "backups"},
        "restore-single": {"data": "data-gsb-0", "backups": "gsb-backups"},
    }
    # A claim that only a node would have made, and that is the same as if it had.
    claim = named("restore-single", "PersistentVolumeClaim", "data-gsb-0")
    (template,) = named("restore-single", "StatefulSet", "gsb")["spec"]["volumeClaimTemplates"]
    assert claim["spec"] == template["spec"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    for scenario, kind in (("restore", "Deployment"), ("restore-single", "StatefulSet")):
        assert {each["spec"]["replicas"] for each in of(scenario, kind)} == {0}


def rendered_with(scenario: str, *more: str) -> list[Document]:
    done = helm("template", scenario, *more)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.load_all(done.stdout, LOADER) if each]


def test_a_claim_that_is_there_is_left_as_it_is() -> None:
    """It belongs to the node that had it made, and Helm would refuse to take it over."""
    with cluster({"kind": "PersistentVolumeClaim", "metadata": {"name": "data-gsb-0"}}) as server:
        found = rendered_with("restore-single", *server)
    assert "data-gsb-0" not in {each["metadata"]["name"] for each in found}
    assert job_in(found)


def test_another_restore_is_another_job_and_nothing_else_makes_one() -> None:
    name = job_in(documents("restore"))["metadata"]["name"]
    assert job_in(rendered_with("restore", "--set", "log.size=30Gi"))["metadata"]["name"] == name
    assert job_in(rendered_with("restore", "--set", "restore.file=other"))["metadata"]["name"] != name
    assert job_in(documents("restore"))["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    # A store that was put back by other means is gone on with where it lies.
    _, container = pod_of(job_in(rendered_with("restore", "--set", "restore.file=,restore.secretName=")))
    reason = values("restore")["restore"]["reason"]
    assert container["command"] == ["gsb", "restore", "/etc/gsb", "--reason", reason]
    assert "/backups" not in {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.parametrize(
    ("scenario", "more", "why"),
    [
        ("restore-single", "single.replicas=1", "no node may run beside a restore"),
        ("restore", "workers.tax.systems={tax}", "switch off what scales them: workers.tax"),
        ("restore", "gateway.replicas=2,recorder.replicas=2", "scales them: gateway.replicas, recorder.replicas"),
        ("restore", "gateway.autoscaling.enabled=true", "gateway.autoscaling.enabled"),
        ("restore", "restore.reason=", "a restore needs restore.reason"),
        ("restore", "restore.secretName=", "restore.file needs restore.secretName"),
        ("restore", "restore.admitWrites=true", "goes without restore.file"),
        ("restore", "restore.file=../etc/passwd", "restore.file"),
        ("restore", "backup.claim=", "restore.file lies on the volume of backups"),
        ("witness", "restore.enabled=true", "mode none has nothing to restore"),
    ],
)
def test_a_restore_that_cannot_be_is_refused(scenario: str, more: str, why: str) -> None:
    done = helm("template", scenario, "--set", more)
    assert done.returncode != 0
    assert why in done.stderr


@pytest.fixture(scope="session")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart, but what Helm says after an installation is a document of it: else only a cluster would show it."""
    chart = tmp_path_factory.mktemp("telling") / "gsb"
    shutil.copytree(CHART, chart)
    notes = chart / "templates/NOTES.txt"
    (chart / "templates/_notes.tpl").write_text(
        f'{{{{- define "notes" }}}}{notes.read_text("utf-8")}{{{{ end }}}}', "utf-8"
    )
    notes.unlink()
    (chart / "templates/notes.yaml").write_text('kind: Notes\nsaid: {{ include "notes" . | toJson }}\n', "utf-8")
    return chart


def notes(scenario: str, chart: Path) -> str:
    done = helm("template", scenario, chart=chart)
    assert done.returncode == 0, done.stderr
    (found,) = (each for each in yaml.load_all(done.stdout, LOADER) if each and each["kind"] == "Notes")
    return str(found["said"])


def test_whoever_upgrades_one_node_is_told_how_it_comes_back(telling: Path) -> None:
    assert "helm rollback and then:\n    kubectl -n bus delete pod gsb-0\n" in notes("single", telling)
    assert "delete pod" not in notes("distributed", telling)


def test_whoever_restores_is_told_to_keep_what_it_prints(telling: Path) -> None:
    said = notes("restore", telling)
    asked = "app.kubernetes.io/instance=gsb,app.kubernetes.io/component=restore"
    assert f"logs -f -l {asked}" in said
    labels = pod_of(job_in(documents("restore")))[0]["metadata"]["labels"]
    assert {f"{name}={value}" for name, value in labels.items()} >= set(asked.split(","))
    assert "restore" not in notes("single", telling)


# --- what it does


async def ran(container: Document, places: Mapping[str, Path]) -> Said:
    """A pod's command, with what it finds at its places."""
    program, *words = container["command"]
    assert program == "gsb"
    pattern = re.compile("|".join(sorted(places, key=len, reverse=True)))
    return await process(*(pattern.sub(lambda found: str(places[found[0]]), word) for word in words))


async def written(deployment: Deployment, before: str) -> str | None:
    """What a node that begins with what lies there answers a write; it knows what was done before."""
    async with running_node(deployment.folder, deployment) as node, node.client() as client:
        assert (await client.exchange(before)).state == "done"
        try:
            result = await client.call(NOTE, WRITE, purpose="payroll", timeout=float(BEHIND_PAUSE))
        except BusProblem as refused:
            return refused.code
        return result.state


async def test_a_lost_volume_is_laid_anew_and_the_same_deployment_goes_on(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    deployment, data = kept.deployment, tmp_path / "data"
    backups, secret, aside = tmp_path / "backups", tmp_path / "secret", tmp_path / "aside"
    for each in (data, backups, secret, aside):
        each.mkdir()
    deployment.gsb["store"]["path"] = str(data / "store.sqlite")
    deployment.gsb["log"]["path"] = str(data / "log")
    async with running_node(tmp_path, deployment) as node, node.client() as client:
        before = (await client.call(NOTE, WRITE, purpose="payroll")).exchange or ""
        await published(node)
        made = await kept.backup(backups / values("restore-single")["restore"]["file"])
        assert made.code == 0, made.wrong
    shutil.rmtree(data)
    data.mkdir()
    shutil.copy(kept.identity, secret / "identity")
    shutil.copy(kept.bus_keys, secret / "bus-keys")
    places = {"/restore": aside, "/backups": backups, "/run/secrets/restore": secret, "/etc/gsb": deployment.folder}
    _, container = pod_of(job_in(documents("restore-single")))
    done = await ran(container, places)
    assert done.code == 0, done.wrong
    assert (data / "store.sqlite").is_file()
    assert (data / "log").is_dir()
    again = await ran(container, places)
    assert (again.code, "is not empty" in again.wrong) == (2, True)
    assert await written(deployment, before) == "writes_withheld"
    _, container = pod_of(
        job_in(rendered_with("restore-single", "--set", "restore.file=,restore.secretName=,restore.admitWrites=true"))
    )
    done = await ran(container, places)
    assert (done.code, done.out) == (0, "writes are admitted\n"), done.wrong
    assert await written(deployment, before) == "done"
