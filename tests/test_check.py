"""``gsb check``: one test for each rule, by a deployment that is right but for that; and the commands around it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gsb.check import check
from gsb.evidence.checkpoint import LOG, WITNESS, Verifier
from gsb.evidence.entry import Fact, make_entry
from gsb.evidence.tiles import ENTRY_LIMIT
from gsb.lint import FIELDS_LIMIT
from tests.support.deployment import Deployment, closed, standard

Bend = Callable[[Deployment], Any]
PERSON = "services/registry/person/v1.toml"
REQUEST, REPLY = "registry/person/v1/request.json", "registry/person/v1/reply.json"


def found(deployment: Deployment) -> list[tuple[str, str, str]]:
    return [(finding.file, finding.where, finding.message) for finding in check(deployment.write())]


def test_a_right_deployment_has_no_findings(tmp_path: Path) -> None:
    assert found(standard(tmp_path)) == []


def set_in(file: str, **members: Any) -> Bend:
    return lambda deployment: deployment.files[file].update(members)


def set_gsb(table: str, **members: Any) -> Bend:
    return lambda deployment: deployment.gsb[table].update(members)


def set_grant(**members: Any) -> Bend:
    return lambda deployment: deployment.files["agreements/a-1.toml"]["grants"][0].update(members)


def second_agreement(**more: Any) -> Bend:
    grants = [{"service": "registry/person/v1", "purpose": "payroll", "fields": ["/id"]}]
    return lambda deployment: deployment.agreement("a-2", grants=grants, **more)


def twice_in_one(deployment: Deployment) -> None:
    grants = deployment.files["agreements/a-1.toml"]["grants"]
    grants.append(dict(grants[0]))


def bus_key(**members: Any) -> Bend:
    return lambda deployment: deployment.gsb["bus"]["keys"][0].update(members)


def share_key(deployment: Deployment) -> None:
    deployment.files["agencies/tax-agency.toml"]["keys"] = deployment.files["agencies/payroll.toml"]["keys"]


def repeat_key(deployment: Deployment) -> None:
    keys = deployment.files["agencies/payroll.toml"]["keys"]
    keys.append({"file": keys[0]["file"], "state": "revoked"})


def message_key(deployment: Deployment) -> None:
    deployment.gsb["log"]["key"] = str(deployment.key_file("payroll", "Ed25519"))


def watch_the_log(deployment: Deployment) -> None:
    deployment.gsb["reload"] = "watch"
    deployment.gsb["log"]["path"] = "log"


def vkey(kind: str) -> str:
    return Verifier("w.example", LOG if kind == "log" else WITNESS, bytes(32)).vkey


def witnessed(*, count: int = 1, **table: str) -> Bend:
    """Witnesses, of whom something is wrong, or else that the log is idle for longer than cosigning may stop."""
    tables = [{"url": "https://w.example/prefix", "key": vkey("witness")} | table] * count
    more = {} if table or count > 1 else {"cosignatures": 1, "cosigned_within": 600}
    return set_gsb("log", witnesses=tables, **more)


def stamped(certificates: str, url: str = "http://tsa.example/") -> Bend:
    return set_gsb("log", timestamp={"url": url, "certificates": certificates})


def tear(path: str) -> Bend:
    """A schema whose file is no strict JSON."""

    def bend(deployment: Deployment) -> None:
        del deployment.schemas[path]
        file = deployment.folder / "schemas" / path
        file.parent.mkdir(parents=True)
        file.write_text('{"properties": {"id": {"type": "string", "type": "integer"}}}')

    return bend


def schema(path: str, **members: Any) -> Bend:
    return lambda deployment: deployment.schemas[path].update(members)


CASES: list[tuple[Bend, str, str, str]] = [
    # who signs
    (lambda d: d.operator("payroll", ["observer"]), "operators/payroll.toml", "", "an agency has this id too"),
    (
        set_in("agencies/payroll.toml", keys=[{"file": "keys/no.jwk"}]),
        "agencies/payroll.toml",
        "keys.0.file",
        "keys/no.jwk cannot be read: No such file",
    ),
    (
        set_in("agencies/payroll.toml", keys=[{"file": "keys/bus.jwk.json"}]),
        "agencies/payroll.toml",
        "keys.0.file",
        "private key where a public one is wanted",
    ),
    (
        set_in("agencies/payroll.toml", keys=[{"file": "gsb.toml"}]),
        "agencies/payroll.toml",
        "keys.0.file",
        "not strict JSON",
    ),
    (share_key, "agencies/tax-agency.toml", "keys.0.file", "the same key stands in agencies/payroll.toml"),
    (repeat_key, "agencies/payroll.toml", "keys.1.file", "the same key stands in agencies/payroll.toml: keys.0.file"),
    (
        bus_key(file="keys/payroll-es256.pub.jwk.json"),
        "gsb.toml",
        "bus.keys.0.file",
        "public key where a private one is wanted",
    ),
    (bus_key(state="announced"), "gsb.toml", "bus.keys", "none of the bus's keys is active now"),
    (bus_key(until="2020-01-01T00:00:00Z"), "gsb.toml", "bus.keys", "none of the bus's keys is active now"),
    # the bus
    (set_gsb("bus", base_urls=["http://bus.example"]), "gsb.toml", "bus.base_urls.0", "must be https"),
    (
        set_gsb("bus", base_urls=["https://a.example", "https://a.example"]),
        "gsb.toml",
        "bus.base_urls.1",
        "stands twice",
    ),
    (lambda d: d.gsb["bus"].update(operations_url=d.bus_url), "gsb.toml", "bus.operations_url", "stands twice"),
    (set_gsb("listen", host="0.0.0.0"), "gsb.toml", "listen.host", "plain HTTP is only for loopback"),
    (set_gsb("listen", operations_host="0.0.0.0"), "gsb.toml", "listen.operations_host", "speaks plain HTTP"),
    (
        set_gsb("listen", tls={"certificate": "gsb.toml", "key": "no.pem"}),
        "gsb.toml",
        "listen.tls.key",
        "there is no file no.pem",
    ),
    (set_gsb("store", path="nowhere/store.db"), "gsb.toml", "store.path", "there is no folder nowhere"),
    (set_gsb("store", key="no.key"), "gsb.toml", "store.key", "gsb keygen --store makes one"),
    (set_gsb("store", key="gsb.toml"), "gsb.toml", "store.key", "base64url"),
    # the log
    (set_gsb("log", key="no.key"), "gsb.toml", "log.key", "no.key cannot be read: No such file"),
    (set_gsb("log", key="gsb.toml"), "gsb.toml", "log.key", "gsb keygen --alg Ed25519 makes one"),
    (set_gsb("log", key="keys/bus.jwk.json"), "gsb.toml", "log.key", "for ES256, and a log is signed with Ed25519"),
    (message_key, "gsb.toml", "log.key", "the same key stands in agencies/payroll.toml: keys.1.file"),
    (set_gsb("log", path="nowhere/log"), "gsb.toml", "log.path", "there is no folder nowhere"),
    (set_gsb("log", path="gsb.toml"), "gsb.toml", "log.path", "gsb.toml is no folder"),
    (set_gsb("log", path="."), "gsb.toml", "log.path", "is a folder of the deployment too"),
    (set_gsb("log", path=".."), "gsb.toml", "log.path", "is a folder of the deployment too"),
    (set_gsb("log", path="agreements/log"), "gsb.toml", "log.path", "is a folder of agreements too"),
    (set_gsb("log", path="schemas"), "gsb.toml", "log.path", "is a folder of schemas too"),
    (set_gsb("log", path="store.db"), "gsb.toml", "log.path", "is a folder of the store too"),
    (watch_the_log, "gsb.toml", "log.path", "looks at every file each second"),
    (set_gsb("log", origin="the log"), "gsb.toml", "log.origin", "match pattern"),
    (
        lambda d: d.gsb["bus"].update(base_urls=[f"{d.bus_url}/a+b"]),
        "gsb.toml",
        "log.origin",
        "a log cannot be called",
    ),
    (set_gsb("log", every=2, behind_seconds=2), "gsb.toml", "log", "behind_seconds must be more than every"),
    (set_gsb("log", cosign_wait=2, behind_seconds=3), "gsb.toml", "log", "behind_seconds must be more than every and"),
    (set_gsb("log", cosignatures=1), "gsb.toml", "log", "cosignatures must be at most the number of witnesses"),
    (witnessed(), "gsb.toml", "log", "cosigned_within must be more than idle"),
    (witnessed(url="http://w.example"), "gsb.toml", "log.witnesses.0.url", "must be https"),
    (witnessed(url="https://w.example/"), "gsb.toml", "log.witnesses.0.url", "no user, query, fragment or slash"),
    (witnessed(key="w.example+00000000+AAAA"), "gsb.toml", "log.witnesses.0.key", "is of the unknown type"),
    (witnessed(key=vkey("log")), "gsb.toml", "log.witnesses.0.key", "is not the key of a witness"),
    (witnessed(count=2), "gsb.toml", "log.witnesses.1.key", "w.example stands twice"),
    (stamped("gsb.toml"), "gsb.toml", "log.timestamp.certificates", "cannot be read"),
    (stamped("none.pem"), "gsb.toml", "log.timestamp.certificates", "No such file"),
    (stamped("none.pem", url="ftp://tsa.example"), "gsb.toml", "log.timestamp.url", "match pattern"),
    (set_gsb("limits", wait=50, wait_max=40), "gsb.toml", "limits", "wait must be at most wait_max"),
    (
        lambda d: d.gsb.update(retention={"bodies_days": 60, "exchanges_days": 60}),
        "gsb.toml",
        "retention",
        "exchanges_days must be more than bodies_days and keys_days",
    ),
    # systems and services
    (
        set_in("systems/registry.toml", agency="hrmis-agecy"),
        "systems/registry.toml",
        "agency",
        "'hrmis-agecy'; did you mean 'hrmis-agency'?",
    ),
    (
        lambda d: d.service("regstry/x/v1"),
        "services/regstry/x/v1.toml",
        "",
        "there is no system 'regstry'; did you mean 'registry'?",
    ),
    (
        set_in("systems/registry.toml", adapter="ecco"),
        "systems/registry.toml",
        "adapter",
        "'ecco' is not allowed in gsb.toml; did you mean 'echo'?",
    ),
    (
        set_gsb("adapters", allow=["echo", "ecco"]),
        "gsb.toml",
        "adapters.allow.1",
        "no adapter 'ecco' is installed; did you mean 'echo'?",
    ),
    (set_in("systems/registry.toml", settings={"url": "x"}), "systems/registry.toml", "settings.url", "is not known"),
    (set_in(PERSON, settings={"repyl": {}}), PERSON, "settings.repyl", "is not known; did you mean 'reply'?"),
    (set_in(PERSON, business_key="/ids"), PERSON, "business_key", "no field '/ids'; did you mean '/id'?"),
    (set_in(PERSON, business_key="id"), PERSON, "business_key", "match pattern"),
    (set_in(PERSON, business_key=""), PERSON, "business_key", "match pattern"),
    # schemas
    (lambda d: d.schemas.pop(REPLY), f"schemas/{REPLY}", "", "the schema cannot be read: No such file"),
    (tear(REPLY), f"schemas/{REPLY}", "properties.id.type", "more than once"),
    (schema(REPLY, type="objekt"), f"schemas/{REPLY}", "", "/type"),
    (schema(REPLY, properties={"id": {"$ref": "https://example.org/id"}}), f"schemas/{REPLY}", "", "same document"),
    (schema(REPLY, examples=[]), f"schemas/{REPLY}", "examples", "has no example"),
    (
        schema(REQUEST, examples=[{"id": "P-0001"}, {"id": 7, "x": 1}]),
        f"schemas/{REQUEST}",
        "examples.1.id",
        "is not of type",
    ),
    (
        schema(REQUEST, examples=[{"id": "P-0001"}, {"id": "P-0002", "x": 1}]),
        f"schemas/{REQUEST}",
        "examples.1.x",
        "is not known",
    ),
    (schema(REQUEST, additionalProperties=True), f"schemas/{REQUEST}", "", "refuses unknown members at every level"),
    (
        schema(REQUEST, **closed({"id": {"type": "object"}}, {"id": {}})),
        f"schemas/{REQUEST}",
        "properties.id",
        "refuses unknown members",
    ),
    # agreements
    (
        set_in("agreements/a-1.toml", consumer="payrol"),
        "agreements/a-1.toml",
        "consumer",
        "there is no agency 'payrol'; did you mean 'payroll'?",
    ),
    (set_in("agreements/a-1.toml", provider="tax"), "agreements/a-1.toml", "provider", "there is no agency 'tax'"),
    (
        set_in("agreements/a-1.toml", provider="tax-agency"),
        "agreements/a-1.toml",
        "grants.1.service",
        "registry/mark/v1 belongs to hrmis-agency, not to this agreement's provider",
    ),
    (
        set_grant(service="registry/persons/v1"),
        "agreements/a-1.toml",
        "grants.0.service",
        "did you mean 'registry/person/v1'?",
    ),
    (
        set_grant(fields=["/id", "/nmae"]),
        "agreements/a-1.toml",
        "grants.0.fields.1",
        "the reply has no field '/nmae'; did you mean '/name'?",
    ),
    (set_grant(fields=["id"]), "agreements/a-1.toml", "grants.0.fields.0", "the reply has no field 'id'"),
    (
        set_grant(fields=["/id"] * 10_667),
        "agreements/a-1.toml",
        "grants.0.fields",
        "are 64,003 bytes as an entry of the evidence log names them, which takes 64,000; grant what holds them",
    ),
    (second_agreement(), "agreements/a-2.toml", "grants.0", "overlaps with grants.0 of agreements/a-1.toml"),
    (second_agreement(suspended=True), "agreements/a-2.toml", "grants.0", "overlaps with"),
    (
        second_agreement(valid_from=date(2099, 12, 31), valid_until=date(2100, 1, 1)),
        "agreements/a-2.toml",
        "grants.0",
        "overlaps",
    ),
    (twice_in_one, "agreements/a-1.toml", "grants.3", "overlaps with grants.0 of agreements/a-1.toml"),
]


@pytest.mark.parametrize(("bend", "file", "where", "text"), CASES)
def test_each_rule_tells_what_breaks_it(tmp_path: Path, bend: Bend, file: str, where: str, text: str) -> None:
    deployment = standard(tmp_path)
    bend(deployment)
    findings = found(deployment)
    assert any(
        (file, where) == (each_file, each_where) and text in message for each_file, each_where, message in findings
    ), findings


def test_the_most_fields_that_may_be_granted_fit_into_every_entry() -> None:
    text, long = "x" * (FIELDS_LIMIT - 4), "a" * 64
    facts: dict[str, Fact] = {
        "exchange": "0" * 36,
        "agency": long,
        "service": f"{long}/{long}/v{10**9}",
        "purpose": long,
        "agreement": long,
        "agreement_digest": "0" * 64,
        "fields": [text],
        "key": "k" * 43,
        "attempt": 10**9,
        "state": "refused",
        "effect": "none",
        "code": "x" * 64,
    }
    assert len(make_entry("outcome", 1e10, facts, {}).content) <= ENTRY_LIMIT


HARMLESS: list[Bend] = [
    second_agreement(valid_from=date(2100, 1, 1), valid_until=date(2100, 12, 31)),
    second_agreement(consumer="audit-office"),
    set_grant(fields=[""]),
    set_grant(fields=["/id"] * 10_666),
    set_grant(fields=["/phones/*", "/salary/amount"]),
    set_gsb("bus", base_urls=["https://a.example", "https://b.example"]),
    set_gsb("listen", operations_host="0.0.0.0", tls="upstream"),
    lambda d: (set_gsb("listen", host="0.0.0.0", tls="upstream")(d), set_gsb("bus", base_urls=["http://a.example"])(d)),
    lambda d: d.gsb["bus"]["keys"].insert(0, d.gsb["bus"]["keys"].pop() | {"since": "2024-01-01T00:00:00Z"}),
    lambda d: d.files["agencies/payroll.toml"]["keys"].clear(),
    schema(REPLY, additionalProperties=True),
]


@pytest.mark.parametrize("bend", HARMLESS)
def test_rules_let_the_neighbouring_right_thing_pass(tmp_path: Path, bend: Bend) -> None:
    deployment = standard(tmp_path)
    bend(deployment)
    assert found(deployment) == []


def test_a_broken_file_is_told_once_and_not_by_those_who_refer_to_it(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.files["agencies/hrmis-agency.toml"]["x"] = 1
    deployment.files["services/registry/mark/v1.toml"]["x"] = 1
    assert [(file, where) for file, where, _ in found(deployment)] == [
        ("agencies/hrmis-agency.toml", "x"),
        ("services/registry/mark/v1.toml", "x"),
    ]


def test_findings_of_every_kind_come_together_and_in_order(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    for bend in (
        set_gsb("limits", wiat=1),
        set_in("systems/registry.toml", agency="nobody"),
        schema(REPLY, examples=[]),
        set_grant(fields=["/x"]),
    ):
        bend(deployment)
    # Without gsb.toml nobody knows where the schemas are: what depends on them is told once it is right.
    assert [file for file, _, _ in found(deployment)] == ["gsb.toml", "systems/registry.toml"]
    del deployment.gsb["limits"]["wiat"]
    files = [file for file, _, _ in found(deployment)]
    assert files == ["agreements/a-1.toml", f"schemas/{REPLY}", "systems/registry.toml"]
