"""What the adapter for digital identities makes of what an issuer says, and the settings it refuses, by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gsb.sdk import Effect
from gsb_adapters.oidc.predicates import assured, matches
from gsb_adapters.oidc.settings import OidcService, OidcSettings


@pytest.mark.parametrize(
    ("asserted", "claims", "expected"),
    [
        ("amina@example.org", {"email": "Amina@example.org", "email_verified": True}, True),
        ("amina@example.org", {"email": "amina@example.org", "email_verified": False}, None),
        ("amina@example.org", {"email": "amina@example.com"}, False),
        ("amina@example.org", {"email": ""}, None),
        ("amina@example.org", {"email": ["amina@example.org"]}, None),
        ("amina@example.org", {}, None),
    ],
)
def test_only_what_the_issuer_vouches_for_is_answered(asserted: str, claims: dict[str, Any], expected: Any) -> None:
    assert matches(asserted, claims, "email") is expected


@pytest.mark.parametrize(
    ("held", "expected"), [("1984-03-02", True), ("1984-03-03", False), ("0000-03-02", None), ("1984", None)]
)
def test_a_part_of_a_date_of_birth_answers_nothing(held: str, expected: bool | None) -> None:
    assert matches("1984-03-02", {"birthdate": held}, "birthdate") is expected
    assert matches("1984-03-02", {"date_of_birth": held}, "date_of_birth") is expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, None),
        ({"amr": []}, None),
        ({"amr": ["pwd"]}, False),
        ({"amr": ["pwd", "mfa"]}, True),
        ({"acr": "urn:high"}, True),
        ({"acr": 1, "amr": "mfa"}, None),
    ],
)
def test_a_higher_level_includes_the_lower_ones(said: dict[str, Any], expected: bool | None) -> None:
    levels: Any = {"low": ["pwd"], "substantial": ["mfa"], "high": ["urn:high"]}
    assert assured(said, "substantial", levels) is expected


@pytest.mark.parametrize(
    "more",
    [
        {"url": "http://id.example"},
        {"url": "http://127.0.0.1:5055", "loopback": False},
        {"url": "http://id.example", "loopback": True},
        {"url": "http://127.0.0.1.example", "loopback": True},
        {"algorithms": ["none"]},
        {"algorithms": ["HS256"]},
        {"algorithms": []},
        {"leeway": 3600},
        {"levels": {"highest": ["x"]}},
    ],
    ids=str,
)
def test_settings_that_would_open_a_door_are_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    (tmp_path / "secret.txt").touch()
    given = {"url": "https://id.example", "client": "gsb", "secret": "secret.txt"}
    OidcSettings.model_validate(given, context={"folder": tmp_path})
    with pytest.raises(ValidationError):
        OidcSettings.model_validate(given | more, context={"folder": tmp_path})


def test_it_only_asks() -> None:
    service = OidcService(answers="introspection")
    service.fits(Effect.NONE)
    for effect in (Effect.REPEATABLE, Effect.ONCE):
        with pytest.raises(ValueError, match="only asks"):
            service.fits(effect)
