"""``gsb check``: is this deployment right? Prints every finding; runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gsb.catalogue import Catalogue, ConfigInvalid, Finding, build
from gsb.cli.shared import fail, print_json


def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The deployment's folder.")],
    json: Annotated[bool, typer.Option("--json", help="Print findings and digest as JSON.")] = False,
) -> None:
    """Check the deployment in DIR as a node does when it starts.

    Exits 0 when nothing is wrong, 1 with a line for each finding, 2 when there is no such folder.
    """
    catalogue: Catalogue | None = None
    findings: Sequence[Finding] = ()
    try:
        catalogue = build(folder)
    except ConfigInvalid as error:
        findings = error.findings
    except OSError as error:
        raise fail(f"cannot read the deployment: {error}") from error
    if json:
        print_json(
            {
                "ok": catalogue is not None,
                "digest": None if catalogue is None else catalogue.digest,
                "findings": [asdict(finding) for finding in findings],
            }
        )
    elif catalogue is not None:
        typer.echo(f"{folder}: {summary(catalogue)}")
    else:
        for finding in findings:
            typer.echo(str(finding))
    raise typer.Exit(0 if catalogue is not None else 1)


def summary(catalogue: Catalogue) -> str:
    """What a deployment holds, in a line."""
    counts = {
        "agencies": len(catalogue.agencies),
        "operators": len(catalogue.operators),
        "systems": len(catalogue.systems),
        "services": len(catalogue.services),
        "agreements": len(catalogue.agreements),
    }
    held = ", ".join(f"{things} {count}" for things, count in counts.items())
    return f"nothing wrong; {held}; digest {catalogue.digest[:16]}"
