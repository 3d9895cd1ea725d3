"""The chart, rendered for tests: what Helm makes of a scenario in ``values/``, as documents and as text.

A scenario without a ``config`` of its own gets the folder ``deployment``, in mode distributed with ``distributed.toml``
for its ``gsb.toml``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.needs import needs

ROOT = Path(__file__).parents[2]
HERE, CHART = ROOT / "tests/chart", ROOT / "helm/gsb"
DEPLOYMENT, GOLDEN = HERE / "deployment", HERE / "golden"
HELM, KUBERNETES = ROOT / ".deps/helm/helm", ROOT / ".deps/kubernetes/bin"
SCENARIOS = sorted(path.stem for path in (HERE / "values").glob("*.yaml"))
OLDEST, NEWEST = "1.31.0", "1.37.0"
Document = dict[str, Any]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def oldest(scenario: str) -> str:
    """The oldest Kubernetes that can run it: volumes made of images came later than the rest."""
    return "1.33.0" if scenario == "single-image" else OLDEST


def values(scenario: str) -> Document:
    found: Document = yaml.load((HERE / "values" / f"{scenario}.yaml").read_bytes(), LOADER)
    return found


@cache
def folder_as_values() -> str:
    """What ``deployment.py`` prints of the folder."""
    command = [sys.executable, str(CHART / "deployment.py"), str(DEPLOYMENT)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return str(done.stdout)


def files_of(scenario: str) -> Document:
    """The deployment that a scenario is installed with, as values."""
    said = values(scenario)
    if "config" in said or said.get("mode") == "none":
        return {}
    files: Document = json.loads(folder_as_values())
    if said.get("mode") == "distributed":
        files["config"]["files"]["gsb.toml"] = (HERE / "distributed.toml").read_text("utf-8")
    return files


def helm(
    verb: str, scenario: str, *more: str, kubernetes: str = NEWEST, chart: Path = CHART
) -> subprocess.CompletedProcess[str]:
    """``helm template`` or ``lint``; ``more`` are further arguments, such as ``--set``."""
    needs(HELM.is_file(), "Helm is not installed: make deps-test builds it")
    name = ["gsb"] if verb == "template" else []
    command = [str(HELM), verb, *name, str(chart), "--namespace", "bus", "--kube-version", kubernetes, "--values", "-"]
    command += ["--values", str(HERE / "values" / f"{scenario}.yaml"), *more]
    return subprocess.run(command, input=json.dumps(files_of(scenario)), capture_output=True, text=True, check=False)


@cache
def rendered(scenario: str) -> str:
    done = helm("template", scenario)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def documents(scenario: str) -> list[Document]:
    return [each for each in yaml.load_all(rendered(scenario), LOADER) if each]


def of(scenario: str, kind: str) -> list[Document]:
    return [each for each in documents(scenario) if each["kind"] == kind]


def named(scenario: str, kind: str, name: str) -> Document:
    (found,) = (each for each in of(scenario, kind) if each["metadata"]["name"] == name)
    return found


def pods(scenario: str) -> dict[str, Document]:
    """Every pod that would run: labels and spec, by kind and name of what makes it."""
    found = {}
    for each in documents(scenario):
        made = each["spec"]["jobTemplate"] if each["kind"] == "CronJob" else each
        template = made if made.get("kind") == "Pod" else made.get("spec", {}).get("template")
        if template is not None:
            found[f"{each['kind']}/{each['metadata']['name']}"] = template
    return found


def selects(selector: Document, pod: Document) -> bool:
    return bool(selector["matchLabels"].items() <= pod["metadata"]["labels"].items())
