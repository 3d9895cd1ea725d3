"""Where this government's bus is, and clients of it for every agency, with keys from the deployment's folder.

It starts nothing. The deployment may be a copy in another folder: everything is found from there.
"""

from __future__ import annotations

import sys
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gsb import jwk
from gsb.client import Client

GSB = Path(sys.executable).with_name("gsb")
OPERATOR = "duty-operator"


@dataclass(frozen=True)
class Site:
    """One deployment of the government's bus."""

    folder: Path
    """That of ``gsb.toml``."""

    @property
    def data(self) -> Path:
        """What the bus and the core systems write."""
        return self.folder.parents[1] / "var"

    @property
    def log(self) -> Path:
        """The evidence log's files."""
        return self.data / "government" / "log"

    @property
    def personnel(self) -> Path:
        """The personnel database."""
        return self.data / "systems" / "hrmis" / "personnel.sqlite"

    @property
    def insurance(self) -> Path:
        """The database of the social insurance fund."""
        return self.data / "systems" / "social-insurance" / "insurance.sqlite"

    @cached_property
    def _bus(self) -> dict[str, Any]:
        table: dict[str, Any] = self._table("gsb.toml")["bus"]
        return table

    @property
    def url(self) -> str:
        return str(self._bus["base_urls"][0])

    @property
    def operations_url(self) -> str:
        return str(self._bus["operations_url"])

    @property
    def ready_url(self) -> str:
        return f"{self.operations_url}/readyz"

    def ports(self) -> list[tuple[str, str, int]]:
        """Who listens where."""
        listeners = (("the bus", self.url), ("the bus's operations port", self.operations_url))
        return [(who, parts.hostname or "", parts.port or 80) for who, url in listeners if (parts := urlsplit(url))]

    @property
    def command(self) -> list[str | Path]:
        """What starts the bus."""
        return [GSB, "serve", self.folder]

    def system(self, service: str) -> str:
        """Behind a service: the program, where the title of its system names one, or else what the system is."""
        title = str(self._table(f"systems/{service.partition('/')[0]}.toml")["title"])
        return title.removesuffix(")").rpartition(" (")[2]

    def title(self, service: str) -> str:
        """What a service gives."""
        return str(self._table(f"services/{service}.toml")["title"])

    def _table(self, path: str) -> dict[str, Any]:
        return tomllib.loads((self.folder / path).read_text("utf-8"))

    def client(self, member: str) -> Client:
        """As this agency or operator; ``async with`` it."""
        key = self._key("bus").public
        return Client(
            self.url,
            bus=str(self._bus["id"]),
            agency=member,
            key=self._key(member),
            bus_keys={key.kid: key},
            operations_url=self.operations_url,
        )

    def _key(self, name: str) -> jwk.PrivateKey:
        return jwk.read_private((self.folder / "keys" / f"{name}.jwk").read_bytes())
