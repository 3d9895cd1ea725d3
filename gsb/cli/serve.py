"""``gsb serve``: run a node until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from gsb.catalogue import ConfigInvalid
from gsb.cli.shared import fail
from gsb.errors import StoreUnavailable
from gsb.node import Node, run
from gsb.store.contract import StoreUnfit
from gsb.telemetry import log_to_stderr


def serve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The deployment's folder.")],
    verbose: Annotated[bool, typer.Option("--verbose", help="Log details too.")] = False,
) -> None:
    """Run the bus from DIR. Logs JSON lines to standard error; SIGTERM drains and exits 0; SIGHUP reloads."""
    log_to_stderr(logging.DEBUG if verbose else logging.INFO)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            as_asked = runner.run(_serve(folder))
    except ConfigInvalid as error:
        for finding in error.findings:
            typer.echo(str(finding), err=True)
        raise fail(f"{folder} is not a deployment that can run; mend the findings above") from error
    except (OSError, StoreUnavailable, StoreUnfit, ValueError) as error:
        raise fail(f"cannot start: {error}") from error
    raise typer.Exit(0 if as_asked else 1)


async def _serve(folder: Path) -> bool:
    loop = asyncio.get_running_loop()
    told, reload = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    # A task, since a node that cannot start never waits, and a coroutine left alone is warned of.
    return await run(Node(folder, reload=reload), asyncio.create_task(told.wait()))
