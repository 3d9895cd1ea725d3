"""Settings of the declarative HTTP adapter that are refused before anything runs."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gsb.check import check
from gsb.sdk import Effect
from gsb_adapters.http_json.settings import HttpJsonSettings, Operation
from tests.support.deployment import Deployment


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"path": "things"}, "pattern"),
        ({"path": "/things?x=1"}, "pattern"),
        ({"path": "//evil.example/"}, "pattern"),
        ({"path": "/a/../b"}, "dot segments"),
        ({"path": "/a", "parameters": {"id": "body.id"}}, "the path has no {id}"),
        ({"path": "/a", "query": {"x": "body..y"}}, "query"),
        ({"path": "/a", "reply": "nonesuch(answer)"}, r"no function nonesuch\(\)"),
        ({"path": "/a", "reply": {"a": ["b"]}}, "JMESPath"),
        ({"path": "/a", "method": "TRACE"}, "GET"),
        ({"path": "/a", "content": "body"}, "GET has no content"),
        ({"path": "/a", "refused": {"200": "conflict"}}, "400"),
        ({"path": "/a", "refused": {"404": "gone"}}, "not_found"),
        ({"path": "/a", "refused": {"429": "conflict"}, "untouched": [429]}, "two meanings"),
        ({"path": "/a", "unavailable": [503], "untouched": [503]}, "two meanings"),
        ({"path": "/a", "timeout": 5}, "Extra"),
    ],
)
def test_a_services_settings_are_checked(table: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Operation.model_validate(table)


@pytest.mark.parametrize(("method", "effects"), [("GET", {Effect.NONE}), ("POST", {*Effect}), ("DELETE", {*Effect})])
def test_what_may_be_sent_twice_must_not_act(method: str, effects: set[Effect]) -> None:
    operation = Operation.model_validate({"path": "/a", "method": method})
    for effect in Effect:
        with nullcontext() if effect in effects else pytest.raises(ValueError, match="a GET may be sent twice"):
            operation.fits(effect)


def test_a_service_whose_method_does_not_fit_its_effect_is_told_by_the_check(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    deployment.system("land", adapter="http_json", settings={"url": "http://127.0.0.1:9"})
    deployment.service("land/read/v1", settings={"path": "/a"})
    deployment.service("land/write/v1", effect="once", settings={"path": "/a", "method": "PUT"})
    deployment.service("land/wrong/v1", effect="once", settings={"path": "/a"})
    (finding,) = check(deployment.write())
    assert (finding.file, finding.where) == ("services/land/wrong/v1.toml", "settings")
    assert finding.message.endswith("the service's effect is once")


@pytest.mark.parametrize(
    "table",
    [
        {"url": "ftp://x"},
        {"url": "http://user:password@x"},
        {"url": "http://x/"},
        {"url": "http://x?a=b"},
        {"url": "http://x", "auth": {"kind": "basic", "user": "a:b", "password": "secret"}},
        {"url": "http://x", "auth": {"kind": "basic", "user": "a", "password": "missing"}},
        {"url": "http://x", "auth": {"kind": "digest"}},
    ],
    ids=str,
)
def test_a_systems_settings_are_checked(tmp_path: Path, table: dict[str, Any]) -> None:
    (tmp_path / "secret").write_text("x")
    with pytest.raises(ValidationError):
        HttpJsonSettings.model_validate(table, context={"folder": tmp_path})
