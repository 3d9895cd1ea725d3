"""``gsb receipt``: an agency asks for the proof of its exchange, and anybody checks one without the bus."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from gsb.cli.call import Agency, Bus, BusKeys, Key, Url
from gsb.cli.evidence.verify import AsJson, Cosignatures, Witnesses, ended_clearly, log_key, read_file, trusted
from gsb.cli.evidence.verify import Key as LogKey
from gsb.cli.exchanges import Id
from gsb.cli.shared import bus_keys, explain, fail, print_json, shown, signing_key
from gsb.client import Client, ClientError
from gsb.evidence.checkpoint import to_base64
from gsb.evidence.verify import Proven, verify_evidence, verify_receipt
from gsb.model import timestamp

receipt = typer.Typer(help="Proofs that an entry stands in the evidence log: get and verify.", no_args_is_help=True)


@receipt.command()
def get(
    exchange: Id,
    url: Url,
    bus: Bus,
    agency: Agency,
    key: Key,
    keys_of_bus: BusKeys = None,
    entry: Annotated[str | None, typer.Option("--entry", help="Hash of one of its entries; else the last one.")] = None,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds for the checkpoint that covers it.")] = 30.0,
) -> None:
    """Print the receipt of an exchange of yours, to be kept as a file.

    Exit codes as for calls; 8: it is not covered by a published checkpoint yet.
    """
    try:
        client = Client(url, bus=bus, agency=agency, key=signing_key(key), bus_keys=bus_keys(keys_of_bus))
        sys.stdout.buffer.write(asyncio.run(_get(client, exchange, entry, wait)))
    except ClientError as error:
        raise explain(error) from error
    except ValueError as error:
        raise fail(str(error)) from error


async def _get(client: Client, exchange: str, entry: str | None, wait: float) -> bytes:
    async with client:
        return await client.receipt(exchange, entry, timeout=wait)


@receipt.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The receipt.")],
    key: LogKey,
    evidence: Annotated[
        Path | None, typer.Option("--evidence", help="What the entry commits to, from gsb exchanges evidence.")
    ] = None,
    witnesses: Witnesses = None,
    cosignatures: Cosignatures = None,
    as_json: AsJson = False,
) -> None:
    """Verify a receipt with nothing but the log's public key, and print the entry that it proves.

    Exits 0 when it proves it, 1 when not. With --evidence also that the bus committed to this very evidence.
    """
    verifier, witnessing, data = log_key(key), trusted(witnesses, cosignatures), read_file(file)
    opened = None if evidence is None else read_file(evidence)
    with ended_clearly(as_json):
        proven = verify_receipt(data, verifier, witnessing)
        _told(proven, None if opened is None else verify_evidence(opened, proven.entry), as_json)


def _told(proven: Proven, evidence: bytes | None, as_json: bool) -> None:
    entry, checkpoint = orjson.loads(proven.entry), proven.checkpoint
    opened = None if evidence is None else orjson.loads(evidence)
    if as_json:
        said: dict[str, Any] = {"verified": True, "origin": checkpoint.origin, "size": checkpoint.size}
        said |= {"root": to_base64(checkpoint.root), "index": proven.index, "entry": entry, "evidence": opened}
        said["cosigned"] = {name: timestamp(at) for name, at in proven.cosigned.items()}
        print_json(said)
        return
    print_json(entry if evidence is None else {"entry": entry, "evidence": opened})
    origin = f"entry {proven.index} of the {checkpoint.size} of {checkpoint.origin}"
    committed = "" if evidence is None else f", which commits to these {len(evidence)} bytes of evidence"
    typer.echo(shown(f"receipt verified: {origin}{committed}"), err=True)
    for name, at in proven.cosigned.items():
        typer.echo(shown(f"its checkpoint is cosigned by {name} at {timestamp(at)}"), err=True)
