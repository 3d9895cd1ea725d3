"""``gsb adapter grade``: how an adapter stands to each rule of its contract. The rules are those of gsb.testing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Annotated

import typer

from gsb.cli.shared import fail, print_json, shown
from gsb.installed import installed
from gsb.testing import Unfit, Verdict, find_subject
from gsb.testing import grade as graded


def grade(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="An installed adapter, or the folder of one.")] = "",
    every: Annotated[bool, typer.Option("--all", help="Every installed adapter.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the verdicts as JSON.")] = False,
) -> None:
    """Try the adapter against each rule of its contract, with a system that fails in every way, and print the verdicts.

    Exits 0 when no rule is broken, 1 when one is, 2 when there is nothing to try an adapter with.
    """
    if bool(name) == every:
        raise fail("say the NAME of an adapter or --all")
    # What an adapter logs while its system fails on purpose is no news; the rule that reads logs has ears of its own.
    logging.getLogger("gsb.system").addHandler(logging.NullHandler())
    names = sorted({entry.name for entry in installed()}) if every else [name]
    found: dict[str, list[Verdict]] = {}
    unfit = 0
    for each in names:
        try:
            found[each] = asyncio.run(graded(find_subject(each)))
        except Unfit as error:
            fail(f"{each}: {error}")
            unfit = 2
            continue
        if not json:
            _print(each, found[each])
    if json:
        print_json({each: [_document(verdict) for verdict in verdicts] for each, verdicts in found.items()})
    broken = any(verdict.result == "fail" for verdicts in found.values() for verdict in verdicts)
    raise typer.Exit(unfit or int(broken))


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many rules of each kind, in a line."""
    results = [verdict.result for verdict in verdicts]
    kinds = (("pass", "kept"), ("fail", "broken"), ("exempt", "exempt"))
    return ", ".join(f"{results.count(result)} {word}" for result, word in kinds if result in results)


def _print(name: str, verdicts: Sequence[Verdict]) -> None:
    typer.echo(f"{name}: {summary(verdicts)}")
    for verdict in verdicts:
        typer.echo(f"  {verdict.result:<7} {verdict.rule.name:<12} {verdict.rule.title}")
        for reason in verdict.reasons:
            typer.echo(shown(f"          {reason}"))


def _document(verdict: Verdict) -> dict[str, object]:
    return {"rule": verdict.rule.name, "result": verdict.result, "reasons": verdict.reasons}
