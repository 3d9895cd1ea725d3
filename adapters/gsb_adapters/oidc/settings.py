"""The settings of the adapter ``oidc``: which issuer is believed, and what it may sign with. No I/O."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from gsb.sdk import Effect, HttpSettings, SecretFile, Settings

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
Level = Literal["low", "substantial", "high"]
LEVELS: tuple[Level, ...] = ("low", "substantial", "high")
"""Levels of assurance (Regulation (EU) 910/2014, article 8), each including those before it."""


class OidcSettings(HttpSettings):
    """``[settings]`` of a system with the adapter ``oidc``."""

    issuer: str | None = Field(default=None, pattern=r"^https?://[^?#\s]+$")
    """Its name, as tokens and its discovery document have it; none: ``url``. What the document says to lie below it is
    reached below ``url``."""
    loopback: bool = False
    """Whether plain HTTP will do, for an issuer on this machine. Everywhere else it is HTTPS."""
    client: str = Field(min_length=1)
    """The id by which the issuer knows the bus."""
    secret: SecretFile
    """File with the client's secret, which the bus shows when it asks about a token (``client_secret_basic``)."""
    audience: str | None = Field(default=None, min_length=1)
    """For whom tokens must have been issued; none: for ``client``."""
    algorithms: list[Algorithm] = Field(default=["RS256"], min_length=1)
    """The only algorithms with which tokens may be signed, whatever the issuer advertises."""
    leeway: float = Field(default=30.0, ge=0, le=300)
    """Seconds by which the issuer's clock may differ."""
    keep: float = Field(default=600.0, gt=0, le=86_400)
    """Seconds for which the discovery document and the keys are believed before they are read again."""
    pace: float = Field(default=30.0, ge=1, le=3_600)
    """Seconds between two readings of the keys because a token names one that is not there."""
    levels: dict[Level, list[str]] = Field(default={})
    """Which values of ``acr`` or ``amr`` reach which level of assurance."""

    @property
    def name(self) -> str:
        """What ``iss`` must be."""
        return self.issuer or self.url

    @property
    def meant_for(self) -> str:
        """What ``aud`` must hold."""
        return self.audience or self.client

    def reached(self, url: str) -> str | None:
        """Where what the issuer says to lie at ``url`` is reached; None if that would be neither HTTPS nor loopback."""
        base = self.name.rstrip("/") + "/"
        if url.startswith(base):
            url = f"{self.url}/{url.removeprefix(base)}"
        return url if _private(url, self.loopback) else None

    @model_validator(mode="after")
    def _secrets_travel_encrypted(self) -> OidcSettings:
        if not _private(self.url, self.loopback):
            raise ValueError("url must be https; plain HTTP needs loopback = true and an address of this machine")
        return self


class OidcService(Settings):
    """``[settings]`` of a service whose system has the adapter ``oidc``."""

    answers: Literal["introspection", "verification"]
    """What it answers: whether a token holds, or whether what the caller says of the citizen is so."""
    claims: dict[str, str] = Field(default={})
    """By which name the issuer knows what the caller calls otherwise, such as ``birthdate = "date_of_birth"``."""

    def fits(self, effect: Effect) -> None:
        if effect is not Effect.NONE:
            raise ValueError(f"it only asks, but the service's effect is {effect}")


def _private(url: str, loopback: bool) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and loopback and host in LOOPBACK))
