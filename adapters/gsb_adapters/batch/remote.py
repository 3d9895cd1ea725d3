"""One SFTP connection (draft-ietf-secsh-filexfer-02, as OpenSSH has it) for one call: put, read, list and move files.

It knows no format and keeps nothing between calls. A connection that is lost, here or there, leaves at most a file
under a temporary name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar, cast
from uuid import uuid4

import asyncssh
from asyncssh.sftp import SFTPConnectionLost, SFTPError, SFTPNoConnection, SFTPNoSuchFile, SFTPOpUnsupported

from gsb.sdk import Unavailable
from gsb_adapters.batch.settings import SftpSettings

T = TypeVar("T")
FAILURES = (OSError, TimeoutError, asyncssh.Error)
NOT_SAID = (SFTPConnectionLost, SFTPNoConnection)
"""Errors that no answer of the server stands behind."""
PIECE = 32_768
"""Bytes that are read or written at once, which every server takes: more would go as many requests at a time, and
nobody would hear of those that a lost connection leaves."""
MOST_SEEN = 100_000
"""Entries of a folder that are looked at, dotted names among them."""


class TooLarge(Exception):
    """A file has more bytes than the settings allow."""


class Remote:
    """The partner's folders."""

    def __init__(self, client: asyncssh.SFTPClient, most_bytes: int, hang_up: Callable[[], None]) -> None:
        self._client = client
        self._most_bytes = most_bytes
        self._hang_up = hang_up
        self.acted = False
        """Whether a file that acts may be there, as far as anybody can tell."""

    async def put(
        self,
        path: str,
        content: bytes,
        *,
        acts: bool = False,
        unless: Callable[[Remote], Awaitable[bool]] | None = None,
    ) -> bool:
        """Have the file be there under this name, whole and on disk (where the server offers to say so), or not at all.

        False if the name is taken: then nothing was changed. ``acts``: its being there is what the exchange is for.
        ``unless`` is asked at the last moment, when all but the name is there; if it says yes, nothing is changed.
        """
        folder, slash, name = path.rpartition("/")
        draft = f"{folder}{slash}.{name}.{uuid4().hex}.tmp"
        await self._unless_given_up(self._write(draft, content))
        if unless is not None and await unless(self):
            await self._client.remove(draft)
            return False
        before, self.acted = self.acted, self.acted or acts
        try:
            # The plain renaming of SFTP replaces nothing, unlike that of POSIX: who comes second is told.
            await self._client.rename(draft, path)
        except NOT_SAID:
            raise
        except SFTPError:
            self.acted = before
            if not await self.exists(path):
                raise
            await self._client.remove(draft)
            return False
        return True

    async def exists(self, path: str) -> bool:
        return await self._client.exists(path)

    async def read(self, path: str) -> bytes | None:
        """The file; None if there is none of this name. Raises TooLarge."""
        try:
            content = await self._unless_given_up(self._read(path))
        except SFTPNoSuchFile:
            return None
        if len(content) > self._most_bytes:
            raise TooLarge(path)
        return content

    async def changed(self, path: str) -> float:
        """When the file was last written, in seconds since the epoch by the server's clock; 0 if it is not there any
        more, or the server does not say."""
        try:
            return float((await self._client.stat(path)).mtime or 0)
        except SFTPNoSuchFile:
            return 0.0

    async def names(self, folder: str, most: int) -> list[str]:
        """At most so many of the files in the folder, in the order of their names; those that begin with a dot are not
        there yet. Nothing if there is no such folder. Files beyond are seen once others have been moved away."""
        return await self._unless_given_up(self._names(folder, most))

    async def move(self, path: str, to: str) -> bool:
        """Move it in one step, in the place of any file of that name; False if it is not there any more."""
        try:
            try:
                await self._client.posix_rename(path, to)
            except SFTPOpUnsupported:
                await self._client.rename(path, to)
        except SFTPNoSuchFile:
            return False
        return True

    async def folder(self, path: str) -> None:
        """Have the folder be there, and those above it."""
        await self._client.makedirs(path, exist_ok=True)

    async def _write(self, path: str, content: bytes) -> None:
        async with self._client.open(path, "xb") as file:
            for start in range(0, len(content), PIECE):
                await file.write(content[start : start + PIECE])
            with suppress(SFTPOpUnsupported):
                await file.fsync()

    async def _read(self, path: str) -> bytes:
        content = bytearray()
        async with self._client.open(path, "rb") as file:
            while len(content) <= self._most_bytes and (piece := cast(bytes, await file.read(PIECE))):
                content += piece
        return bytes(content)

    async def _names(self, folder: str, most: int) -> list[str]:
        found: list[str] = []
        seen = 0
        with suppress(SFTPNoSuchFile):
            listed = cast(AsyncGenerator[asyncssh.SFTPName, None], self._client.scandir(folder))
            async with aclosing(listed) as entries:
                async for entry in entries:
                    seen += 1
                    name = str(entry.filename)
                    if not name.startswith(".") and entry.attrs.type == asyncssh.FILEXFER_TYPE_REGULAR:
                        found.append(name)
                    if len(found) >= most or seen >= MOST_SEEN:
                        break
        return sorted(found)

    async def _unless_given_up(self, work: Coroutine[Any, Any, T]) -> T:
        """What holds a file or folder open lets go of it in the end, and waits for the server to say so. Whoever gives
        up the call because the server says nothing would wait for that too, so the connection goes first."""
        running = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            self._hang_up()
            await asyncio.gather(running, return_exceptions=True)
            raise


@asynccontextmanager
async def connected(settings: SftpSettings) -> AsyncIterator[Remote]:
    """A connection for one call. Raises ``Unavailable`` for whatever fails while it is there."""
    try:
        async with asyncio.timeout(settings.patience):
            connection = await _connect(settings)
    except (*FAILURES, ValueError) as error:  # a key that is none is a ValueError
        raise Unavailable(_told(error), sent=False) from error
    remote = None
    try:
        async with asyncio.timeout(settings.patience):
            # A partner may name files as it likes, in no encoding at all.
            client = await connection.start_sftp_client(path_errors="surrogateescape")
        remote = Remote(client, settings.most_bytes, connection.abort)
        yield remote
    except FAILURES as error:
        raise Unavailable(_told(error), sent=remote is not None and remote.acted) from error
    finally:
        # Every step was answered before the next began, so there is nothing that a farewell could still save.
        connection.abort()
        await connection.wait_closed()


async def _connect(settings: SftpSettings) -> asyncssh.SSHClientConnection:
    """Only the pinned keys are trusted and only the one key is offered, whatever the machine's own files say."""
    pinned = [asyncssh.import_public_key(line) for line in settings.host_key.read().splitlines() if line.strip()]
    return await asyncssh.connect(
        settings.host,
        settings.port,
        username=settings.user or (),
        known_hosts=(pinned, [], []),
        client_keys=[asyncssh.import_private_key(settings.client_key.read())],
        preferred_auth="publickey",
        agent_path=None,
        config=None,
        x509_trusted_certs=None,
    )


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
