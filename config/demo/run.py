"""``make run``: a payroll month over the bus, on a real tax engine and a real personnel database.

Prepares, starts the tax engine and the bus, plays the scenes, prints what happened, and stays up to be tried until
Ctrl-C. With ``ONCE=1`` it ends after the scenes. With ``BACKEND=cluster`` the bus is five nodes over a PostgreSQL and a
Kafka that are started too, and one of its workers is killed in the middle. Exit code: 0 when everything came out as
expected, 1 when something did not, 2 when it could not begin, 130 when it was interrupted. Each run begins with new
data; keys are kept. A crash leaves data that the next run throws away.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it also runs as a plain file

import aiohttp
from rich.console import Console

from config.demo import cluster, invitation, payroll, proof, refusals
from config.demo.children import NotStarted, Programs, claim
from config.demo.deployment import ROOT, Site
from config.demo.interruption import Interruption
from config.demo.prepare import DATA, prepare
from config.demo.report import Report, console
from config.systems.openfisca import SYSTEM as ENGINE

LOCK = ROOT / "var" / "demo.lock"
EMBEDDED, CLUSTER = "embedded", "cluster"
Play = Callable[[Console, Report, bool], Awaitable[None]]
"""Everything that is shown; the last says whether it ends by itself."""


async def main() -> int:
    """Run it all; the exit code."""
    out, backend = console(), os.environ.get("BACKEND") or EMBEDDED
    if backend not in (EMBEDDED, CLUSTER):
        out.print(f"Cannot begin: BACKEND is {EMBEDDED} or {CLUSTER}, not {backend}", markup=False, soft_wrap=True)
        return 2
    return await played(demonstrate if backend == EMBEDDED else demonstrate_cluster, out)


async def played(play: Play, out: Console) -> int:
    """Run a play until its end or until told to stop, and say what kept it from its end; the exit code."""
    report = Report()
    end_on_signal()
    try:
        await play(out, report, os.environ.get("ONCE") == "1")
    except NotStarted as problem:
        out.print(f"Cannot begin: {problem}", markup=False, soft_wrap=True)
        return 2
    except aiohttp.ClientError as error:
        out.print(f"Ended early: the bus cannot be reached: {error}", markup=False, soft_wrap=True)
        return 1
    except asyncio.CancelledError:
        if report.trouble:
            out.print(f"Ended early: {report.trouble}", markup=False, soft_wrap=True)
            return 1
        if not report.told:
            out.print("Stopped before the end.")
            return 130
    return 1 if report.failures else 0


def end_on_signal() -> None:
    """The first Ctrl-C or SIGTERM ends this task in order; further ones would only leave programs behind."""
    loop, this = asyncio.get_running_loop(), asyncio.current_task()

    def end() -> None:
        if this is not None and not this.cancelling():
            this.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)


async def demonstrate(out: Console, report: Report, once: bool) -> None:
    """From the first preparation until it is time to stop; what was started is stopped in any case."""
    site = Site.read()
    async with AsyncExitStack() as stack:
        programs = await make_ready(stack, site, report)
        with report.preparing("bus, from start to ready") as notes:
            await programs.start("the bus", site.bus_command(), f"{site.operations_url}/readyz")
            notes.append(f"{site.bus} at {site.url}")
        out.print("", report.preparation_table(), sep="\n")
        await payroll.play(site, report, out)
        await refusals.play(site, report)
        await proof.play(site, report, out)
        await stay(out, site, report, once)
    report.tell(out)


async def demonstrate_cluster(out: Console, report: Report, once: bool) -> None:
    """The same over PostgreSQL and Kafka, with a worker killed in the middle of the payslips."""
    cluster.require()
    async with AsyncExitStack() as stack:
        programs = await make_ready(stack, Site.read(), report)
        out.print("PostgreSQL, Kafka and five nodes are being started ...")
        site = await cluster.servers(stack, report)
        nodes = cluster.Cluster(site, programs, out)
        with report.preparing("five nodes, from start to ready") as notes:
            await nodes.start()
            notes.append(f"{site.bus} at {' and '.join(site.urls)}")
        out.print("", report.preparation_table(), sep="\n")
        interrupted = Interruption(site, partial(nodes.kill, "worker 2"))
        await payroll.play(site, report, out, interrupted.desk)
        await refusals.play(site, report)
        await proof.play(site, report, out)
        interrupted.tell(report)
        await stay(out, site, report, once)
    report.tell(out)


async def stay(out: Console, site: Site, report: Report, once: bool) -> None:
    """For whoever wants to try it, until told to stop."""
    if not once:
        report.tell(out)
        invitation.show(out, site)
        await asyncio.Event().wait()


@contextmanager
def locked() -> Iterator[None]:
    """Only one demonstration at a time uses the data of this folder. Raises NotStarted."""
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotStarted("another demonstration runs from this folder") from None
        yield


async def make_ready(stack: AsyncExitStack, site: Site, report: Report) -> Programs:
    """New data and the tax engine. Raises NotStarted."""
    stack.enter_context(locked())
    claim(site.ports())
    if (lack := ENGINE.missing()) is not None:
        raise NotStarted(f"{lack}, and so does make run")
    with report.preparing("keys and personnel database") as notes:
        notes.extend(f"{made.name} made" for made in prepare(fresh=True) if made.new)
    programs = Programs(stack, report, ROOT, DATA)
    with report.preparing("tax engine, from start to ready") as notes:
        await programs.start("the tax engine", site.tax_command(), f"{site.tax_url}/spec")
        notes.append(f"OpenFisca at {site.tax_url}")
    return programs


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
