"""The proof of the month: each exchange's receipt and the whole log, held to the log's public key and nothing else.

The bus is asked for the receipts and then not believed: they are verified here, and the log is verified by the two
programs that an auditor would run. What goes wrong is in the report.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlencode

import orjson
from rich.console import Console
from rich.progress import Progress

import gsb
from config.demo.deployment import GSB, ROOT, Site
from config.demo.payroll import AT_ONCE, COLUMNS, PATIENCE
from config.demo.prepare import DATA
from config.demo.report import Report, Step
from gsb.client import BusProblem, Client, ClientError
from gsb.evidence.checkpoint import Verifier
from gsb.evidence.verify import LogWrong, verify_receipt

LOG = DATA / "log"
PAGE = 500
VERIFIED = "verified"
VERIFIER = Path(gsb.__file__).parent / "evidence" / "gsb_verify.py"


async def play(site: Site, report: Report, out: Console) -> None:
    """Fetch and verify every receipt, then the log."""
    report.chapter = "Proved, with the log's public key alone"
    vkey = (await said(GSB, "log", "key", site.folder))[1].split()[-1]
    try:
        owners = await exchanges(site)
    except ClientError as error:
        report.fact("the operator's list of exchanges", "a list", f"{type(error).__name__}: {error}")
        return
    receipts = report.step("receipts, one for each exchange", VERIFIED, len(owners))
    with receipts.running(), Progress(*COLUMNS, console=out, disable=not out.is_terminal) as progress:
        bar = progress.add_task("receipts verified", total=len(owners))
        async with AsyncExitStack() as stack:
            clients = {owner: await stack.enter_async_context(client(site, owner)) for owner in {*owners.values()}}
            slots = asyncio.Semaphore(AT_ONCE)

            async def one(exchange: str, owner: str) -> None:
                async with slots:
                    await prove(receipts, clients[owner], exchange, Verifier.of(vkey))
                progress.advance(bar)

            await asyncio.gather(*(one(exchange, owner) for exchange, owner in owners.items()))
    for title, command in (("the whole log, by gsb log verify", ours(vkey)), ("again, by gsb_verify.py", theirs(vkey))):
        step = report.step(title, VERIFIED)
        with step.running():
            code, last = await said(*command)
        step.got[VERIFIED if code == 0 else f"exit {code}: {last}"] += 1
    proved = all(step.passed for step in report.steps[-2:])
    report.proof = [
        f"{len(owners)} exchanges, {receipts.got[VERIFIED]} receipts verified, log {'' if proved else 'NOT '}verified",
        "",
        f"The log's public key: {vkey}",
        "Check the log yourself, as often as you like:",
        *(f"  {' '.join(short(word) for word in command)}" for command in (ours(vkey), theirs(vkey))),
    ]


def ours(vkey: str) -> list[str]:
    return [str(GSB), "log", "verify", str(LOG), "--key", vkey]


def theirs(vkey: str) -> list[str]:
    """The verifier that shares no code with the bus."""
    return [sys.executable, str(VERIFIER), "log", str(LOG), "--key", vkey]


def short(word: str) -> str:
    """A path inside this checkout as it is typed there."""
    return word.removeprefix(f"{ROOT}/")


async def said(*command: object) -> tuple[int, str]:
    """The exit code of a program, and the last line that it said."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace").strip().rpartition("\n")[2]


def client(site: Site, owner: str) -> Client:
    return Client(
        site.url,
        bus=site.bus,
        agency=owner,
        key=site.key(owner),
        bus_keys=site.bus_keys(),
        operations_url=site.operations_url,
    )


async def exchanges(site: Site) -> Mapping[str, str]:
    """Every exchange of this bus with its agency, as the operator sees them. Raises ClientError."""
    found: dict[str, str] = {}
    query: dict[str, str | int] | None = {"reason": "receipts of the demonstration", "limit": PAGE}
    async with client(site, "duty-operator") as operator:
        while query is not None:
            page = (await operator.admin("GET", f"/admin/exchanges?{urlencode(query)}")).body
            found |= {each["exchange"]: each["agency"] for each in page["exchanges"]}
            query = {**query, "cursor": page["next"]} if page["next"] else None
    return found


async def prove(step: Step, agency: Client, exchange: str, verifier: Verifier) -> None:
    """Fetch one receipt and verify that it proves an entry of this exchange."""
    began = time.perf_counter()
    try:
        proven = verify_receipt(await agency.receipt(exchange, timeout=PATIENCE), verifier)
    except BusProblem as problem:
        step.took(began, f"{problem.status} {problem.code}")
    except (ClientError, LogWrong) as error:
        step.took(began, f"{type(error).__name__}: {error}")
    else:
        of = orjson.loads(proven.entry)["exchange"]
        step.took(began, VERIFIED if of == exchange else "a receipt of another exchange")
