"""``gsb call``: one signed call of a service, its reply verified."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from gsb.cli.shared import bus_keys, explain, fail, print_json, signing_key
from gsb.client import BusProblem, Client, ClientError, Result, new_key, sign_curl

Service = Annotated[str, typer.Argument(metavar="SERVICE", help="For example tax/income-tax/v1.")]
Data = Annotated[str, typer.Option("--data", help="The body: JSON, @FILE, or @- for standard input.")]
Purpose = Annotated[str, typer.Option("--purpose", help="Purpose code of a grant in force.")]
Url = Annotated[str, typer.Option("--url", envvar="GSB_URL", help="Base URL of the bus.")]
Bus = Annotated[str, typer.Option("--bus", envvar="GSB_BUS", help="Id of the bus.")]
Agency = Annotated[str, typer.Option("--agency", envvar="GSB_AGENCY", help="Id of the calling agency.")]
Key = Annotated[Path, typer.Option("--key", envvar="GSB_KEY", help="The agency's private key, a JWK.")]
BusKeys = Annotated[
    Path | None,
    typer.Option("--bus-keys", envvar="GSB_BUS_KEYS", help="The bus's public keys; fetched if not given."),
]

Print = Annotated[
    bool, typer.Option("--print", help="Do not call: print a curl line that is valid once, for 60 seconds.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print status, exchange, state and effect too, for a problem as well.")
]


def call(
    service: Service,
    data: Data,
    purpose: Purpose,
    url: Url,
    bus: Bus,
    agency: Agency,
    key: Key,
    keys_of_bus: BusKeys = None,
    respond_async: Annotated[bool, typer.Option("--async", help="Do not wait: print the 202.")] = False,
    wait: Annotated[int | None, typer.Option("--wait", min=0, max=120, help="Seconds that the bus may wait.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for everything.")] = 60.0,
    idempotency_key: Annotated[str | None, typer.Option("--idempotency-key", help="Random unless given.")] = None,
    sub: Annotated[str | None, typer.Option("--sub", help="The person or system acting.")] = None,
    case: Annotated[str | None, typer.Option("--case", help="The case file.")] = None,
    print_curl: Print = False,
    as_json: AsJson = False,
) -> None:
    """Sign a call, send it, repeat it safely, verify the reply and print its body.

    Exit codes: 0 done, 2 wrong use, 3 refused by the bus, 4 refused or failed at the provider, 5 bus in trouble,
    6 unreachable, 7 reply not to be trusted, 8 no outcome yet.
    """
    if respond_async and wait is not None:
        raise fail("say --async or --wait, not both")
    chosen = idempotency_key or new_key()
    said: dict[str, Any] = {"purpose": purpose, "idempotency_key": chosen, "sub": sub, "case": case}
    body, private = read_data(data), signing_key(key)
    with ended_clearly(chosen, as_json):
        if print_curl:
            who = {"issuer": agency, "bus": bus, "base_url": url}
            typer.echo(sign_curl(private, **who, service=service, body=body, **said, now=time.time()))
            return
        client = Client(url, bus=bus, agency=agency, key=private, bus_keys=bus_keys(keys_of_bus))
        patience = {"wait": wait, "respond_async": respond_async, "timeout": timeout}
        show(asyncio.run(sent(client, service, body, **said, **patience)), chosen, as_json)


@contextmanager
def ended_clearly(key: str, as_json: bool) -> Iterator[None]:
    """Whatever goes wrong becomes one line and the exit code of its class; with ``as_json`` the problem as well."""
    try:
        yield
    except ClientError as error:
        if as_json and isinstance(error, BusProblem):
            print_json(told(error.result, key))
        raise explain(error) from error
    except ValueError as error:
        raise fail(str(error)) from error


async def sent(client: Client, service: str, body: bytes, **said: Any) -> Result:
    async with client:
        return await client.call(service, body, **said)


def told(result: Result, key: str) -> dict[str, Any]:
    """The answer for machines."""
    names = ("status", "exchange", "state", "effect", "entry", "replayed", "requests", "body")
    return {"idempotency_key": key} | {name: getattr(result, name) for name in names}


def show(result: Result, key: str, as_json: bool) -> None:
    if as_json:
        print_json(told(result, key))
        return
    print_json(result.body)
    said = f"{result.status}, exchange {result.exchange}: {result.state}"
    effect = f", effect {result.effect}" if result.effect else ""
    later = "" if result.final else f"; for its outcome call again with --idempotency-key {shlex.quote(key)}"
    replayed = ", answered before" if result.replayed else ""
    typer.echo(f"{said}{effect}{replayed}; signature verified{later}", err=True)


def read_data(data: str) -> bytes:
    """The body as given: text, a file's content, or what comes in."""
    if data == "@-":
        return sys.stdin.buffer.read()
    if not data.startswith("@"):
        return data.encode()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise fail(f"cannot read {data[1:]}: {error.strerror}") from error
