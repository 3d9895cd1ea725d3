"""``gsb key``: which keys count, and until when; and an operator's word that one never counts again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from gsb.catalogue import Catalogue
from gsb.cli.exchanges import AsJson, Bus, BusKeys, Desk, Key, Operator, Reason, Url
from gsb.cli.shared import catalogue_of, print_json
from gsb.jwk import PublicKey
from gsb.keys import Life

key = typer.Typer(help="Keys: which count, and revoking one at every node at once.", no_args_is_help=True)


class Listed(NamedTuple):
    """A key of the deployment."""

    owner: str
    key: str
    algorithm: str
    counts: str
    """Whether it counts, and what ends or begins that."""


@key.command("list")
def list_keys(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The deployment's folder.")],
    as_json: AsJson = False,
) -> None:
    """List the keys of the bus, of agencies and of operators: which count now, and until when, as the files say.

    What operators have revoked by gsb key revoke is in the store, and not told here.
    """
    found = list(_listed(catalogue_of(folder), time.time()))
    if as_json:
        print_json([each._asdict() for each in found])
        return
    table = Table("owner", "key", "algorithm", "counts")
    for each in found:
        table.add_row(*each)
    Console(soft_wrap=False, width=None if Console().is_terminal else 200).print(table)


def _listed(catalogue: Catalogue, now: float) -> Iterator[Listed]:
    signing = catalogue.bus_keys.signing(now).kid  # a deployment whose bus cannot sign is not read so far
    for public, life in catalogue.bus_keys:
        yield _listed_key("(the bus)", public, said(life, now) + (", and signs" if public.kid == signing else ""))
    for owner, public, life in catalogue.keys:
        yield _listed_key(owner, public, said(life, now))


def _listed_key(owner: str, public: PublicKey, counts: str) -> Listed:
    return Listed(owner, public.kid, public.jwk["alg"], counts)


def said(life: Life, now: float) -> str:
    """Whether a key counts now, for people."""
    if life.revoked(now):
        return "revoked"
    if life.over(now):
        return f"ended {_time(life.until)}"
    if not life.accepted(now):
        return "announced" if life.since is None else f"from {_time(life.since)}"
    ends = life.since if life.state == "revoked" else life.until
    return "counts" if ends is None else f"counts until {_time(ends)}"


def _time(moment: float | None) -> str:
    return "" if moment is None else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%MZ")


# An id may begin with a hyphen.
@key.command(context_settings={"ignore_unknown_options": True})
def revoke(
    kid: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, as gsb key list tells it.")],
    reason: Reason,
    url: Url,
    bus: Bus,
    operator: Operator,
    key: Key,
    keys: BusKeys,
    as_json: AsJson = False,
) -> None:
    """Revoke a key of an agency or operator, for ever: within a second no node accepts it.

    What it had signed and has not begun does not begin any more. Say so in the deployment's files too.
    """
    done = Desk(url, bus, operator, key, keys).act("POST", "/admin/keys/revoke", body={"reason": reason, "key": kid})
    if as_json:
        print_json(done)
    else:
        typer.echo(f"{done['key']} of {done['owner']} is revoked")
