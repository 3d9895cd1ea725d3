"""``make run SYSTEMS=all``: a payroll and a procurement over the bus and every real core system, and what moved where.

Starts the core systems, or uses those that ``make systems`` left running; starts the bus over ``config/government``,
plays the scenes, prints a table of everything that moved, with each receipt verified, and stays up to be tried until
Ctrl-C. With ``ONCE=1`` it ends after the scenes. ``PEOPLE`` is how many are on the payroll, 200 unless stated. Exit
code: 0 when everything came out as expected, 1 when something did not, 2 when it could not begin, 130 when it was
interrupted. Each run begins with a new store of the bus; core systems that ran already keep what they have. A crash
leaves programs running, which the next run uses or names.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from contextlib import AsyncExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))  # so that it also runs as a plain file

from rich.console import Console

from config.demo.children import NotStarted, Programs, claim
from config.demo.proof import said
from config.demo.report import Report, console
from config.demo.run import locked, played
from config.government.play import further, insurance, payroll, personnel, procurement
from config.government.play.moved import Ledger
from config.government.play.site import GSB, Site
from config.government.play.systems import brought
from config.government.prepare import CONFIG, prepare
from config.systems.kinto import seed_persons

PEOPLE = 200
WIDE = 160
"""Columns of the table where there is no terminal to ask."""
ROOT = CONFIG.parents[1]


async def play(out: Console, report: Report, once: bool) -> None:
    """From the first preparation until it is time to stop; what was started is stopped in any case."""
    if os.environ.get("BACKEND", "embedded") != "embedded":
        raise NotStarted("SYSTEMS=all runs on one node; leave BACKEND out")
    site, staff = Site(CONFIG), personnel.people(people())
    async with AsyncExitStack() as stack:
        stack.enter_context(locked())
        claim(site.ports())
        out.print("The core systems are being started ...")
        systems = await brought(stack, report)
        with report.preparing("keys, a new store, personnel and insurance") as notes:
            shutil.rmtree(site.data / "government", ignore_errors=True)
            prepare()
            personnel.build(site.personnel, staff)
            shutil.rmtree(site.insurance.parent, ignore_errors=True)
            insurance.build(site.insurance)
            await seed_persons(systems["kinto"].place, personnel.civil_register(staff))
            notes.append(f"{len(staff)} people")
        with report.preparing("bus, from start to ready") as notes:
            programs = Programs(stack, report, ROOT, site.data / "government")
            await programs.start("the bus", site.command, site.ready_url)
            notes.append(site.url)
        out.print("", report.preparation_table(), sep="\n")
        async with Ledger(site, report) as ledger:
            await payroll.play(ledger, systems, staff)
            await procurement.play(ledger)
            await further.play(ledger, systems)
            await show(ledger, out)
        if not once:
            report.tell(out)
            out.print(f"\nIt stays up at {site.url}. Ctrl-C ends it.")
            await asyncio.Event().wait()
    report.tell(out)


async def show(ledger: Ledger, out: Console) -> None:
    """Every receipt held to the log's public key, the whole log verified, and the table."""
    ledger.report.chapter = "Proved, with the log's public key alone"
    vkey = (await said(GSB, "log", "key", ledger.site.folder))[1].split()[-1]
    await ledger.prove(vkey)
    command = [GSB, "log", "verify", ledger.site.log, "--key", vkey]
    code, last = await said(*command)
    ledger.report.fact("the whole log, by gsb log verify", "verified", "verified" if code == 0 else last)
    wide = out if out.is_terminal else Console(highlight=False, width=WIDE)
    wide.print("", ledger.table(), sep="\n")


def people() -> int:
    """How many are on the payroll. Raises NotStarted."""
    told = os.environ.get("PEOPLE") or str(PEOPLE)
    if not told.isdecimal() or not 1 <= int(told) <= 100_000:
        raise NotStarted(f"PEOPLE is a number from 1 to 100000, not {told}")
    return int(told)


if __name__ == "__main__":
    sys.exit(asyncio.run(played(play, console())))
