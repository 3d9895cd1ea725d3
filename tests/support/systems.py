"""Starts the real core systems that tests talk to, each in its own process and environment, on a free port.

A system is ready when it says so on its own output and then answers a request. It is stopped by the handle of its
process, and may be started again at the same place.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.support.deployment import free_ports
from tests.support.needs import needs

DEPS = Path(__file__).parents[2] / ".deps"
READY_WITHIN = 60.0
STOPPED_WITHIN = 15.0


class Server:
    """One process that listens at ``url``. ``said`` is in the line by which it tells that it listens."""

    def __init__(self, url: str, command: Sequence[str | Path], said: str, probe: str) -> None:
        self.url = url
        self._command = [str(part) for part in command]
        self._said = said
        self._probe = probe
        self._lines: deque[str] = deque(maxlen=200)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises RuntimeError with the last lines it wrote if it ends or stays silent instead."""
        listening = asyncio.Event()
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._reader = asyncio.create_task(self._read(self._process, listening))
        try:
            async with asyncio.timeout(READY_WITHIN):
                await listening.wait()
                async with (
                    aiohttp.ClientSession() as session,
                    session.get(self.url + self._probe) as answer,
                ):
                    answer.raise_for_status()
        except (TimeoutError, aiohttp.ClientError) as error:
            await self.stop()
            raise RuntimeError(f"{self._command[0]} did not start:\n" + "\n".join(self._lines)) from error

    async def stop(self) -> None:
        process, reader = self._process, self._reader
        if process is None or reader is None:
            return
        self._process = self._reader = None
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(STOPPED_WITHIN):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await reader

    async def _read(self, process: asyncio.subprocess.Process, listening: asyncio.Event) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            self._lines.append(line.decode("utf-8", "replace").rstrip())
            if self._said in self._lines[-1]:
                listening.set()
        listening.set()  # it ended: whoever waits finds out by asking it


KINTO_SETTINGS = """\
[server:main]
use = egg:waitress#main
host = 127.0.0.1
port = {port}
[app:main]
use = egg:kinto
kinto.includes = kinto.plugins.accounts
kinto.storage_backend = kinto.core.storage.memory
kinto.cache_backend = kinto.core.cache.memory
kinto.permission_backend = kinto.core.permission.memory
kinto.userid_hmac_secret = 0123456789abcdef0123456789abcdef
kinto.experimental_collection_schema_validation = true
multiauth.policies = account
multiauth.policy.account.use = kinto.plugins.accounts.AccountsPolicy
kinto.account_create_principals = system.Everyone
kinto.account_write_principals = account:admin
kinto.bucket_create_principals = account:admin
{more}
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = generic
[logger_root]
level = INFO
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = generic
[formatter_generic]
format = %(message)s
"""

BUSINESS = {
    "type": "object",
    "required": ["brn", "name", "status"],
    "properties": {
        "brn": {"type": "string", "pattern": "^BRN-[0-9]{6}$"},
        "name": {"type": "string"},
        "status": {"enum": ["ACTIVE", "STRUCK_OFF"]},
        "capital": {"type": "number"},
    },
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Kinto:
    """A registry of businesses in Kinto, which the account ``gsb`` may read and add to."""

    server: Server
    user: str = "gsb"
    password: str = "gsbpw"

    @property
    def url(self) -> str:
        return self.server.url + "/v1"

    async def seed(self) -> None:
        """Whatever it held is in memory, so this is needed after each start."""
        async with aiohttp.ClientSession() as session:

            async def put(path: str, document: Mapping[str, object], user: str | None = None) -> None:
                headers = {"Content-Type": "application/json"}
                if user is not None:
                    token = base64.b64encode(f"{user}:{user}pw".encode()).decode()
                    headers["Authorization"] = f"Basic {token}"
                async with session.put(self.url + path, data=json.dumps(document), headers=headers) as answer:
                    answer.raise_for_status()

            await put("/accounts/admin", {"data": {"password": "adminpw"}})
            await put("/accounts/gsb", {"data": {"password": self.password}})
            await put("/buckets/registry", {"permissions": {"read": ["account:gsb"]}}, "admin")
            businesses = {"data": {"schema": BUSINESS}, "permissions": {"record:create": ["account:gsb"]}}
            await put("/buckets/registry/collections/businesses", businesses, "admin")


@asynccontextmanager
async def kinto(folder: Path, *, backoff: int | None = None) -> AsyncIterator[Kinto]:
    """Kinto with an empty registry; with ``backoff`` every answer asks for a pause of so many seconds."""
    program = DEPS / "kinto" / "bin" / "kinto"
    needs(program.exists(), "Kinto is not installed: make deps-test")
    (port,) = free_ports(1)
    more = "" if backoff is None else f"kinto.backoff = {backoff}"
    settings = folder / f"kinto-{port}.ini"
    settings.write_text(KINTO_SETTINGS.format(port=port, more=more), "utf-8")
    command: list[str | Path] = [program, "start", "--ini", settings, "--port", str(port)]
    system = Kinto(Server(f"http://127.0.0.1:{port}", command, "Serving on", "/v1/__heartbeat__"))
    await system.server.start()
    try:
        await system.seed()
        yield system
    finally:
        await system.server.stop()
