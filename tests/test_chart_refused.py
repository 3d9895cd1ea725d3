"""What the chart refuses because of what stands in the deployment's files, in pods of one's own, or in the cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chart.charting import files_of, helm
from tests.chart.cluster import cluster


def with_toml(scenario: str, folder: Path, old: str, new: str) -> list[str]:
    """Arguments that change a scenario's gsb.toml."""
    files = files_of(scenario)
    text = files["config"]["files"]["gsb.toml"]
    assert text.count(old) == 1
    files["config"]["files"]["gsb.toml"] = text.replace(old, new)
    (folder / "files.json").write_text(json.dumps(files), "utf-8")
    return ["--values", str(folder / "files.json")]


STORE, LOG, LISTEN = 'path = "/var/lib/gsb/store.sqlite"', 'path = "/var/lib/gsb/log"', "[listen]\n"


@pytest.mark.parametrize(
    ("scenario", "old", "new", "why"),
    [
        ("single", STORE, 'path = "/tmp/store.sqlite"', "path below /var/lib/gsb/ in [store]"),
        ("single", STORE, 'path = "/var/lib/gsb/../store.sqlite"', "path below /var/lib/gsb/ in [store]"),
        ("single", STORE, "", "path below /var/lib/gsb/ in [store]"),
        ("single", STORE, f"# {STORE}", "path below /var/lib/gsb/ in [store]"),
        ("single", LOG, 'path = "log"', "path below /var/lib/gsb/ in [log]"),
        ("distributed", LOG, 'path = "/tmp/log"', "path below /var/lib/gsb/ in [log]"),
        ("single", LISTEN, "[listen]\nport = 9090\n", "port = 9090, but pods are called at 8080"),
        (
            "single",
            LISTEN,
            "[listen]\noperations_port = 80_81\n",
            "operations_port = 80_81, but pods are called at 8081",
        ),
        ("distributed", LISTEN, "[listen]\nport=8443\n", "port = 8443, but pods are called at 8080"),
    ],
)
def test_a_file_that_loses_data_or_calls_in_a_pod_is_refused(
    scenario: str, old: str, new: str, why: str, tmp_path: Path
) -> None:
    done = helm("template", scenario, *with_toml(scenario, tmp_path, old, new))
    assert done.returncode != 0
    assert why in done.stderr


@pytest.mark.parametrize(
    ("scenario", "old", "new"),
    [
        ("single", STORE, "path = '/var/lib/gsb/deeper/store.sqlite' # beside the log"),
        ("single", LISTEN, "[listen]\nport = 8080\noperations_port = 8081\n"),
        ("single", "[adapters]", "[elsewhere]\nport = 9090\n[adapters]"),
        # The store of one node may be a PostgreSQL too.
        ("single", STORE, 'kind = "postgres"'),
    ],
)
def test_a_file_that_says_the_same_otherwise_is_not(scenario: str, old: str, new: str, tmp_path: Path) -> None:
    done = helm("template", scenario, *with_toml(scenario, tmp_path, old, new))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("scenario", "more", "why"),
    [
        ("distributed", "kafka.systems={tax}", "kafka.systems lacks registry, for which config.files has a file"),
        ("distributed", "kafka.systems={registry,tax,land}", "kafka.systems names land, for which config.files has no"),
        ("strimzi", "kafka.systems={registry}", "kafka.systems lacks tax"),
        ("autoscaling", "gateway.autoscaling.min=10", "gateway.autoscaling.min is more than its max"),
        (
            "autoscaling",
            "workers.all.keda.min=5,workers.all.keda.max=3",
            "workers.all.keda.min is more than its max",
        ),
    ],
)
def test_values_that_leave_work_to_nobody_are_refused(scenario: str, more: str, why: str) -> None:
    done = helm("template", scenario, "--set", more)
    assert done.returncode != 0
    assert why in done.stderr


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("podTemplate.spec.hostNetwork=true", "podTemplate.spec.hostNetwork would open the machine to the pod"),
        ("podTemplate.spec.hostPID=true", "podTemplate.spec.hostPID"),
        ("podTemplate.spec.hostIPC=true", "podTemplate.spec.hostIPC"),
        ("podTemplate.spec.securityContext.runAsUser=0", "never as root"),
        ("podTemplate.spec.securityContext.runAsNonRoot=false", "never as root"),
        ("podTemplate.spec.securityContext.seccompProfile.type=Unconfined", "more than it needs"),
        ("podTemplate.spec.containers[0].name=gsb", "podTemplate.spec.containers would replace the chart's own"),
        ("podTemplate.spec.volumes[0].name=hsm", "podTemplate.spec.volumes would replace the chart's own"),
        ("extraVolumes[0].name=root,extraVolumes[0].hostPath.path=/", "extraVolumes.0"),
    ],
)
def test_a_pod_that_may_more_than_it_needs_is_refused(more: str, why: str) -> None:
    done = helm("template", "single", "--set", more)
    assert done.returncode != 0
    assert why in done.stderr


def test_another_user_than_the_chart_s_may_run_it() -> None:
    done = helm("template", "single", "--set", "podTemplate.spec.securityContext.runAsUser=1000690000")
    assert done.returncode == 0, done.stderr
    assert "runAsUser: 1000690000" in done.stdout


def test_the_systems_may_be_said_twice() -> None:
    done = helm("template", "distributed", "--set", "kafka.systems={tax,registry}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("scenario", "kind", "name"), [("distributed", "StatefulSet", "gsb"), ("single", "Deployment", "gsb-recorder")]
)
def test_a_release_does_not_change_its_mode_under_running_nodes(scenario: str, kind: str, name: str) -> None:
    """Its store would stay behind, and an empty bus would begin beside it."""
    there = {"kind": kind, "metadata": {"name": name}, "spec": {"replicas": 1}}
    with cluster(there) as server:
        done = helm("template", scenario, *server)
    assert done.returncode != 0
    assert f"in mode {scenario} it would begin an empty bus" in done.stderr
    # Whoever has carried the bus over has stopped its nodes before; and the mode that it has is none of another.
    other = "single" if scenario == "distributed" else "distributed"
    with cluster(there) as server:
        assert helm("template", other, *server).returncode == 0
    with cluster(there | {"spec": {"replicas": 0}}) as server:
        assert helm("template", scenario, *server).returncode == 0
