"""Where a log is read that is to be verified: a folder, or an address, as anybody or as an auditor who signs.

Nothing that is read here is believed: only what the log's key signed counts. Reading changes nothing on either side,
but that each signed call spends its jti.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import aiohttp

from gsb.client import Client, Unreachable
from gsb.evidence.log import CHECKPOINT, Files
from gsb.evidence.tiles import ENTRY_LIMIT, WIDTH
from gsb.evidence.verify import ReadFile

BIGGEST = WIDTH * (2 + ENTRY_LIMIT)
"""Bytes of the largest file that a log can have."""
WITHIN = 30.0
"""Seconds for one file."""
AUDITORS = "; there the files of a log are for auditors, who sign: --auditor"
LOG = "/log"
"""What the paths of all logs of a bus begin with."""


class Withheld(Exception):
    """The server does not hand out a file, though it does not say that there is none."""


@dataclass(frozen=True, slots=True)
class Source:
    """A log's files, and, where that can be known, which there are."""

    read: ReadFile
    paths: Iterable[str] = ()


def in_folder(folder: Path, name: str) -> Source:
    """The log called ``name`` in the folder of a bus's logs, or else the log whose folder this is."""
    inner = folder / name
    folder = inner if (inner / CHECKPOINT).is_file() else folder
    return Source(Files(folder).read, _paths(folder))


def _paths(folder: Path) -> Iterator[str]:
    """Every file by its path in the folder, but hidden ones: those no reader of a log is given."""
    for inside, _, names in os.walk(folder):
        yield from (Path(inside, name).relative_to(folder).as_posix() for name in names if not name.startswith("."))


@contextmanager
def at_url(url: str, name: str, auditor: Client | None) -> Iterator[Source]:
    """The log called ``name`` below this URL, or else the log at this URL; read by the ``auditor``, or by anybody.

    Reading raises Unreachable, Withheld, and for an auditor whatever the client raises.
    """
    with asyncio.Runner() as runner:
        site = runner.run(_Site(url.rstrip("/"), auditor).__aenter__())
        try:
            runner.run(site.enter(name))
            yield Source(lambda path: runner.run(site.read(path)))
        finally:
            runner.run(site.__aexit__())


class _Site:
    """A log behind a URL."""

    def __init__(self, url: str, auditor: Client | None) -> None:
        self._url, self._auditor = url, auditor

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=WITHIN))
        if self._auditor is not None:
            await self._auditor.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()
        if self._auditor is not None:
            await self._auditor.__aexit__()

    async def enter(self, name: str) -> None:
        """Go on with the log of this name below the URL, if there is one."""
        inner = f"{self._url}/{name}"
        if not self._url.endswith(f"/{name}") and await self._open(f"{inner}/{CHECKPOINT}") is not None:
            self._url = inner

    async def read(self, path: str) -> bytes | None:
        # The checkpoint is for everybody, and signed for nobody.
        if self._auditor is None or path == CHECKPOINT:
            return await self._open(f"{self._url}/{path}")
        below = self._url.removeprefix(self._auditor.base_url + LOG).lstrip("/")
        return await self._auditor.log_file(f"{below}/{path}".lstrip("/"))

    async def _open(self, url: str) -> bytes | None:
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status == 404:
                    return None
                if answer.status != 200:
                    hint = AUDITORS if answer.status == 401 else ""
                    raise Withheld(f"{url} is answered with status {answer.status}{hint}")
                return await _whole(url, answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{url}: {type(error).__name__}") from error


async def _whole(url: str, answer: aiohttp.ClientResponse) -> bytes:
    found = bytearray()
    async for chunk in answer.content.iter_chunked(65_536):
        found += chunk
        if len(found) > BIGGEST:
            raise Withheld(f"{url} is answered with more than {BIGGEST} bytes")
    return bytes(found)
