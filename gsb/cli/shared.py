"""What the commands share: how they fail, how they print, and how they sign.

Exit codes: 0 done; 1 the command ran and found something wrong; 2 it cannot be carried out as given; and for calls
3 refused by the bus, 4 refused or failed at the provider, 5 the bus is in trouble, 6 unreachable, 7 the reply cannot be
trusted, 8 no outcome yet.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import typer

from gsb.catalogue import Catalogue, ConfigInvalid, build
from gsb.client import BusProblem, ClientError, OutcomePending, ReplyUntrusted, Unreachable
from gsb.jwk import KeyUnfit, PrivateKey, PublicKey, read_private, read_public

CODES = {"consumer": 3, "provider": 4, "bus": 5}
TOLD = ("reason", "claim", "role", "agreement", "now")
"""Members of a problem that its texts speak of."""


def fail(message: str, code: int = 2) -> typer.Exit:
    """One line on standard error, and the exit to raise."""
    typer.echo(f"gsb: {shown(message)}", err=True)
    return typer.Exit(code)


def catalogue_of(folder: Path) -> Catalogue:
    """A deployment, or a clear end."""
    try:
        return build(folder)
    except ConfigInvalid as error:
        raise fail(f"{folder} is no right deployment: {error.findings[0]}; gsb check {folder} says all") from error
    except OSError as error:
        raise fail(f"cannot read the deployment: {error}") from error


def shown(text: str) -> str:
    """A text from elsewhere without what a terminal would obey: anything in front of the bus can answer a command."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def print_json(value: Any) -> None:
    """As JSON, in which what a terminal would obey is escaped."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    typer.echo("".join(each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text))


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
    again = f"; call again with --idempotency-key {shlex.quote(key)}" if (key := error.idempotency_key) else ""
    match error:
        case BusProblem():
            return _problem(error, again)
        case Unreachable():
            return fail(f"unreachable: {error}{again}", 6)
        case ReplyUntrusted():
            return fail(f"the reply cannot be trusted: {error}{again}", 7)
        case OutcomePending():
            return fail(f"no outcome yet: {error}; the bus goes on{again}", 8)
        case _:
            return fail(str(error), 5)


def _problem(error: BusProblem, again: str) -> typer.Exit:
    document = error.result.body if isinstance(error.result.body, dict) else {}
    code = CODES.get(error.origin or "", 5)
    names = (*TOLD, "instance") if code == 5 else TOLD  # whoever asks the operator names the instance
    told = [f"{name}: {document[name]}" for name in names if name in document]
    if wait := error.result.retry_after:
        told.append(f"Retry-After: {wait:g} s")
    members = f" [{', '.join(told)}]" if told else ""
    hint = "" if error.signed else " (not signed by the bus)"
    text = " ".join(filter(None, (error.title, error.detail)))
    undecided = again if code == 5 and not error.result.final else ""
    ended = fail(f"{error.code} ({error.status}): {text}{members}{hint}{undecided}", code)
    for fault in error.pointers:
        typer.echo(shown(f"  {fault.pointer or 'the whole body'}: {fault.detail}"), err=True)
    if error.exchange and error.result.final:
        typer.echo(shown(f"  exchange {error.exchange}: {error.state}, effect {error.effect}"), err=True)
    return ended
