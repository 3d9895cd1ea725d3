"""Kinto with one register in memory, which asks for a pause if it is told to: what ``http_json`` is tried on.

The Kinto of ``make systems`` is ``config/systems/kinto``, whose program this one uses.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from config.systems.base import Command, Place, System
from config.systems.catalogue import named
from config.systems.openfisca import answers
from config.systems.running import Copy, running
from tests.support.needs import needs

SETTINGS = """\
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
USER, PASSWORD = "gsb", "gsbpw"
"""The account that may read the register and add to it."""


class MemoryKinto(System):
    """With ``backoff`` every answer asks for a pause of so many seconds."""

    name, title, port, forgets = "kinto-in-memory", "Kinto, one register", 8888, True

    def __init__(self, backoff: int | None) -> None:
        self._backoff = backoff
        self._program = named("kinto").program("kinto")

    def missing(self) -> str | None:
        return named("kinto").missing()

    def lay(self, place: Place) -> None:
        more = "" if self._backoff is None else f"kinto.backoff = {self._backoff}"
        (place.folder / "kinto.ini").write_text(SETTINGS.format(port=place.port, more=more), "utf-8")

    def command(self, place: Place) -> Command:
        return [self._program, "start", "--ini", place.folder / "kinto.ini", "--port", str(place.port)]

    async def ready(self, place: Place) -> bool:
        return await answers(f"{place.url}/v1/__heartbeat__")

    async def check(self, place: Place) -> str:
        return "it answers" if await self.ready(place) else "it does not answer"

    async def seed(self, place: Place) -> None:
        """Accounts and an empty register."""
        async with aiohttp.ClientSession() as session:

            async def put(path: str, document: Mapping[str, object], user: str | None = None) -> None:
                headers = {}
                if user is not None:
                    headers["Authorization"] = f"Basic {b64encode(f'{user}:{user}pw'.encode()).decode()}"
                async with session.put(f"{place.url}/v1{path}", json=document, headers=headers) as answer:
                    answer.raise_for_status()

            await put("/accounts/admin", {"data": {"password": "adminpw"}})
            await put(f"/accounts/{USER}", {"data": {"password": PASSWORD}})
            await put("/buckets/registry", {"permissions": {"read": [f"account:{USER}"]}}, "admin")
            businesses = {"data": {"schema": BUSINESS}, "permissions": {"record:create": [f"account:{USER}"]}}
            await put("/buckets/registry/collections/businesses", businesses, "admin")


@asynccontextmanager
async def kinto(folder: Path, *, backoff: int | None = None) -> AsyncIterator[Copy]:
    """With an empty register, which is at ``url``/v1."""
    system = MemoryKinto(backoff)
    lack = system.missing()
    needs(lack is None, lack or "")
    async with running(system, folder) as copy:
        yield copy
