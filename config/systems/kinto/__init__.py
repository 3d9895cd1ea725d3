"""Kinto as four registries: businesses, persons, public investment and procurement; kept in a PostgreSQL of its own.

Kinto's memory backend forgets everything at a stop, and a registry that forgets cannot show whether an exchange had
its effect. So each copy has its own PostgreSQL in its own folder, reached by a socket and only as the user that it
runs as (``start.py``). It knows nothing of the bus. A crash loses nothing that was answered.
"""

from __future__ import annotations

import base64
import secrets
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from config.systems.base import HOST, SYSTEMS, Command, NotInstalled, NotStarted, Place, System, run, unprivileged
from config.systems.kinto.data import COLLECTIONS, PERSONS
from config.systems.openfisca import answers
from gsb.bench.servers import postgres

ACCOUNTS = ("admin", "gsb", "pim", "procurement")
BATCH = 200
"""Records that are entered by one request."""
LEAVES_WITHIN = 30.0

SETTINGS = """\
[server:main]
use = egg:waitress#main
host = {host}
port = {port}
threads = 8
[app:main]
use = egg:kinto
kinto.includes = kinto.plugins.accounts
kinto.storage_backend = kinto.core.storage.postgresql
kinto.storage_url = {database}
kinto.permission_backend = kinto.core.permission.postgresql
kinto.permission_url = {database}
kinto.cache_backend = kinto.core.cache.memory
kinto.userid_hmac_secret = {secret}
kinto.experimental_collection_schema_validation = true
kinto.batch_max_requests = {batch}
kinto.account_create_principals = system.Everyone
kinto.account_write_principals = account:admin
kinto.bucket_create_principals = account:admin
multiauth.policies = account
multiauth.policy.account.use = kinto.plugins.accounts.AccountsPolicy
{more}
[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = WARNING
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
level = NOTSET
formatter = plain
[formatter_plain]
format = %(levelname)s %(name)s %(message)s
"""


class Kinto(System):
    """Registries over REST. The passwords of its accounts lie in its folder, as ``ACCOUNT.txt``."""

    name = "kinto"
    title = "Kinto, registries"
    port = 8888
    more = ""
    """Further lines of its settings, for tests."""

    def missing(self) -> str | None:
        return postgres.MISSING if postgres.programs() is None else super().missing()

    def build(self, folder: Path) -> None:
        bin_ = self._postgres()
        self._write(folder, 0)
        made = ("-A", "peer", "-N", "-E", "UTF8", "--no-locale", "--wal-segsize=1")
        run(self, unprivileged([bin_ / "initdb", "-D", folder / "data", *made]))
        run(self, self._started(folder, 0, [self.program("kinto"), "migrate", "--ini", folder / "kinto.ini"]))
        # It leaves when the migration has ended, and its data can be copied when it is gone.
        until = time.monotonic() + LEAVES_WITHIN
        while (folder / "data/postmaster.pid").exists():
            if time.monotonic() > until:
                raise NotInstalled(f"{self.title}: its PostgreSQL does not stop")
            time.sleep(0.05)

    def lay(self, place: Place) -> None:
        run(self, ["cp", "-a", self.golden / "data", place.folder / "data"])
        for account in ACCOUNTS:
            _private(place.folder / f"{account}.txt", secrets.token_urlsafe(24))
        self._write(place.folder, place.port)

    def command(self, place: Place) -> Command:
        settings = ("--ini", place.folder / "kinto.ini", "--port", str(place.port))
        return self._started(place.folder, place.port, [self.program("kinto"), "start", *settings])

    async def ready(self, place: Place) -> bool:
        return await answers(f"{place.url}/v1/__heartbeat__")

    async def seed(self, place: Place) -> None:
        """Accounts, collections with their schemas, and the first records."""
        async with aiohttp.ClientSession() as session:
            for account in ACCOUNTS:
                password = {"data": {"password": _password(place, account)}}
                by = {} if account == "admin" else _auth(place)
                await _sent(await session.put(f"{place.url}/v1/accounts/{account}", json=password, headers=by))
        buckets = {each.bucket: each.account for each in COLLECTIONS}
        await _enter(
            place,
            [(f"/buckets/{name}", {"permissions": {"read": [f"account:{who}"]}}) for name, who in buckets.items()],
        )
        for each in COLLECTIONS:
            may = {"record:create": [f"account:{each.account}"]} if each.creates else {}
            path = f"/buckets/{each.bucket}/collections/{each.name}"
            records = [(f"{path}/records/{record[each.key]}", {"data": record}) for record in each.records]
            await _enter(place, [(path, {"data": {"schema": each.schema}, "permissions": may}), *records])

    async def check(self, place: Place) -> str:
        person = PERSONS[0]["national_id"]
        path = f"{place.url}/v1/buckets/registry/collections/persons/records/{person}"
        async with aiohttp.ClientSession() as session, session.get(path, headers=_auth(place, "gsb")) as answer:
            if answer.status != 200:
                raise NotStarted(f"{self.title} answers a look-up with {answer.status}")
            return f"{person} is {(await answer.json())['data']['given_name']}"

    def _started(self, folder: Path, port: int, program: Command) -> Command:
        script: Command = [sys.executable, SYSTEMS / "kinto/start.py", folder / "data", _socket(port), self._postgres()]
        return unprivileged([*script, *program])

    def _postgres(self) -> Path:
        if (found := postgres.programs()) is None:
            raise NotInstalled(postgres.MISSING)
        return found

    def _write(self, folder: Path, port: int) -> None:
        settings = SETTINGS.format(
            host=HOST,
            port=port,
            database=f"postgresql:///postgres?host={_socket(port)}",
            secret=secrets.token_hex(32),
            batch=BATCH,
            more=self.more,
        )
        _private(folder / "kinto.ini", settings)


async def seed_persons(place: Place, persons: Iterable[Mapping[str, str]]) -> None:
    """Enter people into the civil register, many with each request, in place of those who have the same number.

    Each has ``national_id``, ``given_name``, ``family_name``, ``birth_date`` and, if dead, ``died_on``. Raises
    NotStarted.
    """
    path = "/buckets/registry/collections/persons/records"
    await _enter(place, [(f"{path}/{person['national_id']}", {"data": dict(person)}) for person in persons])


async def _enter(place: Place, things: list[tuple[str, Mapping[str, Any]]]) -> None:
    async with aiohttp.ClientSession() as session:
        for first in range(0, len(things), BATCH):
            requests = [{"path": f"/v1{path}", "body": body} for path, body in things[first : first + BATCH]]
            content = {"defaults": {"method": "PUT"}, "requests": requests}
            answer = await session.post(f"{place.url}/v1/batch", json=content, headers=_auth(place))
            for each in (await _sent(answer))["responses"]:
                if each["status"] >= 300:
                    raise NotStarted(f"Kinto answers {each['path']} with {each['status']}: {each['body']}")


async def _sent(answer: aiohttp.ClientResponse) -> Any:
    if answer.status >= 300:
        raise NotStarted(f"Kinto answers with {answer.status}: {await answer.text()}")
    return await answer.json()


def _auth(place: Place, account: str = "admin") -> dict[str, str]:
    pair = f"{account}:{_password(place, account)}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _password(place: Place, account: str) -> str:
    return (place.folder / f"{account}.txt").read_text("ascii")


def _private(path: Path, content: str) -> None:
    path.touch(mode=0o600)
    path.write_text(content, "utf-8")


def _socket(port: int) -> str:
    """In the abstract namespace: a folder's path may be too long for one."""
    return f"@gsb-kinto-{port}"


SYSTEM = Kinto()
