"""A customs system that takes batches of declarations as files over SFTP, and acknowledges each batch by a file.

A batch's file is named after the exchange, is there whole or not at all, and is put once. Its acknowledgement is looked
for under its name alone; it counts once it was found whole, fitting and was noted, and never changes then. All state
lies in folders on the server, so any number of workers share it; a crash anywhere leaves the next call to go on.
"""

from __future__ import annotations

import json
from typing import Literal

from gsb.sdk import Adapter, Broken, NoSettings, Refused, Reply, Request
from gsb_adapters.batch import FolderSettings, Outgoing, Remote, connected, noted
from gsb_adapters.batch.remote import TooLarge
from gsb_adapters.customs.batches import Batch, Sent, batch_of, judged
from gsb_adapters.customs.files import FORMATS
from gsb_adapters.xml import Unreadable

OWN = ("batches", "lodged", "acknowledged", "read")


class CustomsSettings(FolderSettings):
    """``[settings]`` of a system with the adapter ``customs``."""

    format: Literal["csv", "xml"]
    """Form of the files, ours and the customs system's."""


class Customs(Adapter[CustomsSettings, NoSettings]):
    """``declaration-batch`` lodges one, ``acknowledgement`` says what became of it."""

    Settings = CustomsSettings

    async def check(self) -> None:
        async with connected(self.context.settings) as remote:
            await remote.names(self.context.settings.inbox, 1)

    async def handle(self, request: Request) -> Reply:
        match request.service.split("/")[1]:
            case "declaration-batch":
                return await self._lodge(request)
            case "acknowledgement":
                return await self._acknowledged(request)
            case other:
                raise Broken(f"there is no service {other}")

    async def find(self, request: Request) -> Reply | None:
        if request.service.split("/")[1] != "declaration-batch":
            return None
        batch = batch_of(request)
        async with connected(self.context.settings) as remote:
            sent = await self._known(remote, batch.name)
            if sent is None or not await self._outgoing(batch.name, sent).was_sent(remote):
                return None
            return _lodged(batch, sent)

    async def _lodge(self, request: Request) -> Reply:
        settings, batch = self.context.settings, batch_of(request)
        async with connected(settings) as remote:
            sent = await self._known(remote, batch.name)
            if sent is None:
                for each in OWN:
                    await remote.folder(self.context.settings.ours(each))
                # The acknowledgement may come as soon as the file is there, so what to hold it against is there first.
                first = Sent.of(batch, f"{batch.name}.{settings.format}")
                sent = Sent.read(await self._noted(remote, "batches", batch.name, first.written()))
            outgoing = self._outgoing(batch.name, sent)
            if not await outgoing.was_sent(remote):
                # In the form in which the first try began, so that there is one file whatever the settings say now.
                write, _ = FORMATS[sent.file.rpartition(".")[2]]
                await outgoing.send(remote, await self.context.in_thread(write, batch))
        return _lodged(batch, sent)

    async def _acknowledged(self, request: Request) -> Reply:
        name = request.body["batch"]
        async with connected(self.context.settings) as remote:
            sent = await self._known(remote, name)
            if sent is None or sent.agency != request.agency:
                raise Refused("not_found")
            told = await self._acknowledgement(remote, name) or await self._read(remote, name, sent)
        reply = {"batch": name, "state": "pending"} if told is None else json.loads(told)
        return Reply(reply, note=f"the batch is {reply['state']}")

    async def _acknowledgement(self, remote: Remote, name: str) -> bytes | None:
        return await remote.read(self.context.settings.ours("acknowledged", name))

    async def _read(self, remote: Remote, name: str, sent: Sent) -> bytes | None:
        """What is noted of the acknowledgement; None if there is none, or none that is whole."""
        ending = sent.file.rpartition(".")[2]
        file = f"{name}.ack.{ending}"
        path = f"{self.context.settings.outbox}/{file}"
        try:
            content = await remote.read(path)
            if content is None:  # unless another worker has noted it since we looked
                return await self._acknowledgement(remote, name)
            answer = await self.context.in_thread(FORMATS[ending][1], content)
        except Unreadable:
            self.context.log.warning("an acknowledgement is not whole: it does not count yet")
            return None
        except TooLarge as error:
            raise Broken("the acknowledgement is too large") from error
        known = await self._noted(remote, "acknowledged", name, json.dumps(judged(name, sent, answer)).encode())
        await remote.move(path, self.context.settings.ours("read", file))
        return known

    async def _noted(self, remote: Remote, folder: str, name: str, content: bytes) -> bytes:
        """Note it unless something is noted there already; what is noted then."""
        known = await noted(remote, self.context.settings.ours(folder, name), content)
        if known is None:
            raise Broken("somebody has taken away what was noted")
        return known

    async def _known(self, remote: Remote, name: str) -> Sent | None:
        content = await remote.read(self.context.settings.ours("batches", name))
        return None if content is None else Sent.read(content)

    def _outgoing(self, name: str, sent: Sent) -> Outgoing:
        settings = self.context.settings
        return Outgoing(settings, sent.file, settings.ours("lodged", name))


def _lodged(batch: Batch, sent: Sent) -> Reply:
    control = batch.control.told(batch.currency)
    return Reply({"batch": batch.name, "file": sent.file, "control": control}, note=f"lodged as {sent.file}")
