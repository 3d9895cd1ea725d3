"""Tryton 7.0 with accounting, budgets, purchases and employees: the financial management system of this government.

It is GPL and runs in its own environment and process; so does ``seed.py``, which fills its database once. Copies begin
with that database, which is one SQLite file. A crash of Tryton loses nothing that it had committed.
"""

from __future__ import annotations

import base64
import secrets
import shutil
from pathlib import Path
from typing import Any

import aiohttp

from config.systems.base import HOST, Command, NotInstalled, NotStarted, Place, System, run

HERE = Path(__file__).parent
DATABASE = "gov"
USER = "gsb"
CREDENTIAL = "password"
"""The file with the password of the bus's user, in the folder of a copy."""
MODULES = ("account_invoice", "account_budget", "purchase", "company", "personnel")


class Tryton(System):
    """One server over one SQLite database. It takes one writer at a time."""

    name = "tryton"
    title = "Tryton, financial management"
    port = 8069

    def build(self, folder: Path) -> None:
        libraries = sorted(self.deps.glob("lib/python3*/site-packages/trytond/modules"))
        if not libraries:
            raise NotInstalled(f"{self.title}: its environment holds no trytond")
        shutil.copytree(HERE / "personnel", libraries[0] / "personnel", dirs_exist_ok=True)
        _configure(folder, 0)
        (folder / f"{DATABASE}.sqlite").touch()
        for name in (CREDENTIAL, "admin-password"):
            (folder / name).write_text(secrets.token_urlsafe(18), "ascii")
            (folder / name).chmod(0o600)
        settings = folder / "trytond.conf"
        where = ("-c", settings, "-d", DATABASE, "--email", "admin@finance.example", "-l", "en")
        activate: Command = [self.program("trytond-admin"), *where, "--activate-dependencies", "-u", *MODULES]
        run(self, activate, {"TRYTONPASSFILE": str(folder / "admin-password")})
        run(self, [self.program("python"), HERE / "seed.py", settings, folder / CREDENTIAL])

    def lay(self, place: Place) -> None:
        for name in (f"{DATABASE}.sqlite", CREDENTIAL, "admin-password"):
            shutil.copy(self.golden / name, place.folder / name)
        _configure(place.folder, place.port)

    def command(self, place: Place) -> Command:
        return [self.program("trytond"), "-c", place.folder / "trytond.conf", "-d", DATABASE]

    async def ready(self, place: Place) -> bool:
        try:
            return bool(await _call(place, "", "common.server.version", []))
        except (aiohttp.ClientError, NotStarted, TimeoutError):
            return False

    async def check(self, place: Place) -> str:
        password = (place.folder / CREDENTIAL).read_text("ascii")
        user, token = await _call(place, f"{DATABASE}/", "common.db.login", [USER, {"password": password}])
        authorization = {"Authorization": f"Session {session(USER, user, token)}"}
        lines = await _call(
            place,
            f"{DATABASE}/",
            "model.account.budget.line.search_read",
            [[["amount", ">", 0]], 0, None, None, ["account.code"], {}],
            authorization,
        )
        return f"{len(lines)} budget lines with an amount"


def session(user: str, number: int, token: str) -> str:
    """What stands behind ``Session`` in the header ``Authorization``."""
    return base64.b64encode(f"{user}:{number}:{token}".encode()).decode()


def _configure(folder: Path, port: int) -> None:
    lines = ["[database]", "uri = sqlite://", f"path = {folder.resolve()}", "[web]", f"listen = {HOST}:{port}", ""]
    (folder / "trytond.conf").write_text("\n".join(lines), "utf-8")


async def _call(
    place: Place, path: str, method: str, params: list[object], headers: dict[str, str] | None = None
) -> Any:
    """One call by its JSON-RPC. Raises aiohttp.ClientError, TimeoutError, or NotStarted if the answer is no result."""
    time = aiohttp.ClientTimeout(total=10)
    content = {"id": 0, "method": method, "params": params}
    async with (
        aiohttp.ClientSession(timeout=time) as client,
        client.post(f"{place.url}/{path}", json=content, headers=headers) as answer,
    ):
        said = await answer.json() if answer.status == 200 else {}
        if "result" not in said:
            raise NotStarted(f"Tryton answers {method} with {answer.status}")
        return said["result"]


SYSTEM = Tryton()
