"""``gsb log verify``: the whole log, by one public key and no trust in whoever keeps it.

It reads and reports; what is verified, and how, is ``gsb.evidence.verify``. Exit codes: 0 verified, 1 something is not
true, 2 it cannot be carried out as given, 6 and 7 as for calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.x509 import Certificate
from cryptography.x509 import load_pem_x509_certificates as load_certificates
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gsb.cli.evidence.log import log
from gsb.cli.evidence.sources import LOG, Source, Withheld, at_url, in_folder
from gsb.cli.shared import bus_keys, explain, fail, print_json, shown, signing_key
from gsb.client import Client, ClientError
from gsb.evidence.checkpoint import WITNESS, NoteWrong, Verifier, to_base64
from gsb.evidence.log import cut_from, tiles_of
from gsb.evidence.merkle import tree_root
from gsb.evidence.verify import LogWrong, Verified, Witnessing, verify_log
from gsb.model import timestamp
from gsb.stamp import INSTALLED, verify_stamps

Where = Annotated[
    str, typer.Argument(metavar="DIR|URL", help="Folder of the log or of a bus's logs, or URL ending in /log or below.")
]
Key = Annotated[
    str, typer.Option("--key", metavar="VKEY", envvar="GSB_LOG_KEY", help="The log's public key, NAME+ID+BASE64.")
]
Older = Annotated[
    Path | None,
    typer.Option("--from", metavar="CHECKPOINT", help="A checkpoint that was verified before; the log must extend it."),
]
Auditor = Annotated[str | None, typer.Option("--auditor", help="Sign each call as this operator, at the API.")]
AuditorKey = Annotated[
    Path | None, typer.Option("--auditor-key", envvar="GSB_OPERATOR_KEY", help="The auditor's private key, a JWK.")
]
Bus = Annotated[str | None, typer.Option("--bus", envvar="GSB_BUS", help="Id of the bus, for signed calls.")]
BusKeys = Annotated[
    Path | None,
    typer.Option("--bus-keys", envvar="GSB_BUS_KEYS", help="The bus's public keys; fetched if not given."),
]
Witnesses = Annotated[
    list[str] | None,
    typer.Option("--witness", metavar="VKEY", help="A witness's public key; may be given several times."),
]
Cosignatures = Annotated[
    int | None,
    typer.Option("--cosignatures", min=0, help="How many of the witnesses must have cosigned; all unless given."),
]
Stamps = Annotated[
    Path | None, typer.Option("--timestamps", metavar="FOLDER", help="Time-stamps of it to be verified too.")
]
Authority = Annotated[
    Path | None, typer.Option("--authority", metavar="PEM", help="Certificates of who made them, a root among them.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]


@log.command()
def verify(
    where: Where,
    key: Key,
    older: Older = None,
    witnesses: Witnesses = None,
    cosignatures: Cosignatures = None,
    timestamps: Stamps = None,
    authority: Authority = None,
    auditor: Auditor = None,
    auditor_key: AuditorKey = None,
    bus: Bus = None,
    keys_of_bus: BusKeys = None,
    as_json: AsJson = False,
) -> None:
    """Verify a whole log: the checkpoint's signature, every tile, every entry, and that it extends an older checkpoint.

    Exits 0 when all of it is true, and 1 with the first bad entry or file. Keep the checkpoint that was verified
    (DIR/checkpoint): without an older one nobody can tell a log that was written anew from its beginning.
    """
    verifier, witnessing = log_key(key), trusted(witnesses, cosignatures)
    before = None if older is None else read_file(older)
    certificates = certificates_of(timestamps, authority)
    client = None if auditor is None else as_auditor(where, auditor, auditor_key, bus, keys_of_bus)
    with ended_clearly(as_json), source(where, verifier.name.rpartition("/")[2], client) as found:
        result = verified(found, verifier, before, witnessing)
        stamped = [] if timestamps is None else list(stamps(found, result, verifier, timestamps, certificates))
        told(result, stamped, as_json)


def log_key(text: str) -> Verifier:
    """The log's public key, or a clear end."""
    try:
        return Verifier.of(text.strip())
    except NoteWrong as error:
        raise fail(f"--key is no key of a log: {error}") from error


def trusted(vkeys: list[str] | None, cosignatures: int | None) -> Witnessing:
    """The witnesses that are trusted, or a clear end."""
    try:
        witnesses = [Verifier.of(vkey.strip()) for vkey in dict.fromkeys(vkeys or ())]
    except NoteWrong as error:
        raise fail(f"--witness is no key of a witness: {error}") from error
    if wrong := [each.name for each in witnesses if each.kind != WITNESS]:
        raise fail(f"--witness is no key of a witness: {', '.join(wrong)}")
    needed = len(witnesses) if cosignatures is None else cosignatures
    if needed > len(witnesses):
        raise fail(f"--cosignatures {needed} needs as many --witness")
    return Witnessing(witnesses, needed)


def read_file(path: Path) -> bytes:
    """The file, or a clear end."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise fail(f"cannot read {path}: {error.strerror}") from error


def as_auditor(where: str, auditor: str, key: Path | None, bus: str | None, keys: Path | None) -> Client:
    base, log_path, _ = where.rpartition(LOG)
    if key is None or bus is None or not (base and log_path):
        raise fail("an auditor signs: give --auditor-key, --bus and the URL of the bus's API, ending in /log or below")
    try:
        return Client(base, bus=bus, agency=auditor, key=signing_key(key), bus_keys=bus_keys(keys))
    except ValueError as error:
        raise fail(str(error)) from error


@contextmanager
def source(where: str, name: str, client: Client | None) -> Iterator[Source]:
    if where.startswith(("http://", "https://")):
        with at_url(where, name, client) as found:
            yield found
    elif Path(where).is_dir():
        yield in_folder(Path(where), name)
    else:
        raise fail(f"{where} is neither a folder nor a URL")


@contextmanager
def ended_clearly(as_json: bool) -> Iterator[None]:
    """Whatever goes wrong becomes a line and the exit code of its class."""
    try:
        yield
    except LogWrong as error:
        if as_json:
            print_json({"verified": False, "index": error.index, "path": error.path, "why": error.why})
        raise fail(f"not verified: {error}", 1) from error
    except Withheld as error:
        raise fail(str(error)) from error
    except ClientError as error:
        raise explain(error) from error
    except OSError as error:
        raise fail(f"cannot read {error.filename}: {error.strerror}") from error


def verified(found: Source, verifier: Verifier, older: bytes | None, witnessing: Witnessing) -> Verified:
    """Verify with a bar that shows how far it is, on a terminal."""
    columns = (TextColumn("verified"), BarColumn(), MofNCompleteColumn(), TextColumn("entries"), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        bar = progress.add_task("verified", total=None)

        def step(done: int, size: int) -> None:
            progress.update(bar, completed=done, total=size)

        return verify_log(found.read, verifier, older=older, witnessing=witnessing, paths=found.paths, progress=step)


def certificates_of(timestamps: Path | None, authority: Path | None) -> Sequence[Certificate]:
    """The authority's certificates, or a clear end."""
    if (timestamps is None) != (authority is None):
        raise fail("--timestamps and --authority go together")
    if authority is None:
        return ()
    if not INSTALLED:
        raise fail("time-stamps need an extra: install the bus with the extra timestamp")
    try:
        return load_certificates(read_file(authority))
    except ValueError as error:
        raise fail(f"{authority} holds no certificates: {error}") from error


def stamps(
    found: Source, result: Verified, verifier: Verifier, folder: Path, authority: Sequence[Certificate]
) -> Iterator[tuple[int, str]]:
    """Each time-stamped size of the verified log, and when it existed."""
    size = result.checkpoint.size
    read = cut_from(tiles_of(found), size)
    for at_size, at in verify_stamps(folder, verifier, authority, size, lambda older: tree_root(older, read)):
        yield at_size, timestamp(at.timestamp())


def told(result: Verified, stamped: Sequence[tuple[int, str]], as_json: bool) -> None:
    checkpoint, older = result.checkpoint, result.older
    said: dict[str, Any] = {
        "verified": True,
        "origin": checkpoint.origin,
        "size": checkpoint.size,
        "root": to_base64(checkpoint.root),
        "older": None if older is None else older.size,
        "unsigned": result.unsigned,
        "cosigned": {name: timestamp(at) for name, at in result.cosigned.items()},
        "timestamps": [{"size": size, "time": at} for size, at in stamped],
    }
    if as_json:
        print_json(said)
        return
    typer.echo(shown(f"log verified: {said['origin']}, {said['size']} entries, root {said['root']}"))
    if older is not None:
        typer.echo(f"it extends the older checkpoint of {older.size} entries")
    for name, at in said["cosigned"].items():
        typer.echo(shown(f"cosigned by {name} at {at}"))
    for size, at in stamped:
        typer.echo(f"its first {size} entries existed at {at}, says the authority")
    if result.unsigned:
        typer.echo(f"{result.unsigned} more entries are not signed yet, and not verified")
