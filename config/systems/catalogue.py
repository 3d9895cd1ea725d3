"""Which core systems there are, in the order in which they are installed, started and shown."""

from __future__ import annotations

from importlib import import_module

from config.systems.base import System

NAMES = ("openfisca", "canaille", "tryton", "kinto", "roundup", "sshd", "bank", "customshouse", "soap")
"""Each is a module or package ``config/systems/NAME`` with its system as ``SYSTEM``."""


def named(name: str) -> System:
    """The system of this name. Raises KeyError."""
    if name not in NAMES:
        raise KeyError(name)
    system: System = import_module(f"config.systems.{name}").SYSTEM
    return system


def systems() -> list[System]:
    """All of them."""
    return [named(name) for name in NAMES]
