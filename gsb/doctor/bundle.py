"""What an operator sends along when asking for help: findings, versions, numbers and the deployment's outline.

Nothing is copied of the deployment's own files, and of a node only its metrics: so no secret, address of a person or
body of an exchange can come along. What stands in it is text that can be read before it is sent.
"""

from __future__ import annotations

import io
import platform
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from gsb import __version__
from gsb.catalogue import Catalogue
from gsb.doctor.found import Found
from gsb.doctor.node import PATIENCE


async def write_bundle(path: Path, catalogue: Catalogue, found: Sequence[Found]) -> list[str]:
    """Write it; the names of what is in it. Raises OSError, FileExistsError for one that is there."""
    parts: dict[str, bytes] = {
        "findings.json": _json([asdict(each) for each in found]),
        "deployment.json": _json(outline(catalogue)),
        "versions.json": _json(_versions()),
    }
    if (metrics := await _metrics(catalogue)) is not None:
        parts["metrics.txt"] = metrics
    with path.open("xb") as file, tarfile.open(fileobj=file, mode="w:gz") as bundle:
        for name, content in parts.items():
            member = tarfile.TarInfo(f"{path.name.partition('.')[0]}/{name}")
            member.size, member.mtime, member.mode = len(content), int(time.time()), 0o600
            bundle.addfile(member, io.BytesIO(content))
    return list(parts)


def outline(catalogue: Catalogue) -> Mapping[str, Any]:
    """How the deployment is made up: ids and kinds, no settings."""
    table = catalogue.gsb
    return {
        "bus": table.bus.id,
        "digest": catalogue.digest,
        "store": table.store.kind,
        "broker": table.broker.kind,
        "witnesses": len(table.log.witnesses),
        "limits": table.limits.model_dump(),
        "retention": table.retention.model_dump(),
        "agencies": sorted(catalogue.agencies),
        "systems": {
            name: {"adapter": each.adapter, "timeout": each.timeout} for name, each in catalogue.systems.items()
        },
        "services": {name: str(each.effect) for name, each in catalogue.services.items()},
        "agreements": sorted(catalogue.agreements),
    }


def _versions() -> Mapping[str, Any]:
    packages = {each.metadata["Name"]: each.version for each in distributions()}
    return {
        "gsb": __version__,
        "python": sys.version,
        "machine": platform.platform(),
        "packages": dict(sorted(packages.items())),
    }


async def _metrics(catalogue: Catalogue) -> bytes | None:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE), trust_env=False) as http,
            http.get(f"{catalogue.gsb.bus.operations_url}/metrics") as answer,
        ):
            return await answer.read()
    except (aiohttp.ClientError, TimeoutError):
        return None  # that no node answers is a finding


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str)
