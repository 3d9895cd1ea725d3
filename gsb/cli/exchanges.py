"""``gsb exchanges`` and ``gsb dead-letters``: an operator looks at the running node, and ends what stands still.

Every command is signed with the operator's key, sent to the operations port, and recorded there with its reason.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

import orjson
import typer
from rich.console import Console
from rich.table import Table

from gsb.cli.shared import bus_keys, explain, fail, print_json, signing_key
from gsb.client import Client, ClientError
from gsb.jwk import from_base64url

EXCHANGES = "/admin/exchanges"
exchanges = typer.Typer(help="List, show and resolve exchanges.", no_args_is_help=True)
dead_letters = typer.Typer(help="Exchanges that are held: list, show, replay and close them.", no_args_is_help=True)


def known_form(text: str) -> str:
    # Else it would become another path, which the bus only calls unknown.
    try:
        return str(UUID(text))
    except ValueError:
        raise typer.BadParameter("is not the id of an exchange") from None


Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the exchange.", callback=known_form)]
Reason = Annotated[str, typer.Option("--reason", help="Why: an auditor will read it.")]
Url = Annotated[str, typer.Option("--operations-url", envvar="GSB_OPERATIONS_URL", help="Base URL, operations port.")]
Bus = Annotated[str, typer.Option("--bus", envvar="GSB_BUS", help="Id of the bus.")]
Operator = Annotated[str, typer.Option("--operator", envvar="GSB_OPERATOR", help="Your operator id.")]
Key = Annotated[Path, typer.Option("--key", envvar="GSB_OPERATOR_KEY", help="Your private key, a JWK.")]
BusKeys = Annotated[
    Path, typer.Option("--bus-keys", envvar="GSB_BUS_KEYS", help="The bus's public keys, a JWK or JWK set.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Ended = Annotated[str, typer.Option("--state", help="How it ended: done or failed.")]
Effect = Annotated[str, typer.Option("--effect", help="Whether it took effect: done or none.")]
States = Annotated[list[str] | None, typer.Option("--state", help="Only in this state; may be given several times.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=500, help="At most so many.")]
Cursor = Annotated[str | None, typer.Option("--cursor", help="A further page, as the page before it names it.")]


class Desk:
    """Where an operator's signed calls go."""

    def __init__(self, url: str, bus: str, operator: str, key: Path, keys: Path) -> None:
        self._arguments = (url, bus, operator, signing_key(key), bus_keys(keys))

    def act(self, method: str, path: str, query: dict[str, Any] | None = None, body: Any = None) -> Any:
        """The answer's body; ends the command when the act was refused."""
        target = path + (f"?{urlencode(query, doseq=True)}" if query else "")
        try:
            return asyncio.run(self._act(method, target, body))
        except ClientError as error:
            raise explain(error) from error
        except ValueError as error:
            raise fail(str(error)) from error

    async def _act(self, method: str, target: str, body: Any) -> Any:
        url, bus, operator, key, keys = self._arguments
        async with Client(url, bus=bus, agency=operator, key=key, bus_keys=keys, operations_url=url) as client:
            return (await client.admin(method, target, body)).body


def listed(page: dict[str, Any], as_json: bool, none: str) -> None:
    if as_json:
        print_json(page)
        return
    if not page["exchanges"]:
        typer.echo(none)
        return
    table = Table("exchange", "accepted", "agency", "service", "state", "why", "attempts")
    for each in page["exchanges"]:
        why = each.get("reason") or each.get("code") or ""
        state = each["state"] + (f" (effect {each['effect']})" if "effect" in each else "")
        table.add_row(
            each["exchange"], each["accepted"], each["agency"], each["service"], state, why, str(each["attempts"])
        )
    Console(soft_wrap=False, width=None if Console().is_terminal else 200).print(table)
    if page["next"]:
        typer.echo(f"more: --cursor {page['next']}")


def shown(exchange: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(exchange)
        return
    for name, value in exchange.items():
        if name not in ("timeline", "links") and value is not None:
            typer.echo(f"{name:10} {value}")
    for moment in exchange["timeline"]:
        what = " ".join(str(moment[name]) for name in ("kind", "act", "state", "code", "reason") if name in moment)
        typer.echo(f"  {moment['at']}  {what}")


@exchanges.command("list")
def list_exchanges(
    reason: Reason,
    url: Url,
    bus: Bus,
    operator: Operator,
    key: Key,
    keys: BusKeys,
    state: States = None,
    agency: Annotated[str | None, typer.Option("--agency", help="Only of this agency.")] = None,
    service: Annotated[str | None, typer.Option("--service", help="Only of this service.")] = None,
    code: Annotated[str | None, typer.Option("--code", help="Only what ended with this problem code.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="Only what was accepted from this time on.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Only what was accepted up to this time.")] = None,
    business_key: Annotated[str | None, typer.Option("--business-key", help="Only with this business key.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List the exchanges that fit every option, newest first. Times are those of RFC 3339, 2026-03-01T09:00:00Z."""
    query = {
        "reason": reason,
        "limit": limit,
        "state": state,
        "agency": agency,
        "service": service,
        "code": code,
        "since": since,
        "until": until,
        "business_key": business_key,
        "cursor": cursor,
    }
    page = Desk(url, bus, operator, key, keys).act("GET", EXCHANGES, {n: v for n, v in query.items() if v is not None})
    listed(page, as_json, "no such exchange")


@exchanges.command("show")
@dead_letters.command("show")
def show(
    exchange: Id,
    reason: Reason,
    url: Url,
    bus: Bus,
    operator: Operator,
    key: Key,
    keys: BusKeys,
    body: Annotated[bool, typer.Option("--body", help="Show request and reply instead, as JSON.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one exchange and its time line. With --body, which needs the role inspector, what was asked and answered."""
    path = f"{EXCHANGES}/{exchange}" + ("/body" if body else "")
    shown(Desk(url, bus, operator, key, keys).act("GET", path, {"reason": reason}), as_json or body)


@exchanges.command("evidence")
def evidence(
    exchange: Id,
    reason: Reason,
    url: Url,
    bus: Bus,
    operator: Operator,
    key: Key,
    keys: BusKeys,
    readable: Annotated[
        bool, typer.Option("--print", help="For people: why it stands as it does, oldest first.")
    ] = False,
) -> None:
    """Print what the entries of an exchange commit to, for gsb receipt verify --evidence. Needs the role inspector."""
    told = Desk(url, bus, operator, key, keys).act("GET", f"{EXCHANGES}/{exchange}/evidence", {"reason": reason})
    print_json(legible(told) if readable else told)


def legible(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Kind, time and evidence of each entry, oldest first, or that its evidence was erased."""
    entries = [
        {"at": each["at"], "kind": each["kind"], "evidence": orjson.loads(from_base64url(each["evidence"]))}
        for each in told["entries"]
    ]
    entries += [{"at": each["at"], "kind": each["kind"], "erased": True} for each in told["erased"]]
    return sorted(entries, key=lambda each: str(each["at"]))


@exchanges.command("resolve")
def resolve(
    exchange: Id,
    state: Ended,
    effect: Effect,
    reason: Reason,
    url: Url,
    bus: Bus,
    operator: Operator,
    key: Key,
    keys: BusKeys,
    as_json: AsJson = False,
) -> None:
    """End an unknown exchange, having found out in the core system how it ended."""
    body = {"state": state, "effect": effect, "reason": reason}
    shown(Desk(url, bus, operator, key, keys).act("POST", f"{EXCHANGES}/{exchange}/resolve", body=body), as_json)


@dead_letters.command("list")
def list_dead_letters(
    reason: Reason,
    url: Url,
    bus: Bus,
    operator: Operator,
    key: Key,
    keys: BusKeys,
    limit: Limit = 50,
    cursor: Cursor = None,
    as_json: AsJson = False,
) -> None:
    """List what is held, newest first."""
    query = {"reason": reason, "limit": limit, "state": "held"} | ({"cursor": cursor} if cursor else {})
    listed(Desk(url, bus, operator, key, keys).act("GET", EXCHANGES, query), as_json, "nothing is held")


@dead_letters.command("replay")
def replay(
    exchange: Id,
    reason: Reason,
    url: Url,
    bus: Bus,
    operator: Operator,
    key: Key,
    keys: BusKeys,
    expires_in: Annotated[float, typer.Option("--expires-in", min=1, help="Seconds for which it may begin.")] = 3600,
    as_json: AsJson = False,
) -> None:
    """Try a held exchange again."""
    body = {"reason": reason, "expires_in": expires_in}
    shown(Desk(url, bus, operator, key, keys).act("POST", f"{EXCHANGES}/{exchange}/replay", body=body), as_json)


@dead_letters.command("close")
def close(
    exchange: Id,
    state: Ended,
    effect: Effect,
    reason: Reason,
    url: Url,
    bus: Bus,
    operator: Operator,
    key: Key,
    keys: BusKeys,
    as_json: AsJson = False,
) -> None:
    """End a held exchange for good."""
    body = {"state": state, "effect": effect, "reason": reason}
    shown(Desk(url, bus, operator, key, keys).act("POST", f"{EXCHANGES}/{exchange}/close", body=body), as_json)
