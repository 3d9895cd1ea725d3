"""``gsb witness``: cosign the evidence logs of others; what the audit office runs."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from gsb.cli.shared import fail
from gsb.load import ConfigInvalid
from gsb.telemetry import log_to_stderr
from gsb.witness.book import StateUnfit
from gsb.witness.serving import serve
from gsb.witness.settings import Settings, read_settings

witness = typer.Typer(help="Cosign the evidence logs of others.", no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", metavar="FILE", help="The witness's file, or the folder of it.")]


@witness.command("serve")
def run(config: Config = Path("witness.toml")) -> None:
    """Cosign checkpoints until told to stop. Logs JSON lines to standard error; SIGTERM ends it with 0."""
    settings = _settings(config)
    log_to_stderr()
    try:
        asyncio.run(_run(settings))
    except (StateUnfit, OSError, ValueError) as error:
        raise fail(f"cannot start: {error}") from error


@witness.command()
def key(config: Config = Path("witness.toml")) -> None:
    """Print the witness's verifier key, which logs and verifiers are given."""
    typer.echo(_settings(config).cosigner.vkey)


async def _run(settings: Settings) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await serve(settings, told)


def _settings(path: Path) -> Settings:
    try:
        return read_settings(path)
    except ConfigInvalid as error:
        for finding in error.findings:
            typer.echo(str(finding), err=True)
        raise fail(f"{path} is not a witness's file that can be used; mend the findings above") from error
    except OSError as error:
        raise fail(f"cannot read {path}: {error.strerror}") from error
