"""The settings of the adapter ``soap``: what a deployment writes down instead of code. No I/O but finding files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gsb.sdk import DeploymentFile, HttpSettings, SecretFile, Settings, Shape

Code = Literal["not_found", "conflict", "invalid", "forbidden"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9._-]*$")]


class UsernameToken(Settings):
    """A user name and password in each message (WS-Security UsernameToken Profile 1.1)."""

    user: str = Field(min_length=1)
    """The user name."""
    password: SecretFile
    """File with the password."""
    digest: bool = True
    """Whether a digest with a nonce and the time is sent (PasswordDigest), which serves for one message, or else the
    password itself (PasswordText), which only TLS then protects."""


class Lookup(Settings):
    """One operation and how its answer is read. Expressions are JMESPath; they see the exchange as ``body``,
    ``exchange``, ``agency``, ``service``, ``purpose``, ``sub`` and ``case``."""

    operation: Name
    """The operation's name in the WSDL."""
    arguments: Shape = Shape({})
    """What the operation's element holds, by the names in its XML Schema: an object is an element with elements, an
    array repeats an element, and null members are left out."""
    reply: Shape = Shape("answer")
    """The reply. Here expressions also see ``answer``: what the answer's element holds, decimals as strings."""


class SoapSettings(HttpSettings):
    """``[settings]`` of a system with the adapter ``soap``; ``url`` is where it is called, whatever its WSDL says."""

    wsdl: DeploymentFile
    """The WSDL, a file; a relative path starts at the deployment's folder. What it imports lies in the same folder or
    below it; nothing else is read."""
    port: Name | None = None
    """The WSDL's port, for a WSDL with several that speak SOAP 1.1."""
    security: UsernameToken | None = None
    """How the system knows the bus; none: it does not ask, or asks by TLS."""
    check: Lookup | None = None
    """An operation without effect that tells whether the system is there and takes the credentials; none: that
    something answers a GET of ``url`` has to do."""


class Operation(Lookup):
    """``[settings]`` of a service whose system has the adapter ``soap``. A fault is named by the first element of its
    detail (``UnknownVehicle``), or if that name stands nowhere here by its text (``INVALID_INPUT``), or else by its
    code without prefix (``Client``)."""

    refused: dict[Name, Code] = Field(default={})
    """Faults by which the system says no, and what that means to the caller."""
    unavailable: list[Name] = Field(default=[])
    """Faults after which to try again, or to ask an operator where that is not safe."""
    untouched: list[Name] = Field(default=[])
    """Faults after which to try again because they say that the system did nothing."""
    find: Lookup | None = None
    """An operation that tells whether a write with an unknown outcome took effect: by an answer from which ``reply``
    makes something other than null. Let it look for ``exchange``; what merely exists may come from somebody else."""

    @model_validator(mode="after")
    def _faults_mean_one_thing(self) -> Operation:
        named = [*self.refused, *self.unavailable, *self.untouched]
        if twice := [name for name in named if named.count(name) > 1]:
            raise ValueError(f"the fault {twice[0]} has two meanings")
        return self
