"""A customs system that takes batches of declarations as files over SFTP, and acknowledges each batch by a file.

A batch's file is named after the exchange, is there whole or not at all, and is put once. Its acknowledgement is looked
for under its name alone; it counts once it was found whole, fitting and was noted, and never changes then. All state
lies in folders on the server, so any number of workers share it; a crash anywhere leaves the next call to go on.
"""

from __future__ import annotations

import json
from typing import Literal

from gsb.sdk import Adapter, Broken, NoSettings, Refused, Reply, Request
from gsb_adapters.batch import Remote, SftpSettings, connected
from gsb_adapters.batch.remote import TooLarge
from gsb_adapters.batch.xml import Unreadable
from gsb_adapters.customs.batches import Batch, Sent, batch_of, judged
from gsb_adapters.customs.files import FORMATS

OWN = ("batches", "lodged", "acknowledged", "read")


class CustomsSettings(SftpSettings):
    """``[settings]`` of a system with the adapter ``customs``."""

    format: Literal["csv", "xml"]
    """Form of the files, ours and the customs system's."""
    inbox: str = "inbox"
    """Folder into which batches are put."""
    archive: str = "archive"
    """Folder to which the customs system moves the batches that it has taken, by renaming."""
    outbox: str = "outbox"
    """Folder into which the customs system puts its acknowledgements."""
    own: str = "bus"
    """Folder that is the bus's alone: what was sent, and what was said of it."""


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
            return _lodged(batch, sent) if sent is not None and await self._there(remote, batch.name, sent) else None

    async def _lodge(self, request: Request) -> Reply:
        settings, batch = self.context.settings, batch_of(request)
        async with connected(settings) as remote:
            sent = await self._known(remote, batch.name)
            if sent is None:
                for each in OWN:
                    await remote.folder(self._own(each))
                # The acknowledgement may come as soon as the file is there, so what to hold it against is there first.
                first = Sent.of(batch, f"{batch.name}.{settings.format}")
                sent = Sent.read(await self._noted(remote, "batches", batch.name, first.written()))
            if not await self._there(remote, batch.name, sent):
                # In the form in which the first try began, so that there is one file whatever the settings say now.
                write, _ = FORMATS[sent.file.rpartition(".")[2]]
                content = await self.context.in_thread(write, batch)
                await remote.put(f"{settings.inbox}/{sent.file}", content, acts=True)
                await remote.put(self._own("lodged", batch.name), b"")
        return _lodged(batch, sent)

    async def _acknowledged(self, request: Request) -> Reply:
        name = request.body["batch"]
        async with connected(self.context.settings) as remote:
            sent = await self._known(remote, name)
            if sent is None or sent.agency != request.agency:
                raise Refused("not_found")
            noted = await remote.read(self._own("acknowledged", name)) or await self._read(remote, name, sent)
        told = {"batch": name, "state": "pending"} if noted is None else json.loads(noted)
        return Reply(told, note=f"the batch is {told['state']}")

    async def _read(self, remote: Remote, name: str, sent: Sent) -> bytes | None:
        """What is noted of the acknowledgement; None if there is none, or none that is whole."""
        ending = sent.file.rpartition(".")[2]
        file = f"{name}.ack.{ending}"
        path = f"{self.context.settings.outbox}/{file}"
        try:
            content = await remote.read(path)
            if content is None:  # unless another worker has noted it since we looked
                return await remote.read(self._own("acknowledged", name))
            answer = await self.context.in_thread(FORMATS[ending][1], content)
        except Unreadable:
            self.context.log.warning("an acknowledgement is not whole: it does not count yet")
            return None
        except TooLarge as error:
            raise Broken("the acknowledgement is too large") from error
        noted = await self._noted(remote, "acknowledged", name, json.dumps(judged(name, sent, answer)).encode())
        await remote.move(path, self._own("read", file))
        return noted

    async def _noted(self, remote: Remote, folder: str, name: str, content: bytes) -> bytes:
        """Note it unless something is noted there already; what is noted then."""
        path = self._own(folder, name)
        noted = content if await remote.put(path, content) else await remote.read(path)
        if noted is None:
            raise Broken("somebody has taken away what was noted")
        return noted

    async def _known(self, remote: Remote, name: str) -> Sent | None:
        content = await remote.read(self._own("batches", name))
        return None if content is None else Sent.read(content)

    async def _there(self, remote: Remote, name: str, sent: Sent) -> bool:
        """Asked in the order in which the file moves on, so that it is not missed between two places."""
        settings = self.context.settings
        places = (self._own("lodged", name), f"{settings.inbox}/{sent.file}", f"{settings.archive}/{sent.file}")
        for path in places:
            if await remote.exists(path):
                return True
        return False

    def _own(self, *parts: str) -> str:
        return "/".join((self.context.settings.own, *parts))


def _lodged(batch: Batch, sent: Sent) -> Reply:
    control = batch.control.told(batch.currency)
    return Reply({"batch": batch.name, "file": sent.file, "control": control}, note=f"lodged as {sent.file}")
