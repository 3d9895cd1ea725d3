"""Folders between the bus and a partner: files that are sent once, wherever they are by now, and what is noted of them.

It knows no format. All state lies on the partner's server, so any number of workers share it, and a crash anywhere
leaves the next call to go on.
"""

from __future__ import annotations

from dataclasses import dataclass

from gsb_adapters.batch.remote import Remote
from gsb_adapters.batch.settings import SftpSettings


class FolderSettings(SftpSettings):
    """Base of the settings of an adapter whose partner takes files from one folder and answers in another."""

    inbox: str = "inbox"
    """Folder into which the bus puts its files."""
    archive: str = "archive"
    """Folder to which the partner moves the files that it has taken, by renaming."""
    outbox: str = "outbox"
    """Folder into which the partner puts its answers, under temporary names until they are whole."""
    own: str = "bus"
    """Folder that is the bus's alone: what was sent, and what was said of it."""

    def ours(self, *names: str) -> str:
        """A path in that folder."""
        return "/".join((self.own, *names))


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One file for the partner."""

    settings: FolderSettings
    name: str
    mark: str
    """Path of the file that says, once it is there, that the other was put."""

    async def was_sent(self, remote: Remote) -> bool:
        """Asked in the order in which the file moves on, so that it is not missed between two places."""
        for path in (self.mark, f"{self.settings.inbox}/{self.name}", f"{self.settings.archive}/{self.name}"):
            if await remote.exists(path):
                return True
        return False

    async def send(self, remote: Remote, content: bytes) -> None:
        """Another worker may do so at the same time, and the partner move what it sent while ours is on its way."""
        await remote.put(f"{self.settings.inbox}/{self.name}", content, acts=True, unless=self.was_sent)
        await remote.put(self.mark, b"")


async def noted(remote: Remote, path: str, content: bytes) -> bytes | None:
    """Note it unless something is noted there already. What is noted then; None if somebody took that away."""
    return content if await remote.put(path, content) else await remote.read(path)
