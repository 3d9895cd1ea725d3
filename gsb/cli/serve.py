"""``gsb serve``: run a node until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
from contextlib import suppress
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

COLLECT_AFTER = 10_000
"""Objects that are more than at the last look before the collector looks again; the default is 700."""


def serve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The deployment's folder.")],
    verbose: Annotated[bool, typer.Option("--verbose", help="Log details too.")] = False,
) -> None:
    """Run the bus from DIR. Logs JSON lines to standard error; SIGTERM drains and exits 0; SIGHUP reloads."""
    log_to_stderr(logging.DEBUG if verbose else logging.INFO)
    take_descriptors()
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


def take_descriptors() -> None:
    """Let the process open as many files as it may allow itself: what it is given may be less than its connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems have no such number
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(folder: Path) -> bool:
    loop = asyncio.get_running_loop()
    told, reload = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    node = Node(folder, reload=reload)
    spare_the_collector()
    # A task, since a node that cannot start never waits, and a coroutine left alone is warned of.
    return await run(node, asyncio.create_task(told.wait()))


def spare_the_collector() -> None:
    """Let the collector of cycles look no more at what is there to stay, and less often at what comes and goes.

    Exchanges leave hardly any cycles, but their bodies are many objects, so that it would run all the time; and to go
    through modules and catalogue, again and again, stops the event loop for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
