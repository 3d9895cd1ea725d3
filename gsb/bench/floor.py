"""The floor: the least that a signed, checked and durable exchange can cost with the same parts and none of the bus.

A bare aiohttp handler with the same cryptography (it verifies the request's JWS, compares digests, seals both bodies,
commits to the evidence of both entries, signs the reply), the same reading and validation of JSON, and the same durable
commits: the same rows in the same tables, in groups, each awaited. It decides nothing: no agreement, replay, rate,
adapter, broker, time-out, minimisation, log or answer to anything but the good case. Run as a module it serves until
SIGTERM; a crash leaves its file behind.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import uvloop
from aiohttp import web

from gsb import jws, strictjson
from gsb.bench.place import BUS, CONSUMER, PURPOSE, READ, SCHEMA, WRITE
from gsb.evidence.entry import make_entry
from gsb.jwk import PrivateKey, PublicKey, read_private, read_public, to_base64url
from gsb.model import JSON_TYPE, Call, Effect, Entry, Signed, State, new_id
from gsb.schema import Schema
from gsb.store.seal import RECORD, REPLY, SECRET, Seal, read_key
from gsb.store.sqlite import rows
from gsb.store.standing import Row

DIGEST = "a" * 64
"""Stands for the digest of an agreement."""
FIELDS = ("/person", "/period", "/lines")


@dataclass(slots=True)
class Group:
    """What one transaction writes."""

    new: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: {name: [] for name in rows.TABLES})
    created: list[Row] = field(default_factory=list)
    changed: list[Row] = field(default_factory=list)
    durable: asyncio.Event = field(default_factory=asyncio.Event)


class Commits:
    """The rows of exchanges, written in groups: the next commit begins as soon as the last one is durable."""

    def __init__(self, path: Path) -> None:
        self._db = rows.connect(path, writes=True)
        rows.create(self._db, b"")
        # The journal is carried over every 32 MB, as the store does: 2,048 pages.
        self._db.execute("PRAGMA wal_autocheckpoint=2048")
        self._group = Group()
        self._numbers = dict.fromkeys(rows.TABLES, 0)
        self._some = asyncio.Event()
        self._thread = ThreadPoolExecutor(1)

    def _next(self, table: str) -> int:
        self._numbers[table] += 1
        return self._numbers[table]

    def _keep(self, sealed: bytes) -> int:
        number = self._next("sealed")
        self._group.new["sealed"].append((number, sealed))
        return number

    def _enter(self, entry: Entry, secret: bytes, exchange: int) -> None:
        number = self._next("entry")
        self._group.new["entry"].append((number, entry.leaf, entry.content, exchange))
        self._group.new["secret"].append((number, secret))

    async def accept(self, row: Row, jti: bytes, record: bytes, entry: Entry, secret: bytes) -> None:
        """Returns once it is durable, as the others do."""
        row.row, row.request = self._next("exchange"), self._keep(record)
        self._enter(entry, secret, row.row)
        self._group.new["spent"].append((self._next("spent"), jti, row.expires_at))
        if row.key is not None:
            self._group.new["reservation"].append((row.key, row.row))
        self._group.created.append(row)
        await self._durable()

    async def begin(self, row: Row) -> None:
        row.state, row.attempt, row.due_at = State.RUNNING, 1, row.expires_at
        self._group.changed.append(row)
        await self._durable()

    async def finish(self, row: Row, reply: bytes, entry: Entry, secret: bytes) -> None:
        row.state, row.attempt, row.due_at, row.finished_at = State.DONE, 1, None, time.time()
        row.status, row.took, row.content_type, row.agreement_digest = 200, "done", JSON_TYPE, DIGEST
        row.reply, row.fields = self._keep(reply), orjson.dumps(FIELDS)
        self._enter(entry, secret, row.row)
        self._group.changed.append(row)
        await self._durable()

    async def _durable(self) -> None:
        self._some.set()
        await self._group.durable.wait()

    async def work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._some.wait()
            self._some.clear()
            group, self._group = self._group, Group()
            self._db.execute("BEGIN IMMEDIATE")
            rows.update_exchanges(self._db, group.changed)
            rows.insert_exchanges(self._db, group.created)
            for table, values in group.new.items():
                rows.insert(self._db, table, values)
            await loop.run_in_executor(self._thread, self._db.execute, "COMMIT")
            group.durable.set()


class Floor:
    """The handler and what it needs."""

    def __init__(self, folder: Path, url: str, commits: Commits) -> None:
        self._url = url
        self._commits = commits
        self._schema = Schema.compile(SCHEMA, "floor")
        self._seal = Seal(read_key(folder / "keys/store.key"))
        self._key: PrivateKey = read_private((folder / "keys/bus.jwk").read_bytes())
        public = read_public((folder / "keys/consumer.jwk").read_bytes())
        self._keys: Mapping[tuple[str, str], PublicKey] = {(CONSUMER, public.kid): public}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Any path; the write has one commit more, in the place of ``begin``."""
        body, headers, now = await request.read(), request.headers, time.time()
        token = headers.get("GSB-Signature")
        signed = jws.verify_request(token, lambda *name: self._keys[name], BUS, now)
        key, kind = signed.idempotency_key, headers.get("Content-Type")
        call = Call(request.method, request.raw_path, body, now, content_type=kind, idempotency_key=key)
        jws.bind(signed, call, (self._url,))
        asked = self._fit(strictjson.loads(body))
        row = await self._accept(signed, body, now)
        if row.effect is Effect.ONCE:
            await self._commits.begin(row)
        answer = orjson.dumps(self._fit(asked))
        entry = await self._finish(row, answer)
        facts = jws.ReplyFacts(200, answer, JSON_TYPE, row.id, "done", "done", to_base64url(entry.leaf))
        return web.Response(
            body=answer, headers={"Content-Type": JSON_TYPE, "GSB-Signature": self._sign(signed, facts)}
        )

    def _fit(self, value: Any) -> Any:
        if self._schema.faults(value):
            raise ValueError("the body does not fit")
        return value

    async def _accept(self, signed: Signed, body: bytes, now: float) -> Row:
        id_, key = new_id(now), signed.idempotency_key
        service, effect = (READ, Effect.NONE) if key is None else (WRITE, Effect.ONCE)
        jti = self._seal.hash(CONSUMER, signed.jti, b"jti")
        reserved = None if key is None else self._seal.hash(CONSUMER, key, b"key")
        row = Row(
            0, id_, CONSUMER, service, effect, PURPOSE, "all", jti + jti, now, None, None, None, reserved,
            State.ACCEPTED, now + 3_600, now + 2,
        )  # fmt: skip
        entry = make_entry("accepted", now, self._facts(row) | {"key": signed.key_id}, {"request": signed.jws})
        parts = {RECORD: (body, id_.encode()), SECRET: (entry.secret, entry.leaf)}
        record, secret = self._seal.seal(parts)
        await self._commits.accept(row, jti, record, entry, secret)
        return row

    async def _finish(self, row: Row, answer: bytes) -> Entry:
        facts = self._facts(row) | {"state": "done", "effect": "done", "attempt": 1}
        entry = make_entry("outcome", time.time(), facts, {"reply": jws.content_digest(answer)})
        reply, secret = self._seal.seal({REPLY: (answer, row.id.encode()), SECRET: (entry.secret, entry.leaf)})
        await self._commits.finish(row, reply, entry, secret)
        return entry

    def _facts(self, row: Row) -> dict[str, Any]:
        return {
            "exchange": row.id,
            "agency": CONSUMER,
            "service": row.service,
            "purpose": PURPOSE,
            "agreement": "all",
            "agreement_digest": DIGEST,
            "fields": FIELDS,
        }

    def _sign(self, signed: Signed, facts: jws.ReplyFacts) -> str:
        return jws.sign_reply(
            self._key,
            issuer=BUS,
            audience=signed.issuer,
            request_jti=signed.jti,
            request_hash=signed.request_hash,
            facts=facts,
            now=time.time(),
        )


async def serve(folder: Path, port: int) -> None:
    """Serve on the port until SIGTERM."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    commits = Commits(folder / "floor.db")
    working = asyncio.create_task(commits.work())
    floor = Floor(folder, f"http://127.0.0.1:{port}", commits)
    runner = web.ServerRunner(web.Server(floor.handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
    # As ``gsb serve`` does it, so that the difference between the two is not how the collector of cycles is set.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
    await told.wait()
    await runner.cleanup()
    working.cancel()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
