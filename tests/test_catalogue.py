"""A deployment as one frozen look-up: what is in it, and what its digest covers."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from gsb.catalogue import ConfigInvalid, build
from gsb.errors import AgreementNotInForce, KeyUnknown
from gsb.model import Effect
from gsb.store.contract import Business
from tests.support.deployment import PERSON, Deployment, closed, standard


def test_everything_in_the_files_is_in_the_catalogue(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.files["services/registry/note/v1.toml"] |= {"body": 1_000, "expires": 60.0, "public": True}
    deployment.gsb["limits"] = {"body": 2_000}
    catalogue = build(deployment.write())
    person, note = catalogue.services["registry/person/v1"], catalogue.services["registry/note/v1"]
    assert (person.system, person.provider, person.effect, person.body) == (
        "registry",
        "hrmis-agency",
        Effect.NONE,
        2_000,
    )
    assert (note.effect, note.body, note.expires, note.public) == (Effect.ONCE, 1_000, 60.0, True)
    assert person.settings == {"reply": PERSON}
    assert person.request.subject == "/id"
    assert person.reply.personal == {"/id", "/name"}
    system = catalogue.systems["registry"]
    assert (system.agency, system.adapter) == ("hrmis-agency", "echo")
    assert set(system.services) == set(catalogue.services.values())
    assert set(catalogue.operators) == {"olive", "otto", "ines", "aude", "elsa"}
    assert catalogue.agreements["a-1"].consumer == "payroll"
    assert catalogue.folder == deployment.folder.resolve()


def test_a_business_key_is_personal_when_its_member_or_a_holder_of_it_is(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    person = closed({"number": {"type": "integer"}}) | {"x-personal": True}
    fields = {"person": person, "unit": closed({"a/b~c": {"type": "string"}}), "month": {"type": "string"}}
    del person["examples"], fields["unit"]["examples"]
    example = {"person": {"number": 7}, "unit": {"a/b~c": "Finance"}, "month": "2026-03"}
    for name, pointer in {"one": "/person/number", "two": "/unit/a~1b~0c", "three": "/month"}.items():
        request = closed(fields, example)
        deployment.service(f"registry/{name}/v1", request=request, reply=closed({}, {}), business_key=pointer)
    deployment.files["services/registry/person/v1.toml"]["business_key"] = "/id"
    catalogue = build(deployment.write())

    def found(name: str, body: Any) -> Business | None:
        key = catalogue.services[f"registry/{name}/v1"].business_key
        assert key is not None
        return key.of(body)

    assert found("person", {"id": "P-0001"}) == Business("P-0001", personal=True)
    assert found("one", example) == Business("7", personal=True)
    assert found("two", example) == Business("Finance", personal=False)
    assert found("three", example) == Business("2026-03", personal=False)
    odds: list[Any] = [None, True, ["x"], {}, 1.5]
    for odd in odds:
        assert found("three", {"month": odd}) is None
    assert found("three", {}) is None
    assert found("one", {"person": "7"}) is None
    assert catalogue.services["registry/note/v1"].business_key is None


def test_whom_a_request_is_about_stands_where_its_schema_says_so(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    number = {"type": "integer", "x-subject": True}
    nested = closed({"person": closed({"a/b~c": number})}, {"person": {"a/b~c": 7}})
    many = closed({"people": {"type": "array", "items": number}}, {"people": [7]})
    del nested["properties"]["person"]["examples"]
    for name, request in {"nested": nested, "many": many, "nobody": closed({}, {})}.items():
        deployment.service(f"registry/{name}/v1", request=request, reply=closed({}, {}))
    catalogue = build(deployment.write())

    def found(name: str, body: Any) -> str | None:
        return catalogue.services[f"registry/{name}/v1"].subject(body)

    assert found("person", {"id": "P-0001"}) == "P-0001"
    assert found("nested", {"person": {"a/b~c": 7}}) == "7"
    assert found("nested", {"person": {}}) is None
    assert found("many", {"people": [7]}) is None
    assert found("nobody", {}) is None


def test_keys_of_agencies_and_operators_are_registered(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    ed25519 = deployment.key("payroll", "Ed25519")
    catalogue = build(deployment.write())
    for owner in ("payroll", "olive"):
        kid = deployment.key(owner).kid
        assert catalogue.keys.find(owner, kid, 0.0).kid == kid
    assert catalogue.keys.find("payroll", ed25519.kid, 0.0).algorithms == {"Ed25519", "EdDSA"}
    with pytest.raises(KeyUnknown):
        catalogue.keys.find("olive", deployment.key("payroll").kid, 0.0)
    assert catalogue.bus_keys.signing(0.0).kid == deployment.bus_key().kid


def test_an_agreement_is_valid_from_its_first_to_its_last_day_in_utc(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.files["agreements/a-1.toml"] |= {"valid_from": date(2024, 2, 1), "valid_until": date(2024, 2, 29)}
    policy = build(deployment.write()).policy
    first = datetime(2024, 2, 1, tzinfo=UTC).timestamp()
    end = datetime(2024, 3, 1, tzinfo=UTC).timestamp()
    for now in (first, end - 0.001):
        grant = policy.decide("payroll", "registry/person/v1", "payroll", None, None, now)
        assert grant.fields == ("/id", "/name", "/salary")
    for now in (first - 0.001, end):
        with pytest.raises(AgreementNotInForce):
            policy.decide("payroll", "registry/person/v1", "payroll", None, None, now)


def test_a_grant_names_the_digest_of_its_agreement_as_written(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    grant = build(deployment.write()).policy.grant("a-1", "payroll", "registry/person/v1", "payroll")
    assert grant is not None
    content = (deployment.folder / "agreements/a-1.toml").read_bytes()
    assert grant.agreement_digest == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "file",
    ["gsb.toml", "agencies/payroll.toml", "agreements/a-1.toml", "services/registry/person/v1.toml"],
)
def test_the_digest_changes_with_every_table(tmp_path: Path, file: str) -> None:
    folder = standard(tmp_path).write()
    before = build(folder).digest
    assert build(folder).digest == before
    with (folder / file).open("a") as table:
        table.write("# a remark\n")
    assert build(folder).digest != before


@pytest.mark.parametrize("file", ["schemas/registry/person/v1/reply.json", "keys/payroll-es256.pub.jwk.json"])
def test_the_digest_changes_with_schemas_and_public_keys(tmp_path: Path, file: str) -> None:
    folder = standard(tmp_path).write()
    before = build(folder).digest
    with (folder / file).open("a") as part:
        part.write("\n")
    assert build(folder).digest != before


def test_the_digest_does_not_depend_on_secrets(tmp_path: Path) -> None:
    folder = standard(tmp_path).write()
    before = build(folder).digest
    for secret in ("store.key", "keys/bus.jwk.json", "keys/log.jwk.json"):
        with (folder / secret).open("a") as file:
            file.write("\n")
    assert build(folder).digest == before


def test_a_catalogue_cannot_be_changed(tmp_path: Path) -> None:
    catalogue = build(standard(tmp_path).write())
    for mapping in (catalogue.services, catalogue.systems, catalogue.agencies, catalogue.operators):
        with pytest.raises(TypeError):
            mapping["x"] = None  # type: ignore[index]
    with pytest.raises(AttributeError):
        catalogue.digest = ""  # type: ignore[misc]


def test_a_deployment_without_services_is_one(tmp_path: Path) -> None:
    catalogue = build(Deployment(tmp_path).write())
    assert catalogue.services == {}
    assert catalogue.policy.grants_of("payroll") == ()


def test_what_is_wrong_stops_the_build_with_every_reason(tmp_path: Path) -> None:
    deployment = standard(tmp_path)
    deployment.files["systems/registry.toml"]["agency"] = "nobody"
    deployment.files["agreements/a-1.toml"]["consumer"] = "payrol"
    with pytest.raises(ConfigInvalid) as refused:
        build(deployment.write())
    assert {finding.file for finding in refused.value.findings} == {"systems/registry.toml", "agreements/a-1.toml"}
    assert "did you mean 'payroll'?" in str(refused.value)
