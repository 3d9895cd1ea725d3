"""Tables and their files: shapes, paths, and every problem at once with its place and a hint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from gsb import config, forms
from gsb.backends import SqliteTable
from gsb.load import Finding, load, suggest
from tests.support.deployment import Deployment


def found(deployment: Deployment) -> set[tuple[str, str, str]]:
    return {(each.file, each.where, each.message) for each in load(deployment.write())[1]}


def test_a_complete_deployment_loads_without_findings(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    deployment.system("registry")
    deployment.service("registry/person/v1")
    deployment.agreement("a-1", grants=[{"service": "registry/person/v1", "purpose": "pay", "fields": [""]}])
    tables, findings = load(deployment.write())
    assert findings == []
    assert tables.gsb is not None
    assert tables.gsb.bus.id == "bus.test"
    assert set(tables.agencies) == {"payroll", "audit-office", "hrmis-agency", "tax-agency"}
    assert tables.operators["otto"].roles == ["observer"]
    assert set(tables.services) == {"registry/person/v1"}
    assert tables.contents["gsb.toml"] == (deployment.folder / "gsb.toml").read_bytes()


def test_relative_paths_start_at_the_folder(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    deployment.gsb["store"]["path"] = "/var/lib/gsb/store.db"
    del deployment.gsb["schemas"]
    tables, _ = load(deployment.write())
    assert tables.gsb is not None
    assert isinstance(tables.gsb.store, SqliteTable)
    assert tables.gsb.store.path == Path("/var/lib/gsb/store.db")
    assert tables.gsb.store.key == deployment.folder.resolve() / "store.key"
    assert tables.gsb.schemas == deployment.folder.resolve() / "schemas"
    assert tables.gsb.bus.keys[0].file == deployment.folder.resolve() / "keys/bus.jwk.json"


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    deployment.gsb["listen"]["prot"] = 8080
    deployment.gsb["limits"] = {"body": 0}
    deployment.files["agencies/payroll.toml"]["nmae"] = "Payroll"
    deployment.agreement("a-1", grants=[{"service": "registry/person", "purpse": "pay", "fields": []}])
    assert found(deployment) == {
        ("gsb.toml", "listen.prot", "is not known; did you mean 'port'?"),
        ("gsb.toml", "limits.body", "Input should be greater than or equal to 1"),
        ("agencies/payroll.toml", "nmae", "is not known; did you mean 'name'?"),
        ("agreements/a-1.toml", "grants.0.service", f"String should match pattern '{forms.SERVICE}'"),
        ("agreements/a-1.toml", "grants.0.purpse", "is not known; did you mean 'purpose'?"),
        ("agreements/a-1.toml", "grants.0.purpose", "is missing"),
        ("agreements/a-1.toml", "grants.0.fields", "List should have at least 1 item after validation, not 0"),
    }


def test_names_of_union_members_stand_in_no_path(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    deployment.gsb["listen"]["tls"] = {"certificate": "c.pem", "kee": "k.pem"}
    told = {where for _, where, _ in found(deployment)}
    assert {"listen.tls.kee", "listen.tls.key"} <= told
    assert not any("Tls" in where or "literal" in where for where in told)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"name = ", "is not TOML"),
        (b"name = 'a'\nname = 'b'", "is not TOML"),
        (b"name = '\xff'", "is not UTF-8"),
    ],
)
def test_files_that_cannot_be_read_are_told(tmp_path: Path, content: bytes, text: str) -> None:
    folder = Deployment(tmp_path).write()
    (folder / "agencies/payroll.toml").write_bytes(content)
    tables, findings = load(folder)
    assert [(each.file, each.message.startswith(text)) for each in findings] == [("agencies/payroll.toml", True)]
    # Its id is known all the same, so that whatever refers to it is not told as a second problem.
    assert "payroll" in tables.ids["agencies"]
    assert "payroll" not in tables.agencies


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("agency/x.toml", "is not read; there are gsb.toml and {agencies,"),
        ("agency/x.toml", "did you mean 'agencies'?"),
        ("gbs.toml", "did you mean 'gsb'?"),
        ("agencies/Payroll.toml", "form agencies/<id>.toml"),
        ("agencies/a/b.toml", "form agencies/<id>.toml"),
        ("systems/hr_mis.toml", "form systems/<id>.toml"),
        (f"systems/{'x' * 65}.toml", "form systems/<id>.toml"),
        ("services/hrmis/employee.toml", "form services/<system>/<service>/v<n>.toml"),
        ("services/hrmis/employee/v0.toml", "form services/<system>/<service>/v<n>.toml"),
    ],
)
def test_misplaced_files_are_told(tmp_path: Path, file: str, text: str) -> None:
    folder = Deployment(tmp_path).write()
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text("name = 'x'\n")
    (finding,) = load(folder)[1]
    assert finding.file == file
    assert text in finding.message


def test_hidden_folders_are_not_read(tmp_path: Path) -> None:
    folder = Deployment(tmp_path).write()
    hidden = folder / "agencies" / "..2024_01_01"
    hidden.mkdir()
    (hidden / "payroll.toml").write_text("nothing = 1\n")
    assert load(folder)[1] == []


def test_linked_folders_are_read_and_links_in_circles_are_not(tmp_path: Path) -> None:
    """As a ConfigMap is mounted: everything visible is a link into a hidden folder that is itself a link."""
    folder = Deployment(tmp_path).write()
    version = folder / "..2024_01_01"
    version.mkdir()
    (folder / "..data").symlink_to("..2024_01_01")
    (folder / "agencies").rename(version / "agencies")
    (folder / "agencies").symlink_to("..data/agencies")
    (version / "agencies" / "all").symlink_to("..")
    tables, findings = load(folder)
    assert findings == []
    assert "payroll" in tables.agencies


def test_a_folder_without_gsb_toml_is_no_deployment(tmp_path: Path) -> None:
    assert load(tmp_path)[1] == [Finding("gsb.toml", "", "is missing: the bus itself must be described")]
    with pytest.raises(NotADirectoryError):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "https://bus.example", "https://bus.example/gsb", "https://[::1]:8443"]
)
def test_base_urls_of_good_form(url: str) -> None:
    assert TypeAdapter(forms.BaseUrl).validate_python(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "bus.example",
        "ftp://bus.example",
        "https://",
        "https://bus.example/",
        "https://bus.example/gsb/",
        "https://bus.example?x=1",
        "https://bus.example?",
        "https://bus.example#x",
        "https://user@bus.example",
        "https://Bus.example",
        "HTTPS://bus.example",
        " https://bus.example",
        "https://bus.exa\tmple",
        "https://bus.example:0",
        "https://bus.example:port",
        "https://bücher.example",
    ],
)
def test_base_urls_of_bad_form(url: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(forms.BaseUrl).validate_python(url)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("x.y", False)],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert forms.is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("model", "table", "text"),
    [
        (config.KeyFile, {"file": "k", "state": "retiring"}, "a retiring key needs until"),
        (
            config.KeyFile,
            {"file": "k", "since": "2024-01-02T00:00:00Z", "until": "2024-01-02T00:00:00Z"},
            "since must be before until",
        ),
        (config.KeyFile, {"file": "k", "since": "2024-01-02T00:00:00"}, "timezone"),
        (config.KeyFile, {"file": "k", "state": "lost"}, "'announced', 'active', 'retiring' or 'revoked'"),
        (config.Limits, {"wait": 61}, "wait must be at most wait_max"),
        (config.Rate, {"per_minute": 0}, "greater than or equal to 1"),
    ],
)
def test_rules_of_one_table(model: type[forms.Table], table: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(table)
    assert text in str(refused.value)


def test_an_agreement_ends_after_it_begins(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    grants = [{"service": "registry/person/v1", "purpose": "pay", "fields": [""]}]
    deployment.agreement("a-1", grants=grants, valid_from="2024-02-01", valid_until="2024-01-31")
    assert found(deployment) == {("agreements/a-1.toml", "", "valid_from must not be after valid_until")}


def test_every_field_has_its_manual() -> None:
    models = [each for each in vars(config).values() if isinstance(each, type) and issubclass(each, forms.Table)]
    bare = {
        f"{model.__name__}.{name}"
        for model in models
        for name, field in model.model_fields.items()
        if not field.description and model is not config.Gsb
    }
    # The tables of gsb.toml are described by their own classes.
    assert bare == set()


def test_hints_name_only_what_is_close() -> None:
    assert suggest("payrol", ["payroll", "audit"]) == "; did you mean 'payroll'?"
    assert suggest("zzz", ["payroll", "audit"]) == ""


def test_findings_print_without_empty_parts() -> None:
    assert str(Finding("gsb.toml", "bus.id", "is missing")) == "gsb.toml: bus.id: is missing"
    assert str(Finding("gsb.toml", "", "is missing")) == "gsb.toml: is missing"
