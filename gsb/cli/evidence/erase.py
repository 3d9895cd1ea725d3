"""``gsb erase``: an operator erases bodies and evidence; entries and their proofs stay."""

from __future__ import annotations

import secrets
import sys
from typing import Annotated, Any

import typer

from gsb.cli.exchanges import AsJson, Bus, BusKeys, Desk, Key, Operator, Reason, Url, known_form
from gsb.cli.shared import fail, print_json

Exchanges = Annotated[
    list[str] | None, typer.Option("--exchange", help="Id of an exchange; may be given several times.")
]
Subject = Annotated[
    str | None, typer.Option("--subject", help="All exchanges about this subject; - reads it from standard input.")
]
LegalBasis = Annotated[str, typer.Option("--legal-basis", help="The law and the section; it stands in the log.")]
MEANING = {
    "erased": "erased",
    "unfinished": "not final yet, nothing was erased: again when it is",
    "unknown": "not known, or deleted at its age",
}


def erase(
    legal_basis: LegalBasis,
    reason: Reason,
    url: Url,
    bus: Bus,
    operator: Operator,
    key: Key,
    keys: BusKeys,
    exchange: Exchanges = None,
    subject: Subject = None,
    as_json: AsJson = False,
) -> None:
    """Erase bodies and evidence of exchanges, or of all that are about a subject. Every receipt stays valid.

    Exits 0 when there is nothing left to erase of them, 1 when some are unfinished or unknown.
    """
    body: dict[str, Any] = {"reason": reason, "legal_basis": legal_basis}
    if (exchange is None) == (subject is None):
        raise fail("give --exchange, or --subject")
    if subject is not None:
        # Forgotten by the bus, so that the digest in the signature cannot be held against guessed subjects.
        body |= {"subject": told(subject), "salt": secrets.token_urlsafe(32)}
    else:
        body["exchanges"] = [known_form(each) for each in exchange or ()]
    done = Desk(url, bus, operator, key, keys).act("POST", "/admin/erase", body=body)
    if as_json:
        print_json(done)
    elif not any(done.values()):
        typer.echo("there is no exchange about this subject")
    else:
        for state, those in done.items():
            for each in those:
                typer.echo(f"{each}  {MEANING.get(state, state)}")
    if done["unfinished"] or done["unknown"]:
        raise typer.Exit(1)


def told(subject: str) -> str:
    """The subject as given, or the one line that comes in: so it does not stand in the shell's history."""
    value = sys.stdin.readline().rstrip("\r\n") if subject == "-" else subject
    if not value:
        raise fail("there is no subject")
    return value
