"""``gsb hsm``: keys of the bus in a token of PKCS#11, and their public halves for ``[[bus.keys]]``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import orjson
import typer
from pydantic import ValidationError

from gsb.cli.keygen import Algorithm
from gsb.cli.shared import fail
from gsb.hsm import INSTALLED, HsmAway
from gsb.hsmkeys import make_key, public_key
from gsb.jwk import KeyUnfit, PublicKey
from gsb.sources import HsmTable

hsm = typer.Typer(help="Keys of the bus in an HSM (PKCS#11); needs the extra pkcs11.", no_args_is_help=True)

Label = Annotated[str, typer.Argument(metavar="LABEL", help="The key's label in the token.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="Where the public key goes.")]
Module = Annotated[Path, typer.Option("--module", help="The PKCS#11 library of the HSM's vendor.")]
Token = Annotated[str, typer.Option("--token", help="Label of the token.")]
Pin = Annotated[Path, typer.Option("--pin", metavar="PINFILE", help="File with the user's PIN, in one line.")]


@hsm.command()
def keygen(
    label: Label,
    file: File,
    module: Module,
    token: Token,
    pin: Pin,
    algorithm: Annotated[Algorithm, typer.Option("--alg", help="Its algorithm.")] = Algorithm.ES256,
) -> None:
    """Make a key pair in the token; its public half goes to FILE, and its id is printed.

    Exits 2 rather than write over a file or take a label that is taken.
    """
    table = _table(module, token, pin)
    _write(file, lambda: make_key(table, label, algorithm))


@hsm.command()
def public(label: Label, file: File, module: Module, token: Token, pin: Pin) -> None:
    """Write the public half of a key that lies in the token to FILE, and print its id.

    Exits 2 rather than write over a file.
    """
    table = _table(module, token, pin)
    _write(file, lambda: public_key(table, label))


def _table(module: Path, token: str, pin: Path) -> HsmTable:
    try:
        return HsmTable(module=module, token=token, pin=pin)
    except ValidationError as error:
        raise fail(f"--{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from error


def _write(file: Path, key: Callable[[], PublicKey]) -> None:
    """Whatever keeps the file from being written is told before a key is made that nobody would hear of."""
    if not INSTALLED:
        raise fail("install the bus with the extra pkcs11")
    try:
        with file.open("xb") as target:
            found = _found(file, key)
            target.write(orjson.dumps(found.jwk, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    except FileExistsError as error:
        raise fail(f"{file} exists already; it was left as it is") from error
    except OSError as error:
        raise fail(f"cannot write {file}: {error.strerror}") from error
    typer.echo(found.kid)


def _found(file: Path, key: Callable[[], PublicKey]) -> PublicKey:
    try:
        return key()
    except (HsmAway, KeyUnfit) as error:
        file.unlink()
        raise fail(f"the HSM: {error}") from error
