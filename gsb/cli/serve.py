"""``gsb serve``: run a node until it is told to stop.

It exits 0 when it was told to stop; 1 when it failed, or cannot start for what may pass by itself, so that whoever
watches over it starts it again; and 2 when a person must mend something first.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
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
from gsb.store.contract import StoreAway, StoreUnfit
from gsb.telemetry import log_to_stderr

FIRST_HELD = 3
"""SD_LISTEN_FDS_START: the descriptor of the first socket that systemd hands over."""
PASSES = (OSError, StoreAway, StoreUnavailable)
"""What may be over at the next start: a port that is taken, a disk that is full, a server that is not yet there."""
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
    sweeps, a worker performs, and of the recorders one keeps the evidence log while the others stand by. If systemd
    hands over a socket, the API's callers are taken from it. Exits 1 for what may pass by itself, 2 for what does not.
    """
    log_to_stderr(logging.DEBUG if verbose else logging.INFO)
    take_descriptors()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            ports = Ports(port, operations_port, held())
            as_asked = runner.run(_serve(folder, Roles.of(role or (), system or ()), ports))
    except ConfigInvalid as error:
        for finding in error.findings:
            typer.echo(str(finding), err=True)
        raise fail(f"{folder} is not a deployment that can run; mend the findings above") from error
    except (BrokerUnfit, OSError, RolesUnfit, StoreUnavailable, StoreUnfit, ValueError) as error:
        raise fail(f"cannot start: {error}", 1 if isinstance(error, PASSES) else 2) from error
    raise typer.Exit(0 if as_asked else 1)


def held() -> socket.socket | None:
    """The socket on which systemd listens for this process (sd_listen_fds(3)): callers wait in it from the end of one
    node to the start of the next. None where there is none. Raises ValueError for several, and OSError."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    if (count := os.environ.get("LISTEN_FDS")) != "1":
        raise ValueError(f"systemd hands over {count} sockets; the bus takes one, for the API")
    os.set_inheritable(FIRST_HELD, False)
    return socket.socket(fileno=FIRST_HELD)


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
    try:
        node = Node(folder, roles=roles, ports=ports, reload=reload)
    except OSError as error:  # nothing but the deployment was read by now
        raise fail(f"cannot start: {error}") from error
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
