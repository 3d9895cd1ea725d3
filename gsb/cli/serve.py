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

from gsb.broker.contract import BrokerUnfit
from gsb.catalogue import ConfigInvalid
from gsb.cli.shared import fail
from gsb.errors import StoreUnavailable
from gsb.node import Node, Ports, run
from gsb.roles import Role, Roles, RolesUnfit
from gsb.store.contract import StoreUnfit
from gsb.telemetry import log_to_stderr

COLLECT_AFTER = 10_000
"""Objects that are more than at the last look before the collector looks again; the default is 700."""


def serve(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The deployment's folder.")],
    role: Annotated[
        list[Role] | None,
        typer.Option("--role", help="What this node does; may be given several times. Without it: all."),
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option("--system", help="For which core system this worker works; several times for several."),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65_535, help="Instead of listen.port; 0 takes a free one.")
    ] = None,
    operations_port: Annotated[
        int | None,
        typer.Option(
            "--operations-port", min=0, max=65_535, help="Instead of listen.operations_port; 0 takes a free one."
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log details too.")] = False,
) -> None:
    """Run the bus from DIR. Logs JSON lines to standard error; SIGTERM drains and exits 0; SIGHUP reloads.

    Over PostgreSQL and Kafka any number of nodes run from one deployment, each with its own roles: a gateway admits and
    sweeps, a worker performs, and of the recorders one keeps the evidence log while the others stand by.
    """
    log_to_stderr(logging.DEBUG if verbose else logging.INFO)
    take_descriptors()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            as_asked = runner.run(_serve(folder, Roles.of(role or (), system or ()), Ports(port, operations_port)))
    except ConfigInvalid as error:
        for finding in error.findings:
            typer.echo(str(finding), err=True)
        raise fail(f"{folder} is not a deployment that can run; mend the findings above") from error
    except (BrokerUnfit, OSError, RolesUnfit, StoreUnavailable, StoreUnfit, ValueError) as error:
        raise fail(f"cannot start: {error}") from error
    raise typer.Exit(0 if as_asked else 1)


def take_descriptors() -> None:
    """Let the process open as many files as it may allow itself: what it is given may be less than its connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # some systems have no such number
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(folder: Path, roles: Roles, ports: Ports) -> bool:
    loop = asyncio.get_running_loop()
    told, reload = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    loop.add_signal_handler(signal.SIGHUP, reload.set)
    node = Node(folder, roles=roles, ports=ports, reload=reload)
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
