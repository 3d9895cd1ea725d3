"""An adapter's manifest, ``adapter.toml``: read without importing the adapter's code.

So an operator can list, document and allow adapters, and a wrong API version is refused, before any of it runs.
"""

from __future__ import annotations

import sys
import tomllib
from importlib.machinery import ModuleSpec
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[a-z][a-z0-9_]{1,39}$"
GROUP = "gsb.adapters"
"""The entry-point group in which adapters are found: name -> class."""


class Manifest(BaseModel):
    """``adapter.toml``. Unknown members are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str = Field(pattern=NAME)
    """The adapter's name: that of its folder and of its entry point."""
    title: str = Field(min_length=1)
    """What it connects to, in a few words."""
    summary: str = Field(min_length=1)
    """What it does, in a sentence."""
    owner: str = Field(min_length=1)
    """Who looks after it."""
    api: Literal[1]
    """The version of ``gsb.sdk`` it is written for."""
    errors: dict[str, str] = {}
    """The codes with which it raises ``Refused``, each with its title. A code that is not here is ``Broken``."""


def read_manifest(path: Path) -> Manifest:
    """The manifest in this file. Raises OSError, tomllib.TOMLDecodeError or pydantic.ValidationError."""
    return Manifest.model_validate(tomllib.loads(path.read_text("utf-8")))


def find_manifest(entry: EntryPoint) -> Path:
    """Where the manifest of an entry point lies, beside its module. Raises LookupError when it has none."""
    spec = _spec(entry.module)
    if spec is None or spec.origin is None:
        raise LookupError(f"the adapter {entry.name!r} names the module {entry.module}, which is not there")
    path = Path(spec.origin).parent / "adapter.toml"
    if not path.is_file():
        raise LookupError(f"the adapter {entry.name} has no adapter.toml beside {entry.module}")
    return path


def _spec(module: str) -> ModuleSpec | None:
    """Where a module is. ``importlib.util.find_spec`` would run the packages around it to find out."""
    place, spec = None, None
    names = module.split(".")
    for count in range(1, len(names) + 1):
        name = ".".join(names[:count])
        found = (finder.find_spec(name, place) for finder in sys.meta_path)
        spec = next((each for each in found if each is not None), None)
        if spec is None:
            return None
        place = spec.submodule_search_locations
    return spec
