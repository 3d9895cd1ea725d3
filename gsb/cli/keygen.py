"""``gsb keygen``: new keys in files that only their owner can read. It never writes over a file."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gsb import jwk
from gsb.cli.shared import fail
from gsb.store.seal import new_key


class Algorithm(StrEnum):
    """The algorithms of wire profile 1."""

    ES256 = "ES256"
    ED25519 = "Ed25519"
    PS256 = "PS256"


def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the secret goes, for its owner to read only.")],
    algorithm: Annotated[Algorithm, typer.Option("--alg", help="Algorithm of a signing key.")] = Algorithm.ES256,
    store: Annotated[bool, typer.Option("--store", help="Make a store's key instead of a signing key.")] = False,
) -> None:
    """Make a key pair: private in FILE, public beside it as NAME.pub.jwk.json; prints the key's id.

    With --store make the key with which a store seals its records. Exits 2 rather than write over a file.
    """
    try:
        if store:
            _create(file, f"{new_key()}\n".encode(), 0o600)
            return
        public_file = public_name(file)
        if public_file.exists():
            raise fail(f"{public_file} exists already; nothing was written")
        private = jwk.generate(algorithm)
        _create(file, private, 0o600)
        _create(public_file, jwk.public_of(private), 0o644)
    except FileExistsError as error:
        raise fail(f"{error.filename} exists already; it was left as it is") from error
    except OSError as error:
        raise fail(f"cannot write {error.filename}: {error.strerror}") from error
    typer.echo(jwk.read_private(private).kid)


def public_name(private: Path) -> Path:
    """``keys/payroll.jwk.json`` -> ``keys/payroll.pub.jwk.json``."""
    return private.with_name(f"{private.name.removesuffix('.json').removesuffix('.jwk')}.pub.jwk.json")


def _create(path: Path, content: bytes, mode: int) -> None:
    # Created with its final mode: a secret must not be readable by others even for a moment.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
