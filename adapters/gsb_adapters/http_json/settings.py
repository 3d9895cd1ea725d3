"""The settings of the adapter ``http_json``: what a deployment writes down instead of code. No I/O."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from gsb.sdk import Effect, HttpSettings, SecretFile, Settings, Shape, basic

PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
PATH = r"^(/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2}|\{[a-z][a-z0-9_]*\})+)*/?$"
HEADER = r"^[A-Za-z0-9-]+$"

Code = Literal["not_found", "conflict", "invalid", "forbidden"]
Status = Annotated[int, Field(ge=400, le=599)]


class Basic(Settings):
    """User name and password (RFC 7617)."""

    kind: Literal["basic"]
    """Which of the three this is."""
    user: str = Field(min_length=1, pattern=r"^[^:]+$")
    """The user name."""
    password: SecretFile
    """File with the password."""

    def headers(self) -> dict[str, str]:
        return basic(self.user, self.password.read())


class Bearer(Settings):
    """A bearer token (RFC 6750)."""

    kind: Literal["bearer"]
    """Which of the three this is."""
    token: SecretFile
    """File with the token."""

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token.read()}"}


class HeaderSecret(Settings):
    """A secret in a header of the system's own, such as an API key."""

    kind: Literal["header"]
    """Which of the three this is."""
    name: str = Field(pattern=HEADER)
    """The header's name."""
    value: SecretFile
    """File with the header's value."""

    def headers(self) -> dict[str, str]:
        return {self.name: self.value.read()}


class HttpJsonSettings(HttpSettings):
    """``[settings]`` of a system with the adapter ``http_json``."""

    auth: Annotated[Basic | Bearer | HeaderSecret, Field(discriminator="kind")] | None = None
    """How the system knows the bus: ``kind`` is basic, bearer or header; none: it does not ask, or asks by TLS."""
    check: str = Field(default="", pattern=PATH)
    """Path of a GET that tells whether the system is there and takes the credentials: any status below 500 but 401
    and 403 says yes."""
    backoff: str | None = Field(default=None, pattern=HEADER)
    """Header by which the system asks, in any answer, for a pause of so many seconds. It gets it."""


class Lookup(Settings):
    """One request and how its answer is read. Expressions are JMESPath; they see the exchange as ``body``,
    ``exchange``, ``agency``, ``service``, ``purpose``, ``sub`` and ``case``."""

    path: str = Field(pattern=PATH)
    """Path below the base URL; ``{name}`` is replaced by a parameter, percent-encoded."""
    parameters: dict[str, Shape] = Field(default={})
    """Where the path's parameters come from; unless stated, ``{name}`` is ``body.name``."""
    query: dict[str, Shape] = Field(default={})
    """Query parameters; one whose value is null is left out, and an array is repeated."""
    headers: dict[str, Shape] = Field(default={})
    """Further headers, such as ``Idempotency-Key = "exchange"``; one whose value is null is left out."""
    reply: Shape = Shape("answer")
    """The reply. Here expressions also see ``answer``, the answer's JSON (null without a body), and ``status``."""

    @model_validator(mode="after")
    def _parameters_stand_in_the_path(self) -> Lookup:
        if any(segment in {".", ".."} for segment in self.path.split("/")):
            raise ValueError("the path has dot segments")
        unused = set(self.parameters) - set(PLACEHOLDER.findall(self.path))
        if unused:
            raise ValueError(f"the path has no {{{min(unused)}}}")
        return self


class Operation(Lookup):
    """``[settings]`` of a service whose system has the adapter ``http_json``."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    """The HTTP method."""
    content: Shape | None = None
    """The JSON to send; none: no body."""
    refused: dict[Status, Code] = Field(default={})
    """Statuses by which the system says no, and what that means to the caller."""
    unavailable: list[Status] = Field(default=[502, 503, 504])
    """Statuses after which to try again, or to ask an operator where that is not safe."""
    untouched: list[Status] = Field(default=[429])
    """Statuses after which to try again because they say that the system did nothing."""
    find: Lookup | None = None
    """A GET that tells whether a write with an unknown outcome took effect: by any 2xx from which ``reply`` makes
    something other than null. Let it look for ``exchange``; what merely exists may come from somebody else."""

    def fits(self, effect: Effect) -> None:
        # HTTP libraries and proxies send a GET again when a kept connection breaks (RFC 9110, section 9.2.2).
        if self.method == "GET" and effect is not Effect.NONE:
            raise ValueError(f"a GET may be sent twice, so it must not act; the service's effect is {effect}")

    @model_validator(mode="after")
    def _statuses_mean_one_thing(self) -> Operation:
        named = [*self.refused]
        for name in sorted({"unavailable", "untouched"} & self.model_fields_set):
            named += getattr(self, name)
        twice = [status for status in named if named.count(status) > 1]
        if twice:
            raise ValueError(f"status {twice[0]} has two meanings")
        if self.content is not None and self.method == "GET":
            raise ValueError("a GET has no content")
        return self
