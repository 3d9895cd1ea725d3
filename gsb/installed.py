"""Which adapters are installed: found by entry point and manifest first, imported only when they are asked for.

It knows no adapter by name and runs none. Whether one is allowed is the configuration's business. Importing one is
importing foreign code, which may do anything; that is why only allowed ones are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gsb.load import Finding, suggest, validate
from gsb.model import Effect
from gsb.sdk.adapter import Adapter, Settings
from gsb.sdk.manifest import GROUP, Manifest, find_manifest, read_manifest


@dataclass(frozen=True, slots=True)
class Loaded:
    """An allowed adapter's manifest and class."""

    manifest: Manifest
    kind: type[Adapter[Any, Any]]
    folder: Path
    """Where its code and its manifest lie."""


def installed() -> tuple[EntryPoint, ...]:
    """Every adapter that is installed, whether allowed or not."""
    return tuple(entry_points(group=GROUP))


def load_adapter(name: str, found: Iterable[EntryPoint]) -> Loaded:
    """The one adapter of this name. Raises LookupError with one clear sentence.

    Its code is imported only after its manifest was read and fits this version of the bus.
    """
    found = tuple(found)
    entries = [entry for entry in found if entry.name == name]
    if not entries:
        raise LookupError(f"no adapter {name!r} is installed{suggest(name, {entry.name for entry in found})}")
    if len(entries) > 1:
        places = ", ".join(sorted(entry.value for entry in entries))
        raise LookupError(f"the adapter {name!r} is installed {len(entries)} times: {places}")
    manifest, folder = _manifest(name, entries[0])
    try:
        kind = entries[0].load()
    except Exception as error:
        # Whatever foreign code does wrong while it is imported must become one finding among the others.
        raise LookupError(f"the adapter {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Adapter)):
        raise LookupError(f"{entries[0].value} is not an adapter")
    if isabstract(kind):
        raise LookupError(f"the adapter {name!r} has no method handle")
    for model in ("Settings", "ServiceSettings"):
        declared = getattr(kind, model)
        if not (isinstance(declared, type) and issubclass(declared, Settings)):
            raise LookupError(f"{model} of the adapter {name!r} is no class of settings")
    return Loaded(manifest, kind, folder)


def read_settings(
    model: type[Settings], table: Mapping[str, Any], file: str, folder: Path, effect: Effect | None = None
) -> tuple[Settings | None, list[Finding]]:
    """The settings of a system, or with its ``effect`` those of a service; or everything that is wrong with them."""
    try:
        settings, findings = validate(model, table, file, folder, "settings")
        if settings is not None and effect is not None:
            settings.fits(effect)
    except ValueError as error:
        return None, [Finding(file, "settings", str(error))]
    except Exception as error:
        # Foreign code again, and what it does wrong must become one finding again.
        return None, [Finding(file, "settings", f"the adapter cannot read them: {type(error).__name__}: {error}")]
    return settings, findings


def _manifest(name: str, entry: EntryPoint) -> tuple[Manifest, Path]:
    try:
        path = find_manifest(entry)
        manifest = read_manifest(path)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        text = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
        raise LookupError(f"the manifest of the adapter {name!r} is wrong: {text}") from error
    except (OSError, ValueError) as error:
        raise LookupError(f"the manifest of the adapter {name!r} cannot be read: {error}") from error
    if manifest.name != name:
        raise LookupError(f"the adapter {name!r} calls itself {manifest.name!r} in its manifest")
    return manifest, path.parent
