"""OpenFisca with its example country: a tax-and-benefit engine, in its own environment since it is AGPL.

It holds no data, and whoever reaches it may ask: it is called only by the bus, on loopback. A crash loses nothing.
"""

from __future__ import annotations

import aiohttp

from config.systems.base import HOST, Command, NotStarted, Place, System

PERIOD = "2026-09"
PERSON = {"salary": {PERIOD: 4200}, "income_tax": {PERIOD: None}}


class OpenFisca(System):
    """The engine, with two workers, so that one long calculation does not stop the others."""

    name = "openfisca"
    title = "OpenFisca, tax"
    port = 5100

    def lay(self, place: Place) -> None:
        """There is nothing to lay: its law is a Python package."""

    def command(self, place: Place) -> Command:
        country = ("--country-package", "openfisca_country_template")
        where = ("--port", str(place.port), "--bind", f"{HOST}:{place.port}", "--workers", "2")
        return [self.program("openfisca"), "serve", *country, *where]

    async def ready(self, place: Place) -> bool:
        return await answers(f"{place.url}/spec")

    async def check(self, place: Place) -> str:
        question = {"persons": {"somebody": PERSON}, "households": {"home": {"adults": ["somebody"]}}}
        async with aiohttp.ClientSession() as session, session.post(f"{place.url}/calculate", json=question) as answer:
            if answer.status != 200:
                raise NotStarted(f"{self.title} answers a calculation with {answer.status}")
            tax = (await answer.json())["persons"]["somebody"]["income_tax"][PERIOD]
        return f"income tax on 4200 in {PERIOD}: {tax:g}"


async def answers(url: str) -> bool:
    """Whether a GET of ``url`` is answered with 200 within two seconds."""
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session, session.get(url) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


SYSTEM = OpenFisca()
