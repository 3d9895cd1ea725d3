"""The adapter under test: found by name or in a folder, with what its ``contract`` folder says of it, and opened.

    contract/contract.toml     settings, services with effect and schemas, and what is exempt for which reason
    contract/<name>.json       cassettes: its examples
    contract/<name>.sql        becomes the SQLite database <name>.sqlite in the deployment's folder
    contract/peer.py           the system itself, for peer = "program"; what it holds lies in contract/peer/
    contract/...               any other file, such as a secret, is copied there

It judges nothing. Adapters are foreign code: whatever one raises is kept as what came of the call.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import shutil
import sqlite3
import sys
import tempfile
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from itertools import islice
from pathlib import Path
from traceback import extract_tb
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from gsb.installed import Loaded, installed, load_adapter
from gsb.model import Effect, Reply, Request
from gsb.schema import Schema
from gsb.sdk.adapter import Adapter, Context
from gsb.sdk.clock import Clock
from gsb.sdk.errors import AdapterError, Unavailable
from gsb.sdk.http import Http
from gsb.sdk.manifest import GROUP
from gsb.testing.cassette import Cassette, Steps, read_cassettes
from gsb.testing.peer import Peer, peering, program

SYSTEM = "contract"
GRACE = 5.0
"""Seconds that an adapter has to end after it was cancelled, on a machine that does many other things."""


class Unfit(Exception):
    """There is nothing to test: one clear sentence says why."""


class ServiceTable(BaseModel):
    """One service, as a deployment would have it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    effect: Effect = Effect.ONCE
    schemas: str
    """Folder with ``request.json`` and ``reply.json``, from the contract's folder."""
    settings: dict[str, Any] = {}


class Contract(BaseModel):
    """``contract.toml``. In settings ``{url}``, ``{host}`` and ``{port}`` are those of the suite's own system."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    peer: Literal["http", "program", "tcp", "none"] = "http"
    """What the adapter speaks: HTTP, so that cassettes are played to it; another protocol over TCP, in which the
    contract's own ``peer.py`` answers, or which the suite can only break; or nothing over a network."""
    timeout: float = 0.5
    """Seconds for one call of a system that says nothing: short, since the suite waits for its end."""
    settings: dict[str, Any] = {}
    """Of the system."""
    faulty: dict[str, Any] | None = None
    """Of the system where the suite's own must misbehave, for ``peer = "tcp"``; none: the same as ever."""
    services: dict[str, ServiceTable]
    exempt: dict[str, str] = {}
    """Rules that do not hold for this adapter, each with its reason."""


class Came(NamedTuple):
    """What came of one call: a reply, or whatever was raised."""

    reply: Reply | None = None
    error: BaseException | None = None
    stuck: bool = False
    """Whether it went on after it was cancelled."""

    def __str__(self) -> str:
        if self.stuck:
            return "it went on after it was cancelled"
        if self.error is None:
            return "a reply"
        if isinstance(self.error, Unavailable):
            return f"Unavailable(sent={self.error.sent})"
        foreign = isinstance(self.error, Exception) and not is_ours(self.error)
        return type(self.error).__name__ + (_place(self.error) if foreign else "")


class Tables(NamedTuple):
    """Settings as they stand in files: of the system, and of each service by its id."""

    system: Mapping[str, Any]
    services: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Subject:
    """One adapter, ready to be opened."""

    loaded: Loaded
    contract: Contract
    cassettes: Mapping[str, Cassette]
    schemas: Mapping[str, Schema]
    """By ``<service>/request`` and ``<service>/reply``."""

    @property
    def name(self) -> str:
        return self.loaded.manifest.name

    def examples(self) -> Iterator[Cassette]:
        """Of each service the first cassette that ends with a reply."""
        for service in self.contract.services:
            ends = (each for each in self.cassettes.values() if each.service == service and each.reply is not None)
            yield from islice(ends, 1)

    def effect(self, cassette: Cassette) -> Effect:
        return self.contract.services[cassette.service].effect

    @contextmanager
    def deployment(self) -> Iterator[Path]:
        """A folder with a fresh copy of everything beside the contract, and its databases."""
        with tempfile.TemporaryDirectory(prefix="gsb-contract-") as name:
            folder = Path(name) / "deployment"
            shutil.copytree(self.loaded.folder / "contract", folder)
            for script in folder.glob("*.sql"):
                with closing(sqlite3.connect(script.with_suffix(".sqlite"))) as database:
                    database.executescript(script.read_text("utf-8"))
            yield folder

    @property
    def answers(self) -> bool:
        """Whether the suite's own system can do more than misbehave."""
        return self.contract.peer in ("http", "program")

    @asynccontextmanager
    async def served(self, *, raw: bool = False) -> AsyncIterator[tuple[Peer, Path]]:
        """The suite's own system, with the program behind it that the contract brings along, and the deployment's
        folder. ``raw``: it only misbehaves, unless there is such a program. Raises Unfit."""
        async with AsyncExitStack() as stack:
            folder, behind = stack.enter_context(self.deployment()), None
            if self.contract.peer == "program":
                try:
                    behind = await stack.enter_async_context(program(folder / "peer.py"))
                except (ValueError, TimeoutError) as error:
                    text = "contract/peer.py does not say in its first line at which port it listens"
                    raise Unfit(text) from error
            yield await stack.enter_async_context(peering(raw=raw, behind=behind)), folder

    def tables(self, url: str, *, faulty: bool = False) -> Tables:
        """The contract's, for a system at this address; ``faulty``: for one that misbehaves."""
        table = self.contract.faulty if faulty and self.contract.faulty is not None else self.contract.settings
        services = {name: _filled(each.settings, url) for name, each in self.contract.services.items()}
        return Tables(_filled(table, url), services)

    @asynccontextmanager
    async def opened(
        self, folder: Path, tables: Tables, *, http: Http | None = None, at: float = 0.0
    ) -> AsyncIterator[Adapter[Any, Any]]:
        """The adapter as the runtime has it: a system that is down keeps it from nothing. Raises Unfit."""
        async with http or Http(self.contract.timeout) as client:
            kind, start = self.loaded.kind, {"folder": folder}
            try:
                settings = kind.Settings.model_validate(dict(tables.system), context=start)
                services = {
                    name: kind.ServiceSettings.model_validate(dict(each), context=start)
                    for name, each in tables.services.items()
                }
            except ValidationError as error:
                raise Unfit(f"the settings do not fit: {_told(error)}") from error
            clock = Clock() if not at else Clock(now=lambda: at)
            log = logging.getLogger(f"gsb.system.{SYSTEM}")
            context = Context(
                system=SYSTEM,
                settings=settings,
                services=services,
                http=client,
                log=log,
                clock=clock,
                call=Steps(self.cassettes.values()),
            )
            adapter = kind(context)
            try:
                with suppress(Unavailable):
                    await adapter.open()
                yield adapter
            finally:
                await _closed(adapter)

    async def call(self, adapter: Adapter[Any, Any], request: Request, timeout: float | None = None) -> Came:
        """Perform it within the contract's time, as the runtime does: one that takes longer is cancelled."""
        running = asyncio.ensure_future(adapter.handle(request))
        done, _ = await asyncio.wait({running}, timeout=self.contract.timeout * 1.5 if timeout is None else timeout)
        if not done:
            return await given_up(running)
        return came(running)


async def _closed(adapter: Adapter[Any, Any]) -> None:
    """Close it within the time that the runtime has for that."""
    try:
        async with asyncio.timeout(GRACE):
            await adapter.close()
    except TimeoutError as error:
        raise RuntimeError(f"close takes more than {GRACE:g} s") from error


async def given_up(running: asyncio.Future[Reply]) -> Came:
    """What comes of a call that is cancelled."""
    running.cancel()
    done, _ = await asyncio.wait({running}, timeout=GRACE)
    return came(running) if done else Came(stuck=True)


def came(running: asyncio.Future[Reply]) -> Came:
    if running.cancelled():
        return Came(error=asyncio.CancelledError())
    error = running.exception()
    return Came(error=error) if error is not None else Came(reply=running.result())


def find_subject(name: str) -> Subject:
    """The adapter in this folder (of a package with a ``pyproject.toml``), or installed by this name. Raises Unfit."""
    folder = Path(name)
    try:
        loaded = _in_folder(folder) if (folder / "pyproject.toml").is_file() else load_adapter(name, installed())
    except LookupError as error:
        raise Unfit(str(error.args[0])) from error
    return subject_of(loaded)


def subject_of(loaded: Loaded) -> Subject:
    """Raises Unfit."""
    folder = loaded.folder / "contract"
    try:
        contract = Contract.model_validate(tomllib.loads((folder / "contract.toml").read_text("utf-8")))
        cassettes = read_cassettes(folder)
        schemas = {
            f"{name}/{side}": Schema.compile(
                json.loads((folder / table.schemas / f"{side}.json").resolve().read_bytes()), f"{name}/{side}"
            )
            for name, table in contract.services.items()
            for side in ("request", "reply")
        }
    except OSError as error:
        raise Unfit(f"{error.filename}: {error.strerror}") from error
    except ValidationError as error:
        raise Unfit(f"{folder / 'contract.toml'}: {_told(error)}") from error
    except ValueError as error:
        raise Unfit(f"{folder}: {error}") from error
    foreign = {each.service for each in cassettes.values()} - contract.services.keys()
    if foreign:
        raise Unfit(f"{folder}: the contract has no service {min(foreign)}, of which there is a cassette")
    return Subject(loaded, contract, cassettes, schemas)


def _in_folder(folder: Path) -> Loaded:
    """An adapter that is not installed: its package lies right in the folder, or in its ``src``."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
        ((name, value),) = project["entry-points"][GROUP].items()
    except (tomllib.TOMLDecodeError, KeyError, ValueError) as error:
        raise LookupError(f"{folder / 'pyproject.toml'} names no entry point, or several, in {GROUP}") from error
    for place in (folder / "src", folder):
        if place.is_dir() and str(place.resolve()) not in sys.path:
            sys.path.insert(0, str(place.resolve()))
    importlib.invalidate_caches()
    return load_adapter(name, [EntryPoint(name, value, GROUP)])


def _filled(value: Any, url: str) -> Any:
    """The same with ``{url}``, ``{host}`` and ``{port}`` of this address."""
    host, _, port = url.rpartition("/")[2].partition(":")
    match value:
        case str():
            for name, told in (("{url}", url), ("{host}", host), ("{port}", port)):
                value = value.replace(name, told)
            return value
        case dict():
            return {name: _filled(each, url) for name, each in value.items()}
        case list():
            return [_filled(each, url) for each in value]
        case _:
            return value


def _told(error: ValidationError) -> str:
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)


def _place(error: BaseException) -> str:
    """Where it was raised: what an integrator looks for first."""
    frames = extract_tb(error.__traceback__)
    return f" from {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def is_ours(error: BaseException | None) -> bool:
    """Whether it is one of the three errors that an adapter may raise."""
    return isinstance(error, AdapterError)
