"""``gsb log``: the key with which a log is verified, and, deliberately, a new log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gsb.ask import seen_of
from gsb.bus import node_name
from gsb.catalogue import Catalogue
from gsb.cli.shared import catalogue_of, fail
from gsb.duty import LEASE, RENEW, Duty
from gsb.errors import StoreUnavailable
from gsb.evidence.checkpoint import Checkpoint, NoteWrong, Signer
from gsb.evidence.log import Folder
from gsb.foundation import shares_of, store_of
from gsb.metrics import Metrics
from gsb.resume import Ground, begin_anew, free, is_behind, open_log, signer_of
from gsb.store.contract import Store, StoreUnfit
from gsb.store.logs import LogMoved

log = typer.Typer(help="The evidence log: its keys, and a new one under another key.", no_args_is_help=True)

Deployment = Annotated[Path, typer.Argument(metavar="DIR", help="The deployment's folder.")]


@log.command()
def key(folder: Deployment) -> None:
    """Print the verifier keys of the logs in DIR, oldest first: a line each, to be handed to whoever verifies.

    Where log.key has signed none yet, the last line is that of the log that it will begin. Runs beside the node.
    """
    catalogue = catalogue_of(folder)
    logs, present = Folder(catalogue.gsb.log.path), catalogue.log_key
    try:
        signers = list(_signers(logs, catalogue.log_keys))
        if not any(signer.key is present for signer in signers):
            signers.append(Signer(free(logs, catalogue.gsb.log_origin, time.time()), present))
    except OSError as error:
        raise fail(f"cannot read {error.filename}: {error.strerror}") from error
    for signer in signers:
        typer.echo(signer.vkey)


def _signers(logs: Folder, keys: Sequence[Ed25519PrivateKey]) -> Iterator[Signer]:
    """Of each log that a configured key has signed; those of another key only its own holder can tell."""
    for note in logs.published().values():
        origin = note.partition(b"\n")[0].decode(errors="replace")
        try:
            yield signer_of(keys, origin, note)
        except NoteWrong as error:
            typer.echo(f"{origin} is passed over: {error}", err=True)


@log.command()
def begin(
    folder: Deployment,
    reason: Annotated[str, typer.Option("--reason", help="Why; its entry commits to it.")],
) -> None:
    """Begin a new log, which continues none, on a stopped node: when the log's key is another.

    Its first entry names the store's last checkpoint, the published one and those that the witnesses show, so that
    nobody can pass over them. The old log stays as it is. Exits 2 while the node runs, and for a store that is behind
    what was published: that is restored (gsb restore).
    """
    if not 4 <= len(reason.strip()) <= 500:
        raise fail("say why, in 4 to 500 characters: --reason")
    try:
        origin = asyncio.run(_begin(catalogue_of(folder), reason.strip()))
    except (OSError, StoreUnavailable, StoreUnfit, LogMoved, ValueError) as error:
        raise fail(f"no log was begun: {error}") from error
    typer.echo(f"the next start records to {origin}")


@asynccontextmanager
async def alone_with(catalogue: Catalogue) -> AsyncIterator[Store]:
    """The store of a deployment of which no node runs. Raises StoreUnfit."""
    store = store_of(catalogue, Metrics())
    shares = shares_of(store)
    duty = Duty(shares, node_name())
    async with AsyncExitStack() as stack:
        await store.open()
        stack.push_async_callback(store.close)
        await shares.open()
        stack.push_async_callback(shares.close)
        # What a recorder that was killed has left of its lease is waited for.
        until = time.monotonic() + LEASE + RENEW
        await duty.take()
        while not duty.held():
            if time.monotonic() > until:
                raise StoreUnfit("a recorder is at work; stop every node first")
            await asyncio.sleep(RENEW)
            await duty.take()
        stack.push_async_callback(duty.leave)
        keeping = asyncio.create_task(duty.run())
        stack.callback(keeping.cancel)
        yield store


async def _begin(catalogue: Catalogue, reason: str) -> str:
    async with alone_with(catalogue) as store:
        ground = Ground.of(catalogue, store)
        seen = await witnessed(catalogue, ground)
        known = {state.origin: state.size for state in await store.logs()}
        if await is_behind(ground) or any(each.size > known.get(each.origin, 0) for each in seen):
            raise StoreUnfit("more was published than the store knows, or otherwise: gsb restore begins a new log too")
        return await begin_anew(ground, time.time(), reason, seen)


async def witnessed(catalogue: Catalogue, ground: Ground) -> Sequence[Checkpoint]:
    """What the witnesses show of the open log: it may be all that is left of what was published."""
    if (last := await open_log(ground)) is None:
        return ()
    with suppress(StoreUnfit):  # nobody has the key any more: then what witnesses show cannot be judged
        signer = ground.signer(last.origin, last.checkpoint)
        return await seen_of(signer.verifier, catalogue.gsb.log.witnesses)
    return ()
