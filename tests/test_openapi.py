"""The API description is valid by somebody else's check, says what the bus really does, and to each only its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gsb.errors import TABLE
from gsb.schema import Schema
from gsb.web import log
from gsb.web.app import API, find_route
from gsb.web.reference import openapi
from gsb.web.services import usable_by
from tests.support.bus import bus_of, puppet_deployment
from tests.support.deployment import PERSON, Deployment, standard
from tests.support.node import InProcess, node_in_process
from tests.support.reading import read

PERSON_PATH = "/services/registry/person/v1"
EXCHANGE = "01a0c450-6c00-71b6-b1a8-e21f6124ae04"
OWN = {
    "/exchanges/{id}",
    "/exchanges/{id}/reply",
    "/exchanges/{id}/receipt",
    "/services",
    "/openapi.json",
    "/docs",
    "/problems/{code}",
    "/.well-known/jwks.json",
    "/log/checkpoint",
}
OPERATORS = {log.file_for_auditor}
"""What stands at the API for operators alone; like all their acts it is not described to agencies."""


def deployment(root: Path) -> Deployment:
    """As standard, with the read for a second purpose too, and the repeatable write described to everyone."""
    made = standard(root)
    made.files["services/registry/mark/v1.toml"] |= {"public": True, "summary": "Marks a person's file."}
    made.agreement(
        "a-2",
        grants=[
            {
                "service": "registry/person/v1",
                "purpose": "pensions",
                "fields": ["/id", "/salary/currency", "/phones"],
                "rate": {"per_minute": 60, "burst": 10},
                "sub": True,
            }
        ],
    )
    ended = [{"service": "registry/note/v1", "purpose": "payroll", "fields": [""]}]
    made.agreement("a-3", consumer="audit-office", grants=ended, suspended=True)
    return made


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[InProcess]:
    async with node_in_process(tmp_path, deployment(tmp_path)) as node:
        yield node


async def described(node: InProcess, agency: str | None = None) -> Any:
    answer, body = await read(node, "/openapi.json", agency)
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert ("GSB-Signature" in answer.headers) is (agency is not None)
    return orjson.loads(body)


def services(document: Any) -> set[str]:
    return {path for path in document["paths"] if path.startswith("/services/")}


def post(document: Any, path: str = PERSON_PATH) -> Any:
    return document["paths"][path]["post"]


def resolved(document: Any, value: Any) -> Any:
    """What a reference in the document names, all the way down."""
    if isinstance(value, list):
        return [resolved(document, each) for each in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        _, kind, name = value["$ref"].removeprefix("#/").split("/")
        return resolved(document, document["components"][kind][name])
    return {name: resolved(document, each) for name, each in value.items()}


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, item in document["paths"].items():
        for method in item.keys() & {"get", "post"}:
            yield path, method, item[method]


@pytest.mark.parametrize("agency", [None, "payroll", "audit-office"])
async def test_it_is_valid_openapi(node: InProcess, agency: str | None) -> None:
    document = await described(node, agency)
    assert document["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


async def test_the_check_would_find_what_is_wrong(node: InProcess) -> None:
    document = await described(node)
    del document["paths"]["/services"]["get"]["responses"]["200"]["description"]
    assert list(OpenAPIV31SpecValidator(document).iter_errors())


async def test_each_reader_sees_its_own_services_and_the_bus(node: InProcess) -> None:
    granted = {f"/services/registry/{name}/v1" for name in ("person", "mark", "note")}
    for agency, expected in {None: {"/services/registry/mark/v1"}, "payroll": granted, "audit-office": set()}.items():
        document = await described(node, agency)
        assert services(document) == expected
        assert document["paths"].keys() - expected == OWN


async def test_nothing_of_a_service_that_is_not_public_is_told_to_anybody(node: InProcess) -> None:
    answer, body = await read(node, "/openapi.json")
    assert answer.status == 200
    for text in ("registry/person", "registry/note", PERSON["name"], "phones", "payroll", "a-1", "x-grants"):
        assert str(text).encode() not in body


async def test_every_described_path_exists_and_every_path_is_described(node: InProcess) -> None:
    document = await described(node, "payroll")
    found = set()
    for path, method, _ in operations(document):
        target = path.replace("{id}", EXCHANGE).replace("{code}", "replayed")
        route, _ = find_route(API, method.upper(), target)
        found.add(route.endpoint)
    assert found == {route.endpoint for route in API} - OPERATORS


async def test_operations_are_told_apart_by_their_ids(node: InProcess) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(await described(node, "payroll"))]
    assert sorted(set(ids)) == sorted(ids)


async def test_every_code_is_described_with_its_status(node: InProcess) -> None:
    document = await described(node)
    found = {}
    for name, response in document["components"]["responses"].items():
        if name.startswith("Problem"):
            for code, shown in response["content"]["application/problem+json"]["examples"].items():
                found[code] = f"Problem{shown['value']['status']}" == name
                assert f"`{code}`: {TABLE[code].title}" in response["description"]
    assert found == dict.fromkeys(TABLE, True)


async def test_examples_fit_their_schemas_and_schemas_are_ones_the_bus_takes(node: InProcess) -> None:
    document = await described(node, "payroll")
    checked = 0
    bodies = [post(document, path)["requestBody"] for path in services(document)]
    bodies += [response for _, _, operation in operations(document) for response in operation["responses"].values()]
    for body in bodies:
        for media in resolved(document, body).get("content", {}).values():
            schema = Schema.compile(media["schema"], "described")
            for shown in media.get("examples", {}).values():
                assert schema.faults(shown["value"]) == []
                checked += 1
    assert checked > len(TABLE)


async def test_the_reply_is_described_as_each_grant_cuts_it(node: InProcess) -> None:
    reply = post(await described(node, "payroll"))["responses"]["200"]["content"]["application/json"]
    payroll, pensions = reply["schema"]["anyOf"]
    assert (payroll["title"], pensions["title"]) == ("For payroll", "For pensions")
    assert payroll["required"] == ["id", "name", "salary"]
    assert list(payroll["properties"]) == ["id", "name", "salary"]
    assert pensions["required"] == ["id", "salary", "phones"]
    assert pensions["properties"]["salary"]["required"] == ["currency"]
    assert reply["examples"]["pensions-1"]["value"] == {
        "id": PERSON["id"],
        "salary": {"currency": "XOF"},
        "phones": PERSON["phones"],
    }


async def test_grants_and_their_conditions_are_told(node: InProcess) -> None:
    operation = post(await described(node, "payroll"))
    assert [(grant["purpose"], grant["sub"]) for grant in operation["x-grants"]] == [
        ("payroll", False),
        ("pensions", True),
    ]
    text = "purpose `pensions`, agreement `a-2`; the claim `sub` is required; 60 a minute, 10 at once"
    assert text in operation["description"]


async def test_the_reasons_for_which_a_system_may_say_no_are_told(tmp_path: Path) -> None:
    async with node_in_process(tmp_path, puppet_deployment(tmp_path)) as node:
        said = post(await described(node, "payroll"))
    assert said["x-reasons"] == {"not_found": "There is no such person"}
    assert "- `system_refused`, reason `not_found`: There is no such person" in said["description"]


async def test_a_public_service_is_described_whole_and_needs_a_signature_all_the_same(node: InProcess) -> None:
    document = await described(node)
    operation = post(document, "/services/registry/mark/v1")
    assert "Marks a person's file." in operation["description"]
    assert list(operation["responses"]["200"]["content"]["application/json"]["schema"]["properties"]) == ["id", "text"]
    assert "security" not in operation
    assert document["security"] == [{"signature": []}]
    scheme = document["components"]["securitySchemes"]["signature"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "GSB-Signature")


async def test_a_key_is_required_for_whatever_is_not_a_read(node: InProcess) -> None:
    document = await described(node, "payroll")
    required = {path: post(document, path)["parameters"][0]["required"] for path in services(document)}
    assert required == {
        PERSON_PATH: False,
        "/services/registry/mark/v1": True,
        "/services/registry/note/v1": True,
    }


async def test_what_the_bus_answers_is_what_is_described(node: InProcess) -> None:
    document = await described(node, "payroll")
    async with node.client() as client:
        note = {"id": "P-0001", "text": "moved"}
        done = await client.call("registry/person/v1", {"id": "P-0001"}, purpose="payroll")
        written = await client.call("registry/note/v1", note, purpose="payroll", idempotency_key="k-1")
    answers = [(PERSON_PATH, "post", done.status, orjson.dumps(done.body))]
    for path, agency, described_as in (
        ("/services", "payroll", "/services"),
        ("/services", None, "/services"),
        (f"/exchanges/{done.exchange}", "payroll", "/exchanges/{id}"),
        (f"/exchanges/{written.exchange}", "payroll", "/exchanges/{id}"),
        (f"/exchanges/{done.exchange}", None, "/exchanges/{id}"),
        (f"/exchanges/{EXCHANGE}", "payroll", "/exchanges/{id}"),
        ("/.well-known/jwks.json", None, "/.well-known/jwks.json"),
        ("/problems/no_such_code", None, "/problems/{code}"),
    ):
        answer, body = await read(node, path, agency)
        answers.append((described_as, "get", answer.status, body))
    for path, method, status, body in answers:
        (media,) = resolved(document, document["paths"][path][method]["responses"][str(status)])["content"].values()
        assert Schema.compile(media["schema"], path).faults(orjson.loads(body)) == [], (path, status)
    assert [status for _, _, status, _ in answers] == [200, 200, 200, 200, 200, 401, 404, 200, 404]


async def test_a_pending_exchange_is_answered_as_described(tmp_path: Path) -> None:
    async with bus_of(standard(tmp_path)) as hands:
        answer = await hands.send("registry/person/v1", {"id": "P-0001"}, key="k-1")
        assert answer.status == 202
        document = openapi.described(hands.bus, usable_by(hands.bus, "payroll"))
    shown = resolved(document, post(document)["responses"]["202"])
    schema = Schema.compile(shown["content"]["application/json"]["schema"], "pending")
    assert schema.faults(orjson.loads(answer.body)) == []
    for name, header in shown["headers"].items():
        assert name in answer.headers or not header.get("required") or name == "GSB-Signature"
