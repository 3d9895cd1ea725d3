"""What the chart renders for other people's operators, held against their own definitions of those kinds.

The definitions (CRDs) are fetched from the operators' projects (tests/deps/crds.txt); Kubernetes' own kinds are judged
in ``test_chart``. A definition is read as an API server reads it that is asked to be strict: a field that it does not
name is refused, and only versions that are served count. Not judged here: the rules that definitions say in CEL.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml
from jsonschema_rs import Draft202012Validator, RegexOptions, ValidationError

from tests.chart.charting import CHART, GOLDEN, LOADER, ROOT, Document
from tests.support.needs import needs
from tests.test_chart import BUILT_IN

CRDS = ROOT / ".deps/crds"
TEXTS: Document = {"type": "object", "additionalProperties": {"type": "string"}}
# Definitions leave metadata to Kubernetes; this is as much of it as a chart has to say.
METADATA: Document = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string"}, "labels": TEXTS, "annotations": TEXTS},
    "additionalProperties": False,
}
Where = tuple[str | int, ...]


# --- definitions


class OncePerKey:
    """Refuses two items of a list with the same keys (x-kubernetes-list-map-keys)."""

    def __init__(self, schema: Document, keys: list[str], _path: list[str | int]) -> None:
        fields = schema["items"]["properties"]
        self.keys = {key: fields[key].get("default") for key in keys}

    def validate(self, instance: Any) -> None:
        seen = [tuple(item.get(key, default) for key, default in self.keys.items()) for item in instance]
        if len(seen) != len(set(seen)):
            raise ValueError(f"{', '.join(self.keys)} is there twice")


def strict(schema: Document) -> Document:
    """A structural schema as one of JSON Schema: closed where nothing opens it, with Kubernetes' own words explained.

    Below allOf and the like nothing is closed: there a definition only narrows what stands outside.
    """
    made = dict(schema)
    if "properties" in schema:
        made["properties"] = {name: strict(each) for name, each in schema["properties"].items()}
    if "items" in schema:
        made["items"] = strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = strict(schema["additionalProperties"])
    elif schema.get("type") == "object" and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    if schema.get("x-kubernetes-list-type") == "set":
        made["uniqueItems"] = True
    return {"anyOf": [{"enum": [None]}, made]} if schema.get("nullable") else made


@cache
def definitions() -> dict[tuple[str, str], Document]:
    """The schema of each kind of each version that is served and not on its way out: by apiVersion and kind."""
    needs((CRDS / ".installed").is_file(), "the definitions of foreign kinds are missing: make deps-test fetches them")
    found = {}
    for path in CRDS.glob("*.yaml"):
        spec = yaml.load(path.read_bytes(), LOADER)["spec"]
        for version in spec["versions"]:
            if version["served"] and not version.get("deprecated"):
                schema = version["schema"]["openAPIV3Schema"]
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


@cache
def validator(kind: tuple[str, str]) -> Draft202012Validator:
    schema = strict(definitions()[kind])
    schema["properties"]["metadata"] = METADATA
    schema["required"] = [*schema.get("required", []), "metadata"]
    # Patterns are Go's, whose like Rust's own engine takes.
    return Draft202012Validator(
        schema, keywords={"x-kubernetes-list-map-keys": OncePerKey}, pattern_options=RegexOptions()
    )


def faults(document: Document) -> list[str]:
    """What its operator's definition has against it, each with where: ``spec.listeners.0.port: ...``."""
    kind = document["apiVersion"], document["kind"]
    if kind not in definitions():
        return [f"nobody defines {' '.join(kind)}"]
    return [said(error) for error in validator(kind).iter_errors(document)]


def said(error: ValidationError) -> str:
    return f"{'.'.join(map(str, error.instance_path))}: {error.message}"


# --- what the chart renders


@cache
def foreign() -> dict[str, Document]:
    """Every object of the golden files that is not of Kubernetes itself."""
    found = {}
    for path in GOLDEN.glob("*.yaml"):
        for each in yaml.load_all(path.read_bytes(), LOADER):
            if each and not BUILT_IN.fullmatch(each["apiVersion"]):
                found[f"{path.stem}: {each['kind']}/{each['metadata']['name']}"] = each
    return found


def one(kind: str) -> Document:
    """A copy of the first that the chart renders of a kind."""
    return copy.deepcopy(next(each for each in foreign().values() if each["kind"] == kind))


def test_operators_would_take_what_is_rendered_for_them() -> None:
    assert {name: wrong for name, each in foreign().items() if (wrong := faults(each))} == {}


def test_every_foreign_kind_of_the_templates_is_rendered_and_defined() -> None:
    written = set()
    for template in (CHART / "templates").glob("*.yaml"):
        written |= set(re.findall(r"^apiVersion: (\S+)\nkind: (\S+)$", template.read_text("utf-8"), re.MULTILINE))
    ours = {pair for pair in written if not BUILT_IN.fullmatch(pair[0])}
    assert ours == {(each["apiVersion"], each["kind"]) for each in foreign().values()}
    # None is fetched that is not needed, and none is missing.
    assert {kind for _, kind in ours} == {kind for _, kind in definitions()} == FREE.keys()
    assert ours <= definitions().keys()


# --- that these definitions bite

# Where operators leave it to others what is written: the keys of these maps are anybody's.
FREE = {
    "Certificate": {"metadata.labels"},
    "ExternalSecret": {"metadata.labels"},
    "Gateway": {"metadata.labels"},
    "HTTPRoute": {"metadata.labels"},
    "KafkaTopic": {"metadata.labels", "spec.config"},
    "KafkaUser": {"metadata.labels"},
    "PrometheusRule": {"metadata.labels", "spec.groups.*.rules.*.labels", "spec.groups.*.rules.*.annotations"},
    "ScaledObject": {"metadata.labels", "spec.triggers.*.metadata"},
    "ServiceMonitor": {"metadata.labels", "spec.selector.matchLabels"},
}
# Where a number and a text are both right, or where nothing is said of what stands there.
EITHER = {"KafkaTopic": {"spec.config"}, "PrometheusRule": {"spec.groups.*.rules.*.expr"}}


def walked(value: Any, path: Where = ()) -> Iterator[tuple[Where, Any]]:
    """Every value of a document below its root, with where it is."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key), each
        if isinstance(each, dict | list):
            yield from walked(each, (*path, key))


def holder(document: Document, path: Where) -> Any:
    found: Any = document
    for step in path[:-1]:
        found = found[step]
    return found


def place(path: Where) -> str:
    return ".".join("*" if isinstance(step, int) else step for step in path)


@pytest.mark.parametrize("kind", FREE)
def test_a_misspelt_field_is_found_wherever_it_stands(kind: str) -> None:
    unnoticed = set()
    for path, _ in walked(one(kind)):
        if isinstance(path[-1], int) or path in (("apiVersion",), ("kind",)):
            continue
        document = one(kind)
        fields = holder(document, path)
        fields[f"{path[-1]}z"] = fields.pop(path[-1])
        if not any(f"'{path[-1]}z' was unexpected" in fault for fault in faults(document)):
            unnoticed.add(place(path[:-1]))
    assert unnoticed == FREE[kind]


@pytest.mark.parametrize("kind", FREE)
def test_a_value_of_another_type_is_found_wherever_it_stands(kind: str) -> None:
    unnoticed = set()
    for path, value in walked(one(kind)):
        if path in (("apiVersion",), ("kind",)):
            continue
        document = one(kind)
        holder(document, path)[path[-1]] = 5 if isinstance(value, str) else "five"
        where = ".".join(map(str, path))
        if not any(fault.startswith(f"{where}: ") for fault in faults(document)):
            unnoticed.add(place(path[:-1]) if place(path[:-1]) in FREE[kind] else place(path))
    assert unnoticed == EITHER.get(kind, set())


@pytest.mark.parametrize(
    ("kind", "path", "value", "why"),
    [
        ("Certificate", ("spec", "privateKey", "algorithm"), "EC", 'spec.privateKey.algorithm: "EC" is not one of'),
        ("Certificate", ("spec", "issuerRef"), None, 'spec: "issuerRef" is a required property'),
        ("ExternalSecret", ("spec", "target", "creationPolicy"), "Own", 'spec.target.creationPolicy: "Own" is not one'),
        (
            "ExternalSecret",
            ("apiVersion",),
            "external-secrets.io/v1beta1",
            "nobody defines external-secrets.io/v1beta1",
        ),
        ("Gateway", ("spec", "gatewayClassName"), None, 'spec: "gatewayClassName" is a required property'),
        ("Gateway", ("spec", "listeners", 0, "tls", "mode"), "Ends", 'spec.listeners.0.tls.mode: "Ends" is not one of'),
        ("Gateway", ("spec", "listeners", 0, "port"), 70_000, "spec.listeners.0.port: 70000 is greater than"),
        ("HTTPRoute", ("spec", "hostnames", 0), "Bus_example", 'spec.hostnames.0: "Bus_example" does not match'),
        ("HTTPRoute", ("spec", "rules", 0, "matches", 0, "path", "type"), "Start", 'path.type: "Start" is not one of'),
        ("HTTPRoute", ("kind",), "HTTPRoutes", "nobody defines gateway.networking.k8s.io/v1 HTTPRoutes"),
        ("KafkaTopic", ("spec", "replicas"), 0, "spec.replicas: 0 is less than"),
        ("KafkaUser", ("spec", "authentication", "type"), "sasl", 'spec.authentication.type: "sasl" is not one of'),
        ("KafkaUser", ("spec", "authorization", "acls", 0, "operations", 0), "Reed", 'operations.0: "Reed" is not one'),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "expr"), None, 'rules.0: "expr" is a required property'),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "for"), "2 minutes", 'rules.0.for: "2 minutes" does not'),
        ("ScaledObject", ("spec", "triggers", 0, "metadata"), None, 'spec.triggers.0: "metadata" is a required'),
        ("ServiceMonitor", ("metadata",), None, '"metadata" is a required property'),
        ("ServiceMonitor", ("spec", "selector"), None, 'spec: "selector" is a required property'),
    ],
)
def test_what_an_operator_would_refuse_is_named(kind: str, path: Where, value: Any, why: str) -> None:
    document = one(kind)
    if value is None:
        del holder(document, path)[path[-1]]
    else:
        holder(document, path)[path[-1]] = value
    (fault,) = faults(document)
    assert why in fault


def test_one_listener_does_not_stand_there_twice() -> None:
    document = one("Gateway")
    document["spec"]["listeners"] *= 2
    assert faults(document) == ["spec.listeners: name is there twice"]


@pytest.mark.parametrize(
    ("schema", "takes", "refuses"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {"a": "x"}, {"a": "x", "b": "x"}),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, {"b": 1}, 1),
        ({"type": "object", "additionalProperties": {"type": "object"}}, {"b": {}}, {"b": {"c": 1}}),
        ({"x-kubernetes-int-or-string": True}, "80%", 0.8),
        ({"x-kubernetes-int-or-string": True}, 80, None),
        ({"type": "string", "enum": ["a"], "nullable": True}, None, "b"),
        ({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}, ["a"], ["a", "a"]),
        ({"type": "object", "allOf": [{"properties": {"a": {}}}], "properties": {"b": {}}}, {"b": 1}, {"a": 1}),
    ],
)
def test_a_definition_is_read_as_kubernetes_reads_it(schema: Document, takes: Any, refuses: Any) -> None:
    read = Draft202012Validator(strict(schema))
    assert read.is_valid(takes)
    assert not read.is_valid(refuses)
