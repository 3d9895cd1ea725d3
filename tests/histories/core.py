"""The core system that is called: an accounts ledger that outlives every node and counts what really happened.

    python tests/histories/core.py PORT FILE

Each effect is one line of JSON in FILE, appended and synchronised before the answer is sent. What a request's body
asks for decides how it goes: ``delay`` in milliseconds, ``early`` (the effect comes before the delay instead of after
it), and the ``mood`` of the first try of an exchange; every later try is ``fine``:

    fine     200                          busy     429, nothing was done
    down     503                          broken   500
    refuse   409, nothing is ever done

``down`` and ``broken`` have taken effect if they are ``early``. ``/mark`` recognises an exchange that it has seen and
does nothing more; ``/post`` acts at every call; ``/look`` never acts. A request whose caller is gone is carried out
all the same, as in most core systems.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from aiohttp import web

STATUS = {"busy": 429, "down": 503, "broken": 500, "refuse": 409}


class Ledger:
    """The effects, in a file that survives whoever reads it."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._receipts = 0
        self._marked: dict[str, int] = {}
        self._tried: set[str] = set()

    async def look(self, request: web.Request) -> web.Response:
        wanted = request.query
        delay, mood = int(wanted["delay"]), wanted["mood"]
        return await self._served(wanted["exchange"], wanted["key"], delay, early=False, mood=mood, kind="look")

    async def write(self, request: web.Request) -> web.Response:
        wanted: dict[str, Any] = await request.json()
        return await self._served(
            wanted["exchange"],
            wanted["key"],
            wanted["delay"],
            early=wanted["early"],
            mood=wanted["mood"],
            kind=request.path.strip("/"),
        )

    async def _served(self, exchange: str, key: str, delay: int, *, early: bool, mood: str, kind: str) -> web.Response:
        if mood != "refuse" and exchange in self._tried:
            mood = "fine"
        self._tried.add(exchange)
        acts = mood == "fine" or (mood in ("down", "broken") and early)
        receipt = self._act(kind, exchange, key) if acts and early else None
        await asyncio.sleep(delay / 1000)
        if acts and not early:
            receipt = self._act(kind, exchange, key)
        if mood != "fine":
            return web.json_response({"error": mood}, status=STATUS[mood])
        return web.json_response({"key": key, "receipt": receipt})

    def _act(self, kind: str, exchange: str, key: str) -> int:
        if kind == "look":
            return 0
        if kind == "mark" and exchange in self._marked:
            return self._marked[exchange]
        self._receipts += 1
        line = {"service": kind, "key": key, "exchange": exchange, "receipt": self._receipts}
        os.write(self._file, json.dumps(line).encode() + b"\n")
        os.fsync(self._file)
        self._marked[exchange] = self._receipts
        return self._receipts


async def alive(request: web.Request) -> web.Response:
    return web.json_response({})


def main() -> None:
    port, path = int(sys.argv[1]), sys.argv[2]
    ledger = Ledger(path)
    app = web.Application()
    app.add_routes(
        [
            web.get("/", alive),
            web.get("/look", ledger.look),
            web.put("/mark", ledger.write),
            web.post("/post", ledger.write),
        ]
    )
    web.run_app(app, host="127.0.0.1", port=port, print=lambda _: print("listening", flush=True), access_log=None)


if __name__ == "__main__":
    main()
