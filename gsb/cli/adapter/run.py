"""``gsb adapter try``, ``record`` and ``replay``: an adapter at work without a bus, on its real system or on cassettes.

Nothing is signed, admitted or proved here, and nobody but whoever gives the command is asked whether the call may be
made: it is made with the system's own credentials, on this machine.
"""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import orjson
import typer
from pydantic import ValidationError

from gsb import strictjson
from gsb.cli.call import read_data
from gsb.cli.shared import fail, print_json, shown
from gsb.config import Service, System
from gsb.errors import BodyMalformed
from gsb.installed import read_settings
from gsb.model import new_id
from gsb.plans import secret_files
from gsb.sdk.errors import Refused, Unavailable
from gsb.testing import Subject, Unfit, find_subject
from gsb.testing.cassette import Cassette, Tape, read_cassettes
from gsb.testing.offline import Tried, replayed, tried
from gsb.testing.scrub import Unscrubbed, scrubbed
from gsb.testing.subject import Came, Tables

Name = Annotated[str, typer.Argument(metavar="NAME", help="An installed adapter, or the folder of one.")]
ServiceId = Annotated[str, typer.Argument(metavar="SERVICE", help="For example land-registry/parcel/v1.")]
Body = Annotated[str, typer.Argument(metavar="REQUEST", help="The request: JSON, @FILE, or @- for standard input.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="DIR", help="Folder with systems/ and services/ as in a deployment."),
]


class Place(NamedTuple):
    """Where the adapter finds its system: settings, the folder in which their paths start, seconds for a call."""

    folder: Path
    tables: Tables
    timeout: float


def try_(
    name: Name,
    service: ServiceId,
    request: Body,
    config: Config = None,
) -> None:
    """Have the adapter perform one request, without a bus, and print the reply.

    With --config it calls the system that is described there; without, the adapter's cassettes answer in its place.
    Exits 0 with a reply, 2 for wrong use, 4 when the system refuses or answers what it should not, 6 when it is
    unavailable.
    """
    subject = _subject(name)
    body = _fitting(subject, service, read_data(request))
    _show(subject, service, asyncio.run(_called(subject, service, body, config)).came)


def record(
    name: Name,
    service: ServiceId,
    request: Body,
    config: Annotated[Path, typer.Option("--config", metavar="DIR", help="Folder with systems/ and services/.")],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The new cassette; it must not be there yet.")],
    note: Annotated[
        str, typer.Option("--note", help="Where it comes from, such as the system's version.")
    ] = "recorded",
) -> None:
    """Call the real system once and keep the exchange as a cassette, without its secrets and people.

    What a schema marks x-personal and what stands in secret files is replaced everywhere, and so is whatever the reply
    does not depend on. A recording that cannot be scrubbed is not kept.
    """
    subject = _subject(name)
    body = _fitting(subject, service, read_data(request))
    if to.exists():
        raise fail(f"{to} is there already")
    if not to.parent.is_dir():  # told before the real system is called, which may act
        raise fail(f"cannot write {to}: there is no such folder")
    called = asyncio.run(_called(subject, service, body, config))
    recording = called.cassette(note)
    if recording is None:
        raise _ended(called.came)
    try:
        kept = asyncio.run(scrubbed(subject, recording, _secrets(subject, config)))
        to.write_bytes(kept.document())
    except (Unscrubbed, Unfit) as error:
        raise fail(f"nothing was kept: {error}", 1) from error
    except OSError as error:
        raise fail(f"cannot write {to}: {error.strerror}") from error
    typer.echo(f"{to}: {len(kept.calls)} calls, without secrets and people; look at it before you commit it")


def replay(
    name: Name,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Cassettes; none: all of the adapter's contract.")
    ] = None,
) -> None:
    """Replay cassettes, with every socket forbidden, and say whether the adapter still does what they hold.

    Exits 0 when it does, 1 when it does otherwise, 2 when there is nothing to replay.
    """
    subject = _subject(name)
    if subject.contract.peer == "program":
        raise fail("there is nothing to replay: contract/peer.py answers, over sockets; gsb adapter grade tries it")
    cassettes = _read(files) if files else dict(subject.cassettes)
    foreign = {each.service for each in cassettes.values()} - subject.contract.services.keys()
    if not cassettes or foreign:
        raise fail(f"the adapter has no service {min(foreign)}" if foreign else "there is no cassette")
    differ = 0
    for each, cassette in cassettes.items():
        faults = asyncio.run(replayed(subject, cassette)).faults
        differ += bool(faults)
        typer.echo(f"{each}: {'as it was' if not faults else 'otherwise'}")
        for fault in faults:
            typer.echo(shown(f"  {fault}"))
    raise typer.Exit(1 if differ else 0)


def _subject(name: str) -> Subject:
    try:
        return find_subject(name)
    except Unfit as error:
        raise fail(f"{name}: {error}") from error


def _read(files: list[Path]) -> dict[str, Cassette]:
    try:
        return {path.stem: read_cassettes(path.parent, path.name)[path.stem] for path in files}
    except KeyError as error:
        raise fail(f"there is no cassette {error.args[0]}.json") from error
    except ValueError as error:
        raise fail(str(error).partition("\n")[0]) from error


def _fitting(subject: Subject, service: str, data: bytes) -> Any:
    """The request as the bus would hand it on: read strictly, and fitting its schema."""
    schema = subject.schemas.get(f"{service}/request")
    if schema is None:
        raise fail(f"contract.toml names no service {service}; there are {', '.join(subject.contract.services)}")
    try:
        body = strictjson.loads(data)
        faults = tuple(schema.faults(body))
    except BodyMalformed as error:
        faults = error.faults
    if faults:
        told = "; ".join(f"{fault.pointer or 'the whole'}: {fault.detail}" for fault in faults)
        raise fail(f"the request does not fit its schema: {told}")
    return body


async def _called(subject: Subject, service: str, body: Any, config: Path | None) -> Tried:
    try:
        if config is not None:
            place = _configured(service.partition("/")[0], config)
            asked = Cassette(service=service, exchange=new_id(), request=body, reply={}).asked()
            return await tried(subject, place.folder, place.tables, asked, place.timeout)
        async with subject.served() as (peer, folder):
            # The cassettes answer, best the one that holds this very request.
            held = [each for each in subject.cassettes.values() if (each.service, each.request) == (service, body)]
            peer.tape = Tape(held or subject.cassettes.values())
            asked = Cassette(service=service, request=body, reply={}).asked()
            return await tried(subject, folder, subject.tables(peer.url), asked, subject.contract.timeout)
    except Unfit as error:
        raise fail(str(error)) from error


def _configured(system: str, config: Path) -> Place:
    """What a deployment's files say of a system and its services. The files are read as a node reads them."""
    table = _table(System, config, Path("systems") / f"{system}.toml")
    places = sorted((config / "services" / system).glob("*/v*.toml"))
    services = {}
    for place in places:
        path = place.relative_to(config)
        services[path.relative_to("services").with_suffix("").as_posix()] = _table(Service, config, path).settings
    return Place(config, Tables(table.settings, services), table.timeout)


def _table(model: type[Any], config: Path, path: Path) -> Any:
    try:
        return model.model_validate(tomllib.loads((config / path).read_text("utf-8")), context={"folder": config})
    except OSError as error:
        raise fail(f"cannot read {config / path}: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        raise fail(f"{config / path}: {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from error
    except ValueError as error:
        raise fail(f"{config / path} is not TOML: {error}") from error


def _secrets(subject: Subject, config: Path) -> list[str]:
    """What stands in the secret files of the system, whole and by line."""
    system = next(iter(subject.contract.services)).partition("/")[0]
    place, kind = _configured(system, config), subject.loaded.kind
    validated = [read_settings(kind.Settings, place.tables.system, "", config)[0]]
    validated += [read_settings(kind.ServiceSettings, each, "", config)[0] for each in place.tables.services.values()]
    texts = [path.read_text("utf-8", "replace") for path in secret_files(validated)]
    return [line.strip() for text in texts for line in [text, *text.splitlines()] if line.strip()]


def _show(subject: Subject, service: str, came: Came) -> None:
    if came.reply is None:
        raise _ended(came)
    print_json(orjson.loads(orjson.dumps(came.reply.body)))
    faults = subject.schemas[f"{service}/reply"].faults(came.reply.body)
    if faults:
        told = "; ".join(f"{fault.pointer or 'the whole'}: {fault.detail}" for fault in faults)
        raise fail(f"the reply does not fit its schema, so the bus would hand it to nobody: {told}", 4)


def _ended(came: Came) -> typer.Exit:
    detail = f": {came.error}" if came.error is not None and str(came.error) else ""
    match came.error:
        case Refused(code=code):
            return fail(f"refused with the code {code}{detail}", 4)
        case Unavailable(sent=sent, after=after):
            later = "" if after is None else f", asks to wait {after:g} s"
            return fail(f"unavailable (sent={sent}{later}){detail}", 6)
        case asyncio.CancelledError():
            return fail("unavailable (sent=True): there was no answer in time", 6)
        case _:
            return fail(f"{came}{detail}", 4)
