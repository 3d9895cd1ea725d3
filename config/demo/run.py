"""``make run``: a payroll month over the bus, on a real tax engine and a real personnel database.

Prepares, starts the tax engine and the bus, plays the scenes, prints what happened, and stays up to be tried until
Ctrl-C. With ``ONCE=1`` it ends after the scenes. Exit code: 0 when everything came out as expected, 1 when something
did not, 2 when it could not begin, 130 when it was interrupted. Each run begins with new data; keys are kept. A
crash leaves data that the next run throws away.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it also runs as a plain file

import aiohttp
from rich.console import Console

from config.demo import invitation, payroll, proof, refusals
from config.demo.children import Child, NotStarted, claim
from config.demo.deployment import OPENFISCA, ROOT, Site
from config.demo.prepare import DATA, prepare
from config.demo.report import Report, console

LOCK = ROOT / "var" / "demo.lock"


async def main() -> int:
    """Run it all; the exit code."""
    out, site, report = console(), Site.read(), Report()
    end_on_signal()
    try:
        await demonstrate(out, site, report, once=os.environ.get("ONCE") == "1")
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


async def demonstrate(out: Console, site: Site, report: Report, *, once: bool) -> None:
    """From the first preparation until it is time to stop; what was started is stopped in any case."""
    async with AsyncExitStack() as stack:
        await make_ready(stack, site, report)
        out.print("", report.preparation_table(), sep="\n")
        await payroll.play(site, report, out)
        await refusals.play(site, report)
        await proof.play(site, report, out)
        if not once:
            report.tell(out)
            invitation.show(out, site)
            await asyncio.Event().wait()
    report.tell(out)


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


async def make_ready(stack: AsyncExitStack, site: Site, report: Report) -> None:
    """New data, the tax engine and the bus. Raises NotStarted."""
    stack.enter_context(locked())
    claim(site.ports())
    if not OPENFISCA.exists():
        raise NotStarted(f"there is no {OPENFISCA}; `make run` installs it")
    with report.preparing("keys and personnel database") as notes:
        notes.extend(f"{made.name} made" for made in prepare(fresh=True) if made.new)
    with report.preparing("tax engine, from start to ready") as notes:
        await start(stack, report, "the tax engine", site.tax_command(), f"{site.tax_url}/spec")
        notes.append(f"OpenFisca at {site.tax_url}")
    with report.preparing("bus, from start to ready") as notes:
        await start(stack, report, "the bus", site.bus_command(), f"{site.operations_url}/readyz")
        notes.append(f"{site.bus} at {site.url}")


async def start(stack: AsyncExitStack, report: Report, name: str, command: Sequence[str | Path], ready: str) -> None:
    """Start a program, wait until it is ready, and have it stopped at the end."""
    child = await Child.start(name, command, ROOT, DATA / f"{name.removeprefix('the ').replace(' ', '-')}.log")

    this = asyncio.current_task()

    def ended_by_itself(_: asyncio.Task[int]) -> None:
        report.trouble = f"{name} ended by itself; its last words are in {child.log}"
        if this is not None:
            this.cancel()

    async def stop() -> None:
        watch.remove_done_callback(ended_by_itself)
        report.chapter = "The end"
        step = report.step(f"{name} ends when asked to", "exit 0")
        with step.running():
            step.got[f"exit {await child.stop()}"] += 1

    watch = asyncio.create_task(child.process.wait())
    stack.push_async_callback(stop)
    await child.ready(ready)
    watch.add_done_callback(ended_by_itself)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
