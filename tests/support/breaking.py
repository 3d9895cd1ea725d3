"""Connections that break off, or fall silent, after a number of bytes: talks for ``listening`` of ``sockets``."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Cutting:
    """Between the adapter and the server: hangs up once so many bytes have gone there."""

    def __init__(self, port: int, most: int) -> None:
        self._port = port
        self._left = most

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)

        async def back() -> None:
            with suppress(OSError):
                while piece := await far_reader.read(65_536):
                    writer.write(piece)
            writer.close()

        answering = asyncio.create_task(back())
        try:
            while self._left > 0 and (piece := await reader.read(min(self._left, 65_536))):
                self._left -= len(piece)
                far_writer.write(piece)
                await far_writer.drain()
        finally:
            far_writer.close()
            await asyncio.gather(answering, return_exceptions=True)


class Falling:
    """Between the adapter and the server: says nothing more once so many bytes have come back."""

    def __init__(self, port: int, most: int) -> None:
        self._port = port
        self._left = most
        self.silent = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)

        async def there() -> None:
            while piece := await reader.read(65_536):
                far_writer.write(piece)

        asking = asyncio.create_task(there())
        try:
            while self._left > 0 and (piece := await far_reader.read(self._left)):
                self._left -= len(piece)
                writer.write(piece)
            if self._left == 0:
                self.silent.set()
                await asking
        finally:
            asking.cancel()
            far_writer.transport.abort()
            await asyncio.gather(asking, return_exceptions=True)
