"""What an integrator writes: a class with typed settings and one required method, raising only three errors.

The bus supplies the HTTP client, time-outs, retries, circuit breaker, schema checks, minimisation and evidence.
Life-cycle: ``__init__`` (no I/O) -> ``open`` -> any number of ``handle``, ``find`` and ``check``, concurrently ->
``close``. ``handle`` may be cancelled at any await; the adapter must stay usable.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, ParamSpec, Protocol, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from gsb.model import Effect, Reply, Request
from gsb.sdk.clock import Clock
from gsb.sdk.errors import Broken, Unavailable
from gsb.sdk.http import Http
from gsb.sdk.threads import Threads


def _there(path: Path, info: core_schema.ValidationInfo) -> Path:
    path = Path((info.context or {}).get("folder", Path())) / path
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return path


DeploymentFile = Annotated[Path, AfterValidator(_there)]
"""The path of a file that holds no secret; a relative one starts at the deployment's folder. One that is not there is
an error of the configuration."""


class SecretFile:
    """The path of a file that holds a secret; a relative one starts at the deployment's folder.

    The content is read at each use, so that a rotated secret takes effect without a restart, and never shows in
    ``repr`` or logs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"SecretFile({str(self.path)!r})"

    def read(self) -> str:
        """The secret, without a trailing line end. Raises ``Unavailable`` while it cannot be read: nothing was sent."""
        try:
            return self.path.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"the file of a secret cannot be read: {type(error).__name__}", sent=False) from error

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validated with ``context={"folder": Path}``; a file that cannot be read is an error of the configuration."""
        return core_schema.with_info_after_validator_function(cls._validate, core_schema.str_schema(min_length=1))

    @classmethod
    def _validate(cls, value: str, info: core_schema.ValidationInfo) -> SecretFile:
        return cls(_there(Path(value), info))


class Settings(BaseModel):
    """Base of an adapter's settings: typed, frozen, unknown members refused, field docstrings are the manual."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    def fits(self, effect: Effect) -> None:
        """Of a service: raises ValueError, with one sentence, if a service of this effect must not be set up so."""


class NoSettings(Settings):
    """For an adapter or service that needs none."""


class ClientTls(Settings):
    """TLS with authorities or a client certificate of one's own. Paths start at the deployment's folder."""

    authority: SecretFile | None = None
    """PEM file with the only authorities to trust; none: those of the machine."""
    certificate: SecretFile | None = None
    """PEM file with the client certificate and its chain."""
    key: SecretFile | None = None
    """PEM file with the client certificate's key; none: it stands in ``certificate``."""


class HttpSettings(Settings):
    """How a system is reached over HTTP; derive the settings of an adapter from it and they are heeded."""

    url: str = Field(pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*[^/?#\s])?$")
    """Base URL, without a trailing slash; the services' paths are appended."""
    tls: ClientTls | None = None
    """Only for authorities of one's own or a client certificate."""
    proxy: str | None = Field(default=None, pattern=r"^http://[^/?#@\s]+$")
    """HTTP proxy on the way to the system, ``http://host:port``; none: there is none."""

    def use(self, http: Http) -> None:
        """Have the client go this way. Raises OSError (ssl.SSLError among them) for a file that is no PEM."""
        if self.proxy is not None:
            http.use_proxy(self.proxy)
        if self.tls is not None:
            files = (self.tls.authority, self.tls.certificate, self.tls.key)
            authority, certificate, key = (file.path if file else None for file in files)
            http.use_tls(authority=authority, certificate=certificate, key=key)


S = TypeVar("S", bound=Settings)
P = TypeVar("P", bound=Settings)
T = TypeVar("T")
Given = ParamSpec("Given")
THREADS = 16
"""Threads of a system whose number of places nobody has said."""


class Call(Protocol):
    """Uses another service of the bus, for services that are composed of others."""

    async def __call__(self, request: Request, service: str, body: Any, *, step: str, purpose: str) -> Any:
        """The body of the other service's reply.

        ``request`` is the exchange of which this is a ``step``; the step names this one call among all of the exchange,
        so that a repeat of the exchange gets the first outcome again instead of acting twice. The call is signed for
        the agency that provides this system, admitted under that agency's own agreements, and takes the request's
        ``sub`` and ``case`` along. Raises ``Refused`` with the other system's code, ``Unavailable`` when there is no
        outcome yet, and ``Broken`` for one that no repeat can better, such as a missing agreement.
        """


async def no_calls(request: Request, service: str, body: Any, *, step: str, purpose: str) -> Any:
    """What a system without ``[calls]`` gets."""
    raise Broken(f"the system may call no services: its table has no [calls], so {service} was not asked")


@dataclass(frozen=True, slots=True)
class Context(Generic[S, P]):
    """What the bus gives an adapter."""

    system: str
    settings: S
    """Of the system: ``[settings]`` in ``systems/<system>.toml``."""
    services: Mapping[str, P]
    """Of each service by its id: ``[settings]`` in ``services/<system>/<service>/v<n>.toml``."""
    http: Http
    log: logging.Logger
    """Bound to the system. No value of a request or an answer may be logged."""
    clock: Clock = field(default_factory=Clock)
    call: Call = no_calls
    threads: Threads = field(default_factory=lambda: Threads(THREADS))

    async def in_thread(self, work: Callable[Given, T], *given: Given.args, **named: Given.kwargs) -> T:
        """Run what blocks (a library without ``async``) beside the event loop, in one of as many threads as the system
        has places. Raises what it raises, and ``Unavailable`` if every thread is taken. A call that is given up leaves
        its thread to end by itself: what it does then takes effect."""
        return await self.threads.run(work, *given, **named)


class Adapter(ABC, Generic[S, P]):
    """Turns an exchange into calls on a core system.

    Declare ``Settings`` (and ``ServiceSettings`` where services differ in more than code) and write ``handle``.
    """

    Settings: ClassVar[type[Any]] = NoSettings
    ServiceSettings: ClassVar[type[Any]] = NoSettings

    def __init__(self, context: Context[S, P]) -> None:
        self.context = context

    async def open(self) -> None:
        """Before the first call. May raise ``Unavailable``; the bus goes on and asks ``check`` later. What is written
        instead calls this too: here ``HttpSettings`` are heeded."""
        if isinstance(self.context.settings, HttpSettings):
            self.context.settings.use(self.context.http)

    async def check(self) -> None:
        """Can the core system be reached, with these credentials? Raises ``Unavailable`` or ``Broken`` if not."""

    async def close(self) -> None:
        """After the last call: leave no task, socket or file behind."""

    @abstractmethod
    async def handle(self, request: Request) -> Reply:
        """Perform the exchange. Raises ``Unavailable``, ``Refused`` or ``Broken``, nothing else."""

    async def find(self, request: Request) -> Reply | None:
        """Did this exchange take effect? Its reply if so; None if that cannot be told, which proves nothing.

        Asked only of an exchange whose outcome is unknown. It must change nothing in the core system.
        """
        return None
