"""What to try while the demonstration stays up: its URLs, its log and commands to copy. It prints and calls nothing."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from rich.console import Console

from config.demo.deployment import GSB, Site
from config.demo.prepare import CONFIG, KEYS

CALLS = (
    ("a civil servant, cut to what the payroll agency may see", "hrmis/employee/v1", "employee.json", ()),
    ("income tax, computed by OpenFisca", "tax/income-tax/v1", "income-tax.json", ()),
    (
        "a payslip; repeat it and the first answer comes back",
        "hrmis/record-payslip/v1",
        "payslip.json",
        ("--sub", "payroll-officer-1", "--idempotency-key", "payslip-E-000042-2026-10"),
    ),
)
"""What it shows, service, file in requests/, further options."""
ACTS = (
    (
        "the bus's operator looks at the last exchanges, and says why",
        ("exchanges", "list", "--limit", "5", "--reason", "a first look"),
    ),
    ("what the bus does now, until Ctrl-C", ("top",)),
)
"""What it shows, words after gsb."""


def show(out: Console, site: Site) -> None:
    """Print it, in lines that a terminal does not break, so that they can be copied."""
    out.print("\nIt stays up. Ctrl-C ends it.\n")
    for name, place in (
        ("the bus", site.url),
        ("its manual for callers", f"{site.url}/docs"),
        ("its keys", f"{site.url}/.well-known/jwks.json"),
        ("is it ready", f"{site.operations_url}/readyz"),
        ("the tax engine behind it", f"{site.tax_url}/spec"),
        ("the bus's log", short(site.log)),
        ("the evidence log, signed", f"{site.url}/log/checkpoint"),
    ):
        out.print(f"  {name:<26}{place}")
    out.print("\nTry, in another terminal:\n")
    out.print(f"  cd {shlex.quote(str(Path.cwd()))}", soft_wrap=True)
    out.print(f"  export {environment(site)}", soft_wrap=True)
    for title, service, request, options in CALLS:
        out.print(f"\n  # {title}", soft_wrap=True)
        out.print(f"  {command(service, request, options)}", soft_wrap=True)
    for title, words in ACTS:
        out.print(f"\n  # {title}", soft_wrap=True)
        out.print(f"  {shlex.join([short(GSB), *words])}", soft_wrap=True)
    out.print()


def environment(site: Site) -> str:
    """Who calls whom, as the variables that the commands read."""
    variables = {
        "GSB_URL": site.url,
        "GSB_BUS": site.bus,
        "GSB_AGENCY": "payroll-agency",
        "GSB_KEY": short(KEYS / "payroll-agency.jwk"),
        "GSB_BUS_KEYS": short(KEYS / "bus.public.jwk"),
        "GSB_OPERATIONS_URL": site.operations_url,
        "GSB_OPERATOR": "duty-operator",
        "GSB_OPERATOR_KEY": short(KEYS / "duty-operator.jwk"),
    }
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())


def command(service: str, request: str, options: tuple[str, ...]) -> str:
    data = f"@{short(CONFIG / 'requests' / request)}"
    return shlex.join([short(GSB), "call", service, "--data", data, "--purpose", "payroll", *options])


def short(path: Path) -> str:
    """Relative to where we are, when that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)
