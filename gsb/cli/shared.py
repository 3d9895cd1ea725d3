"""What the commands share: how they fail, how they print, and how they sign.

Exit codes: 0 done; 1 the command ran and found something wrong; 2 it cannot be carried out as given; and for calls
3 refused by the bus, 4 refused or failed at the provider, 5 the bus is in trouble, 6 unreachable, 7 the reply cannot be
trusted, 8 no outcome yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import typer

from gsb.client import BusProblem, ClientError, OutcomePending, ReplyUntrusted, Unreachable
from gsb.jwk import KeyUnfit, PrivateKey, PublicKey, read_private, read_public

CODES = {"consumer": 3, "provider": 4, "bus": 5}


def fail(message: str, code: int = 2) -> typer.Exit:
    """One line on standard error, and the exit to raise."""
    typer.echo(f"gsb: {shown(message)}", err=True)
    return typer.Exit(code)


def shown(text: str) -> str:
    """A text from elsewhere without what a terminal would obey: anything in front of the bus can answer a command."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def print_json(value: Any) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def signing_key(path: Path) -> PrivateKey:
    """The private key in this file, or a clear end."""
    try:
        return read_private(path.read_bytes())
    except OSError as error:
        raise fail(f"cannot read the key {path}: {error.strerror}") from error
    except KeyUnfit as error:
        raise fail(f"{path} is not a key to sign with: {error}") from error


def bus_keys(path: Path | None) -> Mapping[str, PublicKey] | None:
    """The bus's pinned public keys from a JWK or a JWK set; None: fetched, which needs TLS or loopback."""
    if path is None:
        return None
    try:
        document = orjson.loads(path.read_bytes())
        keys = [read_public(orjson.dumps(key)) for key in document.get("keys", [document])]
    except OSError as error:
        raise fail(f"cannot read the bus's keys {path}: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        raise fail(f"{path} holds no keys of the bus: {error}") from error
    return {key.kid: key for key in keys}


def explain(error: ClientError) -> typer.Exit:
    """Say what went wrong in one line, then each fault in the body in one of its own; the exit by class of error."""
    match error:
        case BusProblem():
            hint = "" if error.signed else " (not signed by the bus)"
            reason = error.result.body.get("reason") if isinstance(error.result.body, dict) else None
            detail = f"{error.title}{f' [{reason}]' if reason else ''} {error.detail or ''}".strip()
            ended = fail(f"{error.code} ({error.status}): {detail}{hint}", CODES.get(error.origin or "", 5))
            for fault in error.pointers:
                typer.echo(shown(f"  {fault.pointer or '/'}: {fault.detail}"), err=True)
            return ended
        case Unreachable():
            return fail(f"unreachable: {error}", 6)
        case ReplyUntrusted():
            return fail(f"the reply cannot be trusted: {error}", 7)
        case OutcomePending():
            return fail(f"no outcome yet: {error}; the bus goes on, ask again with gsb exchanges or the same key", 8)
        case _:
            return fail(str(error), 5)
