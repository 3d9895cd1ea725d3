"""A copy of ``config/government`` for tests: some of its systems, on other ports, beside nobody's run.

site = laid_out(tmp_path, ("tax", "registry", "hrmis"), {5100: engine.port, 8888: kinto.port})
bus = await started(site)
async with site.client("payroll-agency") as client: ...
"""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from config.demo.children import Child
from config.government.play.site import Site
from config.government.prepare import prepare
from tests.support.deployment import free_ports, toml

ROOT = Path(__file__).parents[2]
BUS_PORTS = (8080, 8081)


def laid_out(
    root: Path,
    keep: Collection[str],
    ports: Mapping[int, int],
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Site:
    """The deployment in ``root``, with these systems only and the agreements that are about nothing else. ``ports``: by
    those that stand in ``config/government``. ``changes``: of the tables of systems, by name."""
    folder = root / "config" / "government"
    shutil.copytree(ROOT / "config/government", folder, ignore=shutil.ignore_patterns("keys", "play", "__pycache__"))
    (root / "schemas").symlink_to(ROOT / "schemas")
    for path in (folder / "systems").glob("*.toml"):
        if path.stem not in keep:
            path.unlink()
            shutil.rmtree(folder / "services" / path.stem, ignore_errors=True)
    for path in (folder / "agreements").glob("*.toml"):
        grants = tomllib.loads(path.read_text("utf-8"))["grants"]
        if not {grant["service"].partition("/")[0] for grant in grants} <= set(keep):
            path.unlink()
    _renumber(folder, {**ports, **dict(zip(BUS_PORTS, free_ports(2), strict=True))})
    for name, table in (changes or {}).items():
        _change(folder / "systems" / f"{name}.toml", table)
    prepare(folder)
    return Site(folder)


def _renumber(folder: Path, ports: Mapping[int, int]) -> None:
    other = {str(old): str(new) for old, new in ports.items()}
    for path in [folder / "gsb.toml", *(folder / "systems").glob("*.toml")]:
        text = re.sub(r"\b\d{4}\b", lambda found: other.get(found[0], found[0]), path.read_text("utf-8"))
        path.write_text(text, "utf-8")


def _change(path: Path, changes: Mapping[str, Any]) -> None:
    table = tomllib.loads(path.read_text("utf-8"))
    for name, value in changes.items():
        table[name] = {**table.get(name, {}), **value} if isinstance(value, Mapping) else value
    path.write_text("".join(f"{json.dumps(name)} = {toml(value)}\n" for name, value in table.items()), "utf-8")


async def started(site: Site) -> Child:
    """A node of it, ready."""
    node = await Child.start("the bus", site.command, ROOT, site.data / "bus.log")
    await node.ready(site.ready_url)
    return node
