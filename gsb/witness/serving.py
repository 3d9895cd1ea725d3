"""A witness as a process: its book and its server, up together and down together."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from gsb.config import Tls
from gsb.web.server import tls_context
from gsb.witness.book import Book
from gsb.witness.server import Service
from gsb.witness.settings import Settings

log = logging.getLogger("gsb.witness")


async def serve(settings: Settings, stopped: asyncio.Event) -> None:
    """Cosign until ``stopped``; what was begun is finished. Raises StateUnfit, OSError."""
    listen = settings.file.listen
    context = tls_context(settings.folder, listen.tls) if isinstance(listen.tls, Tls) else None
    book = Book(settings.file.state, settings.logs, settings.cosigner)
    await asyncio.to_thread(book.open)
    runner = web.ServerRunner(Service(book).server(), shutdown_timeout=5.0)
    try:
        await runner.setup()
        await web.TCPSite(runner, listen.host, listen.port, ssl_context=context).start()
        facts = {"witness": settings.cosigner.vkey, "listens": [f"{at[0]}:{at[1]}" for at in runner.addresses]}
        log.info("started", extra={"facts": facts})
        await stopped.wait()
    finally:
        await runner.cleanup()
        book.close()
    log.info("stopped")
