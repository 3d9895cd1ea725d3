"""Roundup as a register of citizens' complaints: its classic tracker, unchanged, on SQLite.

It refuses to run as root, and is run as nobody then. Its data are files that survive any stop. It knows nothing of the
bus, which has a user of its own there with the rights of any registered user.
"""

from __future__ import annotations

import base64
import re
import secrets
from pathlib import Path

import aiohttp

from config.systems.base import HOST, Command, NotInstalled, NotStarted, Place, System, run, unprivileged

TRACKER = "feedback"
USER = "gsb"


class Roundup(System):
    """The password of the bus lies in its folder, as ``gsb.txt``."""

    name = "roundup"
    title = "Roundup, citizens' feedback"
    port = 8917

    def build(self, folder: Path) -> None:
        tracker, admin, user = folder / "tracker", secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        settings = (
            f"tracker_web=http://{HOST}/{TRACKER}/,mail_domain=example.org,mail_host={HOST},tracker_name=Feedback"
        )
        manage: Command = [self.program("roundup-admin"), "-i", tracker]
        run(self, [*manage, "install", "classic", "sqlite", settings])
        # Each call signs in. A password that nobody made up or remembers needs no slow hash to be safe.
        _set(tracker, "main", "password_pbkdf2_default_rounds", 1000)
        run(self, [*manage, "initialise", admin])
        run(
            self,
            [
                *manage,
                "create",
                "user",
                f"username={USER}",
                f"password={user}",
                "address=gsb@example.org",
                "roles=User",
            ],
        )
        for name, password in (("admin", admin), (USER, user)):
            secret = folder / f"{name}.txt"
            secret.touch(mode=0o600)
            secret.write_text(password, "ascii")

    def lay(self, place: Place) -> None:
        run(self, ["cp", "-a", f"{self.golden}/.", place.folder])
        _set(place.folder / "tracker", "tracker", "web", web(place))
        # What it would send by mail goes into a file.
        _set(place.folder / "tracker", "mail", "debug", place.folder / "mail.log")

    def command(self, place: Place) -> Command:
        where = ("-n", HOST, "-p", str(place.port))
        return unprivileged([self.program("roundup-server"), *where, f"{TRACKER}={place.folder / 'tracker'}"])

    async def ready(self, place: Place) -> bool:
        timeout = aiohttp.ClientTimeout(total=2)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"{web(place)}rest/") as answer:
                return answer.status == 403  # it asks who one is
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def check(self, place: Place) -> str:
        pair = f"{USER}:{(place.folder / f'{USER}.txt').read_text('ascii')}"
        headers = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{web(place)}rest/data/status", headers=headers) as answer,
        ):
            if answer.status != 200:
                raise NotStarted(f"{self.title} answers a look-up with {answer.status}")
            return f"{(await answer.json())['data']['@total_size']} statuses that a complaint may have"


def web(place: Place) -> str:
    """The tracker's address, as it knows it itself: with a slash at the end."""
    return f"{place.url}/{TRACKER}/"


def _set(tracker: Path, section: str, name: str, value: object) -> None:
    settings = tracker / "config.ini"
    found = rf"(?ms)(^\[{section}\]$.*?)^{name} = [^\n]*$"
    text, count = re.subn(found, rf"\g<1>{name} = {value}", settings.read_text("utf-8"), count=1)
    if not count:
        raise NotInstalled(f"the tracker has no setting {name}")
    settings.write_text(text, "utf-8")


SYSTEM = Roundup()
