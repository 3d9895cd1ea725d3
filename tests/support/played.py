"""A core system in a thread of its own, which plays cassettes to whoever asks, also from another process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gsb.testing.cassette import Cassette, Tape
from gsb.testing.peer import peering


@contextmanager
def played(cassettes: Sequence[Cassette]) -> Iterator[str]:
    """Its address."""
    ready, over = threading.Event(), threading.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with peering() as peer:
            peer.tape = Tape(cassettes)
            urls.append(peer.url)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(90)
        yield urls[0]
    finally:
        over.set()
        thread.join()
