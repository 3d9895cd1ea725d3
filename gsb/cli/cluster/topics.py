"""``gsb topics``: the topics that a deployment needs on Kafka, shown against those that are there, and made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from gsb.backends import KafkaTable
from gsb.broker.contract import BrokerUnfit
from gsb.broker.topics import Topic
from gsb.broker.topics import topics as table_of
from gsb.cli.shared import catalogue_of, fail, print_json
from gsb.lint_backends import KAFKA

if KAFKA:
    from gsb.broker.kafka.admin import Difference, Topics
    from gsb.broker.kafka.clients import GONE

topics = typer.Typer(
    help="What the bus needs on Kafka: a topic for each system of a deployment, and one for wakes.",
    no_args_is_help=True,
)
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The deployment's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print what differs as JSON.")]


@topics.command()
def plan(folder: Folder, json: Json = False) -> None:
    """Show what differs, and change nothing.

    Exits 0 when nothing does, 1 when something does, 2 when the deployment has no Kafka or Kafka is not reached.
    """
    differences = _asked(folder, change=False)
    _show(differences, json, "to do")
    raise typer.Exit(1 if differences else 0)


@topics.command()
def apply(folder: Folder, json: Json = False) -> None:
    """Make what is missing: topics, partitions and settings. Nothing is deleted, and no partition taken away.

    Exits 0 when all is as it should be, 1 when something is left to be done by hand, 2 as plan does.
    """
    differences = _asked(folder, change=True)
    _show(differences, json, "done")
    raise typer.Exit(1 if any(each.by_hand for each in differences) else 0)


def _asked(folder: Path, *, change: bool) -> Sequence[Difference]:
    table, wanted = _wanted(folder)
    try:
        return asyncio.run(_differences(table, wanted, change))
    except BrokerUnfit as error:
        raise fail(str(error)) from error
    except GONE as error:
        raise fail(f"Kafka at {', '.join(table.brokers)}: {error!r}") from error


async def _differences(table: KafkaTable, wanted: Sequence[Topic], change: bool) -> Sequence[Difference]:
    async with Topics(table) as cluster:
        return await (cluster.apply if change else cluster.plan)(wanted)


def _wanted(folder: Path) -> tuple[KafkaTable, Sequence[Topic]]:
    catalogue = catalogue_of(folder)
    table = catalogue.gsb.broker
    if not isinstance(table, KafkaTable):
        raise fail(f'{folder} has no Kafka: [broker] of its gsb.toml is not of the kind "kafka"')
    return table, table_of(table, catalogue.systems)


def _show(differences: Sequence[Difference], json: bool, done: str) -> None:
    if json:
        print_json([asdict(each) | {"by_hand": each.by_hand} for each in differences])
        return
    for each in differences:
        typer.echo(f"{'by hand' if each.by_hand else done}: {each}")
    if not differences:
        typer.echo("nothing to do")
