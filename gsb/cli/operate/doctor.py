"""``gsb doctor``: what ails a deployment and everything around it, and what to do about it. It changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gsb.catalogue import Catalogue, ConfigInvalid, build
from gsb.cli.shared import fail, print_json, shown
from gsb.doctor import Found, Grade, examine, write_bundle
from gsb.roles import Role, Roles, RolesUnfit

MARKS = {Grade.WELL: "well   ", Grade.WARNING: "WARNING", Grade.TROUBLE: "TROUBLE"}
Played = Annotated[
    list[Role] | None,
    typer.Option("--role", help="What the node here does; may be given several times. Without it: all."),
]
WorkedFor = Annotated[
    list[str] | None,
    typer.Option("--system", help="For which core system the worker here works; several times for several."),
]
Bundle = Annotated[
    Path | None,
    typer.Option("--bundle", metavar="FILE", help="Write findings, versions and numbers to a new .tar.gz, no secrets."),
]


def doctor(
    config: Annotated[Path, typer.Option("--config", metavar="DIR", help="The deployment's folder.")],
    role: Played = None,
    system: WorkedFor = None,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, at the end.")] = False,
    bundle: Bundle = None,
) -> None:
    """Examine a deployment: clock, disk, names, keys, certificate, store, Kafka, topics, core systems, and its node.

    Run it where a node runs, as the user that a node runs as, with the --role and --system that its gsb serve has: who
    is no recorder only reads the log, and who does not work for a system may lack its secrets. Exits 0 when nothing is
    in trouble (warnings are told), 1 when something is, 2 when it cannot be examined.
    """
    roles = Roles.of(role or (), system or ())
    try:
        catalogue = build(config)
        roles.check(catalogue)
    except ConfigInvalid as error:
        found = [Found("deployment", Grade.TROUBLE, str(each), f"gsb check {config}") for each in error.findings]
        _show_all(found, json)
        if bundle is not None:
            raise fail("no bundle was written: the deployment cannot be read") from error
        raise typer.Exit(1) from error
    except OSError as error:
        raise fail(f"cannot read the deployment: {error}") from error
    except RolesUnfit as error:
        raise fail(f"no node can be so: {error}") from error
    if bundle is not None and bundle.exists():
        raise fail(f"{bundle} is there already")
    found = asyncio.run(_examined(catalogue, roles, tell=not json))
    if json:
        _show_all(found, json)
    if bundle is not None:
        _bundle(bundle, catalogue, found)
    raise typer.Exit(1 if any(each.grade is Grade.TROUBLE for each in found) else 0)


async def _examined(catalogue: Catalogue, roles: Roles, *, tell: bool) -> list[Found]:
    """All that is found; each told as soon as it is."""
    found = []
    with _quiet():
        async for each in examine(catalogue, roles):
            found.append(each)
            if tell:
                _show(each)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """What adapters log while they are asked is told by the findings."""
    log = logging.getLogger("gsb")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def _show_all(found: Sequence[Found], json: bool) -> None:
    if json:
        print_json(
            {"ok": all(each.grade is not Grade.TROUBLE for each in found), "found": [asdict(each) for each in found]}
        )
        return
    for each in found:
        _show(each)


def _show(found: Found) -> None:
    typer.echo(shown(f"{MARKS[found.grade]}  {found.what}: {found.said}"))
    if found.do:
        typer.echo(shown(f"         -> {found.do}"))


def _bundle(path: Path, catalogue: Catalogue, found: Sequence[Found]) -> None:
    try:
        names = asyncio.run(write_bundle(path, catalogue, found))
    except OSError as error:
        raise fail(f"cannot write {path}: {error.strerror}") from error
    # Whoever reads the JSON must not find a line of prose behind it.
    typer.echo(f"{path}: {', '.join(names)}; look at it before you send it", err=True)
