"""What the demonstration reads of its own deployment: URLs, ports, keys and files. It starts and calls nothing."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from config.demo.prepare import CONFIG, DATA, KEYS
from config.systems.base import Command, Place
from config.systems.openfisca import SYSTEM as ENGINE
from gsb import jwk

ROOT = CONFIG.parents[1]
GSB = Path(sys.executable).with_name("gsb")
MINISTRY = "MOJ"
STAFF = 300
"""People in that ministry, see names.py."""
PAGE = 50
BURST = 3
"""Calls at once under the purpose staff-plan, see agreements/payroll-personnel.toml."""
PERIOD = "2026-09"


@dataclass(frozen=True, slots=True)
class Site:
    """Where everything is."""

    bus: str
    """The bus's id."""
    urls: Sequence[str]
    """The base URL of each gateway."""
    operations_url: str
    tax_url: str
    folder: Path = CONFIG
    """The deployment that its nodes run from."""

    @classmethod
    def read(cls, folder: Path = CONFIG) -> Site:
        """From the deployment's files. Raises OSError, tomllib.TOMLDecodeError or KeyError."""
        bus, tax = _toml(folder, "gsb.toml")["bus"], _toml(folder, "systems/tax.toml")
        return cls(bus["id"], bus["base_urls"], bus["operations_url"], tax["settings"]["url"], folder)

    @property
    def log(self) -> Path:
        """What the node at ``url`` says."""
        return DATA / ("bus.log" if self.folder == CONFIG else "gateway-1.log")

    @property
    def url(self) -> str:
        """Of the first gateway."""
        return self.urls[0]

    def ports(self) -> list[tuple[str, str, int]]:
        """Who listens where."""
        listeners = (
            ("the bus", self.url),
            ("the bus's operations port", self.operations_url),
            ("the tax engine", self.tax_url),
        )
        return [(who, parts.hostname or "", parts.port or 80) for who, url in listeners if (parts := urlsplit(url))]

    def tax_command(self) -> Command:
        """As ``make systems`` starts it."""
        return ENGINE.command(Place(DATA, urlsplit(self.tax_url).port or 80))

    def bus_command(self, *options: str) -> list[str | Path]:
        return [GSB, "serve", self.folder, *options]

    @staticmethod
    def key(agency: str) -> jwk.PrivateKey:
        return _key(agency)

    @staticmethod
    def bus_keys() -> dict[str, jwk.PublicKey]:
        """The bus's public key by its kid, as its operator would have handed it over."""
        key = _key("bus").public
        return {key.kid: key}


def _toml(folder: Path, name: str) -> dict[str, Any]:
    return tomllib.loads((folder / name).read_text("utf-8"))


@cache
def _key(agency: str) -> jwk.PrivateKey:
    return jwk.read_private((KEYS / f"{agency}.jwk").read_bytes())
