"""``gsb check``: one test for each rule, by a deployment that is right but for that; and the commands around it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gsb import jwk
from gsb.check import check
from gsb.cli.check import check as check_command
from gsb.cli.keygen import keygen as keygen_command
from gsb.cli.keygen import public_name
from gsb.store.seal import read_key
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
    (
        set_gsb("listen", tls={"certificate": "gsb.toml", "key": "no.pem"}),
        "gsb.toml",
        "listen.tls.key",
        "there is no file no.pem",
    ),
    (set_gsb("store", path="nowhere/store.db"), "gsb.toml", "store.path", "there is no folder nowhere"),
    (set_gsb("store", key="no.key"), "gsb.toml", "store.key", "gsb keygen --store makes one"),
    (set_gsb("store", key="gsb.toml"), "gsb.toml", "store.key", "base64url"),
    (set_gsb("limits", wait=50, wait_max=40), "gsb.toml", "limits", "wait must be at most wait_max"),
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
    # schemas
    (lambda d: d.schemas.pop(REPLY), f"schemas/{REPLY}", "", "the schema cannot be read: No such file"),
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


HARMLESS: list[Bend] = [
    second_agreement(valid_from=date(2100, 1, 1), valid_until=date(2100, 12, 31)),
    second_agreement(consumer="audit-office"),
    set_grant(fields=[""]),
    set_grant(fields=["/phones/*", "/salary/amount"]),
    set_gsb("bus", base_urls=["https://a.example", "https://b.example"]),
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


# --- adapters that are wrong in themselves

MANIFEST = {"name": "wrong", "title": "T", "summary": "S", "owner": "O", "api": "1"}
GOOD = """
from gsb.sdk import Adapter, Reply
class Wrong(Adapter):
    async def handle(self, request):
        return Reply({})
"""


def install(site: Path, module: str, code: str, *, copies: int = 1, **manifest: str | None) -> None:
    """An adapter named ``wrong`` as a package manager would leave it."""
    package = site / module
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(code)
    members = {name: value for name, value in (MANIFEST | manifest).items() if value is not None}
    lines = (f"{name} = {value if value.isdigit() else json.dumps(value)}\n" for name, value in members.items())
    (package / "adapter.toml").write_text("".join(lines))
    for number in range(copies):
        metadata = site / f"{module}_{number}-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}-{number}\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(f"[gsb.adapters]\nwrong = {module}:Wrong\n")


@pytest.mark.parametrize(
    ("module", "code", "options", "text"),
    [
        ("wrong_a", GOOD, {}, None),
        ("wrong_b", GOOD, {"api": "2"}, "api: Input should be 1"),
        ("wrong_c", GOOD, {"owner": None}, "owner: Field required"),
        ("wrong_d", GOOD, {"name": "right"}, "calls itself 'right'"),
        ("wrong_e", GOOD, {"copies": 2}, "is installed 2 times"),
        ("wrong_f", "1 / 0", {}, "cannot be imported: ZeroDivisionError"),
        ("wrong_g", "class Wrong: pass", {}, "is not an adapter"),
        ("wrong_h", GOOD.replace("Wrong", "Other"), {}, "cannot be imported: AttributeError"),
    ],
)
def test_adapters_that_are_wrong_in_themselves_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, code: str, options: dict[str, Any], text: str | None
) -> None:
    install(tmp_path / "site", module, code, **options)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    deployment = Deployment(tmp_path)
    deployment.system("registry", adapter="wrong")
    findings = found(deployment)
    if text is None:
        assert findings == []
    else:
        assert [(file, where) for file, where, _ in findings] == [("gsb.toml", "adapters.allow.0")]
        assert text in findings[0][2]


def test_a_manifest_that_does_not_fit_keeps_the_code_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    install(tmp_path / "site", "wrong_i", f"open({str(ran)!r}, 'w').close()\n{GOOD}", api="2")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    deployment = Deployment(tmp_path)
    deployment.system("registry", adapter="wrong")
    assert len(found(deployment)) == 1
    assert not ran.exists()


def test_an_adapter_that_is_not_allowed_is_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = tmp_path / "ran"
    install(tmp_path / "site", "wrong_j", f"open({str(ran)!r}, 'w').close()\n{GOOD}")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    deployment = standard(tmp_path)
    assert found(deployment) == []
    assert not ran.exists()


def test_an_entry_point_without_a_module_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "site", "wrong_k", GOOD)
    shutil.rmtree(tmp_path / "site" / "wrong_k")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    deployment = Deployment(tmp_path)
    deployment.system("registry", adapter="wrong")
    ((_, _, message),) = found(deployment)
    assert "wrong_k" in message


# --- the commands

app = typer.Typer()
app.command()(check_command)
app.command()(keygen_command)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_check_prints_a_summary_and_exits_0(tmp_path: Path) -> None:
    code, out, err = run("check", standard(tmp_path).write())
    assert (code, err) == (0, "")
    assert "nothing wrong; 4 agencies, 2 operators, 1 systems, 3 services, 1 agreements; digest " in out


def test_check_prints_every_finding_and_exits_1(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.files["systems/registry.toml"]["agency"] = "nobody"
    deployment.schemas[REPLY]["examples"] = []
    code, out, _ = run("check", deployment.write())
    assert code == 1
    lines = out.splitlines()
    assert f"schemas/{REPLY}: examples: has no example; callers learn from them, and tests check them" in lines
    assert "systems/registry.toml: agency: there is no agency 'nobody'" in lines


def test_check_tells_machines_the_same(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    code, out, _ = run("check", deployment.write(), "--json")
    right = json.loads(out)
    assert (code, right["ok"], right["findings"], len(right["digest"])) == (0, True, [], 64)
    deployment.files["systems/registry.toml"]["agency"] = "nobody"
    code, out, _ = run("check", deployment.write(), "--json")
    wrong = json.loads(out)
    assert (code, wrong["ok"], wrong["digest"]) == (1, False, None)
    text = "there is no agency 'nobody'"
    assert wrong["findings"] == [{"file": "systems/registry.toml", "where": "agency", "message": text}]


def test_check_without_a_folder_exits_2_with_one_line(tmp_path: Path) -> None:
    code, out, err = run("check", tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert err.splitlines() == [f"gsb: cannot read the deployment: there is no folder {tmp_path / 'nowhere'}"]


@pytest.mark.parametrize(("algorithm", "names"), [("ES256", {"ES256"}), ("Ed25519", {"Ed25519", "EdDSA"})])
def test_keygen_makes_a_pair_that_fits(tmp_path: Path, algorithm: str, names: set[str]) -> None:
    code, out, _ = run("keygen", tmp_path / "payroll.jwk.json", "--alg", algorithm)
    private = jwk.read_private((tmp_path / "payroll.jwk.json").read_bytes())
    public = jwk.read_public((tmp_path / "payroll.pub.jwk.json").read_bytes())
    assert (code, out.strip()) == (0, private.kid)
    assert public.kid == private.kid
    assert public.algorithms == names
    assert (tmp_path / "payroll.jwk.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("existing", ["payroll.jwk.json", "payroll.pub.jwk.json"])
def test_keygen_never_writes_over_a_file(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("mine")
    code, _, err = run("keygen", tmp_path / "payroll.jwk.json")
    assert code == 2
    assert existing in err
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "mine"


def test_keygen_makes_store_keys(tmp_path: Path) -> None:
    file = tmp_path / "store.key"
    assert run("keygen", "--store", file) == (0, "", "")
    assert len(read_key(file)) == 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["store.key"]
    before = file.read_bytes()
    assert run("keygen", "--store", file)[0] == 2
    assert file.read_bytes() == before


def test_keygen_tells_when_it_cannot_write(tmp_path: Path) -> None:
    code, _, err = run("keygen", tmp_path / "nowhere" / "payroll.jwk.json")
    assert code == 2
    assert "No such file or directory" in err


def test_the_public_twin_is_named_after_the_private_file() -> None:
    names = [public_name(Path(f"keys/{name}")).name for name in ("a.jwk.json", "a.jwk", "a.json", "a", "a.key")]
    assert names == ["a.pub.jwk.json", "a.pub.jwk.json", "a.pub.jwk.json", "a.pub.jwk.json", "a.key.pub.jwk.json"]
