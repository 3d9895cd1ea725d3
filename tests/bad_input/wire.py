"""HTTP as bytes: what goes over the socket is exactly what a test wrote, since a library would tidy it up first."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

WITHIN = 90.0
"""Seconds for an answer, on a machine that is busy with other things."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer. ``headers`` in their order, names in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def one(self, name: str) -> str | None:
        """The header's value; None without it. Two of one name fail the test."""
        values = [value for each, value in self.headers if each == name.lower()]
        assert len(values) <= 1, f"{name} stands {len(values)} times in the answer"
        return values[0] if values else None


async def say(port: int, data: bytes) -> Heard | None:
    """The first answer to these bytes; None when the server closed without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(WITHIN):
            # Not drained: a server that refuses what is too large answers before it has read it.
            writer.write(data)
            return await hear(reader, bodiless=data.startswith(b"HEAD "))
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def hear(reader: asyncio.StreamReader, *, bodiless: bool = False) -> Heard | None:
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except ConnectionError:
            return None
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise  # it closed in the middle of an answer
            return None
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        status = int(first.split(" ")[1])
        if status >= 200:
            break
    headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
    length = 0 if bodiless else int(dict(headers).get("content-length", "0"))
    return Heard(status, headers, await reader.readexactly(length))
