"""The command ``gsb``, composed of its groups."""

from __future__ import annotations

from typing import Annotated

import typer

from gsb import __version__
from gsb.cli.adapter.group import adapter
from gsb.cli.bench import bench
from gsb.cli.call import call
from gsb.cli.check import check
from gsb.cli.cluster.migrate import migrate
from gsb.cli.cluster.prepare import prepare
from gsb.cli.cluster.restore import restore
from gsb.cli.cluster.topics import topics
from gsb.cli.evidence.erase import erase
from gsb.cli.evidence.log import log
from gsb.cli.evidence.receipt import receipt
from gsb.cli.evidence.witness import witness
from gsb.cli.exchanges import dead_letters, exchanges
from gsb.cli.keygen import keygen
from gsb.cli.operate.backup import backup, backup_key, verify_backup
from gsb.cli.operate.doctor import doctor
from gsb.cli.operate.hsm import hsm
from gsb.cli.operate.key import key
from gsb.cli.serve import serve
from gsb.cli.top import top

app = typer.Typer(
    help="The Government Service Bus.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)
app.command()(check)
app.command()(doctor)
app.command()(keygen)
app.add_typer(hsm, name="hsm")
app.command()(call)
app.add_typer(key, name="key")
app.command()(top)
app.add_typer(exchanges, name="exchanges")
app.add_typer(dead_letters, name="dead-letters")
app.command()(erase)
app.add_typer(log, name="log")
app.add_typer(receipt, name="receipt")
app.add_typer(witness, name="witness")
app.command()(migrate)
app.command()(prepare)
app.command()(backup)
app.command()(verify_backup)
app.command()(backup_key)
app.command()(restore)
app.add_typer(topics, name="topics")
app.add_typer(adapter, name="adapter")
app.add_typer(bench, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gsb {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Nothing but the version stands before a command."""


def main() -> None:
    app()
