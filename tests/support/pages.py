"""Core systems of the tests' own, to try with them how systems are installed, started and stopped: a few lines of
Python that serve their folder, and one that cannot be installed.

    python -m tests.support.pages FOLDER PORT start|stop|install [NAME...]

does with them what ``make systems`` does with the real ones, with data in FOLDER and the first of them at PORT.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp

from config.systems import run
from config.systems.base import Command, NotInstalled, NotStarted, Place, System

SERVER = """\
import http.server, os, signal, subprocess, sys, time
port, mood = int(sys.argv[1]), sys.argv[2]
if mood == "ends":
    sys.exit("the disk is full")
if mood == "stays":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open("worker", "w") as told:
        told.write(str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid))
http.server.ThreadingHTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


class Pages(System):
    """Serves its folder. In the mood ``ends`` it ends at once; in the mood ``stays`` it has a worker, and SIGTERM does
    not end it; in the mood ``lies`` its check fails, and in the mood ``muses`` it has no end."""

    name, title = "pages", "Pages, of the tests"

    def __init__(self, port: int = 1, mood: str = "well", name: str = "pages") -> None:
        self.port, self.mood, self.name = port, mood, name
        self.title = f"{name.title()}, of the tests"
        self.seeded = 0
        self.stop_within = 0.5 if mood == "stays" else 60.0

    def lay(self, place: Place) -> None:
        (place.folder / "page").write_text("laid", "ascii")

    def command(self, place: Place) -> Command:
        return [sys.executable, "-c", SERVER, str(place.port), self.mood]

    async def ready(self, place: Place) -> bool:
        try:
            return bool(await self.read(place, "page"))
        except aiohttp.ClientError:
            return False

    async def seed(self, place: Place) -> None:
        self.seeded += 1

    async def check(self, place: Place) -> str:
        if self.mood == "lies":
            raise NotStarted(f"{self.title}: the page is not what it was")
        if self.mood == "muses":
            await asyncio.Event().wait()
        return f"the page says {await self.read(place, 'page')}"

    async def read(self, place: Place, name: str) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"{place.url}/{name}") as answer:
            return await answer.text()


class Absent(Pages):
    """Cannot be installed."""

    def missing(self) -> str | None:
        return f"{self.title} is not installed"

    def install(self) -> None:
        raise NotInstalled(f"{self.title}: its publisher has withdrawn it")


def several(port: int) -> list[System]:
    """One that is well, one that cannot be installed, and three more with a mood."""
    moods = [Pages(port + number, mood, mood) for number, mood in enumerate(("ends", "lies", "muses"), start=1)]
    return [Pages(port), Absent(0, name="absent"), *moods]


if __name__ == "__main__":
    given = several(int(sys.argv[2]))
    sys.exit(run.main(sys.argv[3:], given, Path(sys.argv[1])))
